"""Two processes do what one does: the same weights, the same metrics, also where the gallery does not divide by two."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from clipbert_mm.evaluation import read_rankings

ROOT = Path(__file__).resolve().parents[2]
RETRIEVAL = next(str(path) for path in (ROOT / "configs/shapes").glob("*-retrieval.py"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, link_world: Callable, break_file: Callable) -> Path:
    """A folder with a world in world/, of which one video in eight is broken."""
    folder = tmp_path_factory.mktemp("distributed")
    world = link_world(folder / "world")
    break_file(world / "videos" / "train_00003.mp4", "empty")
    return folder


def options(batch_size: int, name: str) -> list[str]:
    """Command-line options: eight items a step over all processes, one epoch."""
    return [
        "--cfg-options",
        f"train_dataloader.batch_size={batch_size}",
        "train_dataloader.num_workers=0",
        "test_dataloader.num_workers=0",
        "test_dataloader.batch_size=2",
        "default_hooks.checkpoint.interval=1",
        "custom_hooks.1.max_share=0.5",
        "param_scheduler.0.warmup_share=0.5",
        "train_cfg.max_epochs=1",
        "load_from=None",
        f"experiment_name={name}",
    ]


def run_with_two_processes(script: str, folder: Path, *arguments: str) -> str:
    """Run a shell script of tools/ on two CPU processes; returns what it printed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "SHAPES_ROOT": str(folder / "world"),
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
        "PORT": str(port),
    }
    environment.pop("LOCAL_RANK", None)  # which the tools leave behind in this process
    command = ["bash", str(ROOT / "tools" / script), *arguments]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def one_process(folder: Path, tool: Callable) -> Path:
    """The checkpoint of one process with batches of 8."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHAPES_ROOT", str(folder / "world"))
        tool("train.py").main([RETRIEVAL, "--work-dir", str(folder / "one"), *options(8, "train-one")])
    return folder / "one" / "epoch_1.pth"


def test_training_gives_the_same_weights(folder: Path, one_process: Path):
    printed = run_with_two_processes(
        "dist_train.sh", folder, RETRIEVAL, "2", "--work-dir", str(folder / "two"), *options(4, "train-two")
    )
    first, second = (
        torch.load(path, weights_only=True)["state_dict"] for path in (one_process, folder / "two" / "epoch_1.pth")
    )
    assert first.keys() == second.keys()
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, atol=2e-5, rtol=1e-3)
    # What either process had to replace is told once, in one number.
    assert printed.count("3 of 24 items were replaced in this epoch; 1 files cannot be read") == 1


def test_testing_gives_the_same_scores_and_metrics(
    folder: Path, one_process: Path, tool: Callable, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SHAPES_ROOT", str(folder / "world"))
    arguments = [RETRIEVAL, str(one_process)]
    shown = ["--work-dir", str(folder / "test-one"), "--show-dir", str(folder / "shown-one")]
    metrics = tool("test.py").main([*arguments, *shown, *options(8, "test-one")])
    shown = ["--work-dir", str(folder / "test-two"), "--show-dir", str(folder / "shown-two")]
    run_with_two_processes("dist_test.sh", folder, *arguments, "2", *shown, *options(8, "test-two"))
    one, two = (read_rankings(folder / name / "rankings.json") for name in ("shown-one", "shown-two"))
    assert len(one["videos"]) == 7, "two processes have four each, one of them twice"
    assert one["videos"] == two["videos"]
    assert one["texts"] == two["texts"]
    assert np.array_equal(two["scores"], one["scores"]), "to the bit"
    assert one["scores"].std() > 1e-3
    assert (folder / "shown-two" / "retrieval.png").is_file()
    logged = next((folder / "test-two").glob("*/*.json"))
    assert json.loads(logged.read_text().splitlines()[-1]) == pytest.approx(metrics)
