"""The extra convolution and pooling after the backbone (Section 3 of the paper, following Pixel-BERT)."""

from collections.abc import Sequence

from mmengine.model import BaseModule
from torch import Tensor, nn

from clipbert_mm.errors import OptionError
from clipbert_mm.registry import MODELS


@MODELS.register_module()
class GridProjection(BaseModule):
    """3x3 convolution to the encoder's width, 2x2 max-pooling, ReLU: one vector per cell of a coarse grid.

    Args:
        in_channels: Channels of the backbone's last map.
        out_channels: Width D of the encoder.
        pool: Whether to pool. The paper's maps of 14 x 14 cells become 7 x 7; maps that are that coarse already stay.
        init_cfg: MMEngine's initialization config.
    """

    def __init__(
        self, *, in_channels: int, out_channels: int, pool: bool = True, init_cfg: dict | list | None = None
    ) -> None:
        super().__init__(init_cfg or dict(type="Kaiming", layer="Conv2d"))
        self.in_channels = in_channels
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False)
        self.pool = nn.MaxPool2d(kernel_size=2, stride=2) if pool else nn.Identity()
        self.relu = nn.ReLU()

    def forward(self, maps: Tensor | Sequence[Tensor]) -> Tensor:
        """Project the last map of the backbone.

        Args:
            maps: The map, or a sequence of maps of which the last is used, (B·K·T, in_channels, H', W').

        Returns:
            Grid features (B·K·T, D, H'/2, W'/2), or of the size of the map without pooling.

        Raises:
            OptionError: If the map has another number of channels, or fewer than two rows or columns.
        """
        last = maps if isinstance(maps, Tensor) else maps[-1]
        if last.ndim != 4 or last.shape[1] != self.in_channels or min(last.shape[-2:]) < 2:
            raise OptionError(
                f"GridProjection expects a map of shape (N, {self.in_channels}, >= 2, >= 2), got {tuple(last.shape)}. Set "
                "its in_channels to the channels of the last stage of the backbone; enlarge the frames if the map is too small."
            )
        return self.relu(self.pool(self.conv(last)))
