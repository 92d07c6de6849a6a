"""Video backbones in the place of F_v: 2D ones over the frames of a clip, and 3D ones (Section 3 argues for 2D)."""

from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.conv import _ConvNd

from clipbert_mm.errors import OptionError, is_count, quoted
from clipbert_mm.models.backbones.build import build_backbone
from clipbert_mm.registry import MODELS, type_name

LAYOUTS = {"volume": "(N, 3, T, H, W)", "frames": "(N·T, 3, H, W)"}
"""What a backbone takes, by the name of its layout."""


@MODELS.register_module()
class ClipEncoder(BaseModule):
    """A video backbone that sees all frames of a clip, from clips (N, T, 3, H, W) to feature maps (N, t, C, h, w).

    Frames reach the backbone as views, without a copy. The backbone is tried when it is built, on torch's meta device, which
    computes shapes only. mmaction2's checkpoints load under the names of their tensors.

    Args:
        backbone: Config of the backbone, such as ``dict(type="mmaction.ResNet3dSlowOnly", depth=50)``. If it returns several
            maps, the last one counts.
        num_frames: Frames T of a clip.
        frame_size: Height and width of a frame, in pixels.
        layout: What the backbone takes: "volume" for (N, 3, T, H, W), the layout of 3D backbones, which return (N, C, t, h, w);
            "frames" for (N·T, 3, H, W), the layout of 2D backbones over T frames (TSN, TSM, TANet).
        join_pathways: Whether the maps are those of pathways of one grid (SlowFast): their channels are concatenated, after
            longer ones were averaged over time to the shortest t. A mean over t then equals that of mmaction2's SlowFastHead.
        init_cfg: MMEngine's initialization config.

    Raises:
        OptionError: If the layout is unknown, a size is no whole number, or the backbone cannot be built, does not take such
            clips, or returns no map.
    """

    def __init__(
        self,
        *,
        backbone: dict,
        num_frames: int,
        frame_size: int,
        layout: str = "volume",
        join_pathways: bool = False,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if layout not in LAYOUTS:
            raise OptionError(f"ClipEncoder expects layout to be one of {', '.join(LAYOUTS)}, got {layout!r}.")
        if not (is_count(num_frames) and is_count(frame_size)):
            raise OptionError(
                "ClipEncoder expects num_frames and frame_size to be whole numbers of 1 or more, the frames of a clip and the "
                f"pixels of a side of its square frames, got {quoted(num_frames)} and {quoted(frame_size)}."
            )
        self.backbone = build_backbone(backbone, takes_clips=True)
        self.name = type_name(backbone)
        self.num_frames = num_frames
        self.clip_shape = (num_frames, 3, frame_size, frame_size)
        self.layout, self.join_pathways = layout, join_pathways
        segments = getattr(self.backbone, "num_segments", num_frames)
        if segments != num_frames:
            raise OptionError(
                f"ClipEncoder has num_frames={num_frames}, but {self.name} mixes {segments} frames. Set num_segments of the "
                "backbone to num_frames."
            )
        self.map_shape = self._try_out()

    @torch.no_grad()
    def _try_out(self) -> tuple[int, ...]:
        """Run the backbone on one clip, for shapes only, and return the shape (t, C, h, w) of its maps."""
        tensors = dict([*self.backbone.named_parameters(), *self.backbone.named_buffers()])
        weights = {f"backbone.{name}": tensor.to("meta") for name, tensor in tensors.items()}
        num_frames, _, height, width = self.clip_shape
        clip = torch.empty((1, num_frames, height, width, 3), device="meta").movedim(-1, 2)
        hooks = [each.register_forward_pre_hook(self._refuse_cropping) for each in self.modules() if _cuts(each)]
        self.eval()  # batch norms in training mode want several values
        try:
            maps = functional_call(self, weights, (clip,))
        except OptionError:
            raise
        # each backbone raises errors of its own for what it cannot take
        except Exception as error:
            reason = f"{type(error).__name__}: {error}".partition("\n")[0].rstrip(".")
            raise OptionError(
                f"{self.name} does not take clips of {self._describe(self.clip_shape)} as {LAYOUTS[self.layout]}: {reason}. "
                "Set num_frames, frame_size and layout of ClipEncoder to what it takes."
            ) from error
        finally:
            for hook in hooks:
                hook.remove()
            self.train()
        return tuple(maps.shape[1:])

    def _refuse_cropping(self, conv: Any, inputs: tuple[Tensor]) -> None:  # noqa: ANN401
        """Refuse clips whose border a convolution to patches would leave out."""
        # A wrong number of dimensions is for the convolution to refuse.
        sides = zip(inputs[0].shape[2:], conv.kernel_size, conv.stride, conv.padding, strict=False)
        for side, kernel, stride, padding in sides:
            if kernel == stride and padding == 0 and side % stride:
                raise OptionError(
                    f"{self.name} does not take clips of {self._describe(self.clip_shape)}: it cuts {side} into parts of "
                    f"{stride} and would leave {side % stride} out. Set frame_size and num_frames of ClipEncoder to multiples."
                )

    def forward(self, clips: Tensor) -> Any:  # noqa: ANN401
        """Encode clips.

        Args:
            clips: Normalized frames, (N, T, 3, H, W), or images (N, 3, H, W), each a clip of one frame.

        Returns:
            Feature maps, (N, t, C, h, w); of images a tuple of one, (N, C, h, w), as classifiers of mmpretrain expect.

        Raises:
            OptionError: If the clips have another length or size than the encoder takes, or the backbone returns no map.
        """
        if clips.ndim == 4:
            return (self(clips[:, None]).flatten(0, 1),)
        if tuple(clips.shape[1:]) != self.clip_shape:
            raise OptionError(
                f"ClipEncoder with {self.name} takes clips of {self._describe(self.clip_shape)}, got "
                f"{self._describe(clips.shape[1:])}. Set num_frames of SampleClips and size of ResizePad, or num_frames and "
                "frame_size of ClipEncoder."
            )
        if self.layout == "frames":
            maps = self._map(self.backbone(clips.flatten(0, 1)), dimensions=4)  # (N·t, C, h, w)
            return maps.unflatten(0, (len(clips), -1))
        return self._map(self.backbone(clips.transpose(1, 2)), dimensions=5).transpose(1, 2)  # (N, C, t, h, w) before

    def _map(self, found: Any, dimensions: int) -> Tensor:  # noqa: ANN401
        """Return the last map of the backbone, or the joined maps of its pathways."""
        maps = found if isinstance(found, (tuple, list)) else [found]
        for each in maps:
            if not isinstance(each, Tensor) or each.ndim != dimensions:
                shape = tuple(each.shape) if isinstance(each, Tensor) else type(each).__name__
                raise OptionError(
                    f"ClipEncoder expects a map of {dimensions} dimensions from {self.name}, got {shape}. Use a backbone "
                    "that keeps the grid, or its option for that, as return_feat_map=True of mmaction.VisionTransformer."
                )
        if not self.join_pathways:
            if dimensions == 5 and len({each.shape[2] for each in maps}) > 1:
                raise OptionError(
                    f"{self.name} returns maps of {', '.join(str(each.shape[2]) for each in maps)} points in time, as pathways "
                    "do. Set join_pathways=True of the ClipEncoder, which takes all of them."
                )
            return maps[-1]
        shortest = min(each.shape[2] for each in maps)
        return torch.cat([F.adaptive_avg_pool3d(each, (shortest, None, None)) for each in maps], dim=1)

    @staticmethod
    def _describe(shape: torch.Size | tuple[int, ...]) -> str:
        return f"{shape[0]} frames of {shape[-2]} x {shape[-1]} pixels"

    def extra_repr(self) -> str:
        """Return the shapes that the encoder takes and gives."""
        return f"{self.layout}, clips {self.clip_shape} -> maps {self.map_shape}"


def _cuts(module: nn.Module) -> bool:
    return isinstance(module, _ConvNd) and not isinstance(module.padding, str)


def encode_clips(backbone: nn.Module, clips: Tensor) -> Any:  # noqa: ANN401
    """Run a backbone over clips, (N, T, 3, H, W).

    Returns:
        Feature maps (N·t, C, h, w), or a sequence of them if a 2D backbone returns one. It sees each frame alone, so t = T.
    """
    if isinstance(backbone, ClipEncoder):
        return backbone(clips).flatten(0, 1)
    return backbone(clips.flatten(0, 1))


def store_channels_last(*modules: nn.Module) -> None:
    """Store the weights of 2D and 3D convolutions channels-last, as the frames are."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    for parameter in (parameter for module in modules for parameter in module.parameters()):
        if parameter.ndim in formats:
            parameter.data = parameter.data.to(memory_format=formats[parameter.ndim])
