"""Measuring in a way that can be believed: warm-up, several repeats in turn, medians with their spread."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from clipbert_mm.errors import OptionError

PACKAGES = (
    "clipbert_mm",
    "torch",
    "torchvision",
    "transformers",
    "mmengine",
    "numpy",
    "opencv-python",
    "av",
    "decord",
    "torchcodec",
)
"""Packages whose releases a report names, where they are installed."""
MATRIX_SIZE = {"cpu": 2048, "cuda": 8192}
"""Rows and columns of the matrices of :func:`matrix_rate`, by the device's type."""


@dataclass(frozen=True)
class Timing:
    """How long something took.

    Args:
        seconds: Each repeat, in the order they were run.
    """

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median, in seconds."""
        return statistics.median(self.seconds)

    def to_dict(self) -> dict[str, Any]:
        """Return median, quickest and slowest repeat, and their number, for a report.

        >>> Timing((0.2, 0.1, 0.4)).to_dict()
        {'median_s': 0.2, 'min_s': 0.1, 'max_s': 0.4, 'repeats': 3}
        """
        return dict(median_s=self.median, min_s=min(self.seconds), max_s=max(self.seconds), repeats=len(self.seconds))


def synchronize(device: torch.device | str) -> None:
    """Wait until a GPU has finished its work; a CPU always has."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def time_in_turn(
    contenders: Mapping[str, Callable[[], object]],
    *,
    repeats: int = 5,
    warmup: int = 1,
    device: torch.device | str = "cpu",
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Timing]:
    """Time several ways of doing something, in turn, so that a machine that slows down slows all of them.

    Args:
        contenders: What to run, by name.
        repeats: Timed rounds.
        warmup: Rounds before them that are not timed.
        device: Where the work is done; a GPU is waited for.
        clock: What tells the seconds. ``time.process_time``, of one thread on a CPU, tells those that the work had the
            processor, which is the time it takes on a machine with nothing else to do.

    Raises:
        OptionError: If there is nothing to time.
    """
    if repeats < 1 or warmup < 0 or not contenders:
        raise OptionError(
            f"time_in_turn expects contenders, repeats >= 1 and warmup >= 0, got {len(contenders)} contenders, {repeats} and "
            f"{warmup}."
        )
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for round_number in range(warmup + repeats):
        for name, run in contenders.items():
            synchronize(device)
            started = clock()
            run()
            synchronize(device)
            if round_number >= warmup:
                seconds[name].append(clock() - started)
    return {name: Timing(tuple(values)) for name, values in seconds.items()}


def matrix_rate(
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    repeats: int = 7,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Measure what the device reaches in a plain matrix product: the limit that achieved rates are compared with.

    Args:
        device: The device.
        dtype: Precision of the matrices.
        repeats: Timed products; the median counts.
        clock: As of :func:`time_in_turn`.

    Returns:
        FLOP a second; a multiply-add counts as two.
    """
    size = MATRIX_SIZE[torch.device(device).type]
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    product = {"product": lambda: left @ right}
    timing = time_in_turn(product, repeats=repeats, warmup=2, device=device, clock=clock)["product"]
    return 2 * size**3 / timing.median


def environment(device: torch.device | str = "cpu") -> dict[str, Any]:
    """Say when, where and with which releases something is measured, for a report."""
    releases = {}
    for name in PACKAGES:
        try:
            releases[name] = version(name)
        except PackageNotFoundError:
            continue
    return dict(
        date=date.today().isoformat(),
        device=_device_name(torch.device(device)),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        threads=torch.get_num_threads(),
        python=platform.python_version(),
        packages=releases,
    )


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return f"CPU, {line.partition(':')[2].strip()}"
    return f"CPU, {platform.processor() or platform.machine()}"
