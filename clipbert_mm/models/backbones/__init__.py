"""Backbones: mmpretrain's and mmaction2's, or any registered one by config; video backbones through ClipEncoder."""

from clipbert_mm.models.backbones.build import build_backbone
from clipbert_mm.models.backbones.clip_encoder import ClipEncoder, encode_clips, store_channels_last
from clipbert_mm.models.backbones.perception_encoder import PEVision
from clipbert_mm.models.backbones.vision_towers import CLIPVision, SiglipVision
from clipbert_mm.models.backbones.vision_transformer import BlipVision, ViltPatches

__all__ = [
    "BlipVision",
    "CLIPVision",
    "ClipEncoder",
    "PEVision",
    "SiglipVision",
    "ViltPatches",
    "build_backbone",
    "encode_clips",
    "store_channels_last",
]
