"""The scores of texts and videos on disk, by tile, so that a run that was killed goes on."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clipbert_mm.structures import written_whole


@dataclass(frozen=True)
class Tile:
    """A block of the matrix.

    Args:
        rows: Its texts.
        columns: Its videos.
    """

    rows: slice
    columns: slice

    @property
    def name(self) -> str:
        """The name of its file."""
        return f"{self.rows.start:07d}_{self.columns.start:07d}.npy"


class ScoreMatrix:
    """A matrix of scores in a folder: one file a tile, there whole or not at all; NaN where a pair has no score.

    Several processes may write tiles. Which tiles there are depends on the sizes alone.

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

    def missing(self) -> list[Tile]:
        """Return the tiles that are not there."""
        there = {path.name for path in self.folder.glob("*.npy")}
        return [tile for tile in self.tiles if tile.name not in there]

    def write(self, tile: Tile, scores: np.ndarray) -> None:
        """Write a tile, float32 (texts, videos)."""
        with written_whole(self.folder / tile.name, "wb") as file:
            np.save(file, scores.astype(np.float32))

    def read(self) -> np.ndarray:
        """Return the whole matrix, float32 (texts, videos); all tiles must be there."""
        scores = np.empty(self.shape, np.float32)
        for tile in self.tiles:
            scores[tile.rows, tile.columns] = np.load(self.folder / tile.name)
        return scores


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
