"""The scores of texts and videos on disk, by tile, so that a run that was killed goes on."""

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
PLACE, CHECKSUM = struct.Struct("<II"), struct.Struct("<I")
"""What stands before the scores of a tile, which is its first text and video, and the CRC-32 of these and of its scores."""


@dataclass(frozen=True)
class Tile:
    """A block of the matrix.

    Args:
        rows: Its texts.
        columns: Its videos.
    """

    rows: slice
    columns: slice


class ScoreMatrix:
    """A matrix of scores in a folder, by tile; NaN where a pair has no score.

    Each process appends the tiles that it scores to a file of its own, with their checksums. So there are as many files as
    processes, however small the tiles are, and a tile that a kill cut short is none. A file never changes once it is closed.

    Args:
        folder: The folder, made if it is not there.
        shape: Texts and videos.
        tile: Most texts and videos of a tile.
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
        self._places: dict[tuple[int, ...], Tile] = {(tile.rows.start, tile.columns.start): tile for tile in self.tiles}
        self._own: IO[bytes] | None = None

    def missing(self) -> list[Tile]:
        """Return the tiles that are not there."""
        there = {(tile.rows.start, tile.columns.start) for tile, _ in self._stored()}
        return [tile for place, tile in self._places.items() if place not in there]

    def write(self, tile: Tile, scores: np.ndarray) -> None:
        """Write a tile, float32 (texts, videos).

        Raises:
            OSError: If it cannot be written, with the path of the file.
        """
        if self._own is None:
            self._own = open(self.folder / f"{secrets.token_hex(8)}{SUFFIX}", "xb")  # noqa: SIM115
        data = scores.astype(np.float32).tobytes()
        head = PLACE.pack(tile.rows.start, tile.columns.start)
        with naming_path_when_full(self._own.name):
            self._own.write(head + CHECKSUM.pack(zlib.crc32(data, zlib.crc32(head))) + data)
            self._own.flush()  # to the system, which keeps it when this process is killed

    def close(self) -> None:
        """Close the file of this process, so that other machines see what it wrote."""
        if self._own is not None:
            with naming_path_when_full(self._own.name):
                os.fsync(self._own.fileno())
                self._own.close()
            self._own = None

    def read(self) -> np.ndarray:
        """Return the whole matrix, float32 (texts, videos); all tiles must be there."""
        scores, left = np.empty(self.shape, np.float32), len(self.tiles)
        for tile, values in self._stored():
            scores[tile.rows, tile.columns] = values
            left -= 1
        assert left == 0, f"{left} tiles of {self.folder} are missing"
        return scores

    def _stored(self) -> Iterator[tuple[Tile, np.ndarray]]:
        """Read the tiles that are there, each once; of a file that was cut short or damaged, those before that place."""
        seen = set()
        for path in sorted(self.folder.glob(f"*{SUFFIX}")):
            with open(path, "rb") as file:
                while tile := self._places.get(_unpack(PLACE, head := file.read(PLACE.size))):
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
    """Give tiles to processes so that they have about as much to do, the dearest tiles first.

    Args:
        tiles: The tiles.
        costs: What each costs.
        shares: The number of processes.

    Returns:
        The tiles of each process, in their order.
    """
    loads = [0.0] * shares
    given: list[list[int]] = [[] for _ in range(shares)]
    for i in sorted(range(len(tiles)), key=lambda i: -costs[i]):
        least = loads.index(min(loads))
        loads[least] += costs[i]
        given[least].append(i)
    return [[tiles[i] for i in sorted(own)] for own in given]
