"""MixedDataset: what the loader asks of it, it asks of the datasets that it is made of."""

import os
from pathlib import Path

import numpy as np

from clipbert_mm.datasets import MixedDataset, RetrievalDataset
from clipbert_mm.datasets.media_dataset import MAX_ATTEMPTS
from clipbert_mm.datasets.wrappers import give_up, loading


def mixed(world: Path) -> MixedDataset:
    """Two datasets of the world, of which an item is the path of its file."""
    parts = [
        RetrievalDataset(data_root=str(world), ann_file=f"{split}.jsonl", media_folder="videos", pipeline=[])
        for split in ("train", "test")
    ]
    for part in parts:
        part.pipeline = lambda info: {"data_samples": Sample(), "path": info["path"]}
    return MixedDataset(datasets=parts)


class Sample:
    """A sample that forgets what it is told."""

    def set_metainfo(self, info: dict) -> None:
        pass


def test_it_tells_which_file_a_process_reads_whichever_dataset_has_it(world: Path):
    dataset = mixed(world)
    for index in (0, len(dataset) - 1, 1):
        path = dataset[index]["path"]
        progress = loading(dataset)[os.getpid()]
        assert (progress.path, progress.busy) == (path, False)
    with dataset.datasets[1]._reading("busy.mp4"):
        with dataset.datasets[0]._reading("later.mp4"):
            pass
        assert loading(dataset)[os.getpid()].path == "busy.mp4", "not the file that was read last"


def test_files_that_hang_are_left_out_while_they_are_few(world: Path):
    dataset = mixed(world)
    path = dataset.datasets[1].prepare_test(0)["path"]
    assert give_up(dataset, path, "it hung")
    found = dataset[len(dataset.datasets[0])]
    assert found["path"] != path
    verdicts = [give_up(dataset, f"{i}.mp4", "it hung") for i in range(MAX_ATTEMPTS)]
    assert np.flatnonzero(verdicts).tolist() == list(range(MAX_ATTEMPTS - 1))
