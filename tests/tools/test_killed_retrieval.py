"""A retrieval test that is killed, at several points, and called again gives the same scores to the bit."""

import random
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from faulty_runs import run_tool
from mmengine.registry import DefaultScope
from warm_python import processes

from clipbert_mm.datasets import train_vocabularies
from clipbert_mm.engine.config import load_config
from clipbert_mm.evaluation import read_rankings
from clipbert_mm.registry import MODELS

ROOT = Path(__file__).resolve().parents[2]
RETRIEVAL = next(str(path) for path in (ROOT / "configs/shapes").glob("*-retrieval.py"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, link_world: Callable) -> Path:
    """A folder with a world and its tokenizer in world/, and random weights in random.pth."""
    folder = tmp_path_factory.mktemp("killed")
    test = link_world(folder / "world") / "test.jsonl"
    lines = test.read_text().splitlines()[::2]  # one caption of each video
    test.unlink()
    test.write_text("\n".join(lines))
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch, DefaultScope.overwrite_default_scope("clipbert_mm"):
        patch.setenv("SHAPES_ROOT", str(folder / "world"))
        config = load_config(RETRIEVAL)
        model = MODELS.build(config.model)
        train_vocabularies(config)
    model.init_weights()
    torch.save({"state_dict": model.state_dict()}, folder / "random.pth")
    return folder


def arguments(folder: Path, name: str) -> list[str]:
    """The command line of a test by a cascade, of 49 tiles of one pair in each of its two passes."""
    options = ["test_cfg.clips_per_tile=1", "test_dataloader.num_workers=0", "test_cfg.shortlist=0.4"]
    options.append("test_dataloader.dataset.pipeline.1.num_clips=2")
    options += [f"test_evaluator.rankings_file={folder / name}.json", f"experiment_name={name}"]
    return [RETRIEVAL, str(folder / "random.pth"), "--work-dir", str(folder / name), "--cfg-options", *options]


def test_a_killed_test_goes_on(folder: Path, tool: Callable, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SHAPES_ROOT", str(folder / "world"))
    environment, log = {"SHAPES_ROOT": str(folder / "world")}, folder / "killed.log"
    rng = random.Random()

    def amount(what: str) -> int:
        """How many videos are encoded, or bytes of scores written."""
        files = list((folder / "killed").glob(f"retrieval_test-*/{what}/[!.]*"))
        return len(files) if what == "gallery" else sum(path.stat().st_size for path in files)

    whole = 49 * (12 + 4)  # a tile is a pair
    early = rng.choice([("gallery", 6), ("coarse_scores", whole)])  # while videos are encoded, or tiles scored
    for what, most in (early, ("scores", whole * 3 // 4)):
        enough = rng.randint(1, most)
        run = processes().Process(target=run_tool, args=("test.py", arguments(folder, "killed"), environment, str(log)))
        run.start()
        while amount(what) < enough:
            assert run.is_alive(), log.read_text()
            time.sleep(0.002)
        run.kill()
        run.join()
    assert 0 < amount("scores") < whole
    metrics = tool("test.py").main(arguments(folder, "killed"))
    assert not list((folder / "killed").glob("retrieval_test*"))
    assert metrics == tool("test.py").main(arguments(folder, "whole"))
    whole, killed = (read_rankings(folder / f"{name}.json") for name in ("whole", "killed"))
    assert whole["scores"].std() > 1e-3
    assert np.array_equal(whole["scores"], killed["scores"])
    assert whole["texts"] == killed["texts"]
