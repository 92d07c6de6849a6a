"""Vision towers of models of two towers, which turn each frame into one unit vector."""

from typing import Any

import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection, SiglipVisionConfig, SiglipVisionModel

from clipbert_mm import compat
from clipbert_mm.registry import MODELS


@MODELS.register_module()
class CLIPVision(BaseModule):
    """The vision tower of CLIP (Radford et al., ICML 2021); no projection follows it.

    Args:
        image_size: Side of the frames in pixels.
        patch_size: Side of a patch in pixels.
        hidden_size: Width of the transformer.
        num_layers: Transformer layers.
        num_heads: Attention heads.
        intermediate_size: Width of the feed-forward layers.
        vector_size: Width D of the vectors.
        layer_norm_eps: Epsilon of the LayerNorms.
        hidden_act: Activation of the feed-forward layers; "quick_gelu" in OpenAI's checkpoints, "gelu" in most others.
    """

    def __init__(
        self,
        *,
        image_size: int = 224,
        patch_size: int = 32,
        hidden_size: int = 768,
        num_layers: int = 12,
        num_heads: int = 12,
        intermediate_size: int = 3072,
        vector_size: int = 512,
        layer_norm_eps: float = 1e-5,
        hidden_act: str = "quick_gelu",
    ) -> None:
        super().__init__()
        tower: Any = CLIPVisionModelWithProjection(
            CLIPVisionConfig(
                image_size=image_size,
                patch_size=patch_size,
                hidden_size=hidden_size,
                num_hidden_layers=num_layers,
                num_attention_heads=num_heads,
                intermediate_size=intermediate_size,
                projection_dim=vector_size,
                layer_norm_eps=layer_norm_eps,
                hidden_act=hidden_act,
                attn_implementation="sdpa",
            )
        )
        self.vit: Any = tower.vision_model
        self.visual_projection = tower.visual_projection

    def forward(self, frames: Tensor) -> Tensor:
        """Encode frames, (N, 3, H, W), as unit vectors, (N, D, 1, 1)."""
        return F.normalize(self.visual_projection(self.vit(frames).pooler_output), dim=1)[:, :, None, None]


@MODELS.register_module()
class SiglipVision(BaseModule):
    """The vision tower of SigLIP (Zhai et al., ICCV 2023) and of SigLIP 2 with frames of one size; no projection follows it.

    Args:
        image_size: Side of the frames in pixels.
        patch_size: Side of a patch in pixels.
        hidden_size: Width D, also of the vectors.
        num_layers: Transformer layers.
        num_heads: Attention heads.
        intermediate_size: Width of the feed-forward layers.
        layer_norm_eps: Epsilon of the LayerNorms.
        hidden_act: Activation of the feed-forward layers.
    """

    def __init__(
        self,
        *,
        image_size: int = 224,
        patch_size: int = 16,
        hidden_size: int = 768,
        num_layers: int = 12,
        num_heads: int = 12,
        intermediate_size: int = 3072,
        layer_norm_eps: float = 1e-6,
        hidden_act: str = "gelu_pytorch_tanh",
    ) -> None:
        super().__init__()
        self.vit: Any = compat.bare_tower(
            SiglipVisionModel(
                SiglipVisionConfig(
                    image_size=image_size,
                    patch_size=patch_size,
                    hidden_size=hidden_size,
                    num_hidden_layers=num_layers,
                    num_attention_heads=num_heads,
                    intermediate_size=intermediate_size,
                    layer_norm_eps=layer_norm_eps,
                    hidden_act=hidden_act,
                    attn_implementation="sdpa",
                )
            )
        )

    def forward(self, frames: Tensor) -> Tensor:
        """Encode frames, (N, 3, H, W), as unit vectors, (N, D, 1, 1)."""
        return F.normalize(self.vit(frames).pooler_output, dim=1)[:, :, None, None]
