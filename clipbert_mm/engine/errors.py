"""Errors that a user can mend, as one message without a traceback."""

import difflib
import inspect
import re

from clipbert_mm import registry
from clipbert_mm.checkpoint import CheckpointError
from clipbert_mm.datasets.annotations import AnnotationError
from clipbert_mm.datasets.transforms import BrokenMediaError
from clipbert_mm.engine.config import OptionError

USER_ERRORS = (KeyError, OSError, RuntimeError, TypeError, ValueError)
"""What the tools answer with :func:`plain_message`; a defect of ours still shows where it happened, see there."""


def plain_message(error: Exception) -> str:
    """Say an error in one message that begins with "error:"; to be called while it is handled.

    That is for errors that we raise ourselves, for files and folders, and for what a registry says of a config. Of any
    other the traceback is what helps, so it is raised again.
    """
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    if "Traceback (most recent call last)" in text:  # torch passes a worker's traceback on as text
        text = text.strip().splitlines()[-1].partition(": ")[2]
    if isinstance(error, TypeError):
        text = explain_arguments(text) or text
    origin = inspect.trace()[-1].frame.f_globals.get("__name__", "")
    ours = isinstance(error, (AnnotationError, BrokenMediaError, CheckpointError, OptionError, OSError))
    if not ours and not origin.startswith(("clipbert_mm", "mmengine.registry")):
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
