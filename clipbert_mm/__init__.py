"""CLIPBERT for OpenMMLab: video-and-language learning end to end from a few sparsely sampled short clips.

Importing the package changes nothing in the process, and imports neither torch nor MMEngine: each module is imported where it
is used. MMEngine finds the registries by the scope ``clipbert_mm``.
"""

import importlib
from typing import TYPE_CHECKING

from clipbert_mm.version import __version__

if TYPE_CHECKING:
    from clipbert_mm import registry

__all__ = ["__version__", "registry"]


def __getattr__(name: str) -> object:
    """Import ``clipbert_mm.registry``, which takes a second, when it is first asked for."""
    if name == "registry":
        return importlib.import_module("clipbert_mm.registry")
    raise AttributeError(f"module 'clipbert_mm' has no attribute {name!r}")
