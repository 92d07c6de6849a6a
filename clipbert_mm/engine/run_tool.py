"""How the tools end on an error: in one message where a user can act on it, else with the traceback of a defect."""

import difflib
import inspect
import re
import sys
from collections.abc import Callable
from typing import NoReturn

from mmengine.dist import get_rank, get_world_size

from clipbert_mm import registry
from clipbert_mm.errors import ClipBertError
from clipbert_mm.log import show_in_run_log

LOST_PEER = re.compile(
    r"Connection (closed|reset) by peer|Connection refused|Broken pipe|remote process exited|Socket closed|heartbeat"
)
"""How gloo and NCCL say that another process of the training is gone."""


def run_tool(main: Callable[[], object]) -> NoReturn:
    """Run a tool and leave: with the status that it returns, if it returns a number.

    An error that a user can act on ends it with one message and exit status 1.
    """
    show_in_run_log()
    try:
        result = main()
    except Exception as error:
        message = format_error(error)
        if message is None:
            raise
        sys.exit(message)
    sys.exit(result if isinstance(result, int) else 0)


def format_error(error: Exception) -> str | None:
    """Return an error as one message that begins with "error:".

    That is for a :class:`~clipbert_mm.errors.ClipBertError`, for files and folders that the system refuses, for an argument
    that a class does not have, and for another process of a training that is gone.

    Returns:
        The message; None for a defect, whose traceback is what helps.
    """
    text = _own_words(error)
    if isinstance(error, RuntimeError) and get_world_size() > 1 and (lost := LOST_PEER.search(text)):
        return (
            f"error: Process {get_rank()} lost another process of this training, which failed first; its own error is in what "
            f"that process printed ({lost[0]})."
        )
    if isinstance(error, TypeError):
        explained = explain_arguments(text)
        return None if explained is None else f"error: {explained}"
    return f"error: {text}" if isinstance(error, (ClipBertError, OSError)) else None


def _own_words(error: Exception) -> str:
    """Return the text of an error; of a worker's, which torch passes on with its traceback, what the worker raised."""
    text = str(error)
    if "Traceback (most recent call last)" not in text:
        return text
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return text.rpartition(f"\n{name}: ")[2].strip()


def explain_arguments(text: str) -> str | None:
    """Add the arguments that there are to Python's word on one that there is not; None if the text is of another kind."""
    found = re.search(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", text)
    if found is None:
        return None
    name, argument = found.groups()
    groups = [group for group in vars(registry).values() if isinstance(group, registry.Registry)]
    groups += [group.parent for group in groups]
    known: set[str] = set()
    for module in {module for group in groups for module in group.module_dict.values() if inspect.isclass(module)}:
        lineage = inspect.getmro(module)
        names = [ancestor.__name__ for ancestor in lineage]
        if name in names:  # a class that inherits may pass on what it does not know
            for ancestor in lineage[: names.index(name) + 1]:
                known |= set(inspect.signature(ancestor).parameters) - {"options", "args", "kwargs"}
    if not known:
        return None
    near = difflib.get_close_matches(argument, sorted(known), n=3)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    return f"{name} has no option '{argument}'.{hint} There are: {', '.join(sorted(known))}."
