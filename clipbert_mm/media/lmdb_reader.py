"""Reading LMDBs page by page, with a check of each page.

LMDB's own library maps the file into memory and believes all that it finds there: a file that is cut short or damaged ends the
process with SIGBUS or SIGSEGV. Media need few lookups, and none of that speed. So this module reads the format itself: the
pages of a B-tree as LMDB 0.9 writes them on 64-bit little-endian machines (data version 1; MDB_meta, MDB_db, MDB_page and
MDB_node in its mdb.c). It writes, locks and maps nothing, so any thread or process may read, from a disk that is read-only too.
"""

import os
import struct
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from types import TracebackType

from clipbert_mm.errors import StorageError, printable

META = struct.Struct("<16x2I16xI2H5QI2H5Q2Q")
"""Head of a page; magic number, version; database of the free pages, database of the values; last page, transaction."""
MAGIC, VERSION = 0xBEEFC0DE, 1
PAGE_SIZES = frozenset(1 << bits for bits in range(9, 16))
HEAD = struct.Struct("<Q2x3H")
"""Number of a page, kind, end of the list of its nodes, begin of the nodes."""
LONG_HEAD = struct.Struct("<Q2xHI")
"""Number of the first page of a long value, kind, how many pages."""
NODE = struct.Struct("<4H")
"""A leaf's has the size of the value, low and high half, flags, and the size of the key; a branch's a page in three parts."""
BRANCH, LEAF, LONG = 1, 2, 4
LONG_VALUE, OTHER_VALUE = 1, 6
"""Flags of a leaf's node. Its value has pages of its own; its value is a database or several values."""
NO_PAGE = 2**64 - 1
DEEPEST = 32
_WHOLE: set[tuple[str, int, int]] = set()  # LMDBs without their last pages that need none of these


class BrokenValueError(ValueError):
    """A value that cannot be read, in an LMDB in which others can."""


class LmdbReader:
    """An open LMDB, as of its last transaction.

    Args:
        path: The LMDB: a folder with a ``data.mdb``, or a file.

    Attributes:
        entries: How many keys it says that it has.

    Raises:
        StorageError: If it is no LMDB, damaged, or cut short. So does every method that meets a damaged page.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self._file = open(lmdb_file(path), "rb")  # noqa: SIM115
        except OSError as error:
            raise self._unusable(error.strerror or str(error)) from error
        try:
            self._open()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> "LmdbReader":
        """Return the reader."""
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """Close the file."""
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _open(self) -> None:
        self._size = os.fstat(self._file.fileno()).st_size
        first = self._read_meta(0)
        self._page_size = first[2]
        if self._page_size not in PAGE_SIZES:
            raise self._unusable(f"it says that a page has {self._page_size:,} bytes")
        last = max(first, self._read_meta(self._page_size), key=lambda meta: meta[-1])
        flags, self._depth, self._root, last_page, transaction = last[11], last[12], last[17], last[18], last[19]
        if flags:
            raise self._unusable("its keys have an order of their own, or several values")
        if self._root != NO_PAGE and not 0 < self._depth <= DEEPEST:
            raise self._unusable(f"it says that it is {self._depth:,} pages deep")
        self.entries = last[16]
        self._whole_size = (last_page + 1) * self._page_size
        state = (self.path, self._size, transaction)
        if self._size < self._whole_size and state not in _WHOLE:
            # LMDB does not write a page that it takes and lets go of in one commit, so a sound file may lack the last ones.
            for leaf in self._leaves():
                for node in range(leaf.count):
                    if leaf.flags(node) & LONG_VALUE:
                        self._check_end(leaf.long_page(node) * self._page_size + LONG_HEAD.size + leaf.size(node))
            _WHOLE.add(state)

    def get(self, key: bytes) -> bytes | None:
        """Return the value of a key; None if there is no such key.

        Raises:
            BrokenValueError: If the value is damaged, or no single value.
        """
        for leaf in self._leaves(key):
            node = bisect_left(range(leaf.count), key, key=leaf.key)
            return self._read_value(leaf, node) if node < leaf.count and leaf.key(node) == key else None
        return None

    def list_keys(self, prefix: bytes = b"") -> Iterator[bytes]:
        """List the keys that begin with a prefix, in their order."""
        last = b""
        for leaf in self._leaves(prefix):
            for key in map(leaf.key, range(leaf.count)):
                if key < prefix:
                    continue
                if not key.startswith(prefix):
                    return
                if key <= last:  # a tree whose pages lead back to one another would never end
                    raise leaf.damaged()
                last = key
                yield key

    def _leaves(self, key: bytes = b"") -> Iterator["_Page"]:
        """Walk over the leaves from the one that holds a key if any does."""
        if self._root != NO_PAGE:
            yield from self._leaves_below(self._root, 1, key)

    def _leaves_below(self, number: int, level: int, key: bytes) -> Iterator["_Page"]:
        page = self._read_page(number, LEAF if level == self._depth else BRANCH)
        if level == self._depth:
            yield page
        else:
            for node in range(page.child(key), page.count):
                yield from self._leaves_below(page.child_page(node), level + 1, key)

    def _read_meta(self, at: int) -> tuple[int, ...]:
        meta = META.unpack(self._read(at, META.size))
        if meta[0] != MAGIC:
            raise self._unusable("it does not begin as one")
        if meta[1] != VERSION:
            raise self._unusable(f"expected version {VERSION} of the format, got {meta[1]:,}")
        return meta

    def _read(self, at: int, size: int) -> bytes:
        try:
            self._file.seek(at)
            data = self._file.read(size)
        except OSError as error:
            raise self._unusable(error.strerror or str(error)) from error
        if len(data) < size:
            raise self._unusable(f"it is cut short, or being written to: {at + len(data):,} bytes. Copy it again")
        return data

    def _read_page(self, number: int, kind: int) -> "_Page":
        self._check_end((number + 1) * self._page_size)
        return _Page(self._read(number * self._page_size, self._page_size), self.path, number, kind)

    def _read_value(self, leaf: "_Page", node: int) -> bytes:
        if leaf.flags(node) & OTHER_VALUE:
            raise BrokenValueError("it is a database of its own, or several values")
        if not leaf.flags(node) & LONG_VALUE:
            return leaf.short_value(node)
        number, size = leaf.long_page(node), leaf.size(node)
        at = number * self._page_size
        self._check_end(at + LONG_HEAD.size + size)
        found, kind, pages = LONG_HEAD.unpack(self._read(at, LONG_HEAD.size))
        if found != number or not kind & LONG or LONG_HEAD.size + size > pages * self._page_size:
            raise BrokenValueError(f"its page {number:,} is damaged")
        return self._read(at + LONG_HEAD.size, size)

    def _check_end(self, end: int) -> None:
        if end > self._size:
            raise self._unusable(f"it is cut short: {self._size:,} of {self._whole_size:,} bytes. Copy it again")

    def _unusable(self, reason: str) -> StorageError:
        return StorageError(f"{printable(self.path)} is expected to be an LMDB, and cannot be opened: {reason}.")


class _Page:
    """A page of the tree: a leaf with keys and values, or a branch with keys and the pages below.

    Raises:
        StorageError: If it is no page of this number and kind, or a node does not lie within it.
    """

    def __init__(self, data: bytes, path: str, number: int, kind: int) -> None:
        self._data, self._path, self.number = data, path, number
        found, flags, lower, upper = HEAD.unpack_from(data)
        self.count = (lower - HEAD.size) // 2
        if found != number or not flags & kind or self.count < 1 or not lower <= upper <= len(data):
            raise self.damaged()
        self._starts = struct.unpack_from(f"<{self.count}H", data, HEAD.size)
        if min(self._starts) < upper or max(self._starts) > len(data) - NODE.size:
            raise self.damaged()

    def key(self, node: int) -> bytes:
        """Return a node's key."""
        start = self._starts[node]
        return self._slice(start + NODE.size, NODE.unpack_from(self._data, start)[3])

    def child(self, key: bytes) -> int:
        """Return the node of a branch below which a key lies; its first node has no key."""
        return bisect_right(range(1, self.count), key, key=self.key)

    def child_page(self, node: int) -> int:
        """Return the number of the page below a node of a branch."""
        low, middle, high, _ = NODE.unpack_from(self._data, self._starts[node])
        return low | middle << 16 | high << 32

    def size(self, node: int) -> int:
        """Return the bytes of a value."""
        low, high, _, _ = NODE.unpack_from(self._data, self._starts[node])
        return low | high << 16

    def flags(self, node: int) -> int:
        """Return the flags of a leaf's node."""
        return NODE.unpack_from(self._data, self._starts[node])[2]

    def short_value(self, node: int) -> bytes:
        """Return a value that lies in the page."""
        return self._slice(self._starts[node] + NODE.size + len(self.key(node)), self.size(node))

    def long_page(self, node: int) -> int:
        """Return the number of the first page of a value that has pages of its own."""
        return int.from_bytes(self._slice(self._starts[node] + NODE.size + len(self.key(node)), 8), "little")

    def damaged(self) -> StorageError:
        """Return the error that names the page."""
        return StorageError(
            f"The LMDB {printable(self._path)} is damaged: its page {self.number:,} is not what the pages above it say. Copy "
            "it, or pack it, again."
        )

    def _slice(self, start: int, size: int) -> bytes:
        if start + size > len(self._data):
            raise self.damaged()
        return self._data[start : start + size]


def lmdb_file(path: str) -> str:
    """Return the file of an LMDB, which is itself or lies in its folder."""
    return os.path.join(path, "data.mdb") if os.path.isdir(path) else path
