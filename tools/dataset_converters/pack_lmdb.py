#!/usr/bin/env python
"""Pack a folder of videos or images into an LMDB: python tools/dataset_converters/pack_lmdb.py FOLDER OUT.lmdb."""

import argparse
import os
import shutil
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import lmdb

from clipbert_mm.engine.run_tool import run_tool
from clipbert_mm.errors import OptionError, StorageError, printable
from clipbert_mm.fileio import locked
from clipbert_mm.media.listing import list_names
from clipbert_mm.media.lmdb_reader import LmdbReader
from clipbert_mm.media.storage import MAX_KEY

PAGE = 4096
BATCH = 64 << 20
"""Bytes that are written together; what a killed run loses at most."""


def choose_keys(folder: Path, keep_ending: bool) -> dict[bytes, Path]:
    """Return the file of each key, sorted by key."""
    if not folder.is_dir() or (folder / "data.mdb").exists():
        found = "an LMDB" if folder.is_dir() else "none"
        raise OptionError(f"Expected a folder of files, got {printable(str(folder))}: {found}.")
    keys: dict[bytes, Path] = {}
    for name in list_names(str(folder)):
        key = os.fsencode(name if keep_ending else os.path.splitext(name)[0])
        shown = printable(f"{folder}/{name}")
        if len(key) > MAX_KEY:
            raise OptionError(f"{shown}: an LMDB's keys have up to {MAX_KEY} bytes, got {len(key)}.")
        if key in keys:
            raise OptionError(
                f"{printable(str(keys[key]))} and {shown} would have one key. Pack them with --keep-ending."
            )
        keys[key] = folder / name
    if not keys:
        raise OptionError(f"{printable(str(folder))} holds no files.")
    return dict(sorted(keys.items()))


def open_for_writing(path: Path, sizes: Sequence[int]) -> lmdb.Environment:
    """Open an LMDB that has room for values of these sizes more."""
    room = sum(size + 2 * PAGE for size in sizes)
    used = 0
    if (path / "data.mdb").exists():
        LmdbReader(str(path)).close()  # an error where it is damaged or cut short, which would end this process
        used = (path / "data.mdb").stat().st_size
    return lmdb.open(str(path), map_size=used + room + room // 8 + (16 << 20), readahead=False)


def read_ahead(paths: Sequence[Path], workers: int) -> Iterator[bytes]:
    """Read files in order, several at a time, few ahead of the next one."""
    with ThreadPoolExecutor(workers) as pool:
        todo = iter(paths)
        reading: deque[Future] = deque(pool.submit(path.read_bytes) for path in islice(todo, 2 * workers))
        while reading:
            yield reading.popleft().result()
            reading.extend(pool.submit(path.read_bytes) for path in islice(todo, 1))


def write(path: Path, files: dict[bytes, Path], workers: int) -> tuple[int, int]:
    """Write what is not there yet, or has another size; returns how many files and bytes.

    Raises:
        StorageError: If the LMDB cannot be written, on a full disk for example; what is in it stays.
    """
    try:
        return _write(path, files, workers)
    except lmdb.Error as error:
        free = shutil.disk_usage(path).free / 1e6
        raise StorageError(
            f"{printable(str(path))} cannot be written: {error}. {free:.1f} MB are free there. Make room and run again: it "
            "resumes where it was stopped."
        ) from error


def _write(path: Path, files: dict[bytes, Path], workers: int) -> tuple[int, int]:
    sizes = {key: file.stat().st_size for key, file in files.items()}
    with open_for_writing(path, list(sizes.values())) as environment:
        with environment.begin(buffers=True) as transaction:
            there = {key: transaction.get(key) for key in files}
            todo = [key for key, value in there.items() if value is None or len(value) != sizes[key]]
            del there
        packed = 0
        transaction, pending = environment.begin(write=True), 0
        for key, data in zip(todo, read_ahead([files[key] for key in todo], workers), strict=True):
            transaction.put(key, data)
            packed, pending = packed + len(data), pending + len(data)
            if pending >= BATCH:
                transaction.commit()  # on the disk, whatever becomes of this process
                transaction, pending = environment.begin(write=True), 0
        transaction.commit()
    return len(todo), packed


def check(path: Path, files: dict[bytes, Path], workers: int) -> list[str]:
    """Compare every value with its file; returns what is wrong."""
    if not (path / "data.mdb").is_file():
        raise StorageError(f"There is no LMDB {printable(str(path))}.")
    wrong = []
    with LmdbReader(str(path)) as reader:
        for key, data in zip(files, read_ahead(list(files.values()), workers), strict=True):
            value = reader.get(key)
            if value is None:
                wrong.append(f"{printable(os.fsdecode(key))}: missing")
            elif value != data:
                wrong.append(f"{printable(os.fsdecode(key))}: not the bytes of {printable(str(files[key]))}")
        for key in reader.list_keys():
            if key not in files:
                wrong.append(f"{printable(os.fsdecode(key))}: of no file in the folder")
    return wrong


def main(argv: list[str] | None = None) -> int:
    """Pack, or check what was packed; returns 1 if it is not right."""
    parser = argparse.ArgumentParser(
        description="Pack a folder into an LMDB: a key is a file's path in the folder without its ending, a value its bytes. "
        "Run again, it resumes where it was stopped, and adds files that are new or have another size. The LMDB appears under "
        "its name when it is whole. Do not add to one that is being read from."
    )
    parser.add_argument("folder", type=Path, help="folder of videos or images; sub-folders too, hidden files not")
    parser.add_argument("out", type=Path, help="the LMDB, a folder named *.lmdb")
    parser.add_argument("--workers", type=int, default=8, help="files that are read at a time (default: 8)")
    parser.add_argument("--keep-ending", action="store_true", help="keys with the files' endings")
    parser.add_argument("--check", action="store_true", help="write nothing; compare every value with its file")
    args = parser.parse_args(argv)
    if args.out.suffix != ".lmdb" or (args.out.exists() and not (args.out / "data.mdb").is_file()):
        raise OptionError(f"Expected a new folder or an LMDB that is named *.lmdb, got {args.out}.")
    if args.out.resolve().is_relative_to(args.folder.resolve()):
        raise OptionError(f"{args.out} lies in the folder that is to be packed, {args.folder}. Put it somewhere else.")
    files = choose_keys(args.folder, args.keep_ending)
    if args.check:
        wrong = check(args.out, files, args.workers)
        print("\n".join([*wrong, f"{len(files):,} files, {len(wrong):,} differences"]))
        return 1 if wrong else 0
    part = args.out.with_name(f"{args.out.name}.part")
    target = args.out if args.out.exists() else part
    target.mkdir(parents=True, exist_ok=True)
    with locked(target):
        count, size = write(target, files, args.workers)
    if target == part:
        part.rename(args.out)
    print(f"packed {count:,} files ({size / 1e9:.2f} GB), {len(files) - count:,} were there: {args.out}")
    return 0


if __name__ == "__main__":
    run_tool(main)
