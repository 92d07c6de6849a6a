"""Ways of finding the videos nearest to a query among float16 vectors in a file; run as a script, it measures one of them.

Vectors are unit vectors, and every CLIPS rows belong to one video, whose score is the largest dot product of its clips.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

WIDTH, CLIPS = 256, 16
"""Numbers of a vector, and vectors of a video."""
FOUND = 128
"""Videos that a search returns."""
HALF, SINGLE = np.dtype("float16"), np.dtype("float32")

Search = Callable[[np.ndarray], np.ndarray]
"""From a query, float32 (P,), to the numbers of the best videos, best first."""


@dataclass(frozen=True)
class Engine:
    """A way to search.

    Args:
        module: What it imports; it is left out where that is not installed.
        exact: Whether it compares the query with every vector.
        build: Writes what it searches into a folder, from all vectors.
        open: Returns the search over a folder and the file of vectors.
        largest: Most vectors that it is measured with.
    """

    module: str
    exact: bool
    build: Callable[[np.ndarray, Path], None]
    open: Callable[[Path, np.ndarray], Search]
    largest: int = 10**9


def open_vectors(path: str | os.PathLike) -> np.ndarray:
    """Map a file of vectors into memory, float16 (N, P)."""
    return np.memmap(path, HALF, "r").reshape(-1, WIDTH)


def best_videos(nearest: Callable[[int], np.ndarray], count: int) -> np.ndarray:
    """Return the videos of the best clips: for the largest clip of a video, the first that come are the best.

    Args:
        nearest: From k to the rows of the k best clips, best first.
        count: Number of rows.
    """
    wanted, k = min(FOUND, count // CLIPS), 4 * FOUND
    while True:
        videos, first = np.unique(nearest(min(k, count)) // CLIPS, return_index=True)
        if len(videos) >= wanted or k >= min(count, FOUND * CLIPS):
            return videos[np.argsort(first)][:wanted]
        k *= 2


def no_build(vectors: np.ndarray, folder: Path) -> None:
    """Search the file of vectors itself."""


def threads() -> int:
    """Return the threads that an engine may use."""
    return int(os.environ["OMP_NUM_THREADS"])


# torch


def open_torch(folder: Path, vectors: np.ndarray) -> Search:
    """Multiply blocks of rows that stay in the cache while they are converted to single precision."""
    import torch

    torch.set_num_threads(threads())
    rows, block = torch.from_numpy(vectors), 4096

    def search(query: np.ndarray) -> np.ndarray:
        wide, scores, buffer = torch.from_numpy(query), torch.empty(len(rows)), torch.empty(block, WIDTH)
        for start in range(0, len(rows), block):
            part = rows[start : start + block]
            torch.mv(buffer[: len(part)].copy_(part), wide, out=scores[start : start + len(part)])
        pooled = scores.view(-1, CLIPS).amax(1)  # (V,)
        return pooled.topk(min(FOUND, len(pooled))).indices.numpy()

    return search


# faiss


def build_faiss(kind: str) -> Callable[[np.ndarray, Path], None]:
    """Build an index of faiss by its description, in which {lists} stands for the number of lists of an inverted file."""

    def build(vectors: np.ndarray, folder: Path) -> None:
        import faiss

        faiss.omp_set_num_threads(threads())
        lists = max(1, min(1024, len(vectors) // 256))
        index = faiss.index_factory(WIDTH, kind.format(lists=lists), faiss.METRIC_INNER_PRODUCT)
        step = max(1, len(vectors) // (64 * lists))
        index.train(vectors[::step].astype(SINGLE))
        for start in range(0, len(vectors), 100_000):
            index.add(vectors[start : start + 100_000].astype(SINGLE))
        faiss.write_index(index, str(folder / "index.faiss"))

    return build


def open_faiss(folder: Path, vectors: np.ndarray) -> Search:
    """Read the index of faiss; of an inverted file a sixteenth of the lists is searched, but at least 16."""
    import faiss

    faiss.omp_set_num_threads(threads())
    index = faiss.read_index(str(folder / "index.faiss"))
    if hasattr(index, "nprobe"):
        index.nprobe = max(16, index.nlist // 16)
    return lambda query: best_videos(lambda k: _filled(index.search(query[None], k)[1][0]), len(vectors))


def _filled(rows: np.ndarray) -> np.ndarray:
    return rows[rows >= 0]


# usearch


def open_usearch_exact(folder: Path, vectors: np.ndarray) -> Search:
    """Compare with every vector in the file."""
    from usearch.index import search

    def nearest(query: np.ndarray, k: int) -> np.ndarray:
        return search(vectors, query.astype(HALF), k, "ip", exact=True, threads=threads()).keys.astype(np.int64)

    return lambda query: best_videos(lambda k: nearest(query, k), len(vectors))


def build_usearch(vectors: np.ndarray, folder: Path) -> None:
    """Build a graph (HNSW) of usearch."""
    from usearch.index import Index

    index = Index(ndim=WIDTH, metric="ip", dtype="f16")
    for start in range(0, len(vectors), 100_000):
        block = np.asarray(vectors[start : start + 100_000])
        index.add(np.arange(start, start + len(block)), block, threads=threads())
    index.save(str(folder / "index.usearch"))


def open_usearch(folder: Path, vectors: np.ndarray) -> Search:
    """Map the graph into memory."""
    from usearch.index import Index

    index = Index(ndim=WIDTH, metric="ip", dtype="f16", expansion_search=4 * FOUND)
    index.view(str(folder / "index.usearch"))

    def nearest(query: np.ndarray, k: int) -> np.ndarray:
        return index.search(query.astype(HALF), k, threads=threads()).keys.astype(np.int64)

    return lambda query: best_videos(lambda k: nearest(query, k), len(vectors))


# LanceDB


def build_lancedb(indexed: bool) -> Callable[[np.ndarray, Path], None]:
    """Write a table of LanceDB, with an inverted file of vectors in 8 bits if it is indexed."""

    def build(vectors: np.ndarray, folder: Path) -> None:
        import lancedb
        import pyarrow as pa

        schema = pa.schema([("row", pa.int64()), ("vector", pa.list_(pa.float16(), WIDTH))])

        def batches() -> Any:
            for start in range(0, len(vectors), 100_000):
                block = np.asarray(vectors[start : start + 100_000])
                listed = pa.FixedSizeListArray.from_arrays(pa.array(block.ravel()), WIDTH)
                yield pa.record_batch([pa.array(np.arange(start, start + len(block))), listed], schema=schema)

        reader = pa.RecordBatchReader.from_batches(schema, batches())
        table = lancedb.connect(folder).create_table("clips", reader, schema=schema)
        if indexed:
            from lancedb.index import IvfSq

            table.create_index("vector", config=IvfSq(distance_type="dot"))

    return build


def open_lancedb(folder: Path, vectors: np.ndarray) -> Search:
    """Open the table; with an index the best 2 k by quantized vectors are compared exactly."""
    import lancedb

    table = lancedb.connect(folder).open_table("clips")
    indexed = bool(table.list_indices())

    def nearest(query: np.ndarray, k: int) -> np.ndarray:
        asked = table.search(query.astype(HALF)).distance_type("dot").select(["row", "_distance"]).limit(k)
        if indexed:
            asked = asked.nprobes(16).refine_factor(2)
        return asked.to_arrow()["row"].to_numpy()

    return lambda query: best_videos(lambda k: nearest(query, k), len(vectors))


ENGINES = {
    "torch, memory-mapped": Engine("torch", True, no_build, open_torch),
    "LanceDB flat": Engine("lancedb", True, build_lancedb(False), open_lancedb),
    "LanceDB IVF-SQ": Engine("lancedb", False, build_lancedb(True), open_lancedb),
    "usearch exact": Engine("usearch", True, no_build, open_usearch_exact),
    "usearch HNSW": Engine("usearch", False, build_usearch, open_usearch, largest=200_000),
    "faiss flat": Engine("faiss", True, build_faiss("Flat"), open_faiss),
    "faiss fp16": Engine("faiss", True, build_faiss("SQfp16"), open_faiss),
    "faiss IVF fp16": Engine("faiss", False, build_faiss("IVF{lists},SQfp16"), open_faiss),
}
"""What is measured, by name."""


def memory() -> dict[str, int]:
    """Return the peak, and what is anonymous and from files, of this process's resident memory, in bytes."""
    fields = {"VmHWM": "peak", "VmRSS": "resident", "RssAnon": "private", "RssFile": "from_files"}
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    return {fields[parts[0][:-1]]: int(parts[1]) * 1024 for parts in lines if parts and parts[0][:-1] in fields}


def read_bytes() -> int:
    """Return the bytes that this process has made the machine read from its disk."""
    lines = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(lines["read_bytes"])


def forget_files(paths: list[Path]) -> None:
    """Drop the files from the page cache, as far as the system follows: they are written out before."""
    for path in paths:
        file = os.open(path, os.O_RDONLY)
        os.fsync(file)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)


def measure_build(engine: Engine, job: dict[str, Any]) -> dict[str, Any]:
    """Build, and return the time of it and the peak of memory."""
    before = begin_peak(engine)
    started = time.perf_counter(), time.process_time()
    engine.build(open_vectors(job["vectors"]), Path(job["folder"]))
    return dict(
        build_s=time.perf_counter() - started[0],
        build_cpu_s=time.process_time() - started[1],
        build_peak_bytes=memory()["peak"] - before["resident"],
    )


def begin_peak(engine: Engine) -> dict[str, int]:
    """Import what the engine needs, forget the peak of memory until here, and return the memory that is used now."""
    for module in (engine.module, *(["pyarrow"] if engine.module == "lancedb" else [])):
        import_module(module)
    Path("/proc/self/clear_refs").write_text("5")
    return memory()


def measure_search(engine: Engine, job: dict[str, Any]) -> dict[str, Any]:
    """Search from a cold start, then with a warm one, and return times, memory and the videos that were found."""
    before, read_before = begin_peak(engine), read_bytes()
    queries = np.load(job["queries"])
    started = time.perf_counter()
    vectors = open_vectors(job["vectors"])
    search = engine.open(Path(job["folder"]), vectors)
    opened = time.perf_counter()
    found, seconds = [search(queries[0])], []
    cold, read = time.perf_counter() - started, read_bytes() - read_before
    search(queries[0])
    worked = time.process_time()
    for query in queries:
        begun = time.perf_counter()
        found.append(search(query))
        seconds.append(time.perf_counter() - begun)
    worked = time.process_time() - worked
    after = memory()
    return dict(
        open_s=opened - started,
        cold_s=cold,
        cold_read_bytes=read,
        seconds=seconds,
        cpu_s=worked / len(queries),
        peak_bytes=after["peak"] - before["resident"],
        private_bytes=after["private"] - before["private"],
        file_bytes=after["from_files"] - before["from_files"],
        found=[each.tolist() for each in found[1:]],
    )


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    measured = {"build": measure_build, "search": measure_search}[given["act"]](ENGINES[given["engine"]], given)
    Path(given["answer"]).write_text(json.dumps(measured))
