"""Contact sheets: the frame at the time of a hit, unreadable videos, and the command."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clipbert_mm.apis.contact_sheet import draw_hits
from clipbert_mm.apis.results import Moment
from clipbert_mm.apis.search_results import Hit
from clipbert_mm.errors import OptionError
from clipbert_mm.media.thumbnails import read_thumbnail


def test_the_picture_is_the_frame_of_the_time(world: Path, decode_with_pyav: Callable):
    path = world / "videos" / "test_00000.mp4"
    frames = decode_with_pyav(path)
    for seconds, expected in ((0.0, 0), (-1.0, 0), (1e9, len(frames) - 1), (None, len(frames) // 2)):
        found = read_thumbnail((0, str(path), seconds))
        assert np.array_equal(found, frames[expected])
    assert read_thumbnail((0, "gone.mp4", 1.0)) == "there is no such file"


def test_a_sheet_of_hits_with_one_that_is_gone(world: Path, tmp_path: Path):
    moment = Moment(0.2, 1.0, 3.0)
    hits = [Hit(str(path), 1.5, 0.8, moment, (moment,)) for path in sorted((world / "videos").glob("test_*.mp4"))[:5]]
    hits.append(Hit(str(tmp_path / "gone_$x.mp4"), 0.5, None, None, ()))
    for name in ("sheet.jpg", "deep/sheet.png"):
        draw_hits("a $red circle", hits, "log-odds", tmp_path / name, [str(world)])
        with Image.open(tmp_path / name) as image:
            assert image.format == ("JPEG" if name.endswith("jpg") else "PNG")
            width, height = image.size
            assert width > 2 * height, "four in a row, two rows"
    for wrong, given, message in (
        ("sheet.gif", hits, r"written to a file of \.jpg, \.jpeg, \.png, got"),
        ("sheet.jpg", [], "no hit to draw"),
    ):
        with pytest.raises(OptionError, match=message):
            draw_hits("a", given, "cosine", tmp_path / wrong)


def test_the_command_draws_one(run_command: Callable, checkpoint: Path, world: Path, tmp_path: Path):
    shutil.copy(world / "videos" / "test_00000.mp4", tmp_path / "a.mp4")
    assert run_command("index", "a.mp4", "--model", checkpoint, "--workers", 1)[0] == 0
    code, _, err = run_command("search", "a red circle", "--sheet", "out.jpg")
    assert (code, "drew out.jpg" in err, (tmp_path / "out.jpg").is_file()) == (0, True, True)
    code, _, err = run_command("search", "a red circle", "--sheet", "out.gif")
    assert (code, "A contact sheet is written to a file of" in err) == (1, True)
    (tmp_path / "texts.txt").write_text("a red circle\n")
    code, _, err = run_command("search", "--queries", "texts.txt", "--sheet", "out.jpg")
    assert (code, "--sheet goes with one text" in err) == (1, True)
