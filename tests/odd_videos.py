"""Odd videos, made with real encoders and then edited: what tests of reading and generators of damage share."""

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from video_files import moving_frames, write_file

from clipbert_mm.media.readers.orientation import display_matrix, turn_upright, upright_filters
from clipbert_mm.media.readers.video_source import best_stream

ONE = 1 << 16
MATRICES = {
    "as it is": (ONE, 0, 0, ONE),
    "to the right": (0, ONE, -ONE, 0),
    "upside down": (-ONE, 0, 0, -ONE),
    "to the left": (0, -ONE, ONE, 0),
    "mirrored": (-ONE, 0, 0, ONE),
    "mirrored upside down": (ONE, 0, 0, -ONE),
    "transposed": (0, ONE, ONE, 0),
    "transposed over the other diagonal": (0, -ONE, -ONE, 0),
}
"""The eight ways to hold and mirror a camera: the upper left four numbers of an MP4 file's display matrix."""
EVENT = [*range(0, 420, 40), 3000, 3040, 6000, 6040, *range(9000, 12_500, 500)]
"""Milliseconds at which a screen recording has frames."""


def decode_shown(path: Path | str) -> np.ndarray:
    """Decode the video from its first frame to its last by PyAV alone, upright: (frames, H, W, 3)."""
    with av.open(str(path), metadata_errors="replace") as container:
        stream = best_stream(container)
        stream.codec_context.thread_count = 1
        return np.stack(
            [
                turn_upright(frame.to_ndarray(format="rgb24"), upright_filters(display_matrix(frame)))
                for frame in container.decode(stream)
            ]
        )


def _find(data: bytes, *names: bytes) -> list[tuple[int, int]]:
    """Find nested boxes of an MP4 file, the first of each name: begin and end."""
    found, start, end = [], 0, len(data)
    for name in names:
        while data[start + 4 : start + 8] != name:
            start += struct.unpack_from(">I", data, start)[0]
            if start >= end:
                raise KeyError(name)
        found.append((start, start + struct.unpack_from(">I", data, start)[0]))
        start, end = start + 8, found[-1][1]
    return found


def set_edits(path: Path, edits: Sequence[tuple[int, int, float]]) -> Path:
    """Give an MP4 file, whose index is its end, an edit list: milliseconds, first tick (-1 for none), speed of each part."""
    data = path.read_bytes()
    rows = b"".join(struct.pack(">IiI", length, first, int(speed * ONE)) for length, first, speed in edits)
    body = struct.pack(">II", 0, len(edits)) + rows
    box = struct.pack(">I4s", 16 + len(body), b"edts") + struct.pack(">I4s", 8 + len(body), b"elst") + body
    parents = _find(data, b"moov", b"trak")
    (begin, end) = _find(data, b"moov", b"trak", b"edts")[-1]
    assert data.index(b"mdat") < parents[0][0]
    new = bytearray(data[:begin] + box + data[end:])
    for start, stop in parents:
        struct.pack_into(">I", new, start, stop - start + len(box) - (end - begin))
    path.write_bytes(new)
    return path


def set_matrix(path: Path, turn: Sequence[int]) -> Path:
    """Give an MP4 file a display matrix, whose upper left four numbers are given."""
    data = bytearray(path.read_bytes())
    a, b, c, d = turn
    struct.pack_into(">9i", data, data.index(b"tkhd") + 44, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def copy_packets(source: Path, target: Path, *, drop: int = 0, after: dict[int, bytes] | None = None) -> Path:
    """Copy a video without its first packets, and with others put in behind some, each a frame long."""
    later = 0
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        copy = new.add_stream_from_template(old.streams.video[0])
        for i, packet in enumerate(packet for packet in old.demux(video=0) if packet.dts is not None):
            if i < drop:
                continue
            extra = av.Packet(after[i]) if after and i in after else None
            packet.pts, packet.dts, packet.stream = packet.pts + later, packet.dts + later, copy
            if extra is not None:
                extra.pts, extra.dts = packet.pts + packet.duration, packet.dts + packet.duration
                extra.time_base, extra.duration, extra.stream = packet.time_base, packet.duration, copy
                later += packet.duration
            new.mux(packet)
            if extra is not None:
                new.mux(extra)
    return target


def not_coded(time: int) -> bytes:
    """Return an MPEG-4 packet that is "not coded": a picture of 25 a second that shows nothing."""
    bits = f"01010{time % 25:05b}"[:4] + f"{time % 25:05b}" + "10" + "01111"
    return b"\0\0\1\xb6" + int(bits, 2).to_bytes(2, "big")


def write_alt_refs(path: Path) -> Path:
    """Write a WebM file of VP8 in which pictures that are never shown stand between those that are."""
    plain = write_file(path.with_name("plain.webm"), "libvpx", count=40, keyframes=12)
    with av.open(str(plain)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    hidden = {i: bytes([packets[i][0] & ~0x10]) + packets[i][1:] for i in (3, 7, 8, 20, 33)}
    return copy_packets(plain, path, after=hidden)


def write_tracks(path: Path, sizes: Sequence[tuple[int, int]], counts: Sequence[int]) -> Path:
    """Write a file of several video tracks; those of one frame are pictures."""
    with av.open(str(path), "w") as container:
        streams = []
        for (width, height), count in zip(sizes, counts, strict=True):
            codec, pix_fmt = ("libx264", "yuv420p") if count > 1 else ("mjpeg", "yuvj420p")
            streams.append(container.add_stream(codec, rate=25, width=width, height=height, pix_fmt=pix_fmt))
        for stream, size, count in zip(streams, sizes, counts, strict=True):
            for pixels in moving_frames(count, *size):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(stream.encode())
    return path


def write_sound(path: Path, cover: bool = True) -> Path:
    """Write a file of sound, perhaps with a cover picture."""
    with av.open(str(path), "w") as container:
        sound = container.add_stream("mp3" if path.suffix == ".mp3" else "aac", rate=44100)
        if cover:
            picture = container.add_stream("png", rate=1, width=96, height=64, pix_fmt="rgb24")
            picture.disposition = av.stream.Disposition.attached_pic
        for i in range(20):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1152), np.float32), "fltp", "mono")
            frame.sample_rate, frame.pts, frame.time_base = 44100, 1152 * i, Fraction(1, 44100)
            container.mux(sound.encode(frame))
        container.mux(sound.encode())
        if cover:
            for pixels in moving_frames(1, 96, 64):
                container.mux(picture.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(picture.encode())
    return path


def write_title(path: Path) -> Path:
    """Write an AVI file whose title is in Latin-1."""
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "caf@ noir"
        stream = container.add_stream("mpeg4", rate=25, width=96, height=64)
        for pixels in moving_frames(12, 96, 64):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    data = path.read_bytes()
    assert b"caf@ noir" in data
    path.write_bytes(data.replace(b"caf@ noir", b"caf\xe9 noir"))
    return path


def _box(name: bytes, *content: bytes) -> bytes:
    body = b"".join(content)
    return struct.pack(">I4s", 8 + len(body), name) + body


def claiming_mp4(samples: int, width: int = 16, height: int = 16, payload: bytes = b"") -> bytes:
    """Return an MP4 file of a few hundred bytes that claims so many frames, of one byte each, or of such a size."""

    def full(name: bytes, *content: bytes) -> bytes:
        return _box(name, bytes(4), *content)

    def moov(at: int) -> bytes:
        size = struct.pack(">HH", width, height)
        entry = _box(b"png ", bytes(6) + b"\0\1" + bytes(16) + size + b"\0\x48\0\0\0\x48\0\0" + bytes(4) + b"\0\1")
        entry = struct.pack(">I", len(entry) + 36) + entry[4:] + bytes(32) + b"\0\x18\xff\xff"
        table = _box(
            b"stbl",
            full(b"stsd", b"\0\0\0\1", entry),
            full(b"stts", struct.pack(">III", 1, samples, 1)),
            full(b"stsc", struct.pack(">IIII", 1, 1, samples, 1)),
            full(b"stsz", struct.pack(">II", 1, samples)),
            full(b"stco", struct.pack(">II", 1, at)),
        )
        data = _box(b"dinf", full(b"dref", b"\0\0\0\1", full(b"url ")))
        media = _box(b"minf", full(b"vmhd", bytes(8)), data, table)
        times = full(b"mdhd", struct.pack(">IIII", 0, 0, 25, samples) + b"\x55\xc4\0\0")
        media = _box(b"mdia", times, full(b"hdlr", bytes(4) + b"vide" + bytes(13)), media)
        turn = struct.pack(">9I", ONE, 0, 0, 0, ONE, 0, 0, 0, 1 << 30)
        track = struct.pack(">IIIII", 0, 0, 1, 0, 1) + bytes(16) + turn + struct.pack(">II", width << 16, height << 16)
        movie = struct.pack(">IIII", 0, 0, 1000, 1) + b"\0\1\0\0\1\0" + bytes(10) + turn + bytes(24) + b"\0\0\0\2"
        return _box(b"moov", full(b"mvhd", movie), _box(b"trak", full(b"tkhd", track), media))

    head = _box(b"ftyp", b"isom\0\0\2\0isomiso2mp41")
    return head + moov(len(head) + len(moov(0)) + 8) + _box(b"mdat", payload or bytes(16))
