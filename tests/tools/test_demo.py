"""The demo from nothing to its table, on a small world and for one epoch a stage; a second run does nothing again."""

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
from small_demo import shrink
from warm_python import quick_python

from clipbert_mm.evaluation import read_rankings, retrieval_metrics, write_rankings

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def demo(tool: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The demo with less of everything."""
    module = tool("demo.py")
    for name in ("stage_config", "ShapesWorld"):
        monkeypatch.setattr(module, name, getattr(module, name))  # which puts it back
    shrink(module)
    monkeypatch.setenv("SHAPES_ROOT", "nowhere")  # the demo sets it, and this puts it back
    return module


def run_in_two_processes(tmp_path: Path, *arguments: str) -> str:
    """Run the small demo as ``make demo`` does; returns what it printed."""
    command = ["bash", str(ROOT / "tools" / "dist_run.sh"), "../tests/small_demo.py", "2", *arguments]
    (tmp_path / "bin").mkdir()
    with quick_python(tmp_path / "bin"):
        own = {
            "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "PYTHON_EXEC": str(tmp_path / "bin" / "python"),  # which torchrun starts
            "CUDA_VISIBLE_DEVICES": "",
            "OMP_NUM_THREADS": "1",
        }
        done = subprocess.run(command, env=os.environ | own, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def test_the_demo_ends_with_a_table_of_its_metrics(demo: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture):
    options = ["--out", str(tmp_path / "demo"), "--seed", "3"]
    printed = run_in_two_processes(tmp_path, *options)
    assert [line[:4] for line in printed.splitlines() if line[1:3] == "/5"] == ["1/5 ", "2/5 ", "3/5 ", "4/5 ", "5/5 "]
    metrics = json.loads((tmp_path / "demo" / "metrics.json").read_text())
    assert list(metrics) == ["N_test = 8", "N_test = 1", "chance"]
    for clips in (8, 1):
        rankings = read_rankings(tmp_path / "demo" / f"test_{clips}" / "rankings.json")
        wanted = retrieval_metrics(rankings["scores"], np.array(rankings["text_video"]))
        assert metrics[f"N_test = {clips}"] == pytest.approx(wanted | {"coverage": 100})
    for direction, words in (("t2v", "text -> video"), ("v2t", "video -> text")):
        for name, own in metrics.items():
            row = re.search(rf"^{words}, {name}\s+(.*)$", printed, re.MULTILINE).group(1)
            shown = [float(value) for value in row.split()]
            columns = ("R@1", "R@5", "R@10", "MdR", "MnR")
            assert shown == pytest.approx([own[f"{direction}/{column}"] for column in columns], abs=0.051)
    for picture in ("curves.png", "retrieval.png"):
        assert cv2.imread(str(tmp_path / "demo" / picture)).std() > 5
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "demo").rglob("*.pth")}
    demo.main(options)
    assert capsys.readouterr().out.count("done already") == 5
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "demo").rglob("*.pth")} == before


def test_chance_is_what_chance_gives(demo: ModuleType, tmp_path: Path):
    # 30 videos of one caption: R@K is K / 30, the mean rank 15.5.
    write_rankings(tmp_path / "rankings.json", [], [], np.arange(30), np.zeros((30, 30)), {})
    found = demo.chance(tmp_path / "rankings.json")
    for direction in ("t2v", "v2t"):
        for k in (1, 5, 10):
            deviation = 100 * np.sqrt(k / 30 * (1 - k / 30) / (30 * 200))
            assert found[f"{direction}/R@{k}"] == pytest.approx(100 * k / 30, abs=5 * deviation)
        assert found[f"{direction}/MnR"] == pytest.approx(15.5, abs=0.6)
