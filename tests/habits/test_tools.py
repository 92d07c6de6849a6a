"""The tools of mmpretrain and mmaction2 on configs of ours, and our tools with MMEngine's habits."""

import copy
import json
import logging
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import mmengine.runner
import pytest
from cut_runs import same_weights
from hook_runs import names, written
from mmengine.config import Config
from sister_libraries import sister
from warm_python import quick_python

from clipbert_mm.checkpoint.archives import load_torch
from clipbert_mm.checkpoint.metadata import KEY
from clipbert_mm.engine.launch import build_runner
from clipbert_mm.engine.runner import ClipBertRunner
from clipbert_mm.errors import CheckpointError
from clipbert_mm.visualization import answer_video

ROOT = Path(__file__).resolve().parents[2]
TASKS = {
    "mmpretrain": ("clipbert_tiny_1xb16-2x2-12e_shapes-qa.py", "accuracy"),
    "mmaction": ("clipbert_tiny_1xb16-2x2-4e_shapes-retrieval.py", "t2v/R@10"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, link_world: Callable[[Path], Path]) -> Iterator[Path]:
    """A folder with a world in world/, and a quick ``python``."""
    folder = tmp_path_factory.mktemp("sisters")
    link_world(folder / "world")
    with quick_python(folder):
        yield folder


@pytest.mark.parametrize("library", ["mmpretrain", "mmaction"])
def test_h1_the_sisters_own_tools_train_and_test_as_ours_do(folder: Path, library: str):
    base, metric = TASKS[library]
    config = folder / f"{library}.py"
    config.write_text(
        f'_base_ = ["{ROOT / "configs/shapes" / base}"]\n'
        "load_from = None\n"
        "train_cfg = dict(max_epochs=1)\n"
        "train_dataloader = dict(batch_size=4)\n"
        "default_hooks = dict(checkpoint=dict(interval=1))\n"
        "test_dataloader = dict(num_workers=0)\n"
    )
    environment = os.environ | dict(SHAPES_ROOT=str(folder / "world"), PYTHONPATH=str(ROOT))

    def run(tool: str, work_dir: Path, *arguments: str) -> None:
        command = [str(folder / "python"), tool, str(config), *arguments, "--work-dir", str(work_dir)]
        done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr + done.stdout

    saved, metrics = [], []
    for name, tools in (("theirs", sister(f"{library}/")), ("ours", f"{ROOT}/tools/")):
        work_dir = folder / f"{library}-{name}"
        checkpoint = work_dir / "epoch_1.pth"
        run(f"{tools}/train.py", work_dir)
        saved.append(load_torch(checkpoint, mmap=False))
        run(f"{tools}/test.py", work_dir, str(checkpoint))
        logged = json.loads(max(work_dir.glob("*/*.json"), key=os.path.getmtime).read_text())
        metrics.append({key: value for key, value in logged.items() if not key.endswith("time")})
    theirs, ours = saved
    assert {"optimizer", "ranks", KEY} <= theirs.keys()
    assert same_weights(theirs, ours)
    assert theirs["meta"]["seed"] == ours["meta"]["seed"]
    assert metrics[0] == metrics[1]
    assert metric in metrics[0]


@pytest.fixture
def train(tool: Callable[[str], ModuleType]) -> Callable:
    return tool("train.py").main


def test_h19_resume_in_a_config_resumes_the_work_folder(
    runner_config: Config, checkpoint: Path, tmp_path: Path, train: Callable
):
    runner_config.default_hooks.checkpoint.interval = 1
    runner_config.load_from = str(checkpoint)
    train([written(runner_config, tmp_path, "a")])
    runner_config.resume = True
    runner_config.train_cfg.max_epochs = 2
    train([written(runner_config, tmp_path, "b")])
    assert {"epoch_1.pth", "epoch_2.pth"} <= set(names(runner_config))
    assert load_torch(Path(runner_config.work_dir) / "epoch_2.pth", mmap=False)["meta"]["iter"] == 12
    runner_config.work_dir += "-new"
    runner_config.optim_wrapper.constructor = "GroupedOptimWrapperConstructor"
    with pytest.raises(CheckpointError, match=r"without resume=True, which resumes load_from itself; --resume resumes"):
        train([written(runner_config, tmp_path, "c")])


@pytest.mark.parametrize("resume", [True, "auto", "PATH"])
def test_h19_a_runner_resumes_as_our_tool_does(
    runner_config: Config, resume: bool | str, caplog: pytest.LogCaptureFixture
):
    runner_config.train_cfg.max_epochs = 3
    runner_config.default_hooks.checkpoint.interval = 1
    ClipBertRunner.from_cfg(runner_config).train()
    folder = Path(runner_config.work_dir)
    first, latest = str(folder / "epoch_1.pth"), str(folder / "epoch_3.pth")
    runner_config.update(
        load_from=first, resume=first if resume == "PATH" else resume, experiment_name=f"again-{resume}"
    )
    runner = ClipBertRunner.from_cfg(runner_config)
    runner.logger.addHandler(caplog.handler)
    with caplog.at_level(logging.INFO):
        runner.train()
    assert runner.resumed["meta"]["epoch"] == (1 if resume == "PATH" else 3)
    said = (
        f"{first}." if resume == "PATH" else f"{latest}, not from load_from ({first}), which resume={first!r} would do."
    )
    assert f"Resumes from {said}" in caplog.messages


def test_h19_a_runner_of_one_s_own_is_told_what_to_resume(runner_config: Config):
    runner_config.default_hooks.checkpoint.interval = 1
    ClipBertRunner.from_cfg(runner_config).train()
    saved = f"{runner_config.work_dir}/epoch_1.pth"
    runner_config.update(runner_type=mmengine.runner.Runner, load_from=saved)
    empty = f"{runner_config.work_dir}-empty"
    for resume, work_dir, expected in (
        (True, runner_config.work_dir, (True, saved)),
        ("auto", runner_config.work_dir, (True, saved)),
        (saved, empty, (True, saved)),
        (True, empty, (True, saved)),
        ("auto", empty, (False, saved)),
        (False, runner_config.work_dir, (False, saved)),
    ):
        config = copy.deepcopy(runner_config)
        config.update(resume=resume, work_dir=work_dir, experiment_name=f"{Path(work_dir).name}-{resume}")
        runner = build_runner(config)
        assert (runner._resume, runner._load_from) == expected


def test_h19_a_test_with_resume_tests_what_it_is_given(runner_config: Config, checkpoint: Path):
    runner_config.default_hooks.checkpoint.interval = 1
    ClipBertRunner.from_cfg(runner_config).train()
    runner_config.update(load_from=str(checkpoint), experiment_name="plain")
    expected = ClipBertRunner.from_cfg(runner_config).test()
    runner_config.update(resume=True, experiment_name="resumes")
    assert ClipBertRunner.from_cfg(runner_config).test() == expected


def test_h15_rankings_are_drawn_with_a_list_of_metrics(
    runner_config: Config,
    checkpoint: Path,
    tmp_path: Path,
    tool: Callable[[str], ModuleType],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(answer_video, "MAX_FPS", 2.0)  # drawing is most of the test
    runner_config.test_evaluator = [dict(type="clipbert_mm.RetrievalMetric", prefix="mine")]
    arguments = [written(runner_config, tmp_path, "a"), str(checkpoint), "--show-dir", str(tmp_path / "shown")]
    metrics = tool("test.py").main(arguments)
    assert "mine/t2v/R@1" in metrics
    assert {path.name for path in (tmp_path / "shown").iterdir()} >= {"rankings.json", "retrieval.png"}
