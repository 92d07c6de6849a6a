"""A video for the tests of transforms."""

from pathlib import Path

import pytest

from clipbert_mm.datasets.shapes import Scene, ShapeObject, write_video


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """An H.264 file with several key frames, in which something moves all the time."""
    first = ShapeObject("star", "red", "large", (0.2, 0.5), (0.3, 0.2))
    second = ShapeObject("ring", "blue", "small", (0.8, 0.1), (-0.2, 0.3))
    scenes = (Scene((first,), "black", 4.0), Scene((second,), "white", 3.92))
    write_video(tmp_path / "a.mp4", scenes, (176, 144), 12.5)
    return tmp_path / "a.mp4"
