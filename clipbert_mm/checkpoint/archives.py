"""Files of torch.save: are they whole, and are they what torch takes them for?"""

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
"""How a file of torch.save begins since torch 1.6."""
TORCH_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""How one began before."""
LOCAL_HEADER = 30
"""Fewest bytes between a member's name and what lies before it."""
OLD_PICKLES = 5
"""The pickles at the start of an old file, for a magic number, a version, the system, the content, and the storages' keys."""


def load_torch(path: str | os.PathLike, map_location: str | torch.device = "cpu", *, mmap: bool = True) -> Any:  # noqa: ANN401
    """Load a file of torch.save weights-only, after a look at what it would build.

    Args:
        path: The file, of torch of any release.
        map_location: Device for the tensors.
        mmap: Whether the tensors of a new file may stay on disk until they are read.

    Raises:
        CheckpointError: If the file is damaged, or packed in another way than torch packs it.
        Exception: Of pickle or torch, if it asks for code or for more than there is in it.
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
    """Go through the pickle that torch's own reader finds, whose members have to be those that were checked."""
    archive = torch._C.PyTorchFileReader(path)
    with zipfile.ZipFile(path) as checked:
        sizes = {member.filename.partition("/")[2]: member.file_size for member in checked.infolist()}
    if set(archive.get_all_records()) != set(sizes):
        raise CheckpointError(f"{printable(path)} is refused: it holds two archives. Take another copy.")

    def check_storage(key: str, size: int) -> None:
        if size > sizes.get(f"data/{key}", -1):
            raise CheckpointError(
                f"{printable(path)} is damaged: a tensor of {size:,} bytes is said to be in its member data/{key[:20]}, which "
                f"has {sizes.get(f'data/{key}', 0):,}. Take another copy."
            )

    Inspector(Reader(archive.get_record("data.pkl")), check_storage).load()


def _inspect_old(path: str) -> None:
    """Go through the pickles at the start of an old file; the tensors come after them."""
    left, seen = os.path.getsize(path), set()

    def check_storage(key: str, size: int) -> None:
        nonlocal left
        left -= 0 if key in seen else size
        seen.add(key)
        if left < 0:
            raise CheckpointError(
                f"{printable(path)} is damaged: its tensors are said to be larger than the file. Take another copy."
            )

    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        reader = Reader(content)
        try:
            for _ in range(OLD_PICKLES):
                Inspector(reader, check_storage).load()
        finally:
            reader.data.release()


def verify_checkpoint(path: str | os.PathLike) -> None:
    """See that what lies in a file of torch.save is what was written, by the checksum of each of its members.

    A file is read once for this, and again only after it changed. Files of before torch 1.6 have no checksums.

    Raises:
        CheckpointError: If it is cut short, damaged, or packed in another way than torch packs it.
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
                if member.CRC == 0:  # torch was told to leave the checksums out
                    continue
                with archive.open(member) as content:
                    while content.read(1 << 20):
                        pass
    # zipfile's errors for damaged members are of all kinds
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(
            f"{printable(path)} ({size} bytes) is damaged: {first_line(error)}. It was cut short, or the disk or a copy "
            "changed it. Take another copy."
        ) from error


def _check_members(path: str, members: list[zipfile.ZipInfo]) -> None:
    """See that the members lie in the file as torch writes them, for torch maps them into memory unseen.

    Raises:
        CheckpointError: If one is compressed or encrypted, has a name twice, or lies over another.
    """
    end = 0
    names: set[str] = set()
    for member in sorted(members, key=lambda each: each.header_offset):
        name = member.filename.casefold()  # torch's reader takes names of either case for the same
        wrong = ""
        if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size:
            wrong = "is compressed, and torch would take the compressed bytes for tensors"
        elif member.flag_bits & 1:
            wrong = "is encrypted"
        elif name in names:
            wrong = "is there twice"
        elif member.header_offset < end or (not names and member.header_offset > 0):
            wrong = "lies over another, or is not where it is said to be"
        if wrong:
            raise CheckpointError(
                f"{printable(path)} is refused: its member {printable(member.filename)[:100]} {wrong}. Members are expected as "
                "torch.save writes them. Take the file as it was written; a storage or tool that packs files anew has to leave "
                "it alone."
            )
        names.add(name)
        end = member.header_offset + LOCAL_HEADER + len(member.filename.encode()) + member.file_size


def first_line(error: Exception) -> str:
    """Return the first sentence of an error, or its kind where it says nothing."""
    text = str(error).strip()
    return text.splitlines()[0].split(". ")[0].rstrip(".")[:200] if text else type(error).__name__
