"""Processes that work for another one: each ends with it, and takes no more memory than it may."""

import multiprocessing
import os
import resource
from multiprocessing.connection import wait
from pathlib import Path

SHARED_MEMORY_IS_FULL = (
    "The shared memory (/dev/shm) may be full: lower num_workers, prefetch_factor or batch_size of the dataloader, or give the "
    "machine's container more of it (docker run --shm-size=8g)."
)


def end_with_parent() -> None:
    """End this process, whatever it does, when the one that asked is gone, so that none writes on after a kill."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def limit_memory(more: int) -> None:
    """Let this process take so many bytes of memory more; what asks for more is refused. It does so on Linux alone."""
    status = Path("/proc/self/status")
    if status.exists():
        held = next(line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmData"))  # KiB
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        limit = int(held) * 1024 + more
        resource.setrlimit(resource.RLIMIT_DATA, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
