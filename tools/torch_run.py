#!/usr/bin/env python
"""torch.distributed.run that forwards a cluster's signals and exits with the status of the training; see dist_run.sh.

On SIGTERM torch's own launcher ends its processes within 30 seconds, on SIGUSR1 only itself, and it exits with 1.
"""

import os
import signal
import sys
from pathlib import Path
from types import FrameType

FORWARDED = (signal.SIGTERM, signal.SIGUSR1)
LEFT_OUT = 3
"""Exit status of an indexing that left unreadable videos out."""
PASSED_ON = (os.EX_TEMPFAIL, 128 + signal.SIGINT, LEFT_OUT)
"""Exit status of what saved its state and is to be resumed, and of what is done but for unreadable files."""


def forward(number: int, frame: FrameType | None) -> None:
    """Send a signal to the processes of the training."""
    for children in Path("/proc/self/task").glob("*/children"):
        for child in children.read_text().split():
            os.kill(int(child), number)


def main() -> None:
    """Run the processes; the arguments are those of torch.distributed.run."""
    for number in FORWARDED:
        signal.signal(number, forward)
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    # Releases of torch without this option handle SIGTERM themselves: the training saves too, but the exit status is 1.
    if "--signals-to-handle" in run.get_args_parser().format_help():
        sys.argv[1:1] = ["--signals-to-handle", "SIGINT,SIGHUP,SIGQUIT"]
    try:
        run.main()
    except ChildFailedError as error:
        _, first = error.get_first_failure()
        if first.exitcode not in PASSED_ON:
            raise
        sys.exit(first.exitcode)


if __name__ == "__main__":
    main()
