"""How the tools end on an error: with one message if a user can act on it, else with the traceback of a defect."""

import difflib
import inspect
import os
import re
import sys
from collections.abc import Callable
from typing import NoReturn

from clipbert_mm import registry
from clipbert_mm.errors import ClipBertError
from clipbert_mm.log import show_in_run_log
from clipbert_mm.processes import EXIT_INTERRUPTED

LOST_PEER = re.compile(
    r"Connection (closed|reset) by peer|Connection refused|Broken pipe|remote process exited|Socket closed|heartbeat"
)
"""How errors of gloo and NCCL say that another process of the training is gone."""


def run_tool(main: Callable[[], object]) -> NoReturn:
    """Run a tool and exit, with the status that it returns if it returns a number.

    An error that a user can act on becomes one message and exit status 1, Ctrl-C one line and exit status 130. Unless the
    environment says otherwise, tokenizers use no threads: an item has few texts, and to wake a thread for them costs more than
    to read them.
    """
    show_in_run_log()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        result = main()
    except KeyboardInterrupt:
        sys.stderr.write("\nstopped by Ctrl-C\n")
        sys.exit(EXIT_INTERRUPTED)
    except Exception as error:
        message = format_error(error)
        if message is None:
            raise
        sys.exit(message)
    sys.exit(result if isinstance(result, int) else 0)


def format_error(error: Exception) -> str | None:
    """Return an error as one message that begins with "error:".

    Errors that a user can act on are a :class:`~clipbert_mm.errors.ClipBertError`, the system's errors on files and folders,
    an argument that a class does not have or lacks, and the loss of another process of a training.

    Returns:
        The message; None for a defect, of which the traceback helps more.
    """
    text = _original_text(error)
    if isinstance(error, RuntimeError) and (lost := LOST_PEER.search(text)) and _is_one_of_several():
        from mmengine.dist import get_rank

        return (
            f"error: Process {get_rank()} lost another process of this training, which failed first; see the output of that "
            f"process for its error ({lost[0]})."
        )
    if isinstance(error, TypeError):
        explained = explain_arguments(text)
        return None if explained is None else f"error: {explained}"
    return f"error: {text}" if isinstance(error, (ClipBertError, OSError)) else None


def _is_one_of_several() -> bool:
    # It takes seconds to import, and most tools need nothing of it.
    from mmengine.dist import get_world_size

    return get_world_size() > 1


def _original_text(error: Exception) -> str:
    """Return the text of an error, without the traceback that torch adds to the error of a worker."""
    text = str(error)
    if "Traceback (most recent call last)" not in text:
        return text
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return text.rpartition(f"\n{name}: ")[2].strip()


def explain_arguments(text: str) -> str | None:
    """Name the arguments of a class if Python says that it has no such one, or needs one; None if the text says neither."""
    unknown = re.search(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", text)
    missing = re.search(r"(\w+)\.__init__\(\) missing \d+ required (?:keyword-only|positional) arguments?: (.+)", text)
    found = unknown or missing
    known = found and _arguments_of(found[1])
    if not found or not known:
        return None
    name, argument = found.groups()
    if missing:
        return f"{name} needs {argument}, which the config does not set."
    near = difflib.get_close_matches(argument, sorted(known), n=3)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    return f"{name} has no option '{argument}'.{hint} There are: {', '.join(sorted(known))}."


def _arguments_of(name: str) -> set[str]:
    """Return the arguments of a registered class, or of one that a registered class inherits from; none if there is none."""
    groups = [group for group in vars(registry).values() if isinstance(group, registry.Registry)]
    groups += [group.parent for group in groups]
    known: set[str] = set()
    for module in {module for group in groups for module in group.module_dict.values() if inspect.isclass(module)}:
        lineage = inspect.getmro(module)
        names = [ancestor.__name__ for ancestor in lineage]
        if name in names:  # a subclass may pass unknown arguments on
            for ancestor in lineage[: names.index(name) + 1]:
                known |= set(inspect.signature(ancestor).parameters) - {"options", "args", "kwargs"}
    return known
