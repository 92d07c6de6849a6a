"""Readers of videos by four libraries, and of animated GIFs, all with the interface of VideoReader."""

from clipbert_mm.media.readers.backends import BACKENDS, BackendError, check_backend, open_reader
from clipbert_mm.media.readers.base import VideoReader
from clipbert_mm.media.readers.gif_reader import GifReader, is_gif

__all__ = ["BACKENDS", "BackendError", "GifReader", "VideoReader", "check_backend", "is_gif", "open_reader"]
