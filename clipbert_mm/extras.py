"""Libraries that only some parts need, and that an extra of the package installs."""

import importlib.util

from clipbert_mm.errors import BackendError


def require_extra(module: str, extra: str, who: str) -> None:
    """Check that a library of an extra is installed.

    Args:
        module: The module that is imported.
        extra: The extra of clipbert_mm.
        who: What needs it, for the error.

    Raises:
        BackendError: If it is not.
    """
    if importlib.util.find_spec(module) is None:
        raise BackendError(f"{who} needs {module}, which is not installed: pip install 'clipbert_mm[{extra}]'.")
