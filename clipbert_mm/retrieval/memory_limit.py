"""How much memory this process has, and may have."""

import resource
import sys
from pathlib import Path

from clipbert_mm.errors import OptionError
from clipbert_mm.fileio import parse_bytes

RESERVE = 64 * 2**20
"""Bytes for what libraries load and keep when they are first used."""


def memory_in_use() -> int:
    """Return the bytes of memory that this process holds; the most it ever held where the system does not say."""
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) * 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def memory_left(limit: str | None, needed: int) -> int | None:
    """Return what a limit leaves beside what this process holds and is going to need.

    Args:
        limit: The most that this process may hold, such as "4GiB"; None for no limit.
        needed: Bytes that it is going to need in any case.

    Returns:
        Bytes; None where there is no limit.

    Raises:
        OptionError: If the limit is below that.
    """
    if limit is None:
        return None
    held, needed = memory_in_use(), needed + RESERVE
    left = parse_bytes(limit) - held - needed
    if left < 0:
        raise OptionError(
            f"memory_limit {limit} is too low: this process holds {held / 2**20:.0f} MiB and needs about "
            f"{needed / 2**20:.0f} MiB more for a tile and the matrix of scores. Raise it to "
            f"{-(-(held + needed) // 2**20)}MiB, or lower clips_per_tile and tokens_per_pass."
        )
    return left
