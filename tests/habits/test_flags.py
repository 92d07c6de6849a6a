"""Flags of the tools of MMPretrain and MMAction2, by which ours are called too."""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import matplotlib.image
import mmengine
import numpy as np
import pytest
import torch
from hook_runs import written
from matplotlib import pyplot
from mmengine.config import Config
from mmengine.visualization import Visualizer

from clipbert_mm.engine.runner import ClipBertRunner
from clipbert_mm.errors import OptionError
from clipbert_mm.evaluation import DumpLabels

ROOT = Path(__file__).resolve().parents[2]
RETRIEVAL = str(next((ROOT / "configs/shapes").glob("*-retrieval.py")))


def test_h20_predictions_and_metrics_go_to_files(
    runner_config: Config, checkpoint: Path, tmp_path: Path, tool: Callable[[str], ModuleType]
):
    test = tool("test.py").main
    for flag, name in (("--out", "a.pkl"), ("--dump", "b.pkl")):
        test([written(runner_config, tmp_path, name[0]), str(checkpoint), flag, str(tmp_path / name)])
    out, dumped = mmengine.load(tmp_path / "a.pkl"), mmengine.load(tmp_path / "b.pkl")
    assert [len(each["texts"]) for each in out] == [2] * 7, "each video with its texts"
    assert all((a["scores"] == b["scores"]).all() for a, b in zip(out, dumped, strict=True))
    arguments = ["--out-item", "metrics", "--out", str(tmp_path / "new" / "c.json")]
    metrics = test([written(runner_config, tmp_path, "c"), str(checkpoint), *arguments])
    assert json.loads((tmp_path / "new" / "c.json").read_text()) == metrics


REFUSED = {
    "test.py": [
        (["--out", "a.json"], r"--out writes predictions to a pickle file, .* got a\.json; --out-item metrics writes"),
        (["--out", "a.txt", "--out-item", "metrics"], r"--out writes metrics, expected .* got a\.txt$"),
        (["--out-item", "labels"], "--out-item labels needs --out FILE"),
        (["--tta"], r"--tta is not an option: .* Set more of them in the test pipeline \(num_clips\)\."),
        (["--interval", "5"], "--interval is not an option: the image has queries evenly spread"),
    ],
    "analysis_tools/get_flops.py": [
        (
            ["--shape", "224", "112"],
            r"--size takes one number, or height and width, .* got 224 112\. Clips and frames are",
        ),
        (["--shape", "1", "3", "224", "224"], r"--size takes one number, .* got 1 3 224 224\."),
    ],
    "analysis_tools/browse_dataset.py": [
        (["--mode", "pipeline"], "--mode is not an option: what is drawn is what the model is fed"),
        (["-o", "a", "--out", "a.png"], "not allowed with argument"),
    ],
}


@pytest.mark.parametrize(
    ("name", "flags", "message"), [(name, *each) for name, refused in REFUSED.items() for each in refused]
)
def test_h20_a_flag_that_cannot_apply_is_refused_in_a_sentence(
    tool: Callable[[str], ModuleType], capsys: pytest.CaptureFixture, name: str, flags: list[str], message: str
):
    with pytest.raises(SystemExit):
        tool(name).main([RETRIEVAL, *["a.pth"] * (name == "test.py"), *flags])
    assert re.search(message, capsys.readouterr().err.strip())


def test_h20_pictures_are_shown_in_windows(
    runner_config: Config,
    checkpoint: Path,
    tmp_path: Path,
    tool: Callable[[str], ModuleType],
    monkeypatch: pytest.MonkeyPatch,
):
    module = tool("test.py")
    test = module.main
    picture = np.arange(300, dtype=np.uint8).reshape(10, 10, 3)
    monkeypatch.setattr(module, "draw_retrieval", lambda rankings, out: matplotlib.image.imsave(out, picture))
    with pytest.raises(OptionError, match=r"^--show opens windows, and there is no display .* --show-dir DIR writes"):
        test([RETRIEVAL, str(checkpoint), "--show"])
    monkeypatch.setattr(pyplot, "get_backend", lambda: "TkAgg")
    shown = []
    monkeypatch.setattr(Visualizer, "show", lambda self, picture, **options: shown.append((picture, options)))
    test([written(runner_config, tmp_path, "a"), str(checkpoint), "--show", "--wait-time", "0.5"])
    ((drawn, options),) = shown
    assert np.array_equal((drawn[..., :3] * 255).round(), picture)
    assert options == dict(win_name="retrieval.png", wait_time=0.5)


def test_h20_flags_of_training_set_what_the_config_may(
    runner_config: Config, tmp_path: Path, tool: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
):
    taken = []
    monkeypatch.setattr(ClipBertRunner, "train", lambda runner: taken.append(runner))
    for name in ("train", "test"):
        runner_config[f"{name}_dataloader"].update(num_workers=1, pin_memory=True, persistent_workers=True)
    flags = ["--no-pin-memory", "--no-persistent-workers", "--seed", "7", "--diff-rank-seed", "--deterministic"]
    for name, given in (("plain", []), ("flags", flags)):
        tool("train.py").main([written(runner_config, tmp_path, name), "--work-dir", str(tmp_path / name), *given])
    torch.use_deterministic_algorithms(False)
    plain, changed = taken
    assert (plain.seed, plain._randomness_cfg) == (5, dict(seed=5))
    assert (changed.seed, changed._randomness_cfg) == (7, dict(seed=7, diff_rank_seed=True, deterministic=True))
    for runner, expected in ((plain, True), (changed, False)):
        for dataloader in (runner._train_dataloader, runner._test_dataloader):
            loader = runner.build_dataloader(dataloader)
            assert (loader.pin_memory, loader.persistent_workers) == (expected, expected)


def test_h20_flops_and_items_by_the_other_libraries_flags(
    tool: Callable[[str], ModuleType],
    own_world: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
):
    monkeypatch.setenv("SHAPES_ROOT", str(own_world))
    printed = []
    for size in (["--size", "32"], ["--shape", "32", "32"]):
        tool("analysis_tools/get_flops.py").main([RETRIEVAL, *size])
        printed.append(capsys.readouterr().out.partition(" INFO ")[2])
    assert "frames of 32 x 32 pixels" in printed[0]
    assert len(set(printed)) == 1
    tool("analysis_tools/browse_dataset.py").main(
        [RETRIEVAL, "--phase", "test", "-n", "2", "-o", str(tmp_path / "out"), "--not-show"]
    )
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["browse_test.png"]
    assert "drew 2 of" in capsys.readouterr().out


def sample(scores: list[list[float]], labels: list[int], broken: str | None = None) -> dict:
    """What a head for questions predicts for an item."""
    return dict(
        sample_idx=len(labels),
        path="a.mp4",
        broken=broken,
        scores=torch.tensor(scores).flatten(),
        answer_labels=np.array(labels),
    )


def test_h20_h21_labels_have_an_entry_for_each_question(tmp_path: Path):
    metric = DumpLabels(out_file_path=str(tmp_path / "a.pkl"))
    items = [sample([[-1.0, -2.0], [-3.0, -0.5]], [0, -100]), sample([[-1.0, -2.0]], [1]), sample([], [0], "no video")]
    metric.process(None, items)
    metric.evaluate(len(items))
    written = mmengine.load(tmp_path / "a.pkl")
    assert [(int(each["pred_label"]), int(each["gt_label"])) for each in written] == [(0, 0), (1, -100), (0, 1)]
    assert [each["pred_score"][0].item() for each in written] == pytest.approx(
        [1 / (1 + math.exp(-1)), 1 / (1 + math.exp(2.5)), 1 / (1 + math.exp(-1))]
    )
    with pytest.raises(OptionError, match=r"^--out-item labels \(DumpLabels\) is for questions"):
        metric.process(None, [dict(sample_idx=0, path="a.mp4", broken=None, scores=torch.zeros(2))])
