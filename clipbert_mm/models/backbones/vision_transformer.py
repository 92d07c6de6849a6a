"""What public image-text models do with a frame on its own: a vision transformer, or the projection of its patches."""

from typing import Any

import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn
from transformers import BlipVisionConfig, BlipVisionModel

from clipbert_mm.errors import OptionError
from clipbert_mm.registry import MODELS


@MODELS.register_module()
class BlipVision(BaseModule):
    """The vision transformer of BLIP (Li et al., ICML 2022), with its class token first; no projection follows it.

    Its token sequences are maps of one row.

    Args:
        image_size: Side of the frames in pixels.
        patch_size: Side of a patch in pixels.
        hidden_size: Width D.
        num_layers: Transformer layers.
        num_heads: Attention heads.
        intermediate_size: Width of the feed-forward layers.
        layer_norm_eps: Epsilon of the LayerNorms.
        hidden_act: Activation of the feed-forward layers.
        initializer_range: Standard deviation of the initial weights.
    """

    def __init__(
        self,
        *,
        image_size: int = 384,
        patch_size: int = 16,
        hidden_size: int = 768,
        num_layers: int = 12,
        num_heads: int = 12,
        intermediate_size: int = 3072,
        layer_norm_eps: float = 1e-5,
        hidden_act: str = "gelu",
        initializer_range: float = 0.02,
    ) -> None:
        super().__init__()
        self.vit: Any = BlipVisionModel(
            BlipVisionConfig(
                image_size=image_size,
                patch_size=patch_size,
                hidden_size=hidden_size,
                num_hidden_layers=num_layers,
                num_attention_heads=num_heads,
                intermediate_size=intermediate_size,
                layer_norm_eps=layer_norm_eps,
                hidden_act=hidden_act,
                initializer_range=initializer_range,
                attn_implementation="eager",  # it has no other
            )
        )

    def forward(self, frames: Tensor) -> Tensor:
        """Encode frames, (N, 3, H, W), as tokens, (N, D, 1, S) with S = 1 + H·W / patch_size²."""
        return self.vit(frames).last_hidden_state.transpose(1, 2)[:, :, None]


@MODELS.register_module()
class ViltPatches(BaseModule):
    """The projection of patches of ViLT (Kim et al., ICML 2021), all that it computes of a frame alone.

    Patches of zeros are padding, on the right and below, and so they stay: no pixel is zero after normalization, whose mean is
    between two grey levels.

    Args:
        patch_size: Side of a patch in pixels.
        hidden_size: Width D.
        initializer_range: Standard deviation of the initial weights.
    """

    def __init__(self, *, patch_size: int = 32, hidden_size: int = 768, initializer_range: float = 0.02) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.projection = nn.Conv2d(3, hidden_size, kernel_size=patch_size, stride=patch_size)
        nn.init.normal_(self.projection.weight, std=initializer_range)
        nn.init.zeros_(self.projection.bias)  # type: ignore[arg-type]

    def forward(self, frames: Tensor) -> Tensor:
        """Project the patches of frames, (N, 3, H, W), to a map, (N, D, H / patch_size, W / patch_size); zeros stay zeros.

        Raises:
            OptionError: If a side of the frames is no multiple of the patch's.
        """
        height, width = frames.shape[2:]
        if height % self.patch_size or width % self.patch_size or not height * width:
            raise OptionError(
                f"ViltPatches takes frames whose sides are multiples of its patches' {self.patch_size} pixels, got frames of "
                f"{height} x {width}. Resize them by ResizeTo with multiple={self.patch_size}."
            )
        maps = self.projection(frames)
        if frames[:, :, -self.patch_size :, -self.patch_size :].flatten(1).any(dim=1).all():  # padding would begin here
            return maps
        return maps * (F.max_pool2d(frames.abs().amax(dim=1, keepdim=True), self.patch_size) > 0)
