"""The vision tower of the Perception Encoder, which turns each frame into one unit vector; timm has its layers."""

from functools import partial

import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor

from clipbert_mm.errors import OptionError
from clipbert_mm.extras import require_extra
from clipbert_mm.registry import MODELS

POOLING_HEADS, POOLING_RATIO = 8, 4.0
"""Attention heads of the pooling over patches, and its feed-forward width in hidden sizes; the same in all sizes of PE-Core."""


@MODELS.register_module()
class PEVision(BaseModule):
    """The vision tower of PE-Core (Bolya et al., 2025, arXiv 2504.13181), as timm has it; no projection follows it.

    Positions are absolute and rotary, and attention pools the patches to one vector.

    Args:
        image_size: Side of the frames in pixels.
        patch_size: Side of a patch in pixels.
        hidden_size: Width of the transformer.
        num_layers: Transformer layers.
        num_heads: Attention heads.
        intermediate_size: Width of the feed-forward layers.
        vector_size: Width D of the vectors.
        class_token: Whether a class token is read with the patches; the largest PE-Core has none.
        layer_norm_eps: Epsilon of the LayerNorms.

    Raises:
        BackendError: If open_clip, which brings timm, is not installed.
        OptionError: If the sizes do not go together.
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
        vector_size: int = 1024,
        class_token: bool = True,
        layer_norm_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        require_extra("open_clip", "open-clip", "PEVision")
        from timm.layers import LayerNorm
        from timm.models.eva import Eva

        if hidden_size % (4 * num_heads) or hidden_size % POOLING_HEADS:
            raise OptionError(
                f"PEVision rotates pairs of channels in two directions and pools with {POOLING_HEADS} heads: expected a "
                f"hidden_size that is a multiple of {POOLING_HEADS} and of 4 times num_heads {num_heads}, got {hidden_size}."
            )
        side = image_size // patch_size
        self.vit = Eva(
            img_size=image_size,
            patch_size=patch_size,
            num_classes=vector_size,
            global_pool="map",
            embed_dim=hidden_size,
            depth=num_layers,
            num_heads=num_heads,
            mlp_ratio=intermediate_size / hidden_size,
            attn_type="rope",
            class_token=class_token,
            use_pre_transformer_norm=True,
            use_rot_pos_emb=True,
            ref_feat_shape=(side, side),
            rope_grid_offset=float(class_token),
            rope_grid_indexing="xy",
            attn_pool_num_heads=POOLING_HEADS,
            attn_pool_mlp_ratio=POOLING_RATIO,
            norm_layer=partial(LayerNorm, eps=layer_norm_eps),
        )

    def forward(self, frames: Tensor) -> Tensor:
        """Encode frames, (N, 3, H, W), as unit vectors, (N, D, 1, 1)."""
        return F.normalize(self.vit(frames), dim=1)[:, :, None, None]
