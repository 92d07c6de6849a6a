"""LanceDB as the engine of an index: tables of Lance files in a folder or an object store, without a server of its own."""

import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import numpy as np

from clipbert_mm.errors import VideoIndexError, printable
from clipbert_mm.extras import require_extra
from clipbert_mm.index.engines.engine import StoredVideo
from clipbert_mm.index.filters import Filter

SECONDS = 30
"""Most seconds that the object store may take for one request with its repetitions, and for all requests that open an index."""
CONNECT_SECONDS = 5
ATTEMPTS = 3
"""Tries to create an index, a second apart, of which another machine's may be in the way."""
VIDEOS, RECORDS = "videos", "records"
"""Names of the tables, of videos with their vectors, and of facts and unreadable files."""
FACT, UNREADABLE = "fact", "unreadable"
"""Kinds of records."""
FAILURES = (
    (r"kind: Timeout|TimedOut", "does not answer within {seconds} s. Try again, or ask who runs the store"),
    (
        r"kind: Connect|ConnectionRefused|dns error",
        "cannot be reached. Check that the store runs, and the address in AWS_ENDPOINT",
    ),
    (
        r"status: 40[13]\b|Forbidden|Failed to get AWS credentials|CredentialsNotLoaded|AccessDenied|InvalidAccessKeyId",
        "refuses these credentials. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to ones that may read and write",
    ),
    (r"NoSuchBucket|BucketNotFound", "is in a bucket that does not exist. Create the bucket, or correct the URL"),
    (r"No space left|StorageFull", "cannot be written: the disk is full. Free space, and run the same command again"),
    (r"Permission denied|Read-only file system", "may not be written. Give a place that may be, or rights to this one"),
)
"""Regular expressions of what the messages of LanceDB and of stores contain, and what that means."""
DETAILS = r"<Message>(.*?)</Message>|(Connection refused|TimedOut|dns error[^\"]*)"
"""The piece of a long message that a person understands."""


class LanceEngine:
    """Keeps an index in LanceDB. Several machines add at the same time: Lance repeats a commit that another one preceded.

    Credentials, region and endpoint of an object store are in the environment: ``AWS_ACCESS_KEY_ID``,
    ``AWS_SECRET_ACCESS_KEY``, ``AWS_REGION``, ``AWS_ENDPOINT``.

    Args:
        url: ``lancedb+`` before what LanceDB connects to.

    Raises:
        BackendError: If LanceDB is not installed.
        VideoIndexError: If it cannot be connected to.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        require_extra("lancedb", "lancedb", f"The index {printable(url)}")
        import lancedb

        location = url.removeprefix("lancedb+")
        options = {
            "timeout": f"{SECONDS}s",
            "connect_timeout": f"{CONNECT_SECONDS}s",
            "client_max_retries": "2",
            "client_retry_timeout": str(SECONDS),
            "max_retries": "2",
            "retry_timeout": f"{SECONDS}s",
        }
        endpoint = os.environ.get("AWS_ENDPOINT") or os.environ.get("AWS_ENDPOINT_URL", "")
        if endpoint.startswith("http://"):
            options["allow_http"] = "true"
        is_folder = location.startswith("file://")
        with self._telling():
            self.database = within(
                SECONDS,
                lancedb.connect,
                location.removeprefix("file://") if is_folder else location,
                read_consistency_interval=timedelta(0),  # what other machines have added counts at once
                storage_options=None if is_folder else options,
            )
        self._tables: dict[str, Any] = {}

    def facts(self) -> dict[str, Any]:
        """Return the facts; empty if there is no index."""
        with self._telling():
            try:
                self._table(RECORDS)
            except ValueError as error:
                if "was not found" in str(error):
                    return {}
                raise
            rows = self._table(RECORDS).search().where(f"kind = '{FACT}'").limit(None).to_list()
        try:
            return {row["name"].decode(): json.loads(row["value"]) for row in rows}
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise VideoIndexError(
                f"The table {RECORDS} of {printable(self.url)} is not one of an index: {error}. Give another URL."
            ) from error

    def create(self, facts: Mapping[str, Any], vector_size: int) -> None:
        """Create the index with its facts; one that another machine creates at the same time stays as it is."""
        import pyarrow as pa

        vector = pa.list_(pa.float16(), vector_size)
        fields = [("path", pa.binary()), ("key", pa.string()), ("record", pa.string()), ("seconds", pa.float64())]
        fields += [("mtime_ns", pa.int64()), ("vectors", pa.list_(vector)), ("mean", vector)]
        for attempt in range(ATTEMPTS):
            try:
                with self._telling():
                    self.database.create_table(VIDEOS, schema=pa.schema(fields), exist_ok=True)
                    # Made at last and as a whole: what has facts is an index.
                    self.database.create_table(RECORDS, _records(FACT, _coded(facts)), exist_ok=True)
                return
            except VideoIndexError:  # another machine is creating it; its tables count
                if attempt == ATTEMPTS - 1:
                    raise
                time.sleep(1)

    def set_facts(self, facts: Mapping[str, Any]) -> None:
        """Set some of the facts."""
        self._put_records(FACT, _coded(facts))

    def put(self, videos: Sequence[StoredVideo]) -> None:
        """Add or replace videos, and remove the records of unreadable files of the same paths."""
        import pyarrow as pa

        columns: dict[str, Any] = {
            name: [getattr(each, name) for each in videos] for name in ("path", "key", "record", "seconds", "mtime_ns")
        }
        rows, width = np.concatenate([each.vectors for each in videos]), videos[0].vectors.shape[1]
        means = np.stack([each.vectors.astype(np.float32).mean(0).astype(np.float16) for each in videos])
        ends = np.cumsum([0, *(len(each.vectors) for each in videos)])
        columns["vectors"] = pa.ListArray.from_arrays(pa.array(ends, pa.int32()), _fixed(rows, width))
        columns["mean"] = _fixed(means, width)
        with self._telling():
            table = self._table(VIDEOS)
            self._merge(table, "path", pa.table(columns, schema=table.schema))
            self._remove_unreadable([each.path for each in videos])

    def put_unreadable(self, records: Mapping[bytes, str]) -> None:
        """Add or replace records in JSON of unreadable files, by path."""
        self._put_records(UNREADABLE, records)

    def remove(self, paths: Sequence[bytes]) -> None:
        """Remove videos and unreadable files."""
        with self._telling():
            self._table(VIDEOS).delete(f"path IN ({_listed(paths)})")
            self._remove_unreadable(paths)

    def unreadable(self) -> list[str]:
        """Return the records of unreadable files, in the order of their paths."""
        with self._telling():
            rows = self._table(RECORDS).search().where(f"kind = '{UNREADABLE}'").limit(None).to_list()
        return [row["value"] for row in sorted(rows, key=lambda row: row["name"])]

    def count(self, where: Filter) -> int:
        """Return the number of videos that meet conditions."""
        with self._telling():
            return self._table(VIDEOS).count_rows(_sql(where))

    def records(self, where: Filter, *, after: bytes, first: int, most: int) -> list[tuple[bytes, str]]:
        """Return paths and records of videos that meet conditions, in the order of their paths."""
        with self._telling():
            asked = self._table(VIDEOS).search().where(f"({_sql(where)}) AND path > {_literal(after)}")
            asked = asked.select(["path", "record"]).order_by([dict(column_name="path")]).limit(most).offset(first)
            rows = asked.to_arrow()
        return list(zip(rows["path"].to_pylist(), rows["record"].to_pylist(), strict=True))

    def find(self, paths: Sequence[bytes]) -> list[str]:
        """Return the records of those of the paths that are in the index."""
        return self._column("record", f"path IN ({_listed(paths)})") if paths else []

    def find_key(self, key: str) -> str | None:
        """Return the record of the video of a key, 32 hexadecimal digits."""
        return next(iter(self._column("record", f"key = '{bytes.fromhex(key).hex()}'")), None)

    def vectors(self, path: bytes) -> np.ndarray | None:
        """Return the vectors of a video, (K, P); None if it is not in the index."""
        with self._telling():
            asked = self._table(VIDEOS).search().where(f"path = {_literal(path)}").select(["vectors"]).limit(1)
            found = _arrays(asked.to_arrow()["vectors"])
        return found[0] if found else None

    def nearest(self, query: np.ndarray, count: int, where: Filter, *, by_mean: bool) -> list[tuple[str, np.ndarray]]:
        """Return record and vectors of the videos nearest to a query, (P,), the nearest first.

        Of a list of vectors LanceDB compares the nearest with the query. Every video is compared unless somebody has made an
        index on the column, which LanceDB then uses. A mean is no unit vector, and is compared by its product.
        """
        with self._telling():
            asked = self._table(VIDEOS).search(query, vector_column_name="mean" if by_mean else "vectors")
            asked = asked.distance_type("dot" if by_mean else "cosine").where(_sql(where)).limit(count)
            rows = asked.select(["record", "vectors", "_distance"]).to_arrow()
        return list(zip(rows["record"].to_pylist(), _arrays(rows["vectors"]), strict=True))

    def optimize(self) -> None:
        """Merge what was written in many parts; nothing is lost if another machine writes meanwhile."""
        for name in (VIDEOS, RECORDS):
            with self._telling():
                table = self._table(name)
                try:
                    table.optimize()
                except RuntimeError as error:
                    if "conflict" not in str(error):  # another machine changed it meanwhile; the next one merges
                        raise

    def _column(self, name: str, condition: str) -> list[Any]:
        with self._telling():
            return self._table(VIDEOS).search().where(condition).select([name]).limit(None).to_arrow()[name].to_pylist()

    def _put_records(self, kind: str, values: Mapping[bytes, str]) -> None:
        with self._telling():
            self._merge(self._table(RECORDS), ["kind", "name"], _records(kind, values))

    def _remove_unreadable(self, paths: Sequence[bytes]) -> None:
        condition = f"kind = '{UNREADABLE}' AND name IN ({_listed(paths)})"
        if self._table(RECORDS).count_rows(condition):
            self._table(RECORDS).delete(condition)

    def _merge(self, table: Any, on: str | list[str], rows: Any) -> None:  # noqa: ANN401
        table.merge_insert(on).when_matched_update_all().when_not_matched_insert_all().execute(rows)

    def _table(self, name: str) -> Any:  # noqa: ANN401
        if name not in self._tables:
            self._tables[name] = self.database.open_table(name)
        return self._tables[name]

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Say which index it is, and what to do, when LanceDB fails.

        Raises:
            VideoIndexError: If it fails.
        """
        try:
            yield
        except (OSError, RuntimeError, ValueError) as error:
            if isinstance(error, VideoIndexError):
                raise
            text = " ".join(str(error).split())
            told = [meaning for pattern, meaning in FAILURES if re.search(pattern, text)]
            what = told[0] if told else "cannot be used. If it is damaged, index the videos into another one"
            detail = re.search(DETAILS, text)
            reason = next(filter(None, detail.groups())) if detail else text
            raise VideoIndexError(
                f"The index {printable(self.url)} {what.format(seconds=SECONDS)} ({reason[:200]})."
            ) from error


def within(seconds: float, function: Callable[..., Any], *args: Any, **options: Any) -> Any:  # noqa: ANN401
    """Call a function that may hang, in a thread that is given up after some seconds.

    Raises:
        TimeoutError: If it takes longer.
    """
    answer: Future[Any] = Future()

    def call() -> None:
        try:
            answer.set_result(function(*args, **options))
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(
        target=call, daemon=True
    ).start()  # a thread of a pool would be waited for at the end of the process
    try:
        return answer.result(seconds)
    except FutureTimeout:
        raise TimeoutError("TimedOut") from None


def _coded(facts: Mapping[str, Any]) -> dict[bytes, str]:
    return {name.encode(): json.dumps(value) for name, value in facts.items()}


def _records(kind: str, values: Mapping[bytes, str]) -> Any:  # noqa: ANN401
    import pyarrow as pa

    schema = pa.schema([("kind", pa.string()), ("name", pa.binary()), ("value", pa.string())])
    return pa.table(dict(kind=[kind] * len(values), name=list(values), value=list(values.values())), schema=schema)


def _fixed(rows: np.ndarray, width: int) -> Any:  # noqa: ANN401
    import pyarrow as pa

    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(rows, np.float16).ravel()), width)


def _arrays(column: Any) -> list[np.ndarray]:  # noqa: ANN401
    """Return the vectors of a column of lists of them, float16 (K, P) each."""
    found = []
    for scalar in column:
        values = scalar.values
        found.append(values.flatten().to_numpy(zero_copy_only=False).reshape(len(values), -1))
    return found


def _literal(value: object) -> str:
    return f"X'{value.hex()}'" if isinstance(value, bytes) else repr(value)


def _listed(paths: Sequence[bytes]) -> str:
    return ", ".join(map(_literal, paths))


def _sql(where: Filter) -> str:
    """Return the conditions of a filter with its values written into it: numbers, and bytes in hexadecimal digits.

    >>> _sql(Filter(min_seconds=2.5))
    'seconds >= 2.5'
    """
    condition, values = where.condition()
    parts = condition.split("?")
    text = "".join(part + _literal(value) for part, value in zip(parts, values, strict=False)) + parts[-1]
    return {"1": "true", "(0)": "false"}.get(text, text.replace("(0)", "(false)"))
