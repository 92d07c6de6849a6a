"""Joining the clips of a video into one, for models whose published protocol scores a whole video at once."""

from mmengine.model import BaseModule
from torch import Tensor

from clipbert_mm.registry import MODELS


@MODELS.register_module()
class ConcatClips(BaseModule):
    """Concatenate the visual tokens of all clips, as BLIP's evaluation on videos does (Li et al., ICML 2022, Section 5.5)."""

    def forward(self, visual_tokens: Tensor) -> Tensor:
        """Join the clips of each video.

        Args:
            visual_tokens: Visual tokens of the clips, (B, K, S, D).

        Returns:
            Visual tokens of one clip per video, (B, 1, K·S, D).
        """
        return visual_tokens.flatten(1, 2)[:, None]


@MODELS.register_module()
class MeanClips(BaseModule):
    """The mean of the tokens of all clips; of vectors, the mean pooling that is published for CLIP (Luo et al., 2021).

    The encoder gives the mean vector unit length.
    """

    def forward(self, visual_tokens: Tensor) -> Tensor:
        """Average the clips of each video.

        Args:
            visual_tokens: Visual tokens of the clips, (B, K, S, D).

        Returns:
            Visual tokens of one clip per video, float32 (B, 1, S, D).
        """
        return visual_tokens.float().mean(dim=1, keepdim=True)
