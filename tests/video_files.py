"""Video files of every kind, which tests of decoding share; all in them moves, so that a wrong frame shows."""

import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from clipbert_mm.datasets.transforms import DecodeClips, OpenVideo


def moving_frames(count: int, width: int, height: int) -> Iterator[np.ndarray]:
    """Draw frames, (H, W, 3) uint8 RGB, of a picture that moves behind a square; every 37th is a flash."""
    noise = np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8)
    picture = cv2.resize(noise, (width + 60, height + 60), interpolation=cv2.INTER_CUBIC)
    for i in range(count):
        x, y = int(30 + 25 * np.sin(i / 7)), int(30 + 25 * np.cos(i / 5))
        frame = picture[y : y + height, x : x + width].copy()
        frame[8:28, i * 7 % (width - 20) :][:, :20] = (i * 5 % 256, 255 - i * 3 % 256, 90)
        yield 255 - frame if i % 37 == 36 else frame


def write_file(
    path: Path,
    codec: str = "libx264",
    *,
    count: int = 75,
    size: tuple[int, int] = (96, 64),
    keyframes: int = 25,
    pix_fmt: str = "yuv420p",
    options: Mapping[str, str] | None = None,
    milliseconds: Sequence[int] | None = None,
    container_options: Mapping[str, str] | None = None,
) -> Path:
    """Write a video with PyAV, at 25 frames a second or with frames at the given times."""
    with av.open(str(path), "w", options=dict(container_options or {})) as container:
        stream = container.add_stream(
            codec, rate=25, width=size[0], height=size[1], pix_fmt=pix_fmt, options=dict(options or {})
        )
        stream.gop_size = keyframes
        if milliseconds:
            stream.codec_context.time_base = Fraction(1, 1000)
        for i, pixels in enumerate(moving_frames(count, *size)):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            if milliseconds:
                frame.pts, frame.time_base = milliseconds[i], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    # Where root runs it, SVT-AV1 makes its caller a real-time thread, which starves all others.
    if codec == "libsvtav1":
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    return path


def decode_whole(path: Path) -> np.ndarray:
    """Decode a video from its first frame to its last, upright, with nothing but PyAV: (frames, H, W, 3)."""
    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        frames = [
            np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90) for frame in container.decode(video=0)
        ]
    return np.stack(frames)


def decode(path: Path | str, inds: Sequence[int], **options: Any) -> np.ndarray:
    """Decode frames as one clip through the transforms, (T, H, W, 3); ``options`` are those of OpenVideo."""
    results = OpenVideo(**options).transform(dict(path=str(path)))
    results |= dict(frame_inds=np.array(inds), num_clips=1, clip_len=len(inds))
    return DecodeClips().transform(results)["frames"][0]


def turn(path: Path, degrees: int) -> None:
    """Note in an MP4 file that its camera was held so many degrees against the clock."""
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 4 + 20 + 16
    one, width, height = 1 << 16, *struct.unpack(">II", data[matrix + 36 : matrix + 44])
    values = {
        90: (0, -one, 0, one, 0, 0, 0, width, 1 << 30),
        180: (-one, 0, 0, 0, -one, 0, width, height, 1 << 30),
        270: (0, one, 0, -one, 0, 0, height, 0, 1 << 30),
    }
    data[matrix : matrix + 36] = struct.pack(">9i", *values[degrees])
    path.write_bytes(data)


def cut_without_encoding(source: Path, target: Path, start: float) -> Path:
    """Copy a video from some second on without encoding anew: an edit list hides what lies between key frame and start."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        stream, copy = old.streams.video[0], new.add_stream_from_template(old.streams.video[0])
        first = int(start / stream.time_base)
        old.seek(first, stream=stream)
        for packet in old.demux(stream):
            if packet.dts is not None:
                packet.pts, packet.dts, packet.stream = packet.pts - first, packet.dts - first, copy
                new.mux(packet)
    return target
