"""Errors that a user can mend, as one message without a traceback."""

import difflib
import inspect
import re

from mmengine.dist import get_rank, get_world_size

from clipbert_mm import registry
from clipbert_mm.checkpoint import CheckpointError
from clipbert_mm.datasets.annotations import AnnotationError
from clipbert_mm.datasets.transforms import BrokenMediaError
from clipbert_mm.engine.config import OptionError
from clipbert_mm.engine.loading import WorkerError

LOST_PEER = re.compile(
    r"Connection (closed|reset) by peer|Connection refused|Broken pipe|remote process exited|Socket closed|heartbeat"
)
"""How gloo and NCCL say that another process of the training is gone."""
OWN_ERRORS = (AnnotationError, BrokenMediaError, CheckpointError, OptionError, WorkerError)
USER_ERRORS = (FloatingPointError, KeyError, OSError, RuntimeError, TypeError, ValueError)
"""What the tools answer with :func:`plain_message`, which raises again what is no user's to mend."""


def plain_message(error: Exception) -> str:
    """Say an error in one message that begins with "error:"; to be called while it is handled.

    That is for errors that our code raises on purpose, for files and folders, and for an argument that a class does not
    have. Of any other, a defect of ours among them, the traceback is what helps, so it is raised again.
    """
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    lost = LOST_PEER.search(text) if get_world_size() > 1 and isinstance(error, RuntimeError) else None
    if lost is not None:
        return (
            f"error: Process {get_rank()} lost another process of this training, which failed first; its own error is in what "
            f"that process printed ({lost[0]})."
        )
    if "Traceback (most recent call last)" in text:  # torch passes a worker's traceback on as text
        *trace, last = text.strip().splitlines()
        meant = any(line.lstrip().startswith("raise ") for line in trace[-8:])
        text = last.partition(": ")[2]
    else:
        innermost = inspect.trace()[-1]
        line = (innermost.code_context or [""])[0]
        ours = innermost.frame.f_globals.get("__name__", "").startswith("clipbert_mm")
        meant = (ours and line.lstrip().startswith("raise ")) or isinstance(error, (OSError, *OWN_ERRORS))
    if isinstance(error, TypeError):
        explained = explain_arguments(text)
        meant, text = explained is not None, explained or text
    if not meant:
        raise error
    return f"error: {text}"


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
