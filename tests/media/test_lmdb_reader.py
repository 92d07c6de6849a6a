"""The reader of LMDBs: it finds what LMDB's own library finds, and names what is damaged."""

import os
import random
from pathlib import Path

import lmdb
import pytest

from clipbert_mm.errors import StorageError
from clipbert_mm.media.lmdb_reader import BrokenValueError, LmdbReader

PAGE = 4096


def write(path: Path, values: dict[bytes, bytes], **options: bool) -> Path:
    with lmdb.open(str(path), map_size=1 << 28, **options) as environment, environment.begin(write=True) as writing:
        for key, value in values.items():
            writing.put(key, value)
    return path


def patch(root: Path, at: int, data: bytes) -> None:
    with open(root / "data.mdb", "r+b") as file:
        file.seek(at)
        file.write(data)


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """An LMDB of two levels, in which every fifth value has pages of its own."""
    return write(tmp_path / "a.lmdb", {b"key%03d" % i: b"%d" % i * (1 + 5000 * (i % 5 == 0)) for i in range(500)})


@pytest.mark.parametrize("seed", range(12))
def test_it_finds_what_the_library_finds(tmp_path: Path, seed: int):
    rng = random.Random(seed)
    kinds = (b"%d", b"abc/%d" * 20, b"x" * 400 + b"%d", b"%05d.mp4")
    with lmdb.open(str(tmp_path / "a"), map_size=1 << 26) as environment:
        for _ in range(rng.randint(0, 8)):
            with environment.begin(write=True) as writing:
                for _ in range(rng.randint(1, 300)):
                    key = rng.choice(kinds).replace(b"%d", b"%d" % rng.randint(0, 300))
                    if rng.random() < 0.6:
                        writing.put(key, rng.randbytes(rng.choice([0, 10, 1000, 3000, 5000, 20000])))
                    else:
                        writing.delete(key)
        with environment.begin() as reading:
            wanted = dict(reading.cursor())
    with LmdbReader(str(tmp_path / "a")) as reader:
        assert list(reader.list_keys()) == list(wanted)
        assert reader.entries == len(wanted)
        for key, value in wanted.items():
            assert reader.get(key) == value
            assert reader.get(key + b"?") is None
        for prefix in (b"abc", b"abc/1", b"1", b"zz", b"x" * 400 + b"1"):
            assert list(reader.list_keys(prefix)) == [key for key in wanted if key.startswith(prefix)]
        assert reader.get(b"") is None


def test_what_was_added_is_read_by_who_opens_it_next(tmp_path: Path):
    root = str(write(tmp_path / "a", {b"a": b"1"}))
    write(tmp_path / "a", {b"b": b"2"})
    with LmdbReader(root) as reader:
        assert list(reader.list_keys()) == [b"a", b"b"]


def test_a_file_without_pages_that_nothing_needs_is_whole(tmp_path: Path):
    """LMDB does not write a page that one commit takes and lets go of, so some sound files are a page shorter than they say."""
    root = write(tmp_path / "a", {b"%d" % i: b"1" * 500 for i in range(100)})
    for at in (136, PAGE + 136):  # MDB_meta's mm_last_pg
        patch(root, at, (os.path.getsize(root / "data.mdb") // PAGE).to_bytes(8, "little"))
    with LmdbReader(str(root)) as reader:
        assert len(list(reader.list_keys())) == 100


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.9, 0.99])
def test_a_cut_file_is_named_when_it_is_opened(packed: Path, share: float):
    os.truncate(packed / "data.mdb", int(share * os.path.getsize(packed / "data.mdb")))
    with pytest.raises(StorageError, match=r"a\.lmdb cannot be opened as an LMDB: it is cut short"):
        LmdbReader(str(packed))


@pytest.mark.parametrize(
    ("at", "data", "reason"),
    [
        (16, bytes(4), "its first bytes are not those of an LMDB"),
        (20, b"\2", "expected version 1 of the format, got 2"),
        (40, b"\1\0\0\0", "its header claims pages of 1 bytes"),
    ],
)
def test_what_is_no_lmdb_is_named(packed: Path, at: int, data: bytes, reason: str):
    patch(packed, at, data)
    with pytest.raises(StorageError, match=f"cannot be opened as an LMDB: {reason}."):
        LmdbReader(str(packed))


def test_damaged_pages_of_the_tree_are_named(packed: Path):
    whole = (packed / "data.mdb").read_bytes()
    with LmdbReader(str(packed)) as reader:
        pages = [reader._root, *(leaf.number for leaf in reader._leaves())]
    assert len(pages) == 4
    for page, other in zip(pages, pages[1:] + pages[:1], strict=True):
        number = page.to_bytes(8, "little")
        for damage in (
            bytes(PAGE),
            number + bytes(PAGE - 8),
            number + b"\xff" * (PAGE - 8),
            whole[other * PAGE :][:PAGE],
        ):
            (packed / "data.mdb").write_bytes(whole)
            patch(packed, page * PAGE, damage)
            with (
                LmdbReader(str(packed)) as reader,
                pytest.raises(StorageError, match=f"damaged: its page {page} does not match"),
            ):
                list(reader.list_keys())


def test_a_damaged_value_leaves_the_others(packed: Path):
    with LmdbReader(str(packed)) as reader:
        leaf = next(reader._leaves(b"key005"))
        page = leaf.long_page(next(i for i in range(leaf.count) if leaf.key(i) == b"key005"))
    patch(packed, page * PAGE, bytes(16))
    with LmdbReader(str(packed)) as reader:
        with pytest.raises(BrokenValueError, match=f"its page {page} is damaged"):
            reader.get(b"key005")
        assert reader.get(b"key010") == b"10" * 5001


def test_other_kinds_of_databases_are_refused(tmp_path: Path):
    with lmdb.open(str(tmp_path / "named"), map_size=1 << 26, max_dbs=1) as environment:
        environment.open_db(b"inner")
    with LmdbReader(str(tmp_path / "named")) as reader, pytest.raises(BrokenValueError, match="a database of its own"):
        reader.get(b"inner")
    root = write(tmp_path / "dup", {b"a": b"1"})
    for at in (92, PAGE + 92):  # md_flags of the database of the values
        patch(root, at, b"\4")  # MDB_DUPSORT
    with pytest.raises(StorageError, match="its keys have a custom order, or several values per key"):
        LmdbReader(str(tmp_path / "dup"))
