"""The score matrix by tile, and its sharing out."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from clipbert_mm.retrieval.score_matrix import ScoreMatrix, Tile, share_out


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
    assert again.missing() == [matrix.tiles[i] for i in sorted(order[count // 2 :])]
    for missing in again.missing():
        again.write(missing, scores[missing.rows, missing.columns])
    again.close()
    assert again.missing() == []
    assert np.array_equal(again.read(), scores, equal_nan=True)
    assert len(list((tmp_path / "m").iterdir())) == 1 + (count > 1), "a file for each process that wrote"


def test_tiles_that_were_cut_short_or_damaged_are_not_there(tmp_path: Path):
    scores = np.arange(12, dtype=np.float32).reshape(4, 3)
    matrix = ScoreMatrix(tmp_path / "m", shape=(4, 3), tile=(2, 2))
    for tile in matrix.tiles:
        matrix.write(tile, scores[tile.rows, tile.columns])
    matrix.close()
    (path,) = matrix.folder.iterdir()
    whole = path.read_bytes()
    starts = [0, 28, 28 + 20, 28 + 20 + 28, len(whole)]  # 12 bytes before 4 or 2 numbers
    for end in range(len(whole)):  # a kill, at any byte
        path.write_bytes(whole[:end])
        assert len(matrix.missing()) == 4 - sum(end >= start for start in starts[1:])
    for place in range(len(whole)):  # a disk that changed a bit
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :])
        lost = matrix.missing()
        assert matrix.tiles[-len(lost)] == matrix.tiles[sum(place >= start for start in starts[1:])]
    again = ScoreMatrix(tmp_path / "m", shape=(4, 3), tile=(2, 2))
    for tile in again.missing():
        again.write(tile, scores[tile.rows, tile.columns])
    assert np.array_equal(again.read(), scores)


@pytest.mark.slow
def test_e_a_full_disk_is_told_with_the_path(tmp_path: Path):
    script = """
import resource, sys
import numpy as np
from clipbert_mm.retrieval import ScoreMatrix
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
matrix = ScoreMatrix(sys.argv[1], shape=(200, 200), tile=(200, 200))
matrix.write(matrix.tiles[0], np.zeros((200, 200)))
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False)
    assert re.fullmatch(rf"OSError: \[Errno 27\] File too large: '{tmp_path}/\w+\.tiles'", done.stderr.splitlines()[-1])


def test_shares_are_about_the_same_work():
    tiles = [Tile(slice(i, i + 1), slice(0, 1)) for i in range(40)]
    costs = [float(cost) for cost in np.random.default_rng(0).integers(1, 30, 40)]
    shares = share_out(tiles, costs, 3)
    assert sorted(tile.rows.start for own in shares for tile in own) == list(range(40))
    loads = [sum(costs[tile.rows.start] for tile in own) for own in shares]
    assert max(loads) - min(loads) <= max(costs)
    assert shares == share_out(tiles, costs, 3)
    assert [len(own) for own in share_out(tiles[:1], costs[:1], 3)] == [1, 0, 0]
