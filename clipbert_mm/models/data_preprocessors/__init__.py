"""From a collated batch to what the model computes with."""

from clipbert_mm.models.data_preprocessors.video_text_preprocessor import VideoTextPreprocessor

__all__ = ["VideoTextPreprocessor"]
