"""The memory that this process uses, and what a limit leaves."""

import resource
import sys
from pathlib import Path

from clipbert_mm.errors import OptionError
from clipbert_mm.fileio import parse_bytes

RESERVE = 64 * 2**20
"""Bytes reserved for what libraries allocate at their first use."""


def memory_in_use() -> int:
    """Return the resident memory of this process in bytes; its peak where the system does not tell the current value."""
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) * 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def memory_left(limit: str | None, needed: int) -> int | None:
    """Return the memory that a limit leaves after what this process uses and will need.

    Args:
        limit: Most memory of this process, such as "4GiB"; None for no limit.
        needed: Bytes that it will need in any case.

    Returns:
        Bytes; None without a limit.

    Raises:
        OptionError: If the limit is too low.
    """
    if limit is None:
        return None
    used, needed = memory_in_use(), needed + RESERVE
    left = parse_bytes(limit) - used - needed
    if left < 0:
        raise OptionError(
            f"memory_limit {limit} is too low: this process uses {used / 2**20:.0f} MiB and needs about "
            f"{needed / 2**20:.0f} MiB more for a tile and the score matrix. Raise it to "
            f"{-(-(used + needed) // 2**20)}MiB, or lower clips_per_tile and tokens_per_pass."
        )
    return left
