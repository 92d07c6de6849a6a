"""From a collated batch to the inputs of the model."""

from clipbert_mm.models.data_preprocessors.video_text_preprocessor import VideoTextPreprocessor

__all__ = ["VideoTextPreprocessor"]
