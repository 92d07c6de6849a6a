"""How weights expect their frames: mean, standard deviation and channel order; and where a ResNet has its strides."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

MEAN = (123.675, 116.28, 103.53)


@dataclass(frozen=True)
class InputSpec:
    """How frames are normalized, and where a ResNet with bottlenecks has its strides.

    Args:
        mean: Mean of each channel in RGB order, 0 to 255.
        std: Standard deviation of each channel in RGB order, by which it is divided.
        to_bgr: Whether the model takes the channels in BGR order.
        style: "caffe" for the stride in a bottleneck's first 1x1 convolution, "pytorch" for its 3x3 one; None if the backbone
            has no bottlenecks.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    to_bgr: bool
    style: str | None

    @classmethod
    def of_model(cls, model: Any) -> "InputSpec":  # noqa: ANN401
        """Return the specification of a ClipBert."""
        frames = model.data_preprocessor
        mean, std = (tuple(value.tolist()) for value in (frames.mean, frames.std))
        return cls(mean, std, frames.to_bgr, style_of(getattr(model.backbone, "style", None), model.backbone))

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> "InputSpec":
        """Rebuild it from the result of :meth:`to_dict`.

        Raises:
            ValueError: If the values are not valid.
        """
        mean, std = (tuple(float(value) for value in saved[name]) for name in ("mean", "std"))
        if len(mean) != 3 or len(std) != 3 or not np.isfinite([*mean, *std]).all() or 0 in std:
            raise ValueError(f"mean {mean} and std {std} are expected to have three finite values each, std without 0")
        if saved["style"] not in (None, "caffe", "pytorch"):
            raise ValueError(f"style {saved['style']!r}")
        return cls(mean, std, bool(saved["to_bgr"]), saved["style"])

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for a checkpoint."""
        return asdict(self)

    def agrees(self, other: "InputSpec") -> bool:
        """Return whether weights of one specification fit a model of the other; a style that is None fits any."""
        same_style = None in (self.style, other.style) or self.style == other.style
        return (
            same_style and self.to_bgr == other.to_bgr and np.allclose((self.mean, self.std), (other.mean, other.std))
        )

    def __str__(self) -> str:
        """Return a short description."""
        numbers = [", ".join(f"{value:g}" for value in values) for values in (self.mean, self.std)]
        strides = "" if self.style is None else f", {self.style}-style strides"
        return f"{'BGR' if self.to_bgr else 'RGB'} minus ({numbers[0]}) over ({numbers[1]}){strides}"


def style_of(style: str | None, backbone: Any) -> str | None:  # noqa: ANN401
    """Return where a backbone has its strides; None if it has no bottlenecks, where both styles are the same."""
    return style if hasattr(backbone, "layer1") and hasattr(backbone.layer1[0], "conv3") else None


CAFFE = InputSpec(mean=MEAN, std=(1.0, 1.0, 1.0), to_bgr=True, style="caffe")
"""For detectron2's ResNets, such as those of grid-feat and of the paper's release."""
PYTORCH = InputSpec(mean=MEAN, std=(58.395, 57.12, 57.375), to_bgr=False, style="pytorch")
"""For torchvision, mmpretrain and mmaction2."""
X3D = InputSpec(mean=(114.75,) * 3, std=(57.38,) * 3, to_bgr=False, style=None)
"""For mmaction2's X3D."""
UNIFORMER = InputSpec(mean=(114.75,) * 3, std=(57.375,) * 3, to_bgr=False, style=None)
"""For mmaction2's UniFormer."""
OPENAI = InputSpec(
    mean=(122.7709383, 116.7460125, 104.09373615), std=(68.5005327, 66.6321579, 70.32316305), to_bgr=False, style=None
)
"""For CLIP and BLIP, as OpenAI's CLIP defined it."""
HALF = InputSpec(mean=(127.5,) * 3, std=(127.5,) * 3, to_bgr=False, style=None)
"""For ViLT."""
