"""Opening and decoding: mmaction2's Decord transforms for video, PyAV for animated GIFs, mmcv's reader for images."""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import mmcv
import numpy as np
from mmcv.transforms import BaseTransform

from clipbert_mm import compat
from clipbert_mm.datasets.transforms.storage import BrokenMediaError, as_file, list_names, read_bytes
from clipbert_mm.registry import TRANSFORMS

FRAME_NAME = re.compile(r"(?P<prefix>\D*)(?P<number>\d+)(\.(jpg|jpeg|png|bmp|webp))?", re.IGNORECASE)
"""Name of a frame in a folder of frames; without an ending in an LMDB of files without endings."""
GIF_DELAY = Fraction(1, 10)
"""Seconds that a GIF's frame is shown where the file says 0, as browsers and FFmpeg have it."""


@dataclass(frozen=True)
class FrameBatch:
    """Decoded frames, handed over as decord does.

    Args:
        frames: Frames, (n, H, W, 3) uint8 RGB.
    """

    frames: np.ndarray

    def asnumpy(self) -> np.ndarray:
        """Return the frames."""
        return self.frames


class GifReader:
    """Frames of an animated GIF, which decord opens none of. A frame is what differs from the one before.

    So all are decoded from the first to the last one wanted. What was transparent is white.

    Args:
        data: Bytes of the file.

    Raises:
        ValueError: If it is no whole GIF.
    """

    def __init__(self, data: bytes) -> None:
        if not _ends_as_gif(data):
            raise ValueError("a GIF that is cut short or damaged")
        self.data = data
        with av.open(io.BytesIO(data), "r", "gif") as container:
            packets = [packet for packet in container.demux(video=0) if packet.size]
            tick = container.streams.video[0].time_base or Fraction(1, 100)
        if not packets:
            raise ValueError("a GIF without pictures")
        self.total_frames = len(packets)
        before, last = (packets[-1].pts or 0) * tick, (packets[-1].duration or 0) * tick  # seconds
        if not last:
            last = before / (len(packets) - 1) if before else GIF_DELAY
        self.avg_fps = float(self.total_frames / (before + last))

    def get_batch(self, frame_inds: Sequence[int]) -> FrameBatch:
        """Decode the frames of these places.

        Raises:
            IndexError: If there is no such frame.
        """
        wanted = [int(i) for i in frame_inds]
        distinct, found = set(wanted), {}
        with av.open(io.BytesIO(self.data), "r", "gif") as container:
            for i, frame in enumerate(container.decode(video=0)):
                if i in distinct:
                    found[i] = frame.to_ndarray(format="rgb24")
                if len(found) == len(distinct):
                    break
        if missing := distinct - set(found):
            raise IndexError(f"expected {self.total_frames} frames, frame {min(missing)} is not there")
        return FrameBatch(np.stack([found[i] for i in wanted]))


def is_gif(head: bytes) -> bool:
    """Whether a file that begins like this is a GIF.

    >>> is_gif(b"GIF89a..."), is_gif(b"RIFF....")
    (True, False)
    """
    return head[:6] in (b"GIF87a", b"GIF89a")


def _ends_as_gif(data: bytes) -> bool:
    """Whether a GIF's blocks lead to its end mark; decoders take one that is cut for a shorter one."""

    def colors(flags: int) -> int:
        return 3 << (flags % 8 + 1) if flags & 0x80 else 0

    place = 13 + colors(data[10]) if len(data) > 13 else len(data)
    while place < len(data):
        if data[place] == 0x3B:
            return True
        if data[place] == 0x21:  # an extension, with its label
            place += 2
        elif data[place] == 0x2C and place + 9 < len(data):  # a picture, perhaps with colours of its own
            place += 11 + colors(data[place + 9])
        else:
            return False
        while place < len(data) and data[place]:  # blocks that begin with their length, up to one of length 0
            place += data[place] + 1
        place += 1
    return False


def name_trouble(error: Exception) -> str:
    """Return what a decoder's error says of a file."""
    if isinstance(error, av.error.InvalidDataError):
        return "damaged, or cut short"
    return compat.decoder_reason(error)


def decode_image(path: str) -> np.ndarray:
    """Decode an image, wherever it lies, to (H, W, 3) uint8 RGB.

    Grey, palette and CMYK images become RGB; transparency is dropped; what the EXIF data says of the camera's orientation
    is applied, so that the picture is upright. Of an animated GIF it is the first frame.

    Raises:
        BrokenMediaError: If the file is not there, empty or no image.
    """
    data = read_bytes(path)
    try:
        if is_gif(data):
            return GifReader(data).get_batch([0]).frames[0]
        image = mmcv.imfrombytes(data)  # BGR, since mmcv's own way to RGB fails where there is no image
    except Exception as error:  # each reader has exceptions of its own, which share no base class
        raise BrokenMediaError(path, name_trouble(error)) from error
    if image is None:
        raise BrokenMediaError(path, "not an image that OpenCV can decode")
    return np.ascontiguousarray(image[..., ::-1])


@TRANSFORMS.register_module()
class OpenVideo(BaseTransform):
    """Open a video or animated GIF without decoding it.

    Required Keys:
        path (see :mod:`~clipbert_mm.datasets.transforms.storage` for where it may lead)

    Added Keys:
        video_reader, total_frames, avg_fps

    Args:
        num_threads: Threads of the decoder; data loading has processes already.
    """

    def __init__(self, *, num_threads: int = 1) -> None:
        self.init = compat.build_decord_init(num_threads)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add the reader.

        Raises:
            BrokenMediaError: If the file is not there, empty, no video, cut short, or without a frame rate.
        """
        path = results["path"]
        with as_file(path) as name:
            try:
                results |= self.open_reader(name)
            except Exception as error:  # each reader has exceptions of its own, which share no base class
                raise BrokenMediaError(path, name_trouble(error)) from error
        if results["total_frames"] < 1 or not results["avg_fps"] > 0:
            found = f"{results['total_frames']} frames at {results['avg_fps']} frames a second"
            raise BrokenMediaError(path, f"expected frames and a frame rate, got {found}")
        return results

    def open_reader(self, name: str) -> dict[str, Any]:
        """Open a file with the reader that is for it."""
        with open(name, "rb") as file:
            head = file.read(6)
            if is_gif(head):
                gif = GifReader(head + file.read())
                return dict(video_reader=gif, total_frames=gif.total_frames, avg_fps=gif.avg_fps)
        opened = self.init.transform(dict(filename=name))
        del opened["filename"]
        return opened


class FrameFolder:
    """Frames that lie as images, one a frame.

    Args:
        paths: The images in their order.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self.paths = paths

    def get_batch(self, frame_inds: Sequence[int]) -> FrameBatch:
        """Read the frames of these places.

        Raises:
            BrokenMediaError: If one cannot be read, or has another size than the others.
        """
        frames = []
        for i in frame_inds:
            frames.append(decode_image(self.paths[i]))
            if frames[-1].shape != frames[0].shape:
                found = [f"{frame.shape[1]} x {frame.shape[0]}" for frame in (frames[0], frames[-1])]
                raise BrokenMediaError(
                    self.paths[i],
                    f"expected the size of {self.paths[frame_inds[0]]}, {found[0]} pixels, got {found[1]}",
                )
        return FrameBatch(np.stack(frames))


@TRANSFORMS.register_module()
class OpenFrames(BaseTransform):
    """Open a video that lies as a folder of its frames: ``000001.jpg``, ``000002.jpg``, ...

    The names are a number that counts up without a gap, from any start, perhaps behind the same word in all of them. The
    folder may hold a ``fps.txt`` with the frames a second, such as ``25`` or ``30000/1001``.

    Required Keys:
        path (of the folder; see :mod:`~clipbert_mm.datasets.transforms.storage` for where it may lead)

    Added Keys:
        video_reader, total_frames, avg_fps

    Args:
        fps: Frames a second in folders without a ``fps.txt``; None if all have one.

    Raises:
        ValueError: If ``fps`` is not above 0.
    """

    def __init__(self, *, fps: float | None = None) -> None:
        if fps is not None and not fps > 0:
            raise ValueError(f"OpenFrames expects fps > 0, got {fps}.")
        self.fps = fps

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add the reader.

        Raises:
            BrokenMediaError: If there is no such folder, it has no frames or lacks some, or no frame rate is known.
        """
        path = results["path"].rstrip("/")
        names = list_names(path)
        if not names:
            raise BrokenMediaError(path, "there is no such folder of frames, or it is empty")
        frames = _order_frames(path, names)
        results["video_reader"] = FrameFolder(frames)
        results["total_frames"], results["avg_fps"] = len(frames), self.read_fps(path, names)
        return results

    def read_fps(self, path: str, names: Sequence[str]) -> float:
        """Return the frames a second of a folder with these files."""
        if not {"fps.txt", "fps"} & set(names):  # without an ending in an LMDB of files without endings
            if self.fps is None:
                raise BrokenMediaError(
                    path, "its frame rate is not known; set fps of OpenFrames or put a fps.txt there"
                )
            return float(self.fps)
        text = read_bytes(f"{path}/fps.txt").decode(errors="replace").strip()
        try:
            fps = float(Fraction(text))
        except (ValueError, ZeroDivisionError):
            fps = 0.0
        if not fps > 0:
            raise BrokenMediaError(
                f"{path}/fps.txt", f"expected the frames a second, such as 25 or 30000/1001, got {text!r}"
            )
        return fps


def _order_frames(folder: str, names: list[str]) -> list[str]:
    """Return the paths of the frames among the files of a folder, in their order."""
    found = [match for match in map(FRAME_NAME.fullmatch, names) if match]
    prefixes = {match["prefix"] for match in found}
    numbers = sorted(int(match["number"]) for match in found)
    if not found or len(prefixes) > 1:
        got = (
            f"names that begin with {' and '.join(map(repr, sorted(prefixes)))}"
            if found
            else f"{len(names)} other files"
        )
        raise BrokenMediaError(folder, f"expected frames 000001.jpg, 000002.jpg, ..., got {got}")
    if numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        gap = next(i for i, number in enumerate(numbers, start=numbers[0]) if i != number)
        raise BrokenMediaError(
            folder, f"expected one frame for each number from {numbers[0]} to {numbers[-1]}; see {gap}"
        )
    return [f"{folder}/{match[0]}" for match in sorted(found, key=lambda match: int(match["number"]))]


@TRANSFORMS.register_module()
class DecodeClips(BaseTransform):
    """Decode the frames of all clips of a video in one pass, each frame once.

    Required Keys:
        path, video_reader, frame_inds, num_clips, clip_len

    Added Keys:
        frames (uint8 RGB, (K, T, H, W, 3))
    """

    def __init__(self) -> None:
        from mmaction.datasets.transforms import DecordDecode

        self.decode = DecordDecode(mode="accurate")

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add the frames and let go of the reader.

        Raises:
            BrokenMediaError: If a frame cannot be decoded.
        """
        wanted = results["frame_inds"]
        distinct, places = np.unique(wanted, return_inverse=True)
        try:
            decoded = self.decode.transform(dict(video_reader=results.pop("video_reader"), frame_inds=distinct))
        except BrokenMediaError:
            raise  # it names the frame's own file
        except Exception as error:  # see OpenVideo
            raise BrokenMediaError(results["path"], name_trouble(error)) from error
        frames = np.stack(decoded["imgs"])[places]  # (K·T, H, W, 3)
        results["frames"] = frames.reshape(results["num_clips"], results["clip_len"], *frames.shape[1:])
        return results


@TRANSFORMS.register_module()
class LoadImage(BaseTransform):
    """Read an image: a video of one clip of one frame.

    Required Keys:
        path (see :mod:`~clipbert_mm.datasets.transforms.storage` for where it may lead)

    Added Keys:
        frames (uint8 RGB, (1, 1, H, W, 3)), upright; see :func:`decode_image`
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add the image as frames.

        Raises:
            BrokenMediaError: If the file is not there, empty or no image.
        """
        results["frames"] = decode_image(results["path"])[None, None]  # (1, 1, H, W, 3)
        return results
