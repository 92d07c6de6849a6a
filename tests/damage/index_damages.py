"""What may happen to an index of videos, and what somebody may forge of it."""

import json
import os
import random
import shutil
import sqlite3
import zlib
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load, save

from clipbert_mm.index import Entry
from clipbert_mm.index.database import SCHEMA

PRECIOUS = "precious.txt"
"""A file beside the index that nothing may touch."""
RECORDS = "records.sqlite3"
ODD = (
    None,
    True,
    -1,
    0,
    2**62,
    10**30,
    1e308,
    float("nan"),
    "",
    "a" * 10**5,
    "../../x",
    "\ud800",
    "a\0b",
    [],
    [[]],
    {},
    [1, 2],
    {"a": 1},
)
"""Values that a record or a manifest may have in any place."""
ODD_SQL = (
    None,
    -1,
    0,
    1,
    2**63 - 1,
    -(2**63),
    1.5,
    float("inf"),
    "",
    "x",
    "a" * 10**5,
    b"",
    b"/",
    b"\0",
    b"\xff" * 300,
)
"""Values that a column may have."""
COLUMNS = ("id", "path", "key", "size", "mtime_ns", "seconds", "record", "record_crc", "start", "count", "vectors_crc")
NOT_JSON = ("", "null", "[]", "{}", '"a"', "[" * 10**5, '{"a":' * 10**5, "9" * 5000, "\0" * 100, "NaN")
Damage = Callable[[random.Random, Path, Path], str]
"""Takes the generator, the index, and the folder of the sound ones; returns what it did."""


def _files(index: Path) -> list[Path]:
    """Return the records, the vectors and the tokens of an index, or its manifest."""
    return sorted(path for path in index.rglob("*") if path.is_file() and not path.name.startswith("."))


def _file(rng: random.Random, index: Path) -> Path:
    """Choose one of the files: records and vectors as often as tokens, of which there are more."""
    return rng.choice([*_files(index), *(path for path in index.iterdir() if path.is_file() and path.stat().st_size)])


def _tokens(rng: random.Random, index: Path) -> Path | None:
    return rng.choice(sorted(index.glob("tokens/*.safetensors")) or [None])


def _flip(rng: random.Random, index: Path, folder: Path) -> str:
    """Change some bytes of a file."""
    file = _file(rng, index)
    data = bytearray(file.read_bytes())
    places = [rng.randrange(len(data)) for _ in range(rng.choice([1, 1, 3, 50]) if data else 0)]
    for place in places:
        data[place] ^= 1 << rng.randrange(8)
    file.write_bytes(data)
    return f"{len(places)} bits of {file.name}"


def _cut(rng: random.Random, index: Path, folder: Path) -> str:
    file = _file(rng, index)
    data = file.read_bytes()
    kept = rng.choice([0, 1, 8, rng.randrange(len(data) + 1), max(len(data) - 1, 0), len(data) // 4096 * 4096])
    kept = min(kept, len(data))
    file.write_bytes(data[:kept] + bytes(rng.choice([0, len(data) - kept])))
    return f"{file.name} cut or blank after {kept} bytes"


def _moved(rng: random.Random, index: Path, folder: Path) -> str:
    """Put a block of a file in another place of it, or noise there."""
    file = _file(rng, index)
    data, size = bytearray(file.read_bytes()), rng.choice([16, 512, 4096])
    source, to = rng.randrange(len(data) + 1), rng.randrange(len(data) + 1)
    block = rng.choice([bytes(data[source : source + size]), rng.randbytes(size)])
    data[to : to + len(block)] = block
    file.write_bytes(data)
    return f"{len(block)} bytes at {to} of {file.name}"


def _swapped(rng: random.Random, index: Path, folder: Path) -> str:
    """Put another file of the same kind in the place of one."""
    file = _file(rng, index)
    others = [each for each in folder.glob(f"*/**/*{file.suffix}") if each.is_file() and each.suffix != ".py"]
    others = [each for each in others if each.parent.name != "world" and each.read_bytes() != file.read_bytes()]
    if file.suffix == ".sqlite3" or not others:
        return _flip(rng, index, folder)  # a whole index, then, with files of another one
    other = rng.choice(sorted(others))
    shutil.copy(other, file)
    return f"{file.name} is {other.relative_to(folder)}"


def _other_records(rng: random.Random, index: Path, folder: Path) -> str:
    """Put the records of another index into this one."""
    other = rng.choice(sorted(folder.glob(f"*/{RECORDS}")))
    shutil.copy(other, index / RECORDS)
    return f"the records are those of {other.parent.name}"


def _names(rng: random.Random, index: Path) -> str:
    names = ["tokens", ".lock", *(str(path.relative_to(index)) for path in _files(index))]
    more = ["vectors-0.f16", "vectors-1.f16", *(f"{RECORDS}-{kind}" for kind in ("journal", "wal", "shm"))]
    return rng.choice([*names, *more])


def _link(rng: random.Random, index: Path, folder: Path) -> str:
    """Put a link in the place of a part of the index."""
    name = _names(rng, index)
    place = index / name
    sound = folder / index.name.partition("-")[0] / name
    leads = rng.choice([sound, folder / PRECIOUS, Path("/dev/zero"), place, folder / "nothing"])
    _clear(place)
    place.symlink_to(leads)
    return f"{name} is a link to {leads}"


def _odd_file(rng: random.Random, index: Path, folder: Path) -> str:
    """Put a pipe, a folder, a huge file, a short one, or nothing in the place of a part of the index."""
    name = _names(rng, index)
    place, kind = (
        index / name,
        rng.choice(["a pipe", "a folder", "an empty file", "noise", "a huge file", "huge", "gone"]),
    )
    if kind != "huge":
        _clear(place)
    if kind == "a pipe":
        os.mkfifo(place)
    elif kind == "a folder":
        place.mkdir(parents=True)
    elif kind == "noise":
        place.write_bytes(rng.randbytes(5000))
    elif kind == "huge" and place.is_file():
        os.truncate(place, 2**40)
    elif kind != "gone" and not place.is_dir():
        with open(place, "wb") as file:
            file.truncate(2**40 if kind == "a huge file" else 0)
    return f"{name} is {kind}"


def _clear(place: Path) -> None:
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)


MISHAPS: dict[str, Damage] = {
    "bits": _flip,
    "other bits": _flip,
    "cut": _cut,
    "moved": _moved,
    "swapped": _swapped,
    "link": _link,
    "odd file": _odd_file,
}
"""What happens to an index without anybody's intent: it never changes an answer."""


def _sql(index: Path, *statements: tuple[str, tuple[Any, ...]] | str, odd_types: bool = False) -> str:
    """Change the records; with ``odd_types`` as if the tables were not strict. Returns what could not be done."""
    file = index / RECORDS
    try:
        if odd_types:
            _set_schema(
                file, {name: sql.replace("STRICT, ", "").replace(" STRICT", "") for name, sql in SCHEMA.items()}
            )
        with closing(sqlite3.connect(file)) as database:
            for statement in statements:
                database.execute(*((statement, ()) if isinstance(statement, str) else statement))
            database.commit()
    except (sqlite3.Error, OverflowError, UnicodeError) as error:
        return f" (not done: {error})"
    finally:
        if odd_types:
            _set_schema(file, SCHEMA)
    return ""


def _set_schema(file: Path, schema: dict[str, str]) -> None:
    with closing(sqlite3.connect(file)) as database:
        database.execute("PRAGMA writable_schema = ON")
        database.executemany(
            "UPDATE sqlite_master SET sql = ? WHERE name = ?", [(sql, name) for name, sql in schema.items()]
        )
        database.commit()


def _column(rng: random.Random, index: Path, folder: Path) -> str:
    """Put an odd value into a column of one video, or all."""
    table, columns = rng.choice(
        [
            ("videos", COLUMNS),
            ("videos", COLUMNS[-3:]),
            ("unreadable", ("path", "record")),
        ]
    )
    column, value, odd_types = rng.choice(columns), rng.choice(ODD_SQL), rng.random() < 0.5
    some = rng.choice(["1", "id = 1", "id > 1"]) if table == "videos" else "1"
    if table == "unreadable":
        record = json.dumps(dict(path="/v/a.mp4", size=1, mtime_ns=1, reason="it is cut", rules=1))
        _sql(index, ("INSERT INTO unreadable VALUES (?, ?)", (b"/v/a.mp4", record)))
    trouble = _sql(index, (f"UPDATE {table} SET {column} = ? WHERE {some}", (value,)), odd_types=odd_types)
    return f"{column} of {table} where {some} is {str(value)[:20]!a}{trouble}"


def _fact(rng: random.Random, index: Path, folder: Path) -> str:
    """Put an odd value into a fact, or take it out."""
    with closing(sqlite3.connect(index / RECORDS)) as database:
        name = rng.choice([name for (name,) in database.execute("SELECT name FROM facts")])
    if rng.random() < 0.2:
        return f"without {name}" + _sql(index, ("DELETE FROM facts WHERE name = ?", (name,)))
    value = rng.choice([*map(json.dumps, ODD), *NOT_JSON, '"vectors-7.f16"', '"tokens"'])
    return f"{name} is {value[:20]!a}" + _sql(index, ("UPDATE facts SET value = ? WHERE name = ?", (value, name)))


def _record(rng: random.Random, index: Path, folder: Path) -> str:
    """Put an odd value into a record, with its checksum, or something else in its place."""
    with closing(sqlite3.connect(index / RECORDS)) as database:
        number, text = rng.choice(list(database.execute("SELECT id, record FROM videos")))
    if rng.random() < 0.2:
        text = rng.choice(NOT_JSON)
        change: Any = text[:20]
    else:
        record = json.loads(text)
        change = {rng.choice(sorted(record)): rng.choice([*ODD, str(folder / PRECIOUS)])}
        text = json.dumps(record | change)
    statement = "UPDATE videos SET record = ?, record_crc = ? WHERE id = ?"
    return f"a record has {str(change)[:60]!a}" + _sql(index, (statement, (text, zlib.crc32(text.encode()), number)))


def _more_videos(rng: random.Random, index: Path, folder: Path) -> str:
    """List a file that is no video of the index."""
    path = rng.choice(
        [str(folder / PRECIOUS), "/etc/passwd", f"{index}/../../{PRECIOUS}", "relative.mp4", "/", "/dev/zero"]
    )
    try:
        status = os.stat(path)
        size, mtime_ns = status.st_size, status.st_mtime_ns
    except OSError:
        size, mtime_ns = 1, 1
    record = json.dumps(asdict(Entry(path, size, mtime_ns, 1.0, ((0.0, 1.0), (1.0, 2.0)), (32, 32), 1)))
    row = (os.fsencode(path), bytes.fromhex("ab" * 16), size, mtime_ns, record, zlib.crc32(record.encode()))
    statement = (
        "INSERT INTO videos SELECT NULL, ?, ?, ?, ?, 1.0, ?, ?, start, count, vectors_crc FROM videos WHERE id = 1"
    )
    return f"a video {path}" + _sql(index, (statement, row))


def _schema(rng: random.Random, index: Path, folder: Path) -> str:
    statement = rng.choice(
        [
            "CREATE VIEW more AS SELECT 1",
            "CREATE TABLE more (a)",
            "CREATE TRIGGER more AFTER INSERT ON videos BEGIN DELETE FROM videos; END",
            "CREATE INDEX more ON videos (size) WHERE size > 10",
            "CREATE INDEX more ON videos (json_extract(record, '$.path'))",
            "DROP TABLE unreadable",
            "DROP TABLE facts",
            "ALTER TABLE videos ADD COLUMN more ANY",
            "PRAGMA user_version = 99",
            "PRAGMA application_id = 1",
            "PRAGMA journal_mode = WAL",
            "PRAGMA writable_schema = ON; CREATE VIRTUAL TABLE more USING fts5(a)",
            "DELETE FROM videos",
        ]
    )
    trouble = (
        "".join(_sql(index, each.strip()) for each in statement.split("; "))
        if "TRIGGER" not in statement
        else _sql(index, statement)
    )
    return statement + trouble


def _view(rng: random.Random, index: Path, folder: Path) -> str:
    """Put a view in the place of a table, and say in the schema that it is the table."""
    table = rng.choice(sorted(SCHEMA))
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"
    trouble = _sql(index, f"DROP TABLE {table}", f"CREATE VIEW {table} AS {endless}")
    with closing(sqlite3.connect(index / RECORDS)) as database:
        database.execute("PRAGMA writable_schema = ON")
        kind = rng.choice(["view", "table"])
        if kind == "table":
            database.execute("UPDATE sqlite_master SET type = 'table' WHERE name = ?", (table,))
        database.commit()
    return f"{table} is an endless view that says it is a {kind}{trouble}"


def _journal(rng: random.Random, index: Path, folder: Path) -> str:
    """Leave a journal, as a killed writer does, made by somebody."""
    kind = rng.choice(["journal", "wal"])
    heads = {"journal": bytes.fromhex("d9d505f920a163d7"), "wal": bytes.fromhex("377f0682002de218")}
    (index / f"{RECORDS}-{kind}").write_bytes(heads[kind] + rng.randbytes(rng.choice([20, 504, 9000])))
    return f"a {kind} of noise"


def _other_tokens(rng: random.Random, index: Path, folder: Path) -> str:
    """Write other tensors, without checksums, as releases before had none."""
    token = _tokens(rng, index)
    if token is None:
        return _column(rng, index, folder)
    tensors = load(token.read_bytes())
    with safe_open(token, framework="pt") as file:
        record = file.metadata()["record"]
    clips = tensors["clips"]
    kinds: dict[str, Callable[[], dict[str, torch.Tensor]]] = {
        "NaN": lambda: {name: value * float("nan") for name, value in tensors.items()},
        "wide": lambda: tensors | dict(clips=clips.repeat(1, 1, 3)),
        "long": lambda: tensors | dict(clips=clips.repeat(1, 7, 1)),
        "many clips": lambda: {name: value.repeat(50, 1, 1) for name, value in tensors.items()},
        "flat": lambda: {name: value.flatten() for name, value in tensors.items()},
        "empty": lambda: {name: value[:0] for name, value in tensors.items()},
        "whole numbers": lambda: {name: value.int() for name, value in tensors.items()},
        "complex": lambda: tensors | dict(clips=clips.to(torch.complex64)),
        "no coarse tokens": lambda: dict(clips=clips),
        "no clips": lambda: dict(coarse=clips),
        "nothing": dict,
    }
    kind = rng.choice(sorted(kinds))
    values = {name: value.contiguous() for name, value in kinds[kind]().items()}
    token.write_bytes(save(values, dict(record=record)))
    return f"{token.name} has {kind}"


def _odd_record(rng: random.Random, index: Path, folder: Path) -> str:
    """Add a file of tokens that no manifest lists and that says odd things of its video."""
    token = _tokens(rng, index)
    if token is None:
        return _column(rng, index, folder)
    with safe_open(token, framework="pt") as file:
        record = json.loads(file.metadata()["record"])
    change = {rng.choice(sorted(record)): rng.choice([*ODD, str(folder / PRECIOUS)])}
    name = rng.choice(["0" * 32, "..", "a\nb", "x" * 200])
    metadata = dict(record=json.dumps(record | change)) if rng.random() < 0.8 else None
    (token.parent / f"{name}.safetensors").write_bytes(save(load(token.read_bytes()), metadata))
    return f"another file of tokens, {name!r}: {str(change)[:60]!a}"


FORGERIES: dict[str, Damage] = {
    "column": _column,
    "other column": _column,
    "fact": _fact,
    "record": _record,
    "videos": _more_videos,
    "schema": _schema,
    "view": _view,
    "journal": _journal,
    "records": _other_records,
    "tensors": _other_tokens,
    "odd record": _odd_record,
}
"""What somebody may make of the records and tokens of an index."""
