"""MMPretrain and MMAction2 where tests use them, and their own tools."""

import importlib.util
from pathlib import Path

import mmcv
import pytest
from mmengine.utils import digit_version

from clipbert_mm import compat


def import_mmaction() -> None:
    """Import mmaction2, also beside an mmcv that it refuses by itself; skip the test or the module where it is missing."""
    if importlib.util.find_spec("mmaction") is None:
        pytest.skip("mmaction2 needs decord, which has no wheel for this machine", allow_module_level=True)
    compat.import_mmaction_package("Tests")


def sister(path: str) -> str:
    """Return the path of a library's own tool, such as "mmaction/train.py"; skip where the library's own tools cannot run."""
    library, _, tool = path.partition("/")
    if library == "mmaction" and digit_version(mmcv.__version__) >= digit_version("2.2.0"):
        pytest.skip(f"mmaction2's own tools refuse mmcv {mmcv.__version__}, of the maintained forks")
    package = Path(importlib.util.find_spec(library).submodule_search_locations[0])  # type: ignore[union-attr, arg-type]
    return str(package / ".mim" / "tools" / tool)
