"""Packing an item and collating a batch: everything stays with its own item."""

import numpy as np
import pytest

from clipbert_mm.datasets.transforms import PackInputs, collate_items
from clipbert_mm.errors import OptionError
from clipbert_mm.registry import FUNCTIONS
from clipbert_mm.structures import VideoTextSample


def pack(idx: int, texts: int, **more) -> dict:
    """Pack an item whose numbers tell which it is."""
    results = dict(
        frames=np.full((2, 1, 4, 4, 3), idx, np.uint8),
        text_ids=[np.arange(idx, idx + 3 + i) for i in range(texts)],
        texts=[f"text {idx}.{i}" for i in range(texts)],
        path=f"{idx}.mp4",
        sample_idx=idx,
        content_shape=(4, 3),
    )
    return PackInputs().transform(results | more)


def test_labels_and_texts_stay_with_their_frames():
    items = [pack(3, 1, match_labels=np.array([1])), pack(5, 2, match_labels=np.array([1, 0]))]
    batch = collate_items(items)
    assert batch["inputs"]["frames"][:, 0, 0, 0, 0, 0].tolist() == [3, 5]
    assert batch["inputs"]["frames"].shape == (2, 2, 1, 4, 4, 3)
    assert [[ids.tolist() for ids in item] for item in batch["inputs"]["text_ids"]] == [
        [[3, 4, 5]],
        [[5, 6, 7], [5, 6, 7, 8]],
    ]
    assert [sample.match_labels.tolist() for sample in batch["data_samples"]] == [[1], [1, 0]]
    assert [(sample.sample_idx, sample.path, sample.texts) for sample in batch["data_samples"]] == [
        (3, "3.mp4", ["text 3.0"]),
        (5, "5.mp4", ["text 5.0", "text 5.1"]),
    ]
    assert "mlm_labels" not in batch["inputs"]


def test_labels_of_a_users_own_go_onto_the_sample():
    results = dict(frames=np.zeros((1, 1, 4, 4, 3), np.uint8), text_ids=[], texts=[], path="a.mp4", sample_idx=0)
    stars = np.array([4.5])
    assert PackInputs(labels=["stars"]).transform(results | dict(stars=stars))["data_samples"].stars is stars
    assert "stars" not in PackInputs().transform(results | dict(stars=stars))["data_samples"]


def test_mlm_labels_go_to_the_model():
    item = pack(0, 1, mlm_labels=[np.array([-100, 7, -100])])
    assert collate_items([item])["inputs"]["mlm_labels"][0][0].tolist() == [-100, 7, -100]


def test_items_that_could_not_be_read_keep_their_record_and_leave_the_inputs():
    broken = {"inputs": None, "data_samples": VideoTextSample(metainfo=dict(sample_idx=4, broken="cut"))}
    batch = collate_items([pack(3, 1), broken, pack(5, 1)])
    assert batch["inputs"]["frames"][:, 0, 0, 0, 0, 0].tolist() == [3, 5]
    assert [(sample.sample_idx, sample.broken) for sample in batch["data_samples"]] == [
        (3, None),
        (4, "cut"),
        (5, None),
    ]
    alone = collate_items([broken])
    assert alone["inputs"] == {}
    assert len(alone["data_samples"]) == 1


def test_frames_of_different_sizes_are_refused():
    small = pack(0, 1, frames=np.zeros((2, 1, 4, 5, 3), np.uint8))
    with pytest.raises(
        OptionError, match=r"frames of one shape in a batch, got 4 x 4, 4 x 5 pixels\. Set batch_size=1"
    ):
        collate_items([pack(1, 1), small])


def test_configs_find_it_by_name():
    assert FUNCTIONS.get("clipbert_mm.collate_items") is collate_items


def test_spans_come_with_the_times_of_the_clips():
    times = np.array([[0.0, 1.0], [1.0, 2.0]])
    sample = pack(3, 2, spans=[None, [[0, 1]]], clip_times=times)["data_samples"]
    assert sample.spans == [None, [[0, 1]]]
    assert sample.clip_times.tolist() == times.tolist()
    assert "clip_times" not in pack(3, 1, clip_times=times)["data_samples"]
    with pytest.raises(
        ValueError, match=r"captions of 3\.mp4 have time spans, so its clips need times \(clip_times\), got"
    ):
        pack(3, 1, spans=[[[0, 1]]])
