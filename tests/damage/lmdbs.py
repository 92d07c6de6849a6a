"""LMDBs of videos, images and frames: cut short, with flipped bits, zeroed or exchanged pages, forged pages and numbers."""

import io
import random
from pathlib import Path

import av
import lmdb
import numpy as np
from PIL import Image

from clipbert_mm.datasets.transforms import DecodeClips, LoadImage, OpenFrames, OpenVideo, SampleClips
from clipbert_mm.errors import ClipBertError
from clipbert_mm.media.listing import list_names, missing_media
from clipbert_mm.media.storage import stamp_media

PAGE = 4096
NUMBERS = (
    0,
    1,
    2,
    3,
    7,
    16,
    255,
    4095,
    4096,
    4097,
    65535,
    1 << 31,
    (1 << 32) - 1,
    1 << 40,
    (1 << 63) - 1,
    (1 << 64) - 1,
)
READ = 25
"""How many values of one LMDB are read."""


def prepare(folder: Path) -> None:
    """Write LMDBs: a folder with one level of pages, one with three, and a file of many commits."""
    jpeg, video = _jpeg(), _video()
    few = {"video": video, "picture": jpeg} | {f"frames/{i:06d}": jpeg for i in range(5)} | {"frames/fps": b"10"}
    many = few | {f"{i:04d}{'name' * 20}": bytes([i % 256]) * (i % 200) for i in range(2000)}
    _write(folder / "few.lmdb", few, commits=1)
    _write(folder / "many.lmdb", many, commits=1)
    _write(folder / "grown.lmdb", many, commits=9)


def damage(rng: random.Random, folder: Path, target: Path) -> str:
    """Damage one of them."""
    source = rng.choice(sorted(folder.glob("*.lmdb")))
    data = bytearray((source / "data.mdb").read_bytes())
    how, done = rng.choice((_cut, _flip, _flip, _forge, _forge, _zero, _exchange, _scribble)), []
    for _ in range(rng.choice((1, 1, 1, 3, 20))):
        if len(data) >= 8:
            done.append(how(rng, data))
    path = target.with_suffix(".lmdb")
    path.mkdir()
    (path / "data.mdb").write_bytes(data)
    return f"{path}: {source.name}, {', '.join(done)}"


def use(path: Path) -> None:
    """Read some of what it lists, as videos, images and folders of frames, and ask for names that are not there."""
    trouble = None
    for read in (_list, _read_values, _read_frames):
        try:
            read(str(path))
        except ClipBertError as error:
            trouble = error
    if trouble:
        raise trouble


def _list(path: str) -> None:
    names = list_names(path)
    missing_media([f"{path}/{name}" for name in (*names, "none", "frames", "")])
    missing_media([f"{path}/none.mp4"])
    stamp_media(f"{path}/video.mp4")


def _read_values(path: str) -> None:
    names = ["video.mp4", "picture", *list_names(path)[:: max(1, len(list_names(path)) // READ)]]
    for name in names:
        try:
            if name.startswith("video"):
                _decode(OpenVideo().transform(dict(path=f"{path}/{name}")))
            else:
                LoadImage().transform(dict(path=f"{path}/{name}"))
        except ClipBertError:
            continue  # most values are no images


def _read_frames(path: str) -> None:
    _decode(OpenFrames().transform(dict(path=f"{path}/frames")))


def _decode(results: dict) -> None:
    results = SampleClips(num_clips=2, num_frames=2, mode="uniform").transform(results)
    np.asarray(DecodeClips().transform(results)["frames"])


def _cut(rng: random.Random, data: bytearray) -> str:
    size = rng.choice(
        (rng.randrange(len(data)), _page(rng, data), min(rng.randrange(3 * PAGE), len(data)), len(data) - 1)
    )
    del data[size:]
    return f"cut to {size} bytes"


def _place(rng: random.Random, data: bytearray) -> int:
    """Choose a place, often in the numbers that a page or the file begins with."""
    start = rng.choice((0, 0, rng.randrange(max(1, len(data) // PAGE)))) * PAGE
    return min(start + rng.choice((rng.randrange(16), rng.randrange(160), rng.randrange(PAGE))), len(data) - 8)


def _flip(rng: random.Random, data: bytearray) -> str:
    at, bit = _place(rng, data), rng.randrange(8)
    data[at] ^= 1 << bit
    return f"bit {bit} of byte {at}"


def _forge(rng: random.Random, data: bytearray) -> str:
    at, size, number = _place(rng, data), rng.choice((2, 4, 8)), rng.choice(NUMBERS)
    at -= at % size
    data[at : at + size] = (number % (1 << 8 * size)).to_bytes(size, "little")
    return f"{number} as {size} bytes at {at}"


def _page(rng: random.Random, data: bytearray) -> int:
    return rng.randrange(max(1, len(data) // PAGE)) * PAGE


def _zero(rng: random.Random, data: bytearray) -> str:
    at = _page(rng, data)
    data[at : at + PAGE] = bytes(len(data[at : at + PAGE]))
    return f"zeros at {at}"


def _exchange(rng: random.Random, data: bytearray) -> str:
    one, other = _page(rng, data), _page(rng, data)
    taken = bytes(data[one : one + PAGE])
    if rng.random() < 0.5:
        taken = data[other : other + 8] + taken[8:]  # with the number that belongs there
    data[other : other + PAGE] = taken[: len(data) - other]
    return f"page at {one} over {other}"


def _scribble(rng: random.Random, data: bytearray) -> str:
    at, size = _page(rng, data), rng.randrange(1, PAGE)
    data[at : at + size] = rng.randbytes(len(data[at : at + size]))
    return f"{size} random bytes at {at}"


def _write(path: Path, values: dict[str, bytes], commits: int) -> None:
    with lmdb.open(str(path), map_size=1 << 26, lock=False) as environment:
        for first in range(commits):
            with environment.begin(write=True) as writing:
                for key, value in list(values.items())[first::commits]:
                    writing.put(key.encode(), value)
                if first:
                    writing.delete(f"{first:04d}{'name' * 20}".encode())


def _jpeg() -> bytes:
    with io.BytesIO() as file:
        Image.radial_gradient("L").resize((80, 60)).convert("RGB").save(file, "jpeg", quality=95)
        return file.getvalue()


def _video() -> bytes:
    with io.BytesIO() as file:
        with av.open(file, "w", format="mp4") as container:
            stream = container.add_stream("libx264", rate=10, width=64, height=48, pix_fmt="yuv420p")
            for i in range(10):
                picture = np.full((48, 64, 3), 20 * i, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())
        return file.getvalue()
