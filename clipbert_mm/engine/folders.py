"""Folders that the processes of a run write to: one run at a time."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from mmengine.dist import broadcast_object_list, get_rank

from clipbert_mm.errors import BusyFolderError
from clipbert_mm.structures import locked

ADVICE = "Wait until it ends, stop it, or choose another work folder (--work-dir)."


@contextmanager
def locked_for_all(*folders: str | os.PathLike) -> Iterator[None]:
    """Keep other runs out of some folders meanwhile; the first process of this one holds their locks for all.

    Raises:
        BusyFolderError: If another run writes to one, in the first process; the others end with it.
    """
    with ExitStack() as locks:
        refused: list[Exception | None] = [None]
        if get_rank() == 0:
            try:
                for folder in dict.fromkeys(map(os.path.realpath, folders)):
                    locks.enter_context(locked(folder, ADVICE))
            except (BusyFolderError, OSError) as error:
                refused = [error]
        broadcast_object_list(refused)
        if refused[0] is not None:
            raise refused[0] if get_rank() == 0 else SystemExit(1)
        yield
