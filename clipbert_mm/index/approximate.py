"""Approximate search of vectors, by faiss, for collections that exact search takes too long for; with a measured recall."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clipbert_mm.errors import VideoIndexError, quoted
from clipbert_mm.extras import require_extra
from clipbert_mm.fileio import atomic_path, atomic_write, cache_folder

LISTS_PER_ROOT, MOST_LISTS = 4, 65536
"""Lists that the vectors are divided into, for the square root of their number, and at most."""
TRAINED_PER_LIST = 40
"""Vectors that each list is learnt from; k-means needs no more."""
ROWS_PER_VIDEO = 32
"""Nearest rows that are asked for a video that is wanted, since several clips of a video are near."""
QUERY_NOISE = 1.0
"""Length of the noise by which a query differs from a clip, whose cosine is then 0.71, as that of a text may be."""
MEASURED_QUERIES, MEASURED_VIDEOS = 64, 128
"""Queries, and nearest videos of each, that the recall is measured with."""
ROWS_AT_ONCE = 65536


@dataclass(frozen=True)
class Facts:
    """What is known of an approximate index.

    Args:
        rows: Rows of the file of vectors that it covers, the first ones; those behind are compared exactly.
        probes: Lists that a search looks into.
        recall: Share of the nearest 128 videos, by their nearest clip, that it found in a measurement.
    """

    rows: int
    probes: int
    recall: float


class ApproximateIndex:
    """Finds most of the rows that are nearest to a query without comparing all; one byte a number, in private memory.

    It is kept in the cache of the user who built it, and not in the folder of the index: faiss trusts the files that it reads,
    and an index may come from elsewhere.

    Args:
        index: The index of faiss.
        facts: What is known of it.
        vectors: Name of the file whose rows it covers.
    """

    def __init__(self, index: Any, facts: Facts, vectors: str) -> None:  # noqa: ANN401
        self.index, self.facts, self.vectors = index, facts, vectors
        self.probe(facts.probes)

    def probe(self, lists: int) -> None:
        """Set the number of lists that a search looks into."""
        self.index.nprobe = lists

    def near(self, queries: Tensor, count: int) -> list[np.ndarray]:
        """Return numbers of rows near each query, (Q, P), so many that ``count`` videos are among them in all likelihood."""
        wanted = min(ROWS_PER_VIDEO * count, self.facts.rows)
        _, rows = self.index.search(np.ascontiguousarray(queries.numpy(), np.float32), wanted)
        return [own[own >= 0] for own in rows]


def cache_path(folder: Path, vectors: str, identity: str) -> Path:
    """Return where the approximate index of a file of vectors is kept."""
    name = hashlib.blake2b(
        f"{folder.resolve()}\0{vectors}\0{identity}".encode(errors="replace"), digest_size=16
    ).hexdigest()
    return cache_folder() / "approximate" / f"{name}.faiss"


def build(rows: np.ndarray, vectors: str, seed: int = 0) -> ApproximateIndex:
    """Learn the lists of an inverted file from a sample of rows, float16 (N, P), and put all rows in, eight bits a number.

    Raises:
        BackendError: If faiss is not installed.
    """
    require_extra("faiss", "faiss", "An approximate index")
    import faiss

    count, width = rows.shape
    lists = int(min(MOST_LISTS, max(1, min(LISTS_PER_ROOT * np.sqrt(count), count // TRAINED_PER_LIST))))
    index = faiss.IndexIVFScalarQuantizer(
        faiss.IndexFlatIP(width), width, lists, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
    )
    sample = np.random.default_rng(seed).choice(count, min(count, TRAINED_PER_LIST * lists), replace=False)
    index.train(rows[np.sort(sample)].astype(np.float32))
    for first in range(0, count, ROWS_AT_ONCE):
        index.add(rows[first : first + ROWS_AT_ONCE].astype(np.float32))
    return ApproximateIndex(index, Facts(count, 1, 0.0), vectors)


def make_queries(rows: np.ndarray, seed: int = 0) -> Tensor:
    """Return unit vectors near rows of a random choice, float32 (Q, P)."""
    rng = np.random.default_rng(seed)
    chosen = rows[np.sort(rng.choice(len(rows), min(len(rows), MEASURED_QUERIES), replace=False))].astype(np.float32)
    noise = torch.nn.functional.normalize(torch.from_numpy(rng.standard_normal(chosen.shape, np.float32)), dim=1)
    return torch.nn.functional.normalize(torch.from_numpy(chosen) + QUERY_NOISE * noise, dim=1)


def write(approximate: ApproximateIndex, path: Path) -> None:
    """Write an approximate index, and beside it the facts about it."""
    import faiss

    with atomic_path(path) as part:
        faiss.write_index(approximate.index, str(part))
    with atomic_write(path.with_suffix(".json")) as file:
        json.dump(asdict(approximate.facts), file)


def read(path: Path, vectors: str, name: str) -> ApproximateIndex:
    """Read an approximate index of a file of vectors, of an index of a name.

    Raises:
        BackendError: If faiss is not installed.
        VideoIndexError: If there is none, or it is damaged.
    """
    require_extra("faiss", "faiss", "An approximate search")
    import faiss

    advice = f"Build it: clipbert index --approximate --index {name}"
    if not path.is_file() or not path.with_suffix(".json").is_file():
        raise VideoIndexError(
            f"The index {name} has no approximate index on this machine, or one of vectors that were compacted since. {advice}"
        )
    try:
        facts = Facts(**json.loads(path.with_suffix(".json").read_text()))
        index: Any = faiss.read_index(str(path))
        if index.ntotal != facts.rows or not 1 <= facts.probes <= index.nlist:
            raise ValueError(f"it has {index.ntotal} rows and {index.nlist} lists, and its facts say {quoted(facts)}")
    except (RuntimeError, TypeError, ValueError, AttributeError) as error:
        raise VideoIndexError(f"{path} is damaged: {str(error)[:200]}. {advice}") from error
    return ApproximateIndex(index, facts, vectors)
