"""Transforms of OpenMMLab's libraries in the place of ours: they pass images by keys that our results do not have."""

from collections.abc import Iterable
from typing import Any

from mmcv.transforms import KeyMapper

from clipbert_mm.errors import OptionError

LIBRARIES = {"mmaction": "MMAction2", "mmcv": "MMCV", "mmpretrain": "MMPretrain"}
"""The libraries by the names of their packages."""
GENERAL = ("mmcv.transforms.formatting", "mmcv.transforms.wrappers", "mmpretrain.datasets.transforms.wrappers")
"""Modules whose transforms work on any keys, or apply others."""


def library_of(kind: type) -> str | None:
    """Return the library of a transform that takes images by its keys; None for ours, general ones and one's own."""
    return None if kind.__module__ in GENERAL else LIBRARIES.get(kind.__module__.partition(".")[0])


def check_transforms(owner: str, steps: Iterable[Any]) -> None:
    """Check that a pipeline of ours has no transform of another library among its steps, also within a RandomApply.

    Raises:
        OptionError: If there is one.
    """
    for step in steps:
        library = library_of(type(step))
        if library is not None:
            name = type(step).__name__
            raise OptionError(
                f"{owner} has {library}'s {name} among our transforms, which does not take our frames. Put it, or what "
                f"MMAction2 has of its kind, into dict(type='MMActionTransforms', transforms=[dict(type='{name}', ...)]), and "
                "end with ResizePad, Tokenize and PackInputs."
            )
        inner = getattr(step, "transforms", ())
        if isinstance(inner, Iterable) and not isinstance(step, KeyMapper):  # which gives it the keys that it needs
            check_transforms(owner, inner)
