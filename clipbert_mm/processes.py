"""For processes: the exit status after Ctrl-C, ending with the parent process, and a limit on memory."""

import multiprocessing
import os
import resource
import signal
from multiprocessing.connection import wait
from pathlib import Path

EXIT_INTERRUPTED = 128 + signal.SIGINT
"""Exit status of what Ctrl-C ended, also of a training that saved its state first; no cluster starts such a job again."""
SHARED_MEMORY_IS_FULL = (
    "The shared memory (/dev/shm) may be full: lower num_workers, prefetch_factor or batch_size of the dataloader, or give the "
    "machine's container more of it (docker run --shm-size=8g)."
)


def end_with_parent() -> None:
    """Wait for the parent process to end, then end this one at once, so that no worker keeps writing after a kill."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def limit_memory(additional: int) -> None:
    """Limit the memory that this process may still allocate, in bytes; larger allocations fail. Works on Linux only."""
    status = Path("/proc/self/status")
    if status.exists():
        used = next(line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmData"))  # KiB
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        limit = int(used) * 1024 + additional
        resource.setrlimit(resource.RLIMIT_DATA, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
