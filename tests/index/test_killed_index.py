"""An index of 100,000 generated videos, killed at random fifty times while it is written; `make test-faults` runs it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from clipbert_mm.index import EncodedVideo, Entry, VideoIndex

VIDEOS, CLIPS, WIDTH, BATCH, KILLS = 100_000, 4, 8, 250, 50
WRITER = """
import sys
sys.path.insert(0, sys.argv[2])
from test_killed_index import write
write(sys.argv[1], say=lambda line: print(line, flush=True))
"""


def generated(numbers: range) -> list[EncodedVideo]:
    """Videos with vectors that their numbers give."""
    rng = np.random.default_rng(numbers.start)
    vectors = torch.from_numpy(rng.standard_normal((len(numbers), CLIPS, WIDTH)).astype(np.float16))
    times = tuple((float(k), k + 1.0) for k in range(CLIPS))
    return [
        EncodedVideo(Entry(f"/v/{i % 7}/{i:06}.mp4", i, i, float(CLIPS), times, (24, 32)), vectors[row])
        for row, i in enumerate(numbers)
    ]


def write(folder: str, say: object) -> None:
    """Add what is missing, replace a part, remove a part, and compact now and then; the same however often it is begun."""
    index = VideoIndex(folder)
    index.start("id", "a.pth", "a.pth", vector_size=WIDTH, keeps_tokens=False)
    say("ready")
    for first in range(0, VIDEOS, BATCH):
        batch = generated(range(first, first + BATCH))
        states = index.table.find("path", [os.fsencode(each.entry.path) for each in batch[::10]])
        removed = [each.entry.path for each in batch if each.entry.size % 10 == 9]
        known = index.table.find("path", [os.fsencode(path) for path in removed])
        if len(states) < len(batch[::10]):
            index.add(batch)
        elif not known:
            continue
        index.remove(removed)
        if first % (100 * BATCH) == 0:
            index.compact(always=True)
    say("done")


@pytest.mark.faults
def test_an_index_killed_fifty_times_is_that_of_an_unkilled_one(tmp_path: Path):
    rng, kills, done = np.random.default_rng(0), 0, False
    while not done:
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path / "killed"), os.path.dirname(__file__)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout.readline() == "ready\n"
        try:
            process.wait(timeout=float(rng.uniform(0.05, 1.0)) if kills < KILLS else None)
            done = process.stdout.read() == "done\n"
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
        process.stdout.close()
        assert VideoIndex(tmp_path / "killed").video_vectors.damaged() == []
    assert kills == KILLS, "it was done before"
    write(str(tmp_path / "whole"), say=str)
    killed, whole = (VideoIndex(tmp_path / name) for name in ("killed", "whole"))
    assert len(whole.entries) == VIDEOS * 9 // 10
    assert all(a == b for a, b in zip(killed.listed(), whole.listed(), strict=True))
    query = torch.randn(WIDTH, generator=torch.Generator().manual_seed(0))
    found = [each.nearest(query, VIDEOS, pooling="max").similarities for each in (killed, whole)]
    assert found[0] == found[1]
