"""SQLite for the records of an index: transactions, other processes, damage, and databases of others."""

import errno
import json
import os
import sqlite3
import stat
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clipbert_mm.errors import BusyFolderError, VideoIndexError, quoted
from clipbert_mm.version import __version__

FORMAT = 2
"""Version of the layout on disk; newer versions are refused, format 1 is taken over."""
APPLICATION = int.from_bytes(b"CLIP", "big")
"""SQLite's mark of the application that a database belongs to."""
WAIT_SECONDS = 30.0
"""Most seconds that a read waits for another process to end a write, which takes milliseconds."""
COMPANIONS = ("journal", "wal", "shm")
"""Ends of the names of files that SQLite keeps beside a database while it is changed."""
SCHEMA = {
    "facts": "CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID",
    "videos": "CREATE TABLE videos (id INTEGER PRIMARY KEY, path BLOB NOT NULL UNIQUE, key BLOB NOT NULL UNIQUE, "
    "size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, seconds REAL, record TEXT NOT NULL, record_crc INTEGER NOT NULL, "
    "start INTEGER, count INTEGER, vectors_crc INTEGER) STRICT",
    "unreadable": "CREATE TABLE unreadable (path BLOB PRIMARY KEY, record TEXT NOT NULL) STRICT, WITHOUT ROWID",
}
"""Tables of facts in JSON, of videos (the vectors of each are ``count`` rows from ``start`` on), and of unreadable files."""


class Database:
    """A database of an index, in one file.

    Every change is a transaction: it is on disk as a whole, or not at all. A database that was not written here is refused.

    Args:
        file: The database; :meth:`create` makes it.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._lock = threading.RLock()
        self._database: sqlite3.Connection | None = None
        self._undone = 0

    @property
    def exists(self) -> bool:
        """Whether there is a database; an empty file is left by a process that was killed while it made one."""
        try:
            status = self.file.stat()
        except OSError:
            return False
        return stat.S_ISREG(status.st_mode) and status.st_size > 0

    def create(self, facts: Mapping[str, Any]) -> None:
        """Make the database, with its facts.

        Raises:
            VideoIndexError: If something else than a file has its name.
        """
        if self.file.exists() and not self.file.is_file():
            raise VideoIndexError(f"{self.file} is a folder, a pipe or a device, expected a file. Delete it.")
        self._refuse_pipes()
        with self._errors():
            database = sqlite3.connect(self.file, isolation_level=None)
            try:
                database.executescript(
                    f"BEGIN; PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {FORMAT}; "
                    + "; ".join(SCHEMA.values())
                    + ";"
                )
                facts = {"format": FORMAT, "version": __version__, **facts}
                database.executemany(
                    "INSERT INTO facts VALUES (?, ?)", [(key, json.dumps(facts[key])) for key in facts]
                )
                database.execute("COMMIT")
            finally:
                database.close()

    def version(self) -> tuple:
        """Return a value that differs after every change, by this process or another."""
        with self.reading() as database:
            return database.execute("PRAGMA data_version").fetchone()[0], database.total_changes, self._undone

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Read in a block; errors of SQLite become errors that say what to do."""
        with self._lock, self._errors():
            yield self._connection()

    @contextmanager
    def consistent(self) -> Iterator[None]:
        """Read what belongs together: nothing that another process writes meanwhile is seen in the block."""
        with self.reading() as database:
            inner = database.in_transaction
            if not inner:
                database.execute("BEGIN")
            try:
                yield
            finally:
                if not inner:
                    database.execute("COMMIT")

    @contextmanager
    def changing(self) -> Iterator[sqlite3.Connection]:
        """Change the database in a transaction, which is undone if the block fails."""
        with self._lock, self._errors():
            database = self._connection()
            if database.in_transaction:
                yield database
                return
            database.execute("BEGIN IMMEDIATE")
            try:
                yield database
                database.execute("COMMIT")
            except BaseException:
                self._undone += 1
                if database.in_transaction:
                    database.execute("ROLLBACK")
                raise

    def compact(self) -> None:
        """Give the disk back what deleted rows have left."""
        with self.reading() as database:
            database.execute("VACUUM")

    def close(self) -> None:
        """Close the database; the next use opens it again."""
        with self._lock:
            if self._database is not None:
                self._database.close()
            self._database = None

    def _connection(self) -> sqlite3.Connection:
        """Return the connection of this process, opened and checked at the first use."""
        if self._database is None:
            self._refuse_pipes()
            address = f"{self.file.absolute().as_uri()}?mode=rw"  # read-only where the file is
            database = sqlite3.connect(
                address, uri=True, timeout=WAIT_SECONDS, isolation_level=None, check_same_thread=False
            )
            try:
                database.execute("PRAGMA trusted_schema = OFF")  # no function runs that a database of others names
                database.execute("PRAGMA cell_size_check = ON")
                self._check(database)
            except BaseException:
                database.close()
                raise
            self._database = database
        return self._database

    def _refuse_pipes(self) -> None:
        """Refuse what is no file in the place of SQLite's own files; whoever opens a pipe waits for ever.

        Raises:
            VideoIndexError: If there is such.
        """
        for kind in COMPANIONS:
            file = Path(f"{self.file}-{kind}")
            try:
                mode = os.lstat(file).st_mode
            except FileNotFoundError:
                continue
            if not stat.S_ISREG(mode):
                raise VideoIndexError(f"{file} is a link, a pipe or a folder, expected a file of SQLite. Delete it.")

    def _check(self, database: sqlite3.Connection) -> None:
        """Check that a database has the application, the format and the tables of an index, and nothing else.

        Raises:
            VideoIndexError: If it has not.
        """
        application, version = (
            database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
        )
        if application != APPLICATION:
            raise VideoIndexError(f"{self.file} is not the database of an index of clipbert_mm. Give another folder.")
        if version != FORMAT:
            raise VideoIndexError(
                f"The index {self.file.parent} has format {version}, and clipbert_mm {__version__} reads format {FORMAT}. "
                "Install the release that wrote it, or index the videos into a new folder."
            )
        found = database.execute("SELECT name, sql FROM sqlite_master WHERE type != 'index'").fetchall()
        if dict(found) != SCHEMA:
            raise VideoIndexError(f"{self.file} has other tables than an index: {quoted(sorted(dict(found)))}.")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Raise what SQLite reports as an error that says what to do."""
        try:
            yield
        except (sqlite3.Error, UnicodeError, OverflowError) as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise BusyFolderError(
                    f"Another process is changing the index {self.file.parent}. Wait until it is done."
                ) from error
            if code == sqlite3.SQLITE_IOERR:
                raise VideoIndexError(
                    f"{self.file} cannot be read or written: {error}. Check its disk, the space and your quota there, and the "
                    "files beside it."
                ) from error
            if code == sqlite3.SQLITE_FULL:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.file)) from error
            if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
                raise VideoIndexError(
                    f"The index {self.file.parent} cannot be changed: {error}. It, or its folder, is read-only. Copy it to a "
                    "place where you may write."
                ) from error
            raise self.damaged_error(error) from error

    def damaged_error(self, error: Exception) -> VideoIndexError:
        """Return the error of a database whose content cannot be."""
        return VideoIndexError(
            f"{self.file} is damaged or copied in part: {str(error)[:200]}. Copy it again while nothing writes to it, or index "
            "the videos into a new folder."
        )
