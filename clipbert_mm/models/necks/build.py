"""Building necks that a model may do without."""

from typing import Any

from torch import nn

from clipbert_mm.registry import MODELS


def build_neck(config: dict[str, Any] | None) -> nn.Module:
    """Build a neck; None for one that changes nothing."""
    return nn.Identity() if config is None else MODELS.build(config)
