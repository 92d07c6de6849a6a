"""The commands of the page on own data, as they stand there: from raw videos and a table to a search and to answers."""

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import pytest
from video_files import moving_frames, write_file
from warm_python import quick_python

CODECS = {
    "kitchen/0001.mp4": "libx264",
    "street.avi": "mpeg4",
    "3 Katzen.webm": "libvpx",
    "d.mkv": "libx264",
    "e.mov": "mpeg4",
    "f.MP4": "libx264",
}
"""Videos, two of which the page's tables name, each with its encoder."""
ROWS = {
    "captions": "{name},a picture that moves behind a square",
    "questions": "{name},what moves behind the square,picture",
    "choice": "{name},what moves,picture,picture,square,nothing",
}
"""What the page's tables get for the other videos."""


@pytest.fixture(scope="module")
def page(root: Path) -> str:
    return (root / "docs" / "your_own_data.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def shell(root: Path, page: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], str]]:
    """Run commands in a folder as the page describes it, for fewer epochs on smaller frames; returns what they print."""
    folder = tmp_path_factory.mktemp("own data")
    for name in ("tools", "configs"):
        (folder / name).symlink_to(root / name)
    for name, codec in CODECS.items():
        path = folder / "data/custom/videos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, codec, count=30)
    (folder / "data/custom/images").mkdir()
    for i, frame in enumerate(moving_frames(10, 96, 64)):
        cv2.imwrite(str(folder / "data/custom/images" / f"{i}.jpg"), frame)
    tables = re.findall(r"^```\n(video,.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    for (name, row), table in zip(ROWS.items(), tables, strict=True):
        others = [row.format(name=video) for video in CODECS if video not in table]
        (folder / f"{name}.csv").write_text("\ufeff" + table + "\n".join(others), encoding="utf-8")
    rows = [f"{i}.jpg,image {i}" for i in range(10)]
    (folder / "images.csv").write_text("\n".join(["image,caption", *rows]))
    programs = folder / "bin"
    programs.mkdir()
    environment = os.environ | {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(root),
        "CLIPBERT_EPOCHS": "1",
        "CLIPBERT_FRAME_SIZE": "32",
    }
    for name in ("CLIPBERT_DATA", "CLIPBERT_BERT", "CLIPBERT_WEIGHTS"):
        environment.pop(name, None)
    with quick_python(programs):
        (programs / "clipbert").write_text('#!/bin/sh\nexec python -m clipbert_mm "$@"\n')
        (programs / "clipbert").chmod(0o755)

        def run(command: str) -> str:
            done = subprocess.run(command, shell=True, cwd=folder, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
            return done.stdout

        yield run


def commands(page: str, title: str) -> list[str]:
    """The commands of a section of the page."""
    section = page.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"^```bash\n(.*?)^```$", section, flags=re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


@pytest.fixture(scope="module")
def converted(page: str, shell: Callable[[str], str]) -> str:
    """What the page's first command says, which all of its sections begin with: its captions are in their vocabularies."""
    return shell(commands(page, "From videos and a table to a search")[0])


def test_five_commands_lead_from_raw_videos_and_a_table_to_a_search(
    page: str, shell: Callable[[str], str], converted: str
):
    _, train, test, index, search = commands(page, "From videos and a table to a search")
    assert "train.jsonl: " in converted
    assert "on 5 files\n" in converted
    assert "test.jsonl: " in converted
    shell(train)
    assert "t2v/R@1: 100.0000" in shell(test), "of one video"
    assert shell(index) == "6 added, 0 changed, 0 unchanged, 0 removed, 0 unreadable\n"
    said = shell(search)
    assert said.startswith("'a man cuts an onion' in 6 videos, scored by log-odds\n")
    hits = re.findall(r"^ +\d\. .*/data/custom/videos/(.*)$", said, flags=re.MULTILINE)
    assert len(hits) == 5
    assert set(hits) < set(CODECS)


@pytest.mark.usefixtures("converted")
@pytest.mark.parametrize(
    ("title", "printed"),
    [
        (
            "Open-ended questions",
            [
                r"answers\.json|of \d questions have",
                None,
                r"accuracy: ",
                r"how many people wait .*street\.avi",
                r"\d answers",
            ],
        ),
        (
            "Multiple-choice questions",
            [r"choice_test\.jsonl", None, r"accuracy: ", r"(?s)what comes next .*they cross"],
        ),
        ("Pre-training on your own pictures", [r"pretrain\.jsonl: 8 lines", None, r"mlm_accuracy: "]),
    ],
)
def test_the_commands_of_each_task_run(page: str, shell: Callable[[str], str], title: str, printed: list[str | None]):
    for command, expected in zip(commands(page, title), printed, strict=True):
        said = shell(command)
        assert expected is None or re.search(expected, said), f"{command}\n{said}"
