"""Old names of the last release: each works for one more, with one warning that names the new one."""

import functools
import importlib
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

NAMES_IN_CONFIGS: dict[str, str] = {
    "AmpOptimWrapper": "AmpAccumulatingOptimWrapper",
    "CheckpointFitHook": "CheckpointCompatibilityHook",
    "CheckpointHook": "FaultTolerantCheckpointHook",
    "EarlyStoppingHook": "ResumableEarlyStoppingHook",
    "EpochBasedTrainLoop": "ResumableEpochTrainLoop",
    "LoggerHook": "MainProcessLoggerHook",
    "OptimWrapper": "AccumulatingOptimWrapper",
}
"""What a config may still call by its old name, and the new one."""


def warn_renamed(old: str, new: str, stacklevel: int = 2) -> None:
    """Warn that a name is deprecated.

    Args:
        old: The old name.
        new: The new name.
        stacklevel: How many calls up the code is that used it.
    """
    message = f"{old} is deprecated and will go with the next release. Use {new}."
    warnings.warn(message, FutureWarning, stacklevel=stacklevel + 1)


def renamed(module: str, names: Mapping[str, str]) -> Callable[[str], object]:
    """Make the ``__getattr__`` of a module that still gives what was renamed or moved.

    Args:
        module: The module's ``__name__``.
        names: The new full name, as in ``clipbert_mm.fileio.atomic_write``, of each old one.

    Returns:
        A function that gives the attribute of an old name, with a warning.
    """

    def find(name: str) -> object:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        owner, _, new = names[name].rpartition(".")
        warn_renamed(f"{module}.{name}", names[name])
        return getattr(importlib.import_module(owner), new)

    return find


def renamed_arguments(**names: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a decorator for a function that still takes arguments by their old names.

    Args:
        names: The new name of each old one.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            for old in names.keys() & kwargs.keys():
                name = function.__qualname__.removesuffix(".__init__")
                warn_renamed(f"{name}({old}=...)", f"{name}({names[old]}=...)")
                kwargs[names[old]] = kwargs.pop(old)
            return function(*args, **kwargs)

        return call

    return decorate


def moved(old: str, new: str) -> None:
    """Let a module that was moved be imported by its old name; called by the module that stands in its old place.

    Args:
        old: The ``__name__`` of the old place.
        new: The module's name now.
    """
    warn_renamed(old, new, stacklevel=3)
    sys.modules[old] = importlib.import_module(new)
