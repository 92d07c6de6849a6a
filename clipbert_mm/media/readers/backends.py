"""The table of decoding libraries, the check that one is installed, and opening a file with it."""

import importlib
import sys
from collections.abc import Callable
from importlib.util import find_spec

from clipbert_mm.errors import BackendError, OptionError
from clipbert_mm.media.readers.base import VideoReader
from clipbert_mm.media.readers.decord_reader import DecordReader
from clipbert_mm.media.readers.gif_reader import MAX_BYTES, GifReader, is_gif
from clipbert_mm.media.readers.opencv_reader import OpenCVReader
from clipbert_mm.media.readers.pyav_reader import PyAVReader
from clipbert_mm.media.readers.torchcodec_reader import TorchCodecReader

BACKENDS: dict[str, Callable[[str, int], VideoReader]] = {
    "pyav": PyAVReader,
    "decord": DecordReader,
    "opencv": OpenCVReader,
    "torchcodec": TorchCodecReader,
}
"""Reader of each library."""
MODULES = {
    "pyav": ("av", "pip install av"),
    "decord": (
        "decord",
        "pip install decord (it has wheels for Linux and Windows on x86-64; elsewhere build it, or use backend='pyav')",
    ),
    "opencv": ("cv2", "pip install opencv-python-headless"),
    "torchcodec": ("torchcodec.decoders", "pip install torchcodec"),
}
"""Module to import and command to install it, by library."""


def check_backend(backend: str) -> None:
    """Check that a library can be used.

    Raises:
        OptionError: If the name is unknown.
        BackendError: If the library is not installed, or cannot be loaded.
    """
    if backend not in BACKENDS:
        raise OptionError(f"OpenVideo expects backend {', '.join(BACKENDS)}, got {backend!r}.")
    module, command = MODULES[backend]
    package = module.partition(".")[0]
    if find_spec(package) is None:
        raise BackendError(f"OpenVideo(backend={backend!r}) needs {package}, which is not installed: {command}")
    try:
        importlib.import_module(module)
        if (
            getattr(sys.modules[package], "ffmpeg_major_version", "") is None
        ):  # torchcodec 0.17 would fail at the first file
            raise ImportError("FFmpeg was not found")
    except Exception as error:  # torchcodec raises RuntimeError, others ImportError or OSError
        needs = (
            "the system's FFmpeg (apt-get install ffmpeg), and a release that matches the installed torch"
            if backend == "torchcodec"
            else f"to be reinstalled: {command}"
        )
        first = str(error).strip().partition("\n")[0]
        raise BackendError(
            f"OpenVideo(backend={backend!r}): {package} cannot be used and needs {needs} ({first})"
        ) from error


def open_reader(name: str, backend: str, num_threads: int) -> VideoReader:
    """Open a file with the reader of a library; animated GIFs have a reader of their own.

    Args:
        name: The file.
        backend: Name of the library.
        num_threads: Threads of the decoder.
    """
    with open(name, "rb") as file:
        if is_gif(file.read(6)):
            file.seek(0)
            return GifReader(file.read(MAX_BYTES + 1))
    return BACKENDS[backend](name, num_threads)
