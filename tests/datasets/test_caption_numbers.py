"""Negatives, drawn by numbers of captions: those of drawing from sets of texts, in a time that many captions do not change."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipbert_mm.datasets import RetrievalDataset


def captioned(folder: Path, **options: Any) -> RetrievalDataset:
    """The dataset of a folder with train.jsonl and its videos."""
    return RetrievalDataset(data_root=str(folder), ann_file="train.jsonl", media_folder="", pipeline=[], **options)


def draw_one_by_one(dataset: RetrievalDataset, idx: int, rng: np.random.Generator) -> str:
    """Draw a negative of an item by a set of all captions of its file: the twin."""
    items = [dataset.get_data_info(i) for i in range(len(dataset))]
    own = {caption for item in items if item["path"] == items[idx]["path"] for caption in item["captions"]}
    while True:
        captions = items[int(rng.integers(len(items)))]["captions"]
        if not own.issuperset(captions) and (caption := str(rng.choice(captions))) not in own:
            return caption


@pytest.mark.parametrize("captions_per_item", [1, 2, 3])
def test_negatives_are_those_of_drawing_from_sets(tmp_path: Path, captions_per_item: int):
    """Of files that share captions, whole, in parts, in another order, without serialized records, and after pickling."""
    rng, lines = np.random.default_rng(5), []
    for number, count in enumerate([1, 7, 2, 12, 3, 1]):
        (tmp_path / f"{number}.mp4").touch()
        lines += [{"video": f"{number}.mp4", "caption": f"caption {rng.integers(15)}"} for _ in range(count)]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, lines)))
    options: dict[str, Any] = dict(captions_per_item=captions_per_item)
    whole, cut = captioned(tmp_path, **options), captioned(tmp_path, **options)
    chosen = np.random.default_rng(6).permutation(len(whole))[: 2 * len(whole) // 3].tolist()
    cut.get_subset_(-len(whole) // 2)
    parts = [captioned(tmp_path, serialize_data=False, **options), captioned(tmp_path, indices=chosen, **options)]
    for dataset in (whole, cut, *parts, whole.get_subset(chosen), pickle.loads(pickle.dumps(cut))):
        for idx in range(len(dataset)):
            found, wanted = np.random.default_rng(idx), np.random.default_rng(idx)
            for _ in range(5):
                drawn = dataset.draw_negative(dataset.own_captions(idx), found)
                assert drawn == draw_one_by_one(dataset, idx, wanted)
            assert found.random() == wanted.random(), "as many numbers are drawn"


def test_an_item_reads_as_many_records_however_many_captions_its_file_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    read, reads = RetrievalDataset.get_data_info, []
    monkeypatch.setattr(RetrievalDataset, "get_data_info", lambda self, i: reads.append(i) or read(self, i))
    for count in (3, 300):
        folder = tmp_path / str(count)
        folder.mkdir()
        lines = [{"video": f"{name}.mp4", "caption": f"{name} {i}"} for name in "ab" for i in range(count)]
        for name in "ab":
            (folder / f"{name}.mp4").touch()
        (folder / "train.jsonl").write_text("\n".join(map(json.dumps, lines)))
        dataset = captioned(folder, num_negatives=4)
        reads.clear()
        dataset.prepare(count // 2, np.random.default_rng(0))
        assert len(reads) == 5, "its own record, and that of each negative"
