"""mmaction2's video backbones with the settings of its configs, but with fewer stages and channels."""

import copy
from typing import Any

RESNET = dict(num_stages=1, strides=(1,), dilations=(1,), out_indices=(0,))
PATHWAY = dict(
    type="resnet3d",
    depth=18,
    num_stages=2,
    dilations=(1, 1),
    out_indices=(1,),
    inflate=(0, 1),
    spatial_strides=(1, 1),
    temporal_strides=(1, 1),
    pool1_stride_t=1,
    conv1_stride_t=1,
    pretrained=None,
    zero_init_residual=False,
)
# Settings of mmaction2's configs, with fewer stages and channels; T; layout; head of its recognizer.
BACKBONES: dict[str, tuple[dict[str, Any], int, str, dict[str, Any]]] = {
    "TSN": (dict(type="ResNet", depth=18, **RESNET), 4, "frames", dict(type="TSNHead", in_channels=64)),
    "TSM": (
        dict(type="ResNetTSM", depth=18, num_segments=4, shift_div=8),
        4,
        "frames",
        dict(type="TSMHead", num_segments=4, in_channels=512),
    ),
    "TANet": (
        dict(type="TANet", depth=50, num_segments=4, tam_cfg=None, **RESNET),
        4,
        "frames",
        dict(type="TSMHead", num_segments=4, in_channels=256),
    ),
    "SlowOnly": (
        {key: value for key, value in PATHWAY.items() if key != "type"}
        | dict(type="ResNet3dSlowOnly", base_channels=8, lateral=False, conv1_kernel=(1, 7, 7)),
        4,
        "volume",
        dict(type="I3DHead", in_channels=16),
    ),
    "R(2+1)D": (
        dict(
            type="ResNet2Plus1d",
            depth=18,
            base_channels=8,
            num_stages=2,
            pretrained2d=False,
            conv_cfg=dict(type="Conv2plus1d"),
            norm_cfg=dict(type="BN3d", requires_grad=True, eps=1e-3),
            conv1_kernel=(3, 7, 7),
            conv1_stride_t=1,
            pool1_stride_t=1,
            inflate=(1, 1),
            spatial_strides=(1, 1),
            temporal_strides=(1, 2),
            dilations=(1, 1),
            out_indices=(1,),
            zero_init_residual=False,
        ),
        4,
        "volume",
        dict(type="I3DHead", in_channels=16),
    ),
    "X3D": (
        dict(
            type="X3D",
            gamma_w=0.5,
            gamma_b=2,
            gamma_d=1,
            num_stages=2,
            spatial_strides=(2, 2),
            zero_init_residual=False,
        ),
        4,
        "volume",
        dict(type="X3DHead", in_channels=64, fc1_bias=False),
    ),
    "SlowFast": (
        dict(
            type="ResNet3dSlowFast",
            resample_rate=4,
            speed_ratio=4,
            channel_ratio=4,
            slow_pathway=PATHWAY | dict(lateral=True, base_channels=16, conv1_kernel=(1, 7, 7), fusion_kernel=7),
            fast_pathway=PATHWAY | dict(lateral=False, base_channels=4, conv1_kernel=(5, 7, 7)),
        ),
        8,
        "volume",
        dict(type="SlowFastHead", in_channels=40),
    ),
    "Video Swin": (
        dict(
            type="SwinTransformer3D",
            arch=dict(embed_dims=12, depths=[1, 2], num_heads=[1, 2]),
            pretrained2d=True,
            window_size=(2, 4, 4),
            drop_path_rate=0.0,
            out_indices=(1,),
        ),
        4,
        "volume",
        dict(type="I3DHead", in_channels=24),
    ),
    "UniFormer": (
        dict(type="UniFormer", depth=[1, 1, 1, 1], embed_dim=[8, 8, 16, 16], head_dim=8),
        4,
        "volume",
        dict(type="I3DHead", in_channels=16),
    ),
    "VideoMAE": (
        dict(
            type="VisionTransformer",
            img_size=32,
            embed_dims=16,
            depth=4,
            num_heads=2,
            num_frames=4,
            norm_cfg=dict(type="LN", eps=1e-6),
        ),
        4,
        "volume",
        dict(type="TimeSformerHead", in_channels=16),
    ),
}
"""Settings, T, layout, and the head of mmaction2's recognizer of each backbone."""


def encoder_config(name: str, size: int | None = None, **options: Any) -> dict[str, Any]:
    """Return the config of a clip encoder with a small backbone.

    Args:
        name: Name of the backbone in :data:`BACKBONES`.
        size: Height and width of the frames; None for 32 pixels, or 64 where 32 would give a map of one cell.
        options: Further arguments of the clip encoder.
    """
    backbone, num_frames, layout, _ = copy.deepcopy(BACKBONES[name])
    size = size or (64 if name in ("TSM", "UniFormer") else 32)
    backbone |= dict(type=f"mmaction.{backbone['type']}")
    if name == "VideoMAE":
        backbone |= dict(return_feat_map=True, img_size=size)
    encoder = dict(type="ClipEncoder", backbone=backbone, num_frames=num_frames, frame_size=size, layout=layout)
    return encoder | dict(join_pathways=name == "SlowFast") | options
