"""Vectors of an index: one a clip, float16 rows of an append-only file that is memory-mapped, searched exactly."""

import mmap
import os
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from clipbert_mm.errors import OptionError, VideoIndexError, quoted
from clipbert_mm.fileio import naming_path_when_full

BLOCK_ROWS = 4096
"""Rows that are converted to single precision at a time, so few that they stay in the caches."""
QUERIES_AT_ONCE = 32
"""Queries that are compared in one pass over the vectors; more would need more memory than the vectors."""
VIDEOS_AT_ONCE = 64
"""Videos whose mean vectors are computed at a time."""
TEMPERATURE = 0.1
"""Difference of cosine similarities that counts e-fold when the clips of a video are weighted."""


def _largest(scores: np.ndarray, bounds: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return np.maximum.reduceat(scores, bounds)[::2]


def _mean(scores: np.ndarray, bounds: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return np.add.reduceat(scores, bounds)[::2] / counts


def _log_sum_exp(scores: np.ndarray, bounds: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return np.log(np.add.reduceat(np.exp(scores / TEMPERATURE), bounds)[::2]) * TEMPERATURE


def _weighted(scores: np.ndarray, bounds: np.ndarray, counts: np.ndarray) -> np.ndarray:
    weights = np.exp(scores / TEMPERATURE)
    return np.add.reduceat(weights * scores, bounds)[::2] / np.add.reduceat(weights, bounds)[::2]


VECTOR_POOLINGS: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]] = {
    "max": _largest,
    "mean": _mean,
    "logsumexp": _log_sum_exp,
    "query-weighted": _weighted,
}
"""How the cosine similarities of a video's clips become one, by name."""


def pool_similarities(similarities: np.ndarray, starts: np.ndarray, counts: np.ndarray, pooling: str) -> np.ndarray:
    """Pool the cosine similarities of clips for each video.

    Args:
        similarities: Of all rows, float32 (N,).
        starts: First row of each video, increasing, (V,).
        counts: Rows of each video, at least one, (V,).
        pooling: One of :data:`VECTOR_POOLINGS`.

    Returns:
        Float32 (V,).

    Raises:
        OptionError: If there is no such pooling.

    >>> pool_similarities(np.float32([0.1, 0.5, 9.0, 0.3]), np.array([0, 3]), np.array([2, 1]), "max").tolist()
    [0.5, 0.30000001192092896]
    """
    if pooling not in VECTOR_POOLINGS:
        raise OptionError(f"Vectors are pooled by one of {', '.join(VECTOR_POOLINGS)}, got {quoted(pooling)}.")
    if not len(starts):
        return np.zeros(0, np.float32)
    # reduceat reduces from each bound to the next, so every second part is a video; the others belong to no video.
    bounds = np.stack([starts, starts + counts], axis=1).ravel()
    padded = np.append(similarities, np.float32(0)) if bounds[-1] == len(similarities) else similarities
    return VECTOR_POOLINGS[pooling](padded, bounds, counts).astype(np.float32, copy=False)


@dataclass(frozen=True)
class VideoRows:
    """Which rows belong to which video.

    Args:
        ids: Numbers of the videos in their table, (V,).
        starts: First row of each, increasing, (V,).
        counts: Rows of each, (V,).
        checksums: CRC-32 of the bytes of the rows of each, (V,).
    """

    ids: np.ndarray
    starts: np.ndarray
    counts: np.ndarray
    checksums: np.ndarray

    def select(self, kept: np.ndarray) -> "VideoRows":
        """Return the videos of a mask or of indices."""
        return VideoRows(self.ids[kept], self.starts[kept], self.counts[kept], self.checksums[kept])


class VectorFile:
    """Float16 rows in a file, appended by one process and memory-mapped by any number.

    Args:
        path: The file.
        width: Numbers of a row, P.
    """

    def __init__(self, path: Path, width: int) -> None:
        self.path, self.width = path, width

    def append(self, vectors: Sequence[np.ndarray], start: int) -> None:
        """Write the vectors of videos, float16 (K, P) each, from a row on; what was behind it is lost.

        If the file was cut before that row, there are zeros between, which agree with no checksum.

        Raises:
            VideoIndexError: If it is a folder, a pipe or a device.
        """
        self._refuse_other()
        with naming_path_when_full(self.path), open(self.path, "r+b" if self.path.exists() else "w+b") as file:
            file.truncate(start * self.width * 2)
            file.seek(0, os.SEEK_END)
            for each in vectors:
                file.write(each.data)
            file.flush()
            os.fsync(file.fileno())

    def map(self, count: int) -> np.ndarray:
        """Return at most the first ``count`` rows, float16 (N, P); fewer if the file was cut, none if there is no file.

        Raises:
            VideoIndexError: If it cannot be read.
        """
        self._refuse_other()
        try:
            with open(self.path, "rb") as file:
                count = min(count, os.fstat(file.fileno()).st_size // (2 * self.width))
                size = 2 * self.width * count
                content = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) if count else b""
        except FileNotFoundError:
            return np.zeros((0, self.width), np.float16)
        except OSError as error:
            raise VideoIndexError(f"Cannot read the vectors {self.path}: {error.strerror}.") from error
        return np.frombuffer(content, np.float16).reshape(count, self.width)

    def _refuse_other(self) -> None:
        """Refuse what is no file, such as a pipe, which would keep whoever opens it waiting."""
        if self.path.exists() and not self.path.is_file():
            raise VideoIndexError(
                f"{self.path} is a folder, a pipe or a device, expected a file of vectors. Delete it."
            )


def damaged_rows(rows: np.ndarray, videos: VideoRows) -> np.ndarray:
    """Compare the rows of videos with their checksums, and return whether each is missing or damaged, bool (V,)."""
    ends = videos.starts + videos.counts
    wrong = (videos.starts < 0) | (videos.counts < 1) | (ends > len(rows)) | (ends < videos.starts)
    spans = zip(videos.starts.tolist(), ends.tolist(), videos.checksums.tolist(), strict=True)
    for i, (start, end, checksum) in enumerate(spans):
        if not wrong[i] and zlib.crc32(rows[start:end].data) != checksum:
            wrong[i] = True
    return wrong


def similarities(rows: np.ndarray, queries: Tensor) -> np.ndarray:
    """Return the dot products of float16 rows, (N, P), with vectors, float32 (Q, P), in single precision: float32 (Q, N)."""
    halves = _halves(rows)
    out, block = torch.empty(len(queries), len(rows)), torch.empty(BLOCK_ROWS, rows.shape[1])
    products = torch.empty(BLOCK_ROWS, len(queries))  # row by row, which is quicker than the other way round
    for start in range(0, len(rows), BLOCK_ROWS):
        part = halves[start : start + BLOCK_ROWS]
        torch.mm(block[: len(part)].copy_(part), queries.T, out=products[: len(part)])
        out[:, start : start + len(part)] = products[: len(part)].T
    return out.numpy()


def _halves(rows: np.ndarray) -> Tensor:
    """Return rows as a tensor that shares their memory."""
    with warnings.catch_warnings():  # of an array that torch could write to, which nothing here does
        warnings.filterwarnings("ignore", message="The given (NumPy array|buffer) is not writable")
        return torch.from_numpy(rows)


def mean_blocks(rows: np.ndarray, videos: VideoRows) -> Iterator[tuple[slice, Tensor]]:
    """Yield the mean vectors of videos as unit vectors, float32 (v, P), for some videos at a time; NaN for a mean of zero.

    Args:
        rows: All rows, float16 (N, P).
        videos: Whose they are.
    """
    ends, halves = videos.starts + videos.counts, _halves(rows)
    for first in range(0, len(ends), VIDEOS_AT_ONCE):
        some = slice(first, first + VIDEOS_AT_ONCE)
        start = videos.starts[first]
        bounds = np.stack([videos.starts[some], ends[some]], axis=1).ravel() - start
        block = halves[start : start + bounds[-1]].float().numpy()
        sums = torch.from_numpy(np.add.reduceat(block, bounds[:-1], axis=0)[::2])  # every second part is a video
        yield some, sums / sums.norm(dim=1, keepdim=True)
