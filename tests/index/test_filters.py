"""Conditions on the videos of a search: the same as by comparing each video, with any number and many folders."""

import random
from pathlib import Path

import pytest

from clipbert_mm.errors import OptionError
from clipbert_mm.index import Entry, Filter, VideoIndex

SECONDS = [0.5, 2.0, 2.5, 60.0, None]
WRITTEN = [0, 1_500_000_000, 9_000_000_000]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> VideoIndex:
    """An index of 2,000 files that do not exist, in 700 folders, with all lengths and times of writing."""
    index = VideoIndex(tmp_path_factory.mktemp("filters") / "index")
    index.start("id", "a.pth", "a.pth")
    rng = random.Random(0)
    index.table.put(
        (
            Entry(f"/v/{i % 700}/{i}.mp4", 1, rng.choice(WRITTEN) * 10**9, rng.choice(SECONDS), ((0.0, 1.0),), (2, 2)),
            None,
        )
        for i in range(2000)
    )
    return index


def paths_of(index: VideoIndex, where: Filter) -> list[str]:
    """Paths of the videos that meet conditions, in their order; all ways of asking agree."""
    paths = index.table.paths(where)
    assert [entry.path for entry in index.listed(where)] == paths
    assert index.count(where) == len(paths)
    numbers = [index.table.number(path) for path in paths]
    assert index.table.ids(where).tolist() == sorted(numbers)
    return paths


@pytest.mark.parametrize("count", [0, 1, 2, 500, 2000])
def test_a_video_is_below_one_of_the_folders_or_is_one_of_them(index: VideoIndex, count: int):
    folders = [f"/v/{i}" for i in range(count)]
    again = [*folders, *(f"{folder}/{i}.mp4" for i, folder in enumerate(folders)), "/v/698/1398.mp4"][: count * 2 + 1]
    found = paths_of(index, Filter(folders=tuple(folders)))
    assert found == sorted(path for path in index.entries if path.rpartition("/")[0] in folders)
    if count < 2000:  # those below another one do not count, a further one does
        assert paths_of(index, Filter(folders=tuple(again))) == sorted([*found, "/v/698/1398.mp4"])


def test_more_folders_are_refused_by_number():
    inside = tuple(f"/v/{i // 2}/{i}" for i in range(4000))
    assert Filter(folders=(*inside, *(f"/v/{i}" for i in range(2000)))).condition()[0].count(" OR ") == 1999 + 2000
    with pytest.raises(OptionError, match=r"into 2,000 folders at most, got 2,001. Name the folders that they are in."):
        Filter(folders=tuple(f"/v/{i}" for i in range(2001)))


def test_listing_a_folder_takes_steps_in_the_number_of_its_videos(tmp_path: Path):
    """Beside neighbours whose names begin alike; counted in instructions of SQLite."""
    steps = {}
    for count in (2000, 8000):
        index = VideoIndex(tmp_path / str(count))
        index.start("id", "a.pth", "a.pth")
        below = [f"/v/a/{i:05}.mp4" for i in range(count)]
        others = ["/v/a", "/v/a!/0.mp4", "/v/a-1.mp4", "/v/a.mp4", "/v/a0/0.mp4", "/v/b.mp4", "/v/A/0.mp4"]
        index.table.put((Entry(path, 1, 1, 1.0, None, (2, 2)), None) for path in [*below, *others])
        asked: list[int] = []
        with index.table.reading() as database:
            database.set_progress_handler(lambda asked=asked: asked.append(1) and None, 100)
        found = [entry.path for entry in index.listed(Filter(folders=("/v/a",)))]
        steps[count] = len(asked)
        assert found == ["/v/a", *below]
        pages = [entry.path for first in (0, 700) for entry in index.listed(Filter(("/v/a",)), first=first, most=700)]
        assert pages == found[:1400]
    assert steps[8000] < 6 * steps[2000], "four times as many, not sixteen"


@pytest.mark.parametrize("bound", [0, 2.0, 2, -1, 1.5e9, 1e300, -1e300, 10**400, float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["min_seconds", "max_seconds", "written_after", "written_before"])
def test_bounds_of_any_size_compare(index: VideoIndex, name: str, bound: float):
    meets = {
        "min_seconds": lambda entry: entry.seconds is not None and entry.seconds >= bound,
        "max_seconds": lambda entry: entry.seconds is not None and entry.seconds <= bound,
        "written_after": lambda entry: entry.mtime_ns // 10**9 >= bound,
        "written_before": lambda entry: entry.mtime_ns // 10**9 <= bound,
    }[name]
    assert paths_of(index, Filter(**{name: bound})) == sorted(
        path for path, entry in index.entries.items() if meets(entry)
    )


@pytest.mark.parametrize("bound", [float("nan"), True, "2"])
def test_what_is_no_number_is_refused(bound: object):
    with pytest.raises(OptionError, match=r"written_after and written_before are two numbers in this order, or None"):
        Filter(written_after=bound)
