"""From the frames of a clip to the clip: the temporal fusion layer M of the paper (Section 3, Table 2)."""

from mmengine.model import BaseModule
from torch import Tensor

from clipbert_mm.registry import MODELS


@MODELS.register_module()
class MeanFusion(BaseModule):
    """The mean of the features over the frames of a clip; the paper's best (Table 2)."""

    def forward(self, frame_features: Tensor) -> Tensor:
        """Fuse the frames of each clip.

        Args:
            frame_features: Grid features of frames, (B, K, T, D, h, w).

        Returns:
            Grid features of clips, (B, K, D, h, w).
        """
        return frame_features.mean(dim=2)
