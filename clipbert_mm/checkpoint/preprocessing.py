"""What weights take for granted: how the frames come in, and where a ResNet has its strides."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

MEAN = (123.675, 116.28, 103.53)


@dataclass(frozen=True)
class InputSpec:
    """How frames come in, and where a ResNet with bottlenecks has its strides.

    Args:
        mean: Mean of each channel in RGB order, in 0 to 255.
        std: What each channel is divided by, in RGB order.
        to_bgr: Whether the channels come in BGR order.
        style: "caffe" for the stride in a bottleneck's first 1x1 convolution, "pytorch" for its 3x3 one; None if the backbone
            has no bottlenecks.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    to_bgr: bool
    style: str | None

    @classmethod
    def of_model(cls, model: Any) -> "InputSpec":  # noqa: ANN401
        """Read it off a ClipBert."""
        frames = model.data_preprocessor
        mean, std = (tuple(map(float, value.flatten())) for value in (frames.mean, frames.std))
        return cls(mean, std, frames.to_bgr, style_of(getattr(model.backbone, "style", None), model.backbone))

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> "InputSpec":
        """Rebuild it from what :meth:`to_dict` gave.

        Raises:
            ValueError: If it is something else.
        """
        mean, std = (tuple(float(value) for value in saved[name]) for name in ("mean", "std"))
        if len(mean) != 3 or len(std) != 3 or not np.isfinite([*mean, *std]).all() or 0 in std:
            raise ValueError(f"mean {mean} and std {std} are expected to be of three channels")
        if saved["style"] not in (None, "caffe", "pytorch"):
            raise ValueError(f"style {saved['style']!r}")
        return cls(mean, std, bool(saved["to_bgr"]), saved["style"])

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for a checkpoint."""
        return asdict(self)

    def agrees(self, other: "InputSpec") -> bool:
        """Whether weights of one may go into a model of the other; a style that one of them lacks does not matter."""
        same_style = None in (self.style, other.style) or self.style == other.style
        return (
            same_style and self.to_bgr == other.to_bgr and np.allclose((self.mean, self.std), (other.mean, other.std))
        )

    def __str__(self) -> str:
        """Say it in a few words."""
        numbers = [", ".join(f"{value:g}" for value in values) for values in (self.mean, self.std)]
        strides = "" if self.style is None else f", {self.style}-style strides"
        return f"{'BGR' if self.to_bgr else 'RGB'} minus ({numbers[0]}) over ({numbers[1]}){strides}"


def style_of(style: str | None, backbone: Any) -> str | None:  # noqa: ANN401
    """Return where the strides of a backbone are; None if it has no bottlenecks, for which it does not matter."""
    return style if hasattr(backbone, "layer1") and hasattr(backbone.layer1[0], "conv3") else None


CAFFE = InputSpec(mean=MEAN, std=(1.0, 1.0, 1.0), to_bgr=True, style="caffe")
"""Of detectron2's ResNets, grid-feat's among them, and so of the paper's release."""
PYTORCH = InputSpec(mean=MEAN, std=(58.395, 57.12, 57.375), to_bgr=False, style="pytorch")
"""Of torchvision, mmpretrain and mmaction2."""
