"""The records of an index in SQLite: safe against kills, written by one process, read by others meanwhile."""

import json
import os
import zlib
from collections.abc import ItemsView, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clipbert_mm.index.database import Database
from clipbert_mm.index.filters import Filter
from clipbert_mm.index.names import NamePart
from clipbert_mm.index.records import Entry, Unreadable, entry_from, unreadable_from
from clipbert_mm.index.vectors import VideoRows

ROWS_AT_ONCE = 500
"""Records that are read, or looked up, in one statement; between two of them a writer has its turn."""
MOST_COUNTS = 64
"""Numbers of videos that meet conditions that are remembered until the records change."""


@dataclass(frozen=True)
class Rows:
    """Rows of a video in the file of vectors: the first one, their number, and the CRC-32 of their bytes."""

    start: int
    count: int
    checksum: int


class RecordTable(Database):
    """Facts and records of an index, in one file.

    A record that does not agree with its checksum, or is not one, is left out wherever records are read.

    Args:
        file: The database; :meth:`~clipbert_mm.index.database.Database.create` makes it.
    """

    def __init__(self, file: Path) -> None:
        super().__init__(file)
        self._facts: tuple[tuple, dict[str, Any]] | None = None
        self._counts: dict[tuple, tuple[tuple, int]] = {}

    def facts(self) -> dict[str, Any]:
        """Return the facts about the index: its format, and those that it was created with or that :meth:`set_facts` got.

        Raises:
            VideoIndexError: If they are damaged.
        """
        version = self.version()
        if self._facts is None or self._facts[0] != version:
            with self.reading() as database:
                found = database.execute("SELECT name, value FROM facts").fetchall()
            try:
                self._facts = version, {name: json.loads(value) for name, value in found}
            except (TypeError, ValueError, RecursionError) as error:
                raise self.damaged_error(error) from error
        return dict(self._facts[1])

    def set_facts(self, facts: Mapping[str, Any]) -> None:
        """Set some facts, JSON values by name."""
        with self.changing() as database:
            rows = [(name, json.dumps(value)) for name, value in facts.items()]
            database.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", rows)

    def put(self, videos: Iterable[tuple[Entry, Rows | None]]) -> None:
        """Add or replace videos, with the rows of their vectors."""
        with self.changing() as database:
            for entry, rows in videos:
                record = json.dumps(asdict(entry))
                where = (None, None, None) if rows is None else (rows.start, rows.count, rows.checksum)
                path = os.fsencode(entry.path)
                database.execute("DELETE FROM unreadable WHERE path = ?", (path,))
                values = (
                    *(path, path, bytes.fromhex(entry.key), entry.size, entry.mtime_ns, entry.seconds),
                    *(record, zlib.crc32(record.encode()), *where),
                )
                database.execute(
                    f"INSERT OR REPLACE INTO videos VALUES ((SELECT id FROM videos WHERE path = ?){', ?' * 10})", values
                )

    def put_unreadable(self, records: Iterable[Unreadable]) -> None:
        """Record files that cannot be read."""
        with self.changing() as database:
            rows = [(os.fsencode(each.path), json.dumps(asdict(each))) for each in records]
            database.executemany("INSERT OR REPLACE INTO unreadable VALUES (?, ?)", rows)

    def remove(self, paths: Iterable[str]) -> None:
        """Remove videos and records of unreadable files."""
        with self.changing() as database:
            coded = [(os.fsencode(path),) for path in paths]
            database.executemany("DELETE FROM videos WHERE path = ?", coded)
            database.executemany("DELETE FROM unreadable WHERE path = ?", coded)

    def count(self, where: Filter | NamePart | None = None) -> int:
        """Return the number of videos, or of those that meet conditions."""
        condition, values = (where or Filter()).condition()
        asked, version = (condition, *values), self.version()
        known = self._counts.get(asked)
        if known is not None and known[0] == version:
            return known[1]
        with self.reading() as database:
            count = database.execute(f"SELECT count(*) FROM videos WHERE {condition}", values).fetchone()[0]
        if len(self._counts) >= MOST_COUNTS:
            self._counts.clear()
        self._counts[asked] = version, count
        return count

    def find(self, column: str, values: Sequence[Any]) -> dict[Any, Entry]:
        """Return videos by their ``id``, ``path`` (bytes) or ``key`` (bytes); damaged records are left out."""
        found: dict[Any, Entry] = {}
        for first in range(0, len(values), ROWS_AT_ONCE):
            some = values[first : first + ROWS_AT_ONCE]
            with self.reading() as database:
                rows = database.execute(
                    f"SELECT {column}, path, record, record_crc FROM videos WHERE {column} IN ({', '.join('?' * len(some))})",
                    some,
                ).fetchall()
            found |= {key: entry for key, *row in rows if (entry := self._entry(*row)) is not None}
        return found

    def entries(
        self, where: Filter | NamePart | None = None, *, first: int = 0, most: int | None = None
    ) -> Iterator[Entry]:
        """Yield the videos that meet conditions in the order of their paths, some at a time.

        Args:
            where: The conditions; None for all videos.
            first: Videos to leave out before.
            most: Most videos; None for all. Damaged records among them are left out.
        """
        condition, values = (where or Filter()).condition()
        # Of one range SQLite reads the next rows in their order; by a condition alone it would sort all rows for each page.
        start, end = (where if isinstance(where, Filter) else Filter()).path_range()
        left = most
        while left is None or left > 0:
            limit = ROWS_AT_ONCE if left is None else min(left, ROWS_AT_ONCE)
            with self.reading() as database:
                rows = database.execute(
                    f"SELECT path, record, record_crc FROM videos WHERE ({condition}) AND path >= ? AND path < ? "
                    "ORDER BY path LIMIT ? OFFSET ?",
                    [*values, start, end, limit, first],
                ).fetchall()
            yield from (entry for row in rows if (entry := self._entry(*row)) is not None)
            if len(rows) < limit:
                return
            start, first, left = rows[-1][0] + b"\0", 0, None if left is None else left - limit

    def paths(self, where: Filter | None = None, table: str = "videos") -> list[str]:
        """Return the paths of the videos that meet conditions, or of all ``unreadable`` files, in their order."""
        condition, values = (where or Filter()).condition()
        with self.reading() as database:
            rows = database.execute(f"SELECT path FROM {table} WHERE {condition}", values)
            return [os.fsdecode(path) for path in sorted(path for (path,) in rows if isinstance(path, bytes))]

    def number(self, path: str) -> int | None:
        """Return the number of a video; None if the index has none of this path."""
        with self.reading() as database:
            found = database.execute("SELECT id FROM videos WHERE path = ?", (os.fsencode(path),)).fetchone()
        return None if found is None else found[0]

    def ids(self, where: Filter) -> np.ndarray:
        """Return the numbers of the videos that meet conditions, int64, increasing."""
        condition, values = where.condition()
        with self.reading() as database:
            rows = database.execute(f"SELECT id FROM videos WHERE {condition}", values)
            return np.sort(np.fromiter((number for (number,) in rows), np.int64))

    def unreadable(self) -> dict[str, Unreadable]:
        """Return the records of files that cannot be read, by path; damaged ones are left out."""
        with self.reading() as database:
            rows = database.execute("SELECT path, record FROM unreadable ORDER BY path").fetchall()
        found = (_parsed(unreadable_from, record) for _, record in rows)
        return {each.path: each for each in found if each is not None}

    def video_rows(self) -> VideoRows:
        """Return which rows of the file of vectors belong to which video; none of a video whose vectors were lost."""
        with self.reading() as database:
            rows = database.execute(
                f"SELECT id, {_integer('start', -1)}, {_integer('count', 0)}, {_integer('vectors_crc', 0)} FROM videos "
                "ORDER BY 2, id"
            ).fetchall()
        return VideoRows(*np.array(rows, np.int64).reshape(-1, 4).T.copy())

    def move_rows(self, rows: VideoRows) -> None:
        """Record other rows of the file of vectors for some videos, and none for all others."""
        with self.changing() as database:
            database.execute("UPDATE videos SET start = NULL, count = NULL, vectors_crc = NULL")
            columns = (rows.starts, rows.counts, rows.checksums, rows.ids)
            changes = zip(*(column.tolist() for column in columns), strict=True)
            database.executemany("UPDATE videos SET start = ?, count = ?, vectors_crc = ? WHERE id = ?", changes)

    def _entry(self, path: bytes, record: str, checksum: int) -> Entry | None:
        """Parse a record; None if it is damaged."""
        if not isinstance(path, bytes) or not isinstance(record, str):
            return None
        if zlib.crc32(record.encode(errors="replace")) != checksum:
            return None
        entry = _parsed(entry_from, record)
        return entry if entry is not None and entry.path == os.fsdecode(path) else None


def _integer(column: str, otherwise: int) -> str:
    """Return the expression of SQL of a column, or of a number where it is none, as nobody but a forger leaves it."""
    return f"iif(typeof({column}) = 'integer', {column}, {otherwise})"


def _parsed(parse: Any, record: str) -> Any:  # noqa: ANN401
    """Parse the JSON of a record; None if it is not one."""
    try:
        return parse(json.loads(record))
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError, OverflowError):
        return None


class Entries(Mapping[str, Entry]):
    """The videos of an index by path, in the order of their paths, each read when it is asked for.

    Args:
        table: The table; None for no videos.
    """

    def __init__(self, table: RecordTable | None) -> None:
        self.table = table

    def __getitem__(self, path: str) -> Entry:
        coded = os.fsencode(path)
        found = {} if self.table is None else self.table.find("path", [coded])
        if coded not in found:
            raise KeyError(path)
        return found[coded]

    def __iter__(self) -> Iterator[str]:
        return iter(()) if self.table is None else (entry.path for entry in self.table.entries())

    def __len__(self) -> int:
        return 0 if self.table is None else self.table.count()

    def items(self) -> ItemsView[str, Entry]:
        """Return pairs of path and video, which are read in order and not one by one."""
        return _Items(self)


class _Items(ItemsView[str, Entry]):
    """Pairs of path and video of :class:`Entries`."""

    _mapping: Entries

    def __iter__(self) -> Iterator[tuple[str, Entry]]:
        table = self._mapping.table
        return iter(()) if table is None else ((entry.path, entry) for entry in table.entries())
