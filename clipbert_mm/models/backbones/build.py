"""Building the backbone."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from clipbert_mm import compat
from clipbert_mm.errors import ClipBertError, OptionError, quoted
from clipbert_mm.models.backbones.folding import fold_frozen_norms
from clipbert_mm.registry import MODELS, type_name


def build_backbone(config: Mapping[str, Any], *, takes_clips: bool = False) -> nn.Module:
    """Build a backbone; mmpretrain and mmaction2 take seconds to import, so each is imported only for its own backbones.

    Frozen batch norms of mmpretrain's ResNets are folded into the preceding convolutions.

    Args:
        config: Config of a registered module that maps (N, 3, H, W) to a feature map, or to a sequence of maps of which the
            last is used; or of a ClipEncoder. ``mmpretrain.TIMMBackbone`` builds backbones of timm.
        takes_clips: Whether a 3D backbone of mmaction2 may be built, which maps (N, 3, T, H, W).

    Raises:
        OptionError: If it is no config, or mmpretrain or mmaction2 cannot build it, or it is a 3D backbone.
        UnknownNameError: If there is no such backbone.
    """
    if not isinstance(config, Mapping) or not isinstance(config.get("type"), (str, type)):
        raise OptionError(
            f"A backbone is a config with a type, such as dict(type='mmpretrain.ResNet', depth=50), got {quoted(config)}."
        )
    library = type_name(config).partition(".")[0]
    if library == "mmaction":
        return _build_mmaction_backbone(config, takes_clips)
    if library != "mmpretrain":
        return MODELS.build(config)
    compat.import_mmpretrain()
    from mmpretrain.models import ResNet, TIMMBackbone

    with _telling_settings(config):
        backbone = MODELS.build(config)
    if isinstance(backbone, TIMMBackbone):
        compat.put_channels_first(backbone)
    if isinstance(backbone, ResNet) and backbone.norm_eval:
        fold_frozen_norms(backbone)
    return backbone


def _build_mmaction_backbone(config: Mapping[str, Any], takes_clips: bool) -> nn.Module:
    compat.import_mmaction()
    kind = config["type"]
    with _telling_settings(config), compat.building_mmaction():
        backbone = MODELS.build(compat.without_weights(config, MODELS.get(kind) if isinstance(kind, str) else kind))
    compat.mend_mmaction_backbone(backbone)
    convolutions = (each for each in backbone.modules() if isinstance(each, _ConvNd))
    if not takes_clips and isinstance(next(convolutions, None), nn.Conv3d):
        raise OptionError(
            f"{type_name(config)} takes clips, not frames. Put it into a ClipEncoder: backbone=dict(_delete_=True, "
            "type='ClipEncoder', num_frames=..., frame_size=..., backbone=dict(type=...)), see docs/video_encoders.md."
        )
    return backbone


@contextmanager
def _telling_settings(config: Mapping[str, Any]) -> Iterator[None]:
    """Report any error of a library in this block as one of the settings of its backbone.

    Raises:
        OptionError: The error, with the settings.
    """
    try:
        yield
    except (ClipBertError, MemoryError, torch.OutOfMemoryError):
        raise
    # backbones check their settings by assertions, by errors of their own, or not at all
    except Exception as error:
        name, settings = type_name(config), {key: value for key, value in config.items() if key != "type"}
        reason = f"{type(error).__name__}: {error}".partition("\n")[0].rstrip(".: ")
        raise OptionError(
            f"{name} cannot be built with {quoted(settings)}: {reason}. Give the settings that its class in "
            f"{name.partition('.')[0]} takes."
        ) from error
