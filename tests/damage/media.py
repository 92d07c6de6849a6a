"""Damaged videos: of the containers and codecs that the FFmpeg within PyAV writes, damaged in twenty ways."""

import random
import struct
import sys
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import av

sys.path.insert(0, str(Path(__file__).parents[1]))
from odd_videos import (
    MATRICES,
    claiming_mp4,
    copy_packets,
    set_edits,
    set_matrix,
    write_alt_refs,
    write_sound,
    write_title,
    write_tracks,
)
from video_files import write_file

from clipbert_mm.datasets.transforms import DecodeClips, OpenVideo, ResizePad, SampleClips
from clipbert_mm.errors import ClipBertError

SOURCES: dict[str, dict[str, Any]] = {
    "h264.mp4": {},
    "front.mp4": dict(container_options={"movflags": "faststart"}),
    "fragments.mp4": dict(container_options={"movflags": "frag_keyframe+empty_moov"}),
    "hevc.mp4": dict(codec="libx265", options={"x265-params": "log-level=error"}),
    "mpeg4.mp4": dict(codec="mpeg4", options={"bf": "2"}),
    "av1.mp4": dict(codec="libsvtav1", options={"preset": "11", "svtav1-params": "lp=1"}),
    "uneven.mp4": dict(milliseconds=[40 * i + 500 * (i // 7) for i in range(24)]),
    "mjpeg.mov": dict(codec="mjpeg", pix_fmt="yuvj420p"),
    "prores.mov": dict(codec="prores_ks", pix_fmt="yuv422p10le"),
    "rle.mov": dict(codec="qtrle", pix_fmt="rgb24"),
    "png.mov": dict(codec="png", pix_fmt="rgb24"),
    "h263.3gp": dict(codec="h263", size=(176, 144)),
    "h264.mkv": dict(options={"x264-params": "open-gop=1:bframes=3"}),
    "ffv1.mkv": dict(codec="ffv1"),
    "vp8.webm": dict(codec="libvpx"),
    "vp9.webm": dict(codec="libvpx-vp9", options={"deadline": "realtime", "cpu-used": "8"}),
    "mpeg4.avi": dict(codec="mpeg4"),
    "h264.avi": {},
    "mjpeg.avi": dict(codec="mjpeg", pix_fmt="yuvj420p"),
    "huffyuv.avi": dict(codec="huffyuv", pix_fmt="yuv422p"),
    "raw.avi": dict(codec="rawvideo"),
    "repeats.avi": dict(codec="mpeg4", milliseconds=[40 * i + 400 * (i // 9) for i in range(24)]),
    "h264.flv": {},
    "sorenson.flv": dict(codec="flv"),
    "h264.ts": {},
    "mpeg2.ts": dict(codec="mpeg2video", options={"bf": "2"}),
    "mpeg2.mpg": dict(codec="mpeg2video"),
    "wmv2.wmv": dict(codec="wmv2"),
    "msmpeg4.avi": dict(codec="msmpeg4"),
    "mpeg2.mxf": dict(codec="mpeg2video", size=(96, 64)),
    "vp8.ogg": dict(codec="libvpx"),
    "vp9.ivf": dict(codec="libvpx-vp9", options={"deadline": "realtime", "cpu-used": "8"}),
    "bare.h264": {},
    "bare.hevc": dict(codec="libx265", options={"x265-params": "log-level=error"}),
    "raw.y4m": dict(codec="wrapped_avframe"),
    "one.flv": dict(count=1),
    "one.mp4": dict(count=1),
    "pictures.apng": dict(codec="apng", pix_fmt="rgb24"),
}
"""Options of ``write_file`` for each name."""
EXTREMES = (0, 1, 2, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 10**6, 10**8, 2**31 - 1, 2**31, 2**32 - 1)
BOXES = (
    *(
        b"ftyp",
        b"moov",
        b"mvhd",
        b"trak",
        b"tkhd",
        b"edts",
        b"elst",
        b"mdia",
        b"mdhd",
        b"hdlr",
        b"minf",
        b"stbl",
        b"stsd",
    ),
    *(
        b"stts",
        b"ctts",
        b"stsc",
        b"stsz",
        b"stco",
        b"stss",
        b"avcC",
        b"hvcC",
        b"moof",
        b"traf",
        b"tfhd",
        b"trun",
        b"mdat",
    ),
    *(
        b"avih",
        b"strh",
        b"strf",
        b"idx1",
        b"movi",
        b"LIST",
        b"\x1a\x45\xdf\xa3",
        b"\x16\x54\xae\x6b",
        b"\x1f\x43\xb6\x75",
    ),
    *(b"\x2a\xd7\xb1", b"\x23\xe3\x83", b"\xb0\x81", b"\xba\x81", b"onMetaData", b"DKIF", b"\0\0\1\xb3", b"\0\0\1\xba"),
)
"""Marks of the fields of MP4, AVI, Matroska, FLV, IVF and MPEG files."""
SUFFIXES = (".mp4", ".avi", ".mkv", ".webm", ".ts", ".flv", ".mpg", ".gif", ".jpg", ".h264", ".txt", "")


def prepare(folder: Path) -> None:
    """Write small sound videos of every kind that can be written here."""
    for name, options in SOURCES.items():
        with suppress(av.error.FFmpegError, av.codec.codec.UnknownCodecError, ValueError):
            write_file(folder / name, **dict(dict(count=24, size=(64, 48), keyframes=8), **options))
    write_alt_refs(folder / "alt_refs.webm")
    write_sound(folder / "song.mp3")
    write_sound(folder / "song.mp4")
    write_title(folder / "title.avi")
    write_tracks(folder / "tracks.mp4", [(64, 48), (96, 64)], [1, 24])
    write_tracks(folder / "tracks.mkv", [(64, 48), (96, 64)], [24, 24])
    for suffix in ("mp4", "mkv", "ts"):
        copy_packets(folder / "h264.mp4", folder / f"headless.{suffix}", drop=3)
    for path in folder.iterdir():
        if not path.stat().st_size:
            path.unlink()


def flip_bits(rng: random.Random, data: bytearray, others: list[Path]) -> None:
    """Flip some bits, half of the time in the head."""
    end = len(data) if rng.random() < 0.5 else min(len(data), 2000)
    for _ in range(rng.choice((1, 3, 30, 300))):
        data[rng.randrange(end)] ^= 1 << rng.randrange(8)


def cut_end(rng: random.Random, data: bytearray, others: list[Path]) -> None:
    """Take the end away."""
    del data[rng.randrange(1, len(data)) :]


def cut_start(rng: random.Random, data: bytearray, others: list[Path]) -> None:
    """Take the beginning away."""
    del data[: rng.randrange(1, len(data))]


def cut_middle(rng: random.Random, data: bytearray, others: list[Path]) -> None:
    """Take something out."""
    start = rng.randrange(len(data))
    del data[start : start + rng.randrange(1, 2000)]


def repeat_middle(rng: random.Random, data: bytearray, others: list[Path]) -> None:
    """Put something in twice."""
    start = rng.randrange(len(data))
    data[start:start] = data[start : start + rng.randrange(1, 2000)]


def zero_block(rng: random.Random, data: bytearray, others: list[Path]) -> None:
    """Put zeros somewhere."""
    start, size = rng.randrange(len(data)), rng.choice((4, 64, 500, 5000))
    data[start : start + size] = bytes(len(data[start : start + size]))


def noise_block(rng: random.Random, data: bytearray, others: list[Path]) -> None:
    """Put noise somewhere."""
    start, size = rng.randrange(len(data)), rng.choice((4, 64, 500, 5000))
    data[start : start + size] = rng.randbytes(len(data[start : start + size]))


def forge_field(rng: random.Random, data: bytearray, others: list[Path]) -> None:
    """Set numbers behind the marks of fields to extremes."""
    for _ in range(rng.choice((1, 2, 5))):
        marks = [mark for mark in BOXES if mark in data]
        if marks:
            mark = rng.choice(marks)
            place = data.index(mark) + len(mark) + rng.choice((0, 1, 2, 4, 8, 12, 16, 20, 24, 32, 40))
            size = rng.choice((1, 2, 4))
            number = (rng.choice(EXTREMES) & (256**size - 1)).to_bytes(size, "big")
            data[place : place + size] = number if rng.random() < 0.7 else number[::-1]


def forge_size(rng: random.Random, data: bytearray, others: list[Path]) -> None:
    """Set the size in front of a box, or behind it as in AVI files, to another."""
    marks = [mark for mark in BOXES if mark in data]
    if marks:
        mark = rng.choice(marks)
        place = data.index(mark)
        number = rng.choice((*EXTREMES, len(data), rng.randrange(len(data))))
        if mark in (b"avih", b"strh", b"strf", b"idx1", b"movi", b"LIST"):
            data[place + 4 : place + 8] = struct.pack("<I", number)
        elif place >= 4:
            data[place - 4 : place] = struct.pack(">I", number)


def move_box(rng: random.Random, data: bytearray, others: list[Path]) -> None:
    """Take a box out, put it in twice, or rename it."""
    marks = [mark for mark in BOXES if mark in data and len(mark) == 4]
    if marks:
        place = data.index(rng.choice(marks)) - 4
        if place >= 0:
            size = max(8, min(struct.unpack_from(">I", data, place)[0], len(data) - place))
            box = data[place : place + size]
            how = rng.randrange(3)
            data[place : place + size] = (b"", box + box, box[:4] + b"free" + box[8:])[how]


def concatenate(rng: random.Random, data: bytearray, others: list[Path]) -> None:
    """Put another video behind this one, or part of it."""
    other = rng.choice(others).read_bytes()
    data += other[rng.choice((0, rng.randrange(len(other)))) :]


def swap_codec(rng: random.Random, data: bytearray, others: list[Path]) -> None:
    """Call the stream's codec another."""
    names = (
        b"avc1",
        b"hev1",
        b"mp4v",
        b"av01",
        b"jpeg",
        b"png ",
        b"rle ",
        b"H264",
        b"FMP4",
        b"MJPG",
        b"HFYU",
        b"s263",
        b"zzzz",
    )
    names += (b"V_VP8", b"V_VP9", b"VP80", b"VP90")
    found = [name for name in names if name in data]
    if found:
        old = rng.choice(found)
        new = rng.choice([name for name in names if len(name) == len(old)])
        place = data.index(old)
        data[place : place + len(old)] = new


def huge_size(rng: random.Random, data: bytearray, others: list[Path]) -> None:
    """Claim a huge picture, wherever the size of these stands in the file."""
    for old in (struct.pack(">HH", 64, 48), struct.pack("<II", 64, 48), struct.pack(">II", 64 << 16, 48 << 16)):
        side = rng.choice((0, 1, 8191, 16384, 65535))
        new = struct.pack({4: ">HH", 8: "<II"}[len(old)], side, side)
        place = data.find(old)
        if place >= 0:
            data[place : place + len(old)] = new
    place = data.find(b"\xb0\x81\x40\xba\x81\x30")  # Matroska: lengths of one byte; here of two
    if place >= 0:
        data[place : place + 6] = b"\xb0\x82\x40\x00\xba\x81"


def run_of_ff(rng: random.Random, data: bytearray, others: list[Path]) -> None:
    """Set a run of bytes to 255."""
    start = rng.randrange(min(len(data), 3000))
    data[start : start + rng.choice((1, 4, 16))] = b"\xff" * min(rng.choice((1, 4, 16)), len(data) - start)


BYTES: tuple[Callable[[random.Random, bytearray, list[Path]], None], ...] = (
    *(
        flip_bits,
        cut_end,
        cut_start,
        cut_middle,
        repeat_middle,
        zero_block,
        noise_block,
        forge_field,
        forge_size,
        move_box,
    ),
    *(concatenate, swap_codec, huge_size, run_of_ff),
)
"""What can be done to the bytes of any file."""


def damage(rng: random.Random, folder: Path, target: Path) -> str:
    """Damage a video in one or two ways, or forge one."""
    others = sorted(folder.iterdir())
    way = rng.randrange(20)
    if way == 0:
        path = target.with_suffix(".mp4")
        sides = rng.choice(((16, 16), (8192, 8193), (16000, 16000), (65535, 65535), (0, 0)))
        count = rng.choice((1, 10, 10**5, 10**7, 10**9, 2**32 - 1))
        path.write_bytes(claiming_mp4(count, *sides, payload=rng.randbytes(rng.choice((1, 1000, 50_000)))))
        return f"{path}: claims {count} frames of {sides}"
    if way in (1, 2):
        path = target.with_suffix(".mp4")
        path.write_bytes((folder / rng.choice(("h264.mp4", "mpeg4.mp4", "uneven.mp4"))).read_bytes())
        if way == 1:
            turn = rng.choice(
                [*MATRICES.values(), *[tuple(rng.choice((0, 1, -1, 65536, 46341, 2**31 - 1)) for _ in range(4))]]
            )
            set_matrix(path, turn)
            return f"{path}: display matrix {turn}"
        edits = [
            (
                rng.choice((0, 40, 300, 5000, 2**31)),
                rng.choice((-1, 0, 512, 1300, 5000, 2**31 - 1)),
                rng.choice((0, 0.5, 1, 1, 2)),
            )
            for _ in range(rng.choice((1, 2, 3, 40)))
        ]
        set_edits(path, edits)
        return f"{path}: edits {edits[:3]}"
    source = rng.choice(others)
    data = bytearray(source.read_bytes())
    suffix = rng.choice(SUFFIXES) if rng.random() < 0.15 else source.suffix
    ways = rng.sample(BYTES, rng.choice((1, 1, 2)))
    for each in ways:
        if len(data) > 1:
            each(rng, data, others)
    path = target.with_name(target.name + suffix)
    path.write_bytes(data)
    return f"{path}: {source.name}, {', '.join(each.__name__ for each in ways)}"


def use(path: Path) -> None:
    """Read a video by PyAV and by another library, as training does."""
    other = ("decord", "opencv", "torchcodec")[zlib.crc32(path.name.encode()) % 3]
    first: ClipBertError | None = None
    for backend in ("pyav", other):
        try:
            results: dict[str, Any] = dict(path=str(path))
            for step in (
                OpenVideo(backend=backend),
                SampleClips(num_clips=4, num_frames=2, mode="uniform"),
                DecodeClips(),
                ResizePad(size=64),
            ):
                results = step.transform(results)
            assert results["frames"].shape == (4, 2, 64, 64, 3)
        except ClipBertError as error:
            first = first or error
    if first is not None:
        raise first
