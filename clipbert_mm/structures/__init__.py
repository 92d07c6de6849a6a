"""What a model predicts for and is scored on."""

from clipbert_mm.structures.video_text_sample import IGNORED, VideoTextSample

__all__ = ["IGNORED", "VideoTextSample"]
