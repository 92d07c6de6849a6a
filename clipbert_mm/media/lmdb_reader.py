"""LmdbReader, which reads LMDBs page by page and checks each page.

LMDB's own library maps the file into memory and trusts its content: a truncated or damaged file crashes the process with SIGBUS
or SIGSEGV. Reading media takes few look-ups and does not need that speed. So this module reads the format itself: the pages of
a B-tree as LMDB 0.9 writes them on 64-bit little-endian machines (data version 1; MDB_meta, MDB_db, MDB_page and MDB_node in
its mdb.c). It does not write, lock or map the file, so any thread or process may read, also from a read-only disk.
"""

import os
import struct
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from types import TracebackType

from clipbert_mm.errors import StorageError, printable

META = struct.Struct("<16x2I16xI2H5QI2H5Q2Q")
"""Header of a meta page, with magic number, version, the database of free pages, that of the values, last page, transaction."""
MAGIC, VERSION = 0xBEEFC0DE, 1
PAGE_SIZES = frozenset(1 << bits for bits in range(9, 16))
HEADER = struct.Struct("<Q2x3H")
"""Header of a page, with page number, kind, end of the list of its nodes, start of the nodes."""
LONG_HEADER = struct.Struct("<Q2xHI")
"""Header of a long value, with number of its first page, kind, number of pages."""
NODE = struct.Struct("<4H")
"""Header of a node. A leaf has size of the value (low, high), flags and size of the key; a branch has a page in three parts."""
BRANCH, LEAF, LONG = 1, 2, 4
LONG_VALUE, OTHER_VALUE = 1, 6
"""Flags of a node of a leaf whose value has pages of its own, and of one whose value is a database or several values."""
NO_PAGE = 2**64 - 1
MAX_DEPTH = 32
_COMPLETE: set[tuple[str, int, int]] = set()  # LMDBs that lack their last pages and do not use them


class BrokenValueError(ValueError):
    """A value that cannot be read, in an LMDB whose other values can."""


class LmdbReader:
    """Reader of an LMDB, in the state of its last transaction.

    Args:
        path: The LMDB: a folder with a ``data.mdb``, or a file.

    Attributes:
        entries: Number of keys according to its header.

    Raises:
        StorageError: If it is not an LMDB, damaged or truncated. Every method raises it for a damaged page.
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
            raise self._unusable(f"its header claims pages of {self._page_size:,} bytes")
        last = max(first, self._read_meta(self._page_size), key=lambda meta: meta[-1])
        flags, self._depth, self._root, last_page, transaction = last[11], last[12], last[17], last[18], last[19]
        if flags:
            raise self._unusable("its keys have a custom order, or several values per key")
        if self._root != NO_PAGE and not 0 < self._depth <= MAX_DEPTH:
            raise self._unusable(f"its header claims a depth of {self._depth:,} pages")
        self.entries = last[16]
        self._expected_size = (last_page + 1) * self._page_size
        state = (self.path, self._size, transaction)
        if self._size < self._expected_size and state not in _COMPLETE:
            # LMDB does not write a page that is allocated and freed in one commit, so an intact file may lack its last pages.
            for leaf in self._leaves():
                for node in range(leaf.count):
                    if leaf.flags(node) & LONG_VALUE:
                        self._check_end(leaf.long_page(node) * self._page_size + LONG_HEADER.size + leaf.size(node))
            _COMPLETE.add(state)

    def get(self, key: bytes) -> bytes | None:
        """Return the value of a key; None if there is no such key.

        Raises:
            BrokenValueError: If the value is damaged, or is not a single value.
        """
        for leaf in self._leaves(key):
            node = bisect_left(range(leaf.count), key, key=leaf.key)
            return self._read_value(leaf, node) if node < leaf.count and leaf.key(node) == key else None
        return None

    def list_keys(self, prefix: bytes = b"") -> Iterator[bytes]:
        """List the keys that begin with a prefix, in order."""
        last = b""
        for leaf in self._leaves(prefix):
            for key in map(leaf.key, range(leaf.count)):
                if key < prefix:
                    continue
                if not key.startswith(prefix):
                    return
                if key <= last:  # a damaged tree may have cycles
                    raise leaf.damaged()
                last = key
                yield key

    def _leaves(self, key: bytes = b"") -> Iterator["_Page"]:
        """Iterate over the leaves, from the one that a key belongs to."""
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
            raise self._unusable("its first bytes are not those of an LMDB")
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
            raise self._unusable(f"it is cut short at {at + len(data):,} bytes, or being written. Copy it again")
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
        self._check_end(at + LONG_HEADER.size + size)
        first_page, kind, pages = LONG_HEADER.unpack(self._read(at, LONG_HEADER.size))
        if first_page != number or not kind & LONG or LONG_HEADER.size + size > pages * self._page_size:
            raise BrokenValueError(f"its page {number:,} is damaged")
        return self._read(at + LONG_HEADER.size, size)

    def _check_end(self, end: int) -> None:
        if end > self._size:
            raise self._unusable(f"it is cut short: {self._size:,} of {self._expected_size:,} bytes. Copy it again")

    def _unusable(self, reason: str) -> StorageError:
        return StorageError(f"{printable(self.path)} cannot be opened as an LMDB: {reason}.")


class _Page:
    """A page of the tree: a leaf with keys and values, or a branch with keys and child pages.

    Raises:
        StorageError: If it is not a page of this number and kind, or a node is not within it.
    """

    def __init__(self, data: bytes, path: str, number: int, kind: int) -> None:
        self._data, self._path, self.number = data, path, number
        page, flags, lower, upper = HEADER.unpack_from(data)
        self.count = (lower - HEADER.size) // 2
        if page != number or not flags & kind or self.count < 1 or not lower <= upper <= len(data):
            raise self.damaged()
        self._starts = struct.unpack_from(f"<{self.count}H", data, HEADER.size)
        if min(self._starts) < upper or max(self._starts) > len(data) - NODE.size:
            raise self.damaged()

    def key(self, node: int) -> bytes:
        """Return the key of a node."""
        start = self._starts[node]
        return self._slice(start + NODE.size, NODE.unpack_from(self._data, start)[3])

    def child(self, key: bytes) -> int:
        """Return the node of a branch whose child page a key belongs to; the first node has no key."""
        return bisect_right(range(1, self.count), key, key=self.key)

    def child_page(self, node: int) -> int:
        """Return the page number of the child of a node of a branch."""
        low, middle, high, _ = NODE.unpack_from(self._data, self._starts[node])
        return low | middle << 16 | high << 32

    def size(self, node: int) -> int:
        """Return the size of a value in bytes."""
        low, high, _, _ = NODE.unpack_from(self._data, self._starts[node])
        return low | high << 16

    def flags(self, node: int) -> int:
        """Return the flags of a node of a leaf."""
        return NODE.unpack_from(self._data, self._starts[node])[2]

    def short_value(self, node: int) -> bytes:
        """Return a value that is stored in the page."""
        return self._slice(self._starts[node] + NODE.size + len(self.key(node)), self.size(node))

    def long_page(self, node: int) -> int:
        """Return the first page of a value that has pages of its own."""
        return int.from_bytes(self._slice(self._starts[node] + NODE.size + len(self.key(node)), 8), "little")

    def damaged(self) -> StorageError:
        """Return the error that names the page."""
        return StorageError(
            f"The LMDB {printable(self._path)} is damaged: its page {self.number:,} does not match the page that refers to "
            "it. Copy the LMDB again, or pack it again."
        )

    def _slice(self, start: int, size: int) -> bytes:
        if start + size > len(self._data):
            raise self.damaged()
        return self._data[start : start + size]


def lmdb_file(path: str) -> str:
    """Return the data file of an LMDB: the LMDB itself, or the file in its folder."""
    return os.path.join(path, "data.mdb") if os.path.isdir(path) else path
