"""Images of all kinds: cut, with flipped bits, parts left out, doubled or exchanged, and other sizes than their data have."""

import io
import random
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from clipbert_mm.datasets.transforms import DecodeClips, LoadImage, OpenVideo, ResizePad, SampleClips
from clipbert_mm.errors import ClipBertError

NUMBERS = (
    0,
    1,
    2,
    255,
    256,
    4096,
    8192,
    16000,
    32767,
    32768,
    65535,
    100_000,
    1 << 24,
    (1 << 31) - 1,
    1 << 31,
    (1 << 32) - 1,
)


def prepare(folder: Path) -> None:
    """Write images of 60 x 44 pixels by Pillow and OpenCV."""
    rng = np.random.default_rng(0)
    pixels = cv2.resize(rng.integers(0, 256, (6, 8, 3), np.uint8), (60, 44)) + rng.integers(0, 9, (44, 60, 3), np.uint8)
    picture = Image.fromarray(pixels)
    clear = Image.fromarray(np.dstack([pixels, pixels[..., 0]]))
    exif = Image.Exif()
    exif[0x0112] = 6
    for name, image, options in (
        ("rgb.png", picture, {}),
        ("gray.png", picture.convert("L"), {}),
        ("bits.png", picture.convert("1"), {}),
        ("palette.png", picture.quantize(200), {}),
        ("palette4.png", picture.quantize(12), dict(bits=4)),
        ("clear_palette.png", picture.quantize(200), dict(transparency=3)),
        ("clear.png", clear, {}),
        ("exif.png", picture, dict(exif=exif)),
        ("animated.png", picture, dict(save_all=True, append_images=[picture.rotate(90)])),
        ("rgb.jpg", picture, dict(quality=90)),
        ("progressive.jpg", picture, dict(progressive=True)),
        ("cmyk.jpg", picture.convert("CMYK"), {}),
        ("gray.jpg", picture.convert("L"), {}),
        ("exif.jpg", picture, dict(exif=exif)),
        ("still.gif", picture, {}),
        (
            "animated.gif",
            picture,
            dict(save_all=True, append_images=[picture.rotate(9), picture], duration=[90, 300, 50]),
        ),
        ("rgb.bmp", picture, {}),
        ("palette.bmp", picture.quantize(200), {}),
        ("lossy.webp", picture, {}),
        ("lossless.webp", clear, dict(lossless=True)),
        ("animated.webp", picture, dict(save_all=True, append_images=[picture.rotate(90)])),
        ("rgb.tiff", picture, {}),
        ("lzw.tiff", picture, dict(compression="tiff_lzw")),
        ("jpeg.tiff", picture, dict(compression="jpeg")),
        ("rgb.ppm", picture, {}),
        ("rgb.jp2", picture, {}),
        ("rgb.avif", picture, {}),
    ):
        image.save(folder / name, **options)
    cv2.imwrite(str(folder / "deep.png"), pixels.astype(np.uint16) << 8)
    cv2.imwrite(str(folder / "deep.tiff"), pixels.astype(np.uint16) << 8)
    (folder / "interlaced.png").write_bytes(_interlaced(pixels[..., 0]))


def damage(rng: random.Random, folder: Path, target: Path) -> str:
    """Damage one of them; checksums of PNG are made right again in half of the cases."""
    source = rng.choice(sorted(folder.iterdir()))
    data = bytearray(source.read_bytes())
    how, done = rng.choice((_cut, _flip, _flip, _forge, _forge, _leave_out, _double, _exchange, _scribble)), []
    for _ in range(rng.choice((1, 1, 2, 5, 20))):
        if len(data) > 40:
            done.append(how(rng, data))
    if source.suffix == ".png" and rng.random() < 0.5:
        data = _sum_again(data)
        done.append("checksums made right")
    path = target.with_suffix(source.suffix)
    path.write_bytes(data)
    return f"{path}: {source.name}, {', '.join(done)}"


def use(path: Path) -> None:
    """Read it as an image; a GIF as a video, too."""
    trouble = None
    try:
        ResizePad(size=64).transform(LoadImage().transform(dict(path=str(path))))
    except ClipBertError as error:
        trouble = error
    if path.suffix == ".gif":
        results = OpenVideo().transform(dict(path=str(path)))
        results = SampleClips(num_clips=4, num_frames=2, mode="uniform").transform(results)
        ResizePad(size=64).transform(DecodeClips().transform(results))
    if trouble:
        raise trouble


def _cut(rng: random.Random, data: bytearray) -> str:
    size = rng.choice((rng.randrange(len(data)), len(data) - rng.randrange(1, 20)))
    del data[size:]
    return f"cut to {size} bytes"


def _place(rng: random.Random, data: bytearray) -> int:
    """Choose a place, often near the beginning."""
    return rng.randrange(rng.choice((min(40, len(data)), min(200, len(data)), len(data))))


def _flip(rng: random.Random, data: bytearray) -> str:
    at, bit = _place(rng, data), rng.randrange(8)
    data[at] ^= 1 << bit
    return f"bit {bit} of byte {at}"


def _forge(rng: random.Random, data: bytearray) -> str:
    at, size, number = _place(rng, data), rng.choice((2, 4)), rng.choice(NUMBERS)
    order = rng.choice(("little", "big"))
    data[at : at + size] = (number % (1 << 8 * size)).to_bytes(size, order)
    return f"{number} as {size} bytes at {at}"


def _part(rng: random.Random, data: bytearray) -> slice:
    at = rng.randrange(len(data))
    return slice(at, at + rng.choice((1, 2, 4, 12, 100, 1000)))


def _leave_out(rng: random.Random, data: bytearray) -> str:
    part = _part(rng, data)
    del data[part]
    return f"without bytes {part.start} to {part.stop}"


def _double(rng: random.Random, data: bytearray) -> str:
    part = _part(rng, data)
    data[part.start : part.start] = data[part]
    return f"bytes {part.start} to {part.stop} twice"


def _exchange(rng: random.Random, data: bytearray) -> str:
    one, other = _part(rng, data), rng.randrange(len(data))
    data[other : other + len(data[one])] = data[one]
    return f"bytes {one.start} to {one.stop} over those at {other}"


def _scribble(rng: random.Random, data: bytearray) -> str:
    part = _part(rng, data)
    data[part] = rng.randbytes(len(data[part]))
    return f"random bytes from {part.start} to {part.stop}"


def _sum_again(data: bytearray) -> bytearray:
    """Return a PNG with the right checksum in each part that is whole."""
    at = 8
    while at + 12 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        end = at + 8 + size
        if end + 4 > len(data):
            break
        data[end : end + 4] = struct.pack(">I", zlib.crc32(data[at + 4 : end]))
        at = end + 4
    return data


def _interlaced(gray: np.ndarray) -> bytes:
    """Return a PNG of Adam7's seven passes, which Pillow does not write."""
    passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    rows = [b"\0" + row.tobytes() for y, x, down, right in passes for row in gray[y::down, x::right]]
    height, width = gray.shape

    def part(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    with io.BytesIO() as file:
        file.write(b"\x89PNG\r\n\x1a\n" + part(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 1)))
        file.write(part(b"IDAT", zlib.compress(b"".join(rows))) + part(b"IEND", b""))
        return file.getvalue()
