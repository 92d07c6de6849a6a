"""Work-arounds for mmaction2, whose video backbones encode clips."""

import functools
import importlib.util
import inspect
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from mmengine.registry import DefaultScope
from torch import nn

from clipbert_mm.errors import BackendError

MISSING = ("mmaction.models.localizers.drn", "mmaction.models.localizers.drn.drn")
"""Modules that mmaction2's models import and its wheel does not have."""


def import_mmaction_package(what: str) -> None:
    """Import mmaction2 itself, after which MMEngine's registries find its transforms, metrics and visualizers.

    For mmaction2 1.2.0 with mmcv >= 2.2 (onedl-mmcv is 2.3): it refuses them when it is imported, and uses nothing of mmcv
    that has changed since 2.1.

    Args:
        what: What of it is needed, for the error.

    Raises:
        BackendError: If mmaction2 is not installed.
    """
    if importlib.util.find_spec("mmaction") is None:
        raise BackendError(
            f"{what} of mmaction2 need mmaction2, which is not installed: pip install 'mmaction2>=1.2,<1.3'. It needs "
            "decord, which has wheels for x86-64 only."
        )
    import mmcv

    version, mmcv.__version__ = mmcv.__version__, "2.1.0"
    try:
        import mmaction  # noqa: F401
    finally:
        mmcv.__version__ = version


def import_mmaction() -> None:
    """Import mmaction2's models without its multi-modal ones and without one localizer, which backbones do not need.

    For mmaction2 1.2.0, whose wheel lacks the localizer DRN, and with transformers >= 5, with which the multi-modal models
    cannot be imported; MMEngine reports either as "'mmaction.ResNetTSM' is not in the registry". Further, ``train()`` of its
    backbones returns None, so that ``backbone.eval()`` would be None; from now on both return the backbone.

    Raises:
        BackendError: If mmaction2 is not installed.
    """
    import_mmaction_package("Backbones")
    if "mmaction.models" not in sys.modules:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # mmcv-lite warns that it has no operators; none is needed
            from mmaction.utils import dependency

            with_multimodal, dependency.WITH_MULTIMODAL = dependency.WITH_MULTIMODAL, False
            try:
                with _standing_in_for_missing_modules():
                    import mmaction.models  # noqa: F401
            finally:
                dependency.WITH_MULTIMODAL = with_multimodal
    from mmaction.models import backbones

    for backbone in vars(backbones).values():
        train = vars(backbone).get("train") if isinstance(backbone, type) else None
        if train is not None and not hasattr(train, "__wrapped__"):
            backbone.train = _returning_self(train)


@contextmanager
def _standing_in_for_missing_modules() -> Iterator[None]:
    """Let the modules that the wheel lacks be imported inside a block, with an empty class; other installs have them."""
    import mmaction

    localizer = Path(mmaction.__path__[0], "models", "localizers", "drn")
    names = () if localizer.exists() else MISSING
    for name in names:
        module: Any = ModuleType(name)
        module.__path__, module.DRN = [], type("DRN", (), {})
        sys.modules[name] = module
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]


def _returning_self(train: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(train)
    def wrapped(module: nn.Module, mode: bool = True) -> nn.Module:
        train(module, mode)
        return module

    return wrapped


@contextmanager
def building_mmaction() -> Iterator[None]:
    """Let mmaction2's backbones be built inside a block.

    For mmaction2 1.2.0: R(2+1)D looks its convolutions up in the default scope, and TANet initializes its weights when it is
    built, of which MMEngine prints hundreds of lines. Video Swin calls ``torch.meshgrid`` in a way that torch warns of.
    """
    from mmengine.model import BaseModule

    log, BaseModule._dump_init_info = BaseModule._dump_init_info, lambda module: None
    try:
        with DefaultScope.overwrite_default_scope("mmaction"), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.meshgrid")
            yield
    finally:
        BaseModule._dump_init_info = log


def without_weights(config: Mapping[str, Any], kind: type) -> dict[str, Any]:
    """Return the config of a backbone of mmaction2 that is initialized without weights unless it names some.

    For mmaction2 1.2.0, whose ResNet3dCSN has no default of ``pretrained``; its base classes have None.

    Args:
        config: The config.
        kind: The class that it names.
    """
    weights = inspect.signature(kind).parameters.get("pretrained")
    no_default = weights is not None and weights.default is weights.empty
    return {"pretrained": None, **config} if no_default else dict(config)


def mend_mmaction_backbone(backbone: Any) -> None:  # noqa: ANN401
    """Let a backbone of mmaction2 be initialized without weights, and have no parameters that it does not use.

    For mmaction2 1.2.0: TSM and Video Swin expect a file of 2D weights unless they are told otherwise, even without its name;
    VideoMAE that returns its map keeps the norm of the vector that it does not return, and DistributedDataParallel would wait
    for its gradient.
    """
    if getattr(backbone, "pretrained", None) is None and getattr(backbone, "pretrained2d", False):
        backbone.pretrained2d = False
    if getattr(backbone, "return_feat_map", False):
        backbone.fc_norm = None
