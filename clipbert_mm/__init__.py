"""CLIPBERT for OpenMMLab: video-and-language learning end to end from a few sparsely sampled short clips."""

from clipbert_mm import compat, registry
from clipbert_mm.version import __version__

compat.allow_mmengine_checkpoints()

__all__ = ["__version__", "registry"]
