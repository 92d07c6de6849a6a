"""Videos found by a part of their names: the same as by comparing all names one by one, and nothing by their folders above."""

import os
import random
from pathlib import Path

import pytest
import torch
from memory_engine import MemoryEngine

from clipbert_mm.errors import OptionError
from clipbert_mm.index import EncodedVideo, Entry, Filter, NamePart, VideoIndex, folder_called, name_below
from clipbert_mm.index.engines import RemoteIndex
from clipbert_mm.index.records import name_starts

FOLDERS = {
    "none": [],
    "one": ["/home/me/videos"],
    "nested": ["/home/me/videos/cats", "/home/me/videos"],
    "two": ["/home/me/videos", "/mnt/more"],
    "root": ["/"],
}
NAMES = [
    *(
        "cats/1.mp4",
        "cats/Old 100%/Männer_2.MP4",
        "ÄRZTE/été.mp4",
        "videos.mp4",
        "a_b.mp4",
        "axb.mp4",
        "dogs/[1]*?.mp4",
    ),
    *(r"back\slash.mp4", "Straße.mp4", os.fsdecode(b"caf\xe9.mp4"), "home.mp4", "日本語.mp4"),
]
PATHS = [
    *(f"{folder}/{name}" for folder in ("/home/me/videos", "/mnt/more", "/home/me/elsewhere") for name in NAMES),
    "/home/me/index/uploads/0a1b.mp4",
    "/home/me/index/uploads/cats.mp4",
]
UPLOADED = {"/home/me/index/uploads/0a1b.mp4": "My CAT.mp4", "/home/me/index/uploads/cats.mp4": "dog.mp4"}


def write_index(folder: Path, paths: list[str]) -> VideoIndex:
    """Write an index of files that do not exist."""
    index = VideoIndex(folder)
    index.start("id", "a.pth", "a.pth")
    index.table.put((Entry(path, 1, i, 1.0 + i, ((0.0, 1.0),), (2, 2)), None) for i, path in enumerate(paths))
    return index


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> VideoIndex:
    return write_index(tmp_path_factory.mktemp("names") / "index", PATHS)


def shown(path: str, folders: list[str]) -> str:
    return UPLOADED.get(path) or name_below(path, folders)


@pytest.mark.parametrize("folders", FOLDERS.values(), ids=FOLDERS)
@pytest.mark.parametrize(
    "text",
    ["", "cat", "CATS/", "%", "_", "a_b", "\\", "männer", "MÄNNER", "ärzte", "Ärzte", "ÉTÉ", "[1]", "*", "?", "0a1b", "me",
     "home", "/home/me", "videos", "more", "日本", "straße", ".mp4", "nothing", "'", "\0"],
)  # fmt: skip
def test_it_finds_what_comparing_all_names_finds(index: VideoIndex, folders: list[str], text: str):
    part = NamePart(text, folders, "/home/me/index/uploads", UPLOADED)
    found, count = index.named(part)
    expected = [path for path in PATHS if text.casefold() in shown(path, folders).casefold() or text in ("", "\0")]
    if text == "\0":  # no name has one
        expected = []
    assert [entry.path for entry in found] == sorted(expected, key=os.fsencode)
    assert count == len(expected)
    assert [path for path in PATHS if part.is_met(path)] == expected


def test_an_index_in_an_engine_finds_the_same():
    remote = RemoteIndex(MemoryEngine("memory://names"))
    remote.start("id", "a.pth", "a.pth", vector_size=2)
    remote.add([EncodedVideo(Entry(path, 1, 1, 1.0, ((0.0, 1.0),), (2, 2)), torch.ones(1, 2)) for path in PATHS])
    for text in ("", "cat", "nothing"):
        part = NamePart(text, ["/home/me/videos"], "/home/me/index/uploads", UPLOADED)
        expected = sorted((path for path in PATHS if part.is_met(path)), key=os.fsencode)
        found, count = remote.named(part, first=1, most=2)
        assert ([entry.path for entry in found], count) == (expected[1:3], len(expected))


def test_its_pages_are_all_of_them_in_order(tmp_path: Path):
    rng = random.Random(0)
    paths = [f"/v/{rng.randrange(30):02}/clip {rng.getrandbits(40):010x}.mp4" for _ in range(2000)]
    index = write_index(tmp_path / "index", paths)
    part = NamePart("p 7", ["/v"])
    expected = sorted(path for path in paths if "clip 7" in path)
    pages = [index.named(part, first=first, most=50)[0] for first in range(0, len(expected) + 50, 50)]
    assert [entry.path for page in pages for entry in page] == expected
    assert len(pages[-1]) < 50
    assert index.named(part)[1] == len(expected)
    index.remove(expected[:3])
    assert index.named(part, most=1)[1] == len(expected) - 3
    assert VideoIndex(tmp_path / "none").named(part) == ([], 0)


def test_thousands_of_folders_find_by_the_names_of_files(tmp_path: Path):
    folders = [f"/v/{i:04}" for i in range(3000)]
    index = write_index(tmp_path / "index", [f"{folder}/a.mp4" for folder in folders])
    assert index.named(NamePart("0001/", folders))[1] == 1
    assert index.named(NamePart("2999/", folders))[1] == 0
    assert index.named(NamePart("Ä", folders))[1] == 0
    assert index.named(NamePart("a.MP4", folders), most=5)[1] == 3000


@pytest.mark.parametrize("seed", range(20))
def test_a_name_begins_below_the_outermost_folder(seed: int):
    """As by comparing each path with each folder."""
    rng = random.Random(seed)
    draw = lambda: "/" + "/".join(rng.choices(["a", "ab", "b"], k=rng.randint(1, 4)))  # noqa: E731
    folders = list(dict.fromkeys(draw() for _ in range(rng.randint(0, 6))))
    outermost = [each for each in folders if not any(each.startswith(f"{other}/") for other in folders)]
    assert [folder for folder, _ in name_starts(folders)] == outermost
    for path in {f"{draw()}/{i}.mp4" for i in range(50)}:
        above = [folder for folder in outermost if path.startswith(f"{folder}/")]
        start = len(above[0] if len(outermost) == 1 else os.path.dirname(above[0]).rstrip("/")) + 1 if above else 0
        assert name_below(path, folders) == (path[start:] if above else os.path.basename(path))


@pytest.mark.parametrize(
    ("name", "folders", "found"),
    [
        ("cats", ["/v"], ("/v/cats",)),
        ("/cats/2024/", ["/v", "/v/b"], ("/v/cats/2024",)),
        (".", ["/v"], ("/v",)),
        ("b/cats", ["/m/a", "/m/b"], ("/m/b/cats",)),
        ("b", ["/m/a", "/m/b", "/n/b"], ("/m/b", "/n/b")),
        ("cats", ["/"], ("/cats",)),
        ("a/../cats", ["/v"], ("/v/cats",)),
    ],
)
def test_a_folder_by_its_name(name: str, folders: list[str], found: tuple[str, ...]):
    assert folder_called(name, folders) == found


@pytest.mark.parametrize(
    ("name", "folders"), [("..", ["/v"]), ("a/../../w", ["/v"]), ("c", ["/m/a", "/m/b"]), ("a", [])]
)
def test_a_folder_outside_of_the_indexed_ones_is_refused(name: str, folders: list[str]):
    with pytest.raises(
        OptionError, match=r"is none of the indexed folders. Write a folder as in the names of the videos"
    ):
        folder_called(name, folders)


def test_a_name_of_many_folders_searches_them_all_or_says_what_to_do(tmp_path: Path):
    folders = [f"/m/{i}/videos" for i in range(600)]
    paths = [f"{folder}/{name}" for folder in folders for name in ("a.mp4", "cats/b.mp4")]
    index = write_index(tmp_path / "index", [*paths, "/m/uploads/c.mp4"])
    for name, wanted in (("videos", paths), ("videos/cats", paths[1::2])):
        where = Filter(folders=folder_called(name, folders))
        assert index.table.paths(where) == sorted(wanted)
    with pytest.raises(
        OptionError,
        match=r"into 2,000 folders at most, and 'videos' is the name of 2,001. Leave the folder out, and all videos are",
    ):
        folder_called("videos", [f"/m/{i}/videos" for i in range(2001)])
