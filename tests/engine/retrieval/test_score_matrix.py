"""The score matrix by tile, and its sharing out."""

from pathlib import Path

import numpy as np
import pytest

from clipbert_mm.engine.retrieval.score_matrix import ScoreMatrix, Tile, share_out


@pytest.mark.parametrize(("shape", "tile", "count"), [((7, 5), (3, 2), 9), ((7, 5), (10, 1), 5), ((1, 1), (4, 4), 1)])
def test_tiles_make_up_the_matrix_in_any_order(tmp_path: Path, shape: tuple, tile: tuple, count: int):
    rng = np.random.default_rng(0)
    scores = rng.normal(size=shape).astype(np.float32)
    scores[0, 0] = np.nan
    matrix = ScoreMatrix(tmp_path / "m", shape=shape, tile=tile)
    assert len(matrix.tiles) == count
    order = rng.permutation(count)
    for i in order[: count // 2]:
        matrix.write(matrix.tiles[i], scores[matrix.tiles[i].rows, matrix.tiles[i].columns])
    again = ScoreMatrix(tmp_path / "m", shape=shape, tile=tile)
    assert [tile.name for tile in again.missing()] == sorted(matrix.tiles[i].name for i in order[count // 2 :])
    for missing in again.missing():
        again.write(missing, scores[missing.rows, missing.columns])
    assert again.missing() == []
    assert np.array_equal(again.read(), scores, equal_nan=True)


def test_a_tile_that_is_not_written_to_its_end_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    matrix = ScoreMatrix(tmp_path / "m", shape=(2, 2), tile=(1, 2))

    def stop(file, scores) -> None:
        file.write(b"\x93NUMPY")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "save", stop)
    with pytest.raises(KeyboardInterrupt):
        matrix.write(matrix.tiles[0], np.zeros((1, 2)))
    assert matrix.missing() == matrix.tiles
    assert list(matrix.folder.iterdir()) == []


def test_shares_are_about_the_same_work():
    tiles = [Tile(slice(i, i + 1), slice(0, 1)) for i in range(40)]
    costs = [float(cost) for cost in np.random.default_rng(0).integers(1, 30, 40)]
    shares = share_out(tiles, costs, 3)
    assert sorted(tile.rows.start for own in shares for tile in own) == list(range(40))
    loads = [sum(costs[tile.rows.start] for tile in own) for own in shares]
    assert max(loads) - min(loads) <= max(costs)
    assert shares == share_out(tiles, costs, 3)
    assert [len(own) for own in share_out(tiles[:1], costs[:1], 3)] == [1, 0, 0]
