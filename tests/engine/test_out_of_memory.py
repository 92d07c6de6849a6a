"""A batch that does not fit: memory really ends, and what the message says does fit."""

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from clipbert_mm.engine import out_of_memory
from clipbert_mm.engine.out_of_memory import is_out_of_memory

SCRIPT = """
import resource, sys, torch
from mmengine.config import Config
from clipbert_mm.engine import out_of_memory
from clipbert_mm.engine.launch import build_runner
torch.set_num_threads(1)
config = Config.fromfile(sys.argv[1])
stage, megabytes = sys.argv[2], int(sys.argv[3])
runner = build_runner(config)
runner.model(**runner.model.data_preprocessor(next(iter(runner.build_dataloader(config.tried)))), mode="loss")
line = next(line for line in open("/proc/self/status") if line.startswith("VmSize"))
limit = int(line.split()[1]) * 1024 + megabytes * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
advise, before = out_of_memory.advise, []
def note_and_advise(*arguments):
    before.extend(value.clone() for value in runner.model.state_dict().values())
    return advise(*arguments)
out_of_memory.advise = note_and_advise
try:
    getattr(runner, stage)()
except RuntimeError as error:
    print(type(error).__name__, error)
    assert before and all(map(torch.equal, before, runner.model.state_dict().values())), "nothing is changed by trying"
"""


AT_ONCE = dict(MALLOC_MMAP_THRESHOLD_="65536")
"""Lets the C library give freed memory back at once, as the limit here is on addresses that are taken."""


def run(runner_config, tmp_path: Path, stage: str, megabytes: int) -> str:
    """Run a stage with so much more memory than there is in use before it."""
    for loader in (runner_config.train_dataloader, runner_config.test_dataloader):
        loader.dataset.pipeline[3].size = 256
    runner_config.tried = {**runner_config.train_dataloader, "batch_size": 1}
    runner_config.train_dataloader.batch_size = 8
    runner_config.model.backbone = dict(
        type="mmpretrain.ResNet", depth=18, stem_channels=16, base_channels=16, norm_eval=True
    )
    runner_config.model.projection.in_channels = 128
    path = tmp_path / "config.py"
    runner_config.dump(str(path))
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(path), stage, str(megabytes)],
        env=os.environ | AT_ONCE,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_is_said_to_fit_fits(runner_config, tmp_path: Path):
    pattern = (
        r"OutOfMemoryError A batch of 8 x 2 clips x 2 frames of 256 x 256 pixels with 16 texts of up to \d+ tokens does "
        r"not fit into memory\. Tried: (\d) of 8 fit\. Set train_dataloader\.batch_size=(\d) and "
        r"optim_wrapper\.accumulative_counts=(\d) for a step of as many items.*num_clips of SampleClips and the size of "
        r"ResizePad helps too\. \(.*allocate"
    )
    for megabytes in (380, 320, 350, 290, 260, 230):  # how much a part of the batch takes depends on the machine
        said = run(runner_config, tmp_path, "train", megabytes)
        if found := re.search(pattern, said):
            break
    assert found, said
    assert found[1] == found[2]
    assert int(found[2]) * int(found[3]) == 8


@pytest.mark.parametrize(
    ("error", "ended"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (MemoryError(), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("shapes do not fit"), False),
        (ValueError("std::bad_alloc"), False),
    ],
)
def test_other_errors_are_not_taken_for_it(error: Exception, ended: bool):
    assert is_out_of_memory(error) == ended


def test_the_allocator_s_words_are_known():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


def test_a_model_of_another_library_gets_the_short_advice():
    runner = SimpleNamespace(cfg=dict(model=dict(type="mmpretrain.ImageClassifier")))
    said = out_of_memory.advise(runner, "train", dict(inputs=torch.zeros(8, 3, 4, 4), data_samples=[]))
    assert said == "A batch of 8 does not fit into memory. Lower train_dataloader.batch_size"
