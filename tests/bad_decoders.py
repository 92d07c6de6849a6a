"""What stands for decoders that some file ends; a module of its own, as the processes that call them import it."""

import os
import time


def crash(job: tuple[str]) -> None:
    """Stand for a decoder that a file crashes."""
    os.abort()


def hang(job: tuple[str]) -> None:
    """Stand for a decoder that a file hangs."""
    time.sleep(1000)
