"""Check and load files of torch.save: they have to be complete, and contain what torch will read from them."""

import functools
import mmap
import os
import zipfile
import zlib
from typing import Any

import torch

from clipbert_mm import compat
from clipbert_mm.checkpoint.arrays import STAND_INS
from clipbert_mm.checkpoint.pickles import Inspector, Reader
from clipbert_mm.errors import CheckpointError, printable

ZIP_MAGIC = b"PK\x03\x04"
"""First bytes of a file of torch.save since torch 1.6."""
TORCH_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""First bytes of a file of older releases."""
LOCAL_HEADER = 30
"""Fewest bytes between the previous member and a member's name."""
OLD_PICKLES = 5
"""Pickles at the start of an old file, which are magic number, version, system, content, and the keys of the storages."""


def load_torch(path: str | os.PathLike, map_location: str | torch.device = "cpu", *, mmap: bool = True) -> Any:  # noqa: ANN401
    """Load a file of torch.save weights-only, after inspecting what it would build.

    Args:
        path: The file, written by any release of torch.
        map_location: Device for the tensors.
        mmap: Whether the tensors of a file of torch 1.6 or later stay on disk until they are read. The file must not be
            written to then as long as they are in use.

    Raises:
        CheckpointError: If the file is damaged, or not packed as torch packs it.
        Exception: An error of pickle or torch, if the file asks for code or for more data than it has.
    """
    name = os.fspath(path)
    with open(name, "rb") as file:
        if file.read(len(ZIP_MAGIC)) != ZIP_MAGIC:
            _inspect_old(name)
            with compat.allowing_mmengine_checkpoints(STAND_INS):
                return torch.load(name, map_location=map_location, weights_only=True)
    state = os.stat(name)
    _check(name, state.st_size, state.st_mtime_ns, state.st_ino)
    _inspect(name)
    with compat.allowing_mmengine_checkpoints(STAND_INS):
        return torch.load(name, map_location=map_location, weights_only=True, mmap=mmap)


def _inspect(path: str) -> None:
    """Inspect the pickle that torch's own reader finds; the reader has to see the same members that were checked."""
    archive = torch._C.PyTorchFileReader(path)
    with zipfile.ZipFile(path) as checked:
        sizes = {member.filename.partition("/")[2]: member.file_size for member in checked.infolist()}
    if set(archive.get_all_records()) != set(sizes):
        raise CheckpointError(f"{printable(path)} is refused: it contains two archives. Take another copy.")

    def check_storage(key: str, size: int) -> None:
        if size > sizes.get(f"data/{key}", -1):
            raise CheckpointError(
                f"{printable(path)} is damaged: a tensor needs {size:,} bytes of its member data/{key[:20]}, which has "
                f"{sizes.get(f'data/{key}', 0):,}. Take another copy."
            )

    Inspector(Reader(archive.get_record("data.pkl")), check_storage).load()


def _inspect_old(path: str) -> None:
    """Inspect the pickles at the start of an old file; the tensors come after them."""
    bytes_left, seen = os.path.getsize(path), set()

    def check_storage(key: str, size: int) -> None:
        nonlocal bytes_left
        bytes_left -= 0 if key in seen else size
        seen.add(key)
        if bytes_left < 0:
            raise CheckpointError(
                f"{printable(path)} is damaged: its tensors need more bytes than the file has. Take another copy."
            )

    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        reader = Reader(content)
        try:
            for _ in range(OLD_PICKLES):
                Inspector(reader, check_storage).load()
        finally:
            reader.data.release()


def verify_checkpoint(path: str | os.PathLike) -> None:
    """Check that a file of torch.save is complete and unchanged, by the checksum of each member.

    The file is read once for this, and again only if it changes. Files of releases before torch 1.6 have no checksums.

    Raises:
        CheckpointError: If it is cut short, damaged, or not packed as torch packs it.
    """
    if zipfile.is_zipfile(path):
        state = os.stat(path)
        _check(os.fspath(path), state.st_size, state.st_mtime_ns, state.st_ino)


@functools.lru_cache(maxsize=64)
def _check(path: str, size: int, *state: int) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            _check_members(path, archive.infolist())
            for member in archive.infolist():
                if member.CRC == 0:  # it was written without checksums
                    continue
                with archive.open(member) as content:
                    while content.read(1 << 20):
                        pass
    # zipfile raises errors of all these types for damaged members
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(
            f"{printable(path)} ({size} bytes) is damaged: {first_line(error)}. It was cut short, or the disk or a copy "
            "changed it. Take another copy."
        ) from error


def _check_members(path: str, members: list[zipfile.ZipInfo]) -> None:
    """Check that the members are stored as torch stores them, since torch maps them into memory without a check.

    Raises:
        CheckpointError: If a member is compressed or encrypted, has the name of another, or overlaps another.
    """
    end = 0
    names: set[str] = set()
    for member in sorted(members, key=lambda each: each.header_offset):
        name = member.filename.casefold()  # torch's reader ignores the case of names
        problem = ""
        if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size:
            problem = "is compressed, and torch would read the compressed bytes as tensors"
        elif member.flag_bits & 1:
            problem = "is encrypted"
        elif name in names:
            problem = "exists twice"
        elif member.header_offset < end or (not names and member.header_offset > 0):
            problem = "overlaps another, or is not at its offset"
        if problem:
            raise CheckpointError(
                f"{printable(path)} is refused: its member {printable(member.filename)[:100]} {problem}. Expected members as "
                "torch.save writes them. Use the original file; a tool that repacks archives must leave it unchanged."
            )
        names.add(name)
        end = member.header_offset + LOCAL_HEADER + len(member.filename.encode()) + member.file_size


def first_line(error: Exception) -> str:
    """Return the first sentence of an error, or its type if it has no text."""
    text = str(error).strip()
    return text.splitlines()[0].split(". ")[0].rstrip(".")[:200] if text else type(error).__name__
