"""Fusing the frames of a clip: the temporal fusion layer M of the paper (Section 3, Table 2)."""

from mmengine.model import BaseModule
from torch import Tensor, nn

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


@MODELS.register_module()
class ConcatFusion(BaseModule):
    """The tokens of all frames of a clip, one frame after the other, for encoders that read any number of visual tokens."""

    def forward(self, frame_features: Tensor) -> Tensor:
        """Fuse the frames of each clip.

        Args:
            frame_features: Grid features of frames, (B, K, T, D, h, w).

        Returns:
            Grid features of clips, (B, K, D, T·h, w).
        """
        return frame_features.transpose(2, 3).flatten(3, 4)


class ConvolutionalFusion(BaseModule):
    """A convolution over time and space, then the mean over the frames; subclasses set ``conv``."""

    conv: nn.Module

    def forward(self, frame_features: Tensor) -> Tensor:
        """Fuse the frames of each clip.

        Args:
            frame_features: Grid features of frames, (B, K, T, D, h, w).

        Returns:
            Grid features of clips, (B, K, D, h, w).
        """
        volumes = frame_features.flatten(0, 1).transpose(1, 2)  # (B·K, D, T, h, w)
        fused = self.conv(volumes).mean(dim=2)  # (B·K, D, h, w)
        return fused.unflatten(0, frame_features.shape[:2])  # (B, K, D, h, w)


@MODELS.register_module()
class Conv3DFusion(ConvolutionalFusion):
    """A 3D convolution with kernel 3 and stride 1, then the mean over the frames (Table 2, "Conv3D").

    Args:
        channels: Width D of the encoder.
        init_cfg: MMEngine's initialization config.
    """

    def __init__(self, *, channels: int, init_cfg: dict | list | None = None) -> None:
        super().__init__(init_cfg or dict(type="Kaiming", layer="Conv3d"))
        self.conv = nn.Conv3d(channels, channels, kernel_size=3, padding=1, bias=False)


@MODELS.register_module()
class Conv2Plus1DFusion(ConvolutionalFusion):
    """A convolution over space, ReLU, one over time, then the mean over the frames (Table 2, "Conv(2+1)D").

    The paper only says that it is separable, after R(2+1)D (Tran et al., CVPR 2018). As there, the width between the two is
    chosen so that both together have as many parameters as the full 3D convolution: 27·D² / (9·D + 3·D).

    Args:
        channels: Width D of the encoder.
        init_cfg: MMEngine's initialization config.
    """

    def __init__(self, *, channels: int, init_cfg: dict | list | None = None) -> None:
        super().__init__(init_cfg or dict(type="Kaiming", layer="Conv3d"))
        between = 27 * channels**2 // (9 * channels + 3 * channels)
        self.conv = nn.Sequential(
            nn.Conv3d(channels, between, kernel_size=(1, 3, 3), padding=(0, 1, 1), bias=False),
            nn.ReLU(),
            nn.Conv3d(between, channels, kernel_size=(3, 1, 1), padding=(1, 0, 0), bias=False),
        )
