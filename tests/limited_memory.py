"""Trainings that run out of memory, in processes whose memory is limited."""

import ctypes
import os
import resource
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.runner import Runner

from clipbert_mm.engine import out_of_memory
from clipbert_mm.engine.launch import build_runner

M_MMAP_THRESHOLD = -3
"""The number of a setting of the C library: from how many bytes on memory is mapped by itself."""
SHARES = (0.65, 0.55, 0.45, 0.75, 0.85)
"""Shares of what a training takes that it is given, in the order that they are tried."""


def train_with_less(config: str, said: str) -> None:
    """Train with enough memory, then with a part of what that took, until a smaller batch fits; its error goes to a file."""
    torch.set_num_threads(1)
    # The C library gives freed memory back at once, as the limit is on addresses that are taken.
    assert ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 65536)
    runner = build_runner(Config.fromfile(config))
    first = next(iter(runner.build_dataloader(runner.cfg.tried)))
    runner.model(**runner.model.data_preprocessor(first), mode="loss")  # else the limit would hold what it prepares
    in_fork(lambda: Path(said).write_text(str(taken(runner))))
    most = int(Path(said).read_text())
    for share in SHARES:
        in_fork(lambda share=share: Path(said).write_text(error_under_limit(runner, int(share * most))))
        if " fit. Set " in Path(said).read_text():
            return


def in_fork(work: Any) -> None:
    """Do work in a fork of this process."""
    child = os.fork()
    if child == 0:
        work()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


def addresses(which: str) -> int:
    """How many bytes of addresses this process has taken ("VmSize"), or had at most ("VmPeak")."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(which)).split()[1]) * 1024


def taken(runner: Runner) -> int:
    """Train; returns the bytes that it took at most."""
    before = addresses("VmSize")
    runner.train()
    return addresses("VmPeak") - before


def error_under_limit(runner: Runner, limit: int) -> str:
    """Train with so many more bytes than are taken now; returns the class and the text of the error."""
    resource.setrlimit(resource.RLIMIT_AS, (addresses("VmSize") + limit,) * 2)
    advise, before = out_of_memory.advise, []

    def note_and_advise(*arguments: Any) -> str:
        before.extend(value.clone() for value in runner.model.state_dict().values())
        return advise(*arguments)

    out_of_memory.advise = note_and_advise
    try:
        runner.train()
    except RuntimeError as error:
        assert before, "a step of training did not fit"
        assert all(map(torch.equal, before, runner.model.state_dict().values())), "nothing is changed by trying"
        return f"{type(error).__name__} {error}"
    return "all fits"
