"""Items of retrieval and pre-training: their texts and labels, what is random about them, and broken files."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from clipbert_mm.datasets import PretrainingDataset, RetrievalDataset
from clipbert_mm.datasets.transforms import BrokenMediaError
from clipbert_mm.errors import AnnotationError, ClipBertError
from clipbert_mm.registry import DATASETS


@pytest.fixture
def text_steps(tokenizer: str) -> list[dict]:
    return [dict(type="ResizePad", size=32), dict(type="Tokenize", tokenizer=tokenizer, max_length=40)]


@pytest.fixture
def video_pipeline(text_steps: list[dict]) -> list[dict]:
    """Two random clips of two frames with their texts."""
    sampling = dict(type="SampleClips", num_clips=2, num_frames=2, mode="random")
    return [dict(type="OpenVideo"), sampling, dict(type="DecodeClips"), *text_steps, dict(type="PackInputs")]


@pytest.fixture
def image_pipeline(text_steps: list[dict], tokenizer: str) -> list[dict]:
    """One image with masked texts."""
    mask = dict(type="MaskTokens", tokenizer=tokenizer, probability=0.3)
    return [dict(type="LoadImage"), *text_steps, mask, dict(type="PackInputs")]


def retrieval(world: Path, pipeline: list[dict] | None = None, split: str = "train", **options) -> RetrievalDataset:
    """A retrieval dataset of a world."""
    options = dict(data_root=str(world), ann_file=f"{split}.jsonl", media_folder="videos") | options
    return RetrievalDataset(pipeline=pipeline or [], **options)


def pretraining(world: Path, pipeline: list[dict] | None = None, **options) -> PretrainingDataset:
    """A pre-training dataset of a world."""
    options = dict(data_root=str(world), ann_file="pretrain.jsonl", media_folder="images") | options
    return PretrainingDataset(pipeline=pipeline or [], **options)


def annotated(world: Path, name: str, key: str) -> dict[str, list[str]]:
    """The captions of each file of an annotation file, read without the package."""
    captions: dict[str, list[str]] = {}
    for line in (world / name).read_text().splitlines():
        captions.setdefault(json.loads(line)[key], []).append(json.loads(line)["caption"])
    return captions


def fingerprint(item: dict[str, Any]) -> str:
    """All that is random about an item, as text."""
    inputs, sample = item["inputs"], item["data_samples"]
    arrays = [inputs["frames"], *inputs["text_ids"], *inputs.get("mlm_labels", ()), sample.match_labels]
    return json.dumps([sample.texts, *(np.asarray(array).tolist() for array in arrays)])


def epoch_of(loader: DataLoader) -> dict[int, str]:
    """Go through a loader that does not collate."""
    return {item["data_samples"].sample_idx: fingerprint(item) for batch in loader for item in batch}


def loader_of(dataset: torch.utils.data.Dataset, workers: int) -> DataLoader:
    return DataLoader(
        dataset,
        batch_size=3,
        num_workers=workers,
        persistent_workers=workers > 0,
        collate_fn=list,
        multiprocessing_context="fork" if workers else None,
    )


def test_captions_are_grouped_by_file(world: Path):
    wanted = annotated(world, "train.jsonl", "video")
    by_item = {size: retrieval(world, captions_per_item=size) for size in (1, 2, 3)}
    assert {size: len(dataset) for size, dataset in by_item.items()} == {1: 24, 2: 16, 3: 8}
    for size, dataset in by_item.items():
        found: dict[str, list[str]] = {}
        for i in range(len(dataset)):
            info = dataset.get_data_info(i)
            assert 1 <= len(info["captions"]) <= size
            found.setdefault(Path(info["path"]).name, []).extend(info["captions"])
        assert found == wanted


def test_a_test_item_has_all_captions_of_its_video_in_order(world: Path, video_pipeline: list[dict]):
    video_pipeline[1] |= dict(mode="uniform")
    dataset = retrieval(world, video_pipeline, "test", test_mode=True)
    items = [dataset[i] for i in range(len(dataset))]
    found = {Path(item["data_samples"].path).name: item["data_samples"].texts for item in items}
    assert found == annotated(world, "test.jsonl", "video")
    assert [item["data_samples"].sample_idx for item in items] == list(range(7))
    assert "match_labels" not in items[0]["data_samples"]
    assert fingerprint_of_frames(items) == fingerprint_of_frames([dataset[i] for i in range(len(dataset))])


def fingerprint_of_frames(items: list[dict]) -> list[int]:
    return [int(item["inputs"]["frames"].astype(np.int64).sum()) for item in items]


@pytest.mark.parametrize("captions_per_item", [1, 2])
def test_retrieval_items_are_matching_captions_then_captions_of_other_videos(world: Path, captions_per_item: int):
    captions = annotated(world, "train.jsonl", "video")
    dataset = retrieval(world, captions_per_item=captions_per_item, num_negatives=3)
    drawn = Counter()
    for idx in range(len(dataset)):
        for epoch in range(20):
            item = dataset.prepare(idx, np.random.default_rng((0, epoch, idx)))
            own = dataset.get_data_info(idx)["captions"]
            assert item["match_labels"].tolist() == [1] * len(own) + [0] * 3 * len(own)
            assert item["texts"][: len(own)] == own
            negatives = item["texts"][len(own) :]
            assert not set(negatives) & set(captions[Path(item["path"]).name])
            drawn.update(negatives)
    assert drawn.keys() == {text for texts in captions.values() for text in texts}, (
        "each caption is a negative at times"
    )


def test_negatives_never_come_from_the_same_video_however_many_captions_it_has(tmp_path: Path):
    (tmp_path / "a.mp4").touch()
    (tmp_path / "b.mp4").touch()
    lines = [{"video": "a.mp4", "caption": f"own {i}"} for i in range(50)] + [{"video": "b.mp4", "caption": "other"}]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, lines)))
    dataset = retrieval(tmp_path, media_folder="")
    rng = np.random.default_rng(0)
    assert {dataset.draw_negative(dataset.own_captions(20), rng) for _ in range(300)} == {"other"}


def test_a_caption_that_the_video_has_too_is_no_negative(tmp_path: Path):
    for name in "abc":
        (tmp_path / f"{name}.mp4").touch()
    told = dict(a=["a red ring", "a star", "red"], b=["a red ring", "a blue ring"], c=["a red ring", "a star"])
    lines = [{"video": f"{name}.mp4", "caption": text} for name, texts in told.items() for text in texts]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, lines)))
    options = dict(ann_file="train.jsonl", media_folder="")
    for dataset in (retrieval(tmp_path, num_negatives=9, **options), pretraining(tmp_path, **options)):
        seen: dict[str, set[str]] = {name: set() for name in told}
        for i in range(len(dataset)):
            for seed in range(20):
                item = dataset.prepare(i, np.random.default_rng(seed))
                pairs = zip(item["texts"], item["match_labels"], strict=True)
                seen[Path(item["path"]).stem].update(text for text, label in pairs if not label)
        assert seen == {"a": {"a blue ring"}, "b": {"a star", "red"}, "c": {"a blue ring", "red"}}


def test_pretraining_labels_say_which_captions_were_replaced(world: Path):
    captions = annotated(world, "pretrain.jsonl", "image")
    dataset = pretraining(world, captions_per_item=2, negative_probability=0.3)
    assert len(dataset) == 40
    labels = []
    for idx in range(40):
        for epoch in range(30):
            item = dataset.prepare(idx, np.random.default_rng((0, epoch, idx)))
            own = captions[Path(item["path"]).name]
            for i, (text, label) in enumerate(zip(item["texts"], item["match_labels"], strict=True)):
                labels.append(label)
                if label:
                    assert text == own[i]
                else:
                    assert any(text in texts for name, texts in captions.items() if name != Path(item["path"]).name)
    # 2,400 draws: five standard deviations are 0.047.
    assert np.mean(labels) == pytest.approx(0.7, abs=0.047)


@pytest.mark.parametrize("kind", ["retrieval", "pretraining"])
def test_an_item_depends_on_seed_epoch_and_place_alone(
    world: Path, video_pipeline: list[dict], image_pipeline: list[dict], kind: str
):
    def build() -> RetrievalDataset | PretrainingDataset:
        return retrieval(world, video_pipeline) if kind == "retrieval" else pretraining(world, image_pipeline)

    alone = build()
    epochs = {}
    for epoch in (0, 1):
        alone.set_draw(7, epoch)
        epochs[epoch] = {idx: fingerprint(alone[idx]) for idx in reversed(range(len(alone)))}  # in another order
    # A short caption may stay unmasked in both.
    assert sum(epochs[0][idx] == epochs[1][idx] for idx in epochs[0]) < 0.1 * len(alone)
    # The workers of a loader live on from epoch to epoch and have copies of the dataset; still they see the epoch move.
    for workers in (0, 2):
        dataset = build()
        loader = loader_of(dataset, workers)
        for epoch in (0, 1):
            dataset.set_draw(7, epoch)
            assert epoch_of(loader) == epochs[epoch], f"{workers} workers, epoch {epoch}"
    alone.set_draw(8, 0)
    assert all(fingerprint(alone[idx]) != epochs[0][idx] for idx in range(8))


@pytest.mark.parametrize("how", ["empty", "text", "cut", "cut in the data", "zeros in the data", "no head"])
def test_training_replaces_a_broken_video_and_names_it(
    own_world: Path, video_pipeline: list[dict], break_file, how: str
):
    broken = break_file(own_world / "videos" / "train_00002.mp4", how)
    video_pipeline[1] |= dict(mode="uniform", num_clips=8)  # looks at the whole video
    dataset = retrieval(own_world, video_pipeline, captions_per_item=3)
    dataset.set_draw(0, 0)
    item = dataset[2]
    assert item["data_samples"].path != broken
    assert [path for path, reason in item["data_samples"].replaced if reason] == [broken]
    assert fingerprint(dataset[2]) == fingerprint(item)
    # What stands for it is a whole item: its own captions go with its own frames.
    own = annotated(own_world, "train.jsonl", "video")[Path(item["data_samples"].path).name]
    assert item["data_samples"].texts[:3] == own
    assert dataset[3]["data_samples"].replaced == []


@pytest.mark.parametrize("how", ["empty", "text", "cut", "no head"])
def test_training_replaces_a_broken_image_and_names_it(
    own_world: Path, image_pipeline: list[dict], break_file, how: str
):
    broken = break_file(own_world / "images" / "00003.jpg", how)
    dataset = pretraining(own_world, image_pipeline, captions_per_item=2)
    replaced = dataset[3]["data_samples"]
    assert [path for path, reason in replaced.replaced if reason] == [broken]
    assert replaced.path != broken


def test_training_gives_up_where_no_file_can_be_read(own_world: Path, video_pipeline: list[dict], break_file):
    for path in (own_world / "videos").iterdir():
        break_file(path, "empty")
    with pytest.raises(
        ClipBertError, match=r"20 files in a row could not be read; the last was .*mp4: the file is empty"
    ):
        retrieval(own_world, video_pipeline)[0]


def test_testing_stops_at_a_broken_video_and_names_it(own_world: Path, video_pipeline: list[dict], break_file):
    broken = break_file(own_world / "videos" / "test_00001.mp4", "cut")
    dataset = retrieval(own_world, video_pipeline[:1], "test", test_mode=True)
    with pytest.raises(BrokenMediaError, match=rf"cannot read {broken}: .* set on_broken='skip'"):
        dataset[1]


def test_testing_that_may_skip_says_what_it_left_out(own_world: Path, video_pipeline: list[dict], break_file):
    broken = break_file(own_world / "videos" / "test_00001.mp4", "empty")
    dataset = retrieval(own_world, video_pipeline[:1], "test", test_mode=True, on_broken="skip")
    item = dataset[1]
    sample = item["data_samples"]
    assert item["inputs"] is None
    assert (sample.path, sample.broken, sample.sample_idx) == (broken, "the file is empty (0 bytes)", 1)
    assert sample.texts == annotated(own_world, "test.jsonl", "video")["test_00001.mp4"]


def test_missing_videos_are_an_error_before_anything_starts(own_world: Path):
    (own_world / "videos" / "train_00001.mp4").unlink()
    (own_world / "videos" / "train_00004.mp4").unlink()
    with pytest.raises(AnnotationError, match=r"2 of 8 files named in .*train\.jsonl are missing.*train_00001\.mp4"):
        retrieval(own_world)


def test_one_file_gives_no_negatives(own_world: Path):
    (own_world / "one.jsonl").write_text('{"video": "train_00000.mp4", "caption": "a"}\n' * 2)
    words = r"no caption that is a negative for .*train_00000\.mp4'\..*: add files with other captions\."
    with pytest.raises(AnnotationError, match=words):
        retrieval(own_world, split="one")
    assert len(retrieval(own_world, split="one", test_mode=True)) == 1


def test_wrong_options_are_refused(world: Path):
    with pytest.raises(ValueError, match="RetrievalDataset expects on_broken 'stop' or 'skip', got 'ignore'"):
        retrieval(world, on_broken="ignore")
    config = dict(type="RetrievalDataset", data_root=str(world), ann_file="train.jsonl", pipeline=[], num_negative=2)
    with pytest.raises(TypeError, match="unexpected keyword argument 'num_negative'"):
        DATASETS.build(config)


def with_spans(world: Path, spans: dict[int, str]) -> str:
    """Write an annotation file in which some lines of the test have spans, given as JSON by line; returns its split."""
    lines = (world / "test.jsonl").read_text().splitlines()
    for i, text in spans.items():
        lines[i] = f'{lines[i][:-1]}, "spans": {text}}}'
    (world / "spans.jsonl").write_text("\n".join(lines))
    return "spans"


def test_the_spans_of_captions_reach_the_samples_of_a_test(own_world: Path, video_pipeline: list[dict]):
    video_pipeline[1] |= dict(mode="uniform", num_clips=3)
    split = with_spans(own_world, {1: "[[0.5, 2], [2.5, 3.0]]", 4: "[[0, 1e3]]", 5: "[[1, 2]]"})
    dataset = retrieval(own_world, video_pipeline, split, test_mode=True)
    samples = [dataset[i]["data_samples"] for i in range(4)]
    assert [sample.get("spans") for sample in samples] == [
        [None, [[0.5, 2], [2.5, 3.0]]],
        None,
        [[[0, 1e3]], [[1, 2]]],
        None,
    ]
    assert samples[0].clip_times.shape == (3, 2)
    assert "clip_times" not in samples[1], "what has no spans is as it was"
    plain = retrieval(own_world, video_pipeline, "test", test_mode=True)
    assert samples[0].texts == plain[0]["data_samples"].texts
    training = retrieval(own_world, video_pipeline, split)
    assert "spans" not in training[0]["data_samples"]


@pytest.mark.parametrize(
    "spans",
    [
        "[]",
        "null",
        "[0, 1]",
        "[[1]]",
        "[[0, 1, 2]]",
        "[[0, 1], [2, 2]]",
        "[[-0.5, 1]]",
        "[[3, 1]]",
        '[["0", "1"]]',
        "[[false, true]]",
        "[[0, NaN]]",
        "[[NaN, 1]]",
        "[[0, Infinity]]",
        "[[0, 1e999]]",
        "[[0, 1" + "0" * 400 + "]]",
        '{"start": 0, "end": 1}',
    ],
)
def test_spans_that_are_no_times_are_refused_with_their_line(own_world: Path, spans: str):
    split = with_spans(own_world, {0: "[[0, 1]]", 2: spans})
    with pytest.raises(
        AnnotationError,
        match=r'spans\.jsonl, line 3: expected one or more time spans under the key "spans", each a start and an end in '
        r"seconds with 0 <= start < end, such as \[\[0\.0, 2\.5\]\], got ",
    ):
        retrieval(own_world, split=split, test_mode=True)


def test_a_part_of_the_items_is_taken_by_their_number(world: Path):
    whole = [item["path"] for item in items_of(retrieval(world, split="test", test_mode=True))]
    assert len(whole) == 7
    for indices, wanted in ((3, whole[:3]), (20, whole), ([5, 1], [whole[5], whole[1]])):
        part = retrieval(world, split="test", test_mode=True, indices=indices)
        assert [item["path"] for item in items_of(part)] == wanted
    with pytest.raises(
        AnnotationError, match=r"no caption that is a negative .*: raise indices=1 of PretrainingDataset\."
    ):
        pretraining(world, test_mode=True, indices=1)


def items_of(dataset: RetrievalDataset) -> list[dict[str, Any]]:
    """The items of a dataset before its pipeline."""
    return [dataset.get_data_info(i) for i in range(len(dataset))]
