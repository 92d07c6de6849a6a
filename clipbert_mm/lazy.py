"""Exports of a package that are imported when they are first used, so that importing the package is quick."""

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence


def lazy_exports(
    package: str, exports: Mapping[str, Sequence[str]], fallback: Callable[[str], object]
) -> Callable[[str], object]:
    """Make the ``__getattr__`` of a package that imports a submodule when one of its names is first used.

    Args:
        package: The package's ``__name__``.
        exports: Names that the package exports, by the submodule that defines them, or by another package's full name.
        fallback: Called with any other name; see :func:`~clipbert_mm.deprecation.renamed`.

    Returns:
        A function that returns the attribute of a name.
    """
    submodules = {
        name: submodule if "." in submodule else f"{package}.{submodule}"
        for submodule, names in exports.items()
        for name in names
    }

    def find(name: str) -> object:
        if name not in submodules:
            return fallback(name)
        value = getattr(importlib.import_module(submodules[name]), name)
        setattr(sys.modules[package], name, value)  # Python finds it there from now on
        return value

    return find
