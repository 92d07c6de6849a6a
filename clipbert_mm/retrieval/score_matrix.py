"""The score matrix of texts and videos on disk, tile by tile, so that a killed run can resume."""

import os
import secrets
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from clipbert_mm.fileio import naming_path_when_full

SUFFIX = ".tiles"
TILE_HEAD, CHECKSUM = struct.Struct("<II"), struct.Struct("<I")
"""What stands before the scores of a tile, which are the indices of its first text and video, and a CRC-32 of all of it."""


@dataclass(frozen=True)
class Tile:
    """A block of the matrix.

    Args:
        rows: The texts.
        columns: The videos.
    """

    rows: slice
    columns: slice


class ScoreMatrix:
    """Store a matrix of scores in a folder, tile by tile; NaN stands for a pair without a score.

    Each process appends the tiles that it scores to one file of its own, with checksums. So the number of files is that of
    processes, however small the tiles are, and a tile that a kill cut short is ignored. A closed file never changes.

    Args:
        folder: The folder; created if it does not exist.
        shape: Number of texts and of videos.
        tile: Most texts and most videos in a tile.
    """

    def __init__(self, folder: str | os.PathLike, *, shape: tuple[int, int], tile: tuple[int, int]) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.shape = shape
        rows, columns = (
            [slice(start, min(start + step, count)) for start in range(0, count, step)]
            for count, step in zip(shape, tile, strict=True)
        )
        self.tiles = [Tile(row, column) for row in rows for column in columns]
        self._by_start: dict[tuple[int, ...], Tile] = {
            (tile.rows.start, tile.columns.start): tile for tile in self.tiles
        }
        self._file: IO[bytes] | None = None

    def missing(self) -> list[Tile]:
        """Return the tiles that are not stored."""
        stored = {(tile.rows.start, tile.columns.start) for tile, _ in self._stored()}
        return [tile for start, tile in self._by_start.items() if start not in stored]

    def write(self, tile: Tile, scores: np.ndarray) -> None:
        """Write a tile, float32 (texts, videos).

        Raises:
            OSError: If it cannot be written; names the path.
        """
        if self._file is None:
            self._file = open(self.folder / f"{secrets.token_hex(8)}{SUFFIX}", "xb")  # noqa: SIM115
        data = scores.astype(np.float32).tobytes()
        head = TILE_HEAD.pack(tile.rows.start, tile.columns.start)
        with naming_path_when_full(self._file.name):
            self._file.write(head + CHECKSUM.pack(zlib.crc32(data, zlib.crc32(head))) + data)
            self._file.flush()  # to the operating system, which keeps it if this process is killed

    def close(self) -> None:
        """Close the file of this process, so that other machines see it."""
        if self._file is not None:
            with naming_path_when_full(self._file.name):
                os.fsync(self._file.fileno())
                self._file.close()
            self._file = None

    def read(self) -> np.ndarray:
        """Return the whole matrix, float32 (texts, videos); all tiles must be stored."""
        scores, missing = np.empty(self.shape, np.float32), len(self.tiles)
        for tile, values in self._stored():
            scores[tile.rows, tile.columns] = values
            missing -= 1
        assert missing == 0, f"{missing} tiles of {self.folder} are missing"
        return scores

    def _stored(self) -> Iterator[tuple[Tile, np.ndarray]]:
        """Read each stored tile once; of a truncated or damaged file, the tiles before the damage."""
        seen = set()
        for path in sorted(self.folder.glob(f"*{SUFFIX}")):
            with open(path, "rb") as file:
                while tile := self._by_start.get(_unpack(TILE_HEAD, head := file.read(TILE_HEAD.size))):
                    shape = (tile.rows.stop - tile.rows.start, tile.columns.stop - tile.columns.start)
                    checksum, data = file.read(CHECKSUM.size), file.read(4 * shape[0] * shape[1])
                    if checksum != CHECKSUM.pack(zlib.crc32(data, zlib.crc32(head))):
                        break
                    if head not in seen:
                        seen.add(head)
                        yield tile, np.frombuffer(data, np.float32).reshape(shape)


def _unpack(layout: struct.Struct, data: bytes) -> tuple[int, ...]:
    return layout.unpack(data) if len(data) == layout.size else ()


def share_out(tiles: list[Tile], costs: list[float], shares: int) -> list[list[Tile]]:
    """Distribute tiles over processes so that their costs are about equal; the most expensive tiles are given out first.

    Args:
        tiles: The tiles.
        costs: The cost of each.
        shares: Number of processes.

    Returns:
        The tiles of each process, in their order.
    """
    loads = [0.0] * shares
    members: list[list[int]] = [[] for _ in range(shares)]
    for i in sorted(range(len(tiles)), key=lambda i: -costs[i]):
        least = loads.index(min(loads))
        loads[least] += costs[i]
        members[least].append(i)
    return [[tiles[i] for i in sorted(indices)] for indices in members]
