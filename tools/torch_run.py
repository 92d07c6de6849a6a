#!/usr/bin/env python
"""torch.distributed.run that passes a cluster's notice on and ends with the status of the training; see dist_run.sh.

Torch's own answers SIGTERM by ending its processes within 30 seconds, SIGUSR1 by ending itself alone, and leaves with 1.
"""

import os
import signal
import sys
from pathlib import Path
from types import FrameType

NOTICES = (signal.SIGTERM, signal.SIGUSR1)


def pass_on(number: int, frame: FrameType | None) -> None:
    """Send a signal to the processes of the training."""
    for children in Path("/proc/self/task").glob("*/children"):
        for child in children.read_text().split():
            os.kill(int(child), number)


def main() -> None:
    """Run the processes; arguments as of torch.distributed.run."""
    for notice in NOTICES:
        signal.signal(notice, pass_on)
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    # Releases without this option answer SIGTERM in torch's own way, which lets the training save too but ends with 1.
    if "--signals-to-handle" in run.get_args_parser().format_help():
        sys.argv[1:1] = ["--signals-to-handle", "SIGINT,SIGHUP,SIGQUIT"]
    try:
        run.main()
    except ChildFailedError as error:
        _, first = error.get_first_failure()
        if first.exitcode != os.EX_TEMPFAIL:  # the training saved its state and is to be begun again
            raise
        sys.exit(first.exitcode)


if __name__ == "__main__":
    main()
