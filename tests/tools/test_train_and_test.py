"""The tools end to end, on a small world and for few steps: pre-training, retrieval, going on, testing, and what they say."""

import json
import re
import runpy
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
import torch
from mmengine.fileio import load

from clipbert_mm.checkpoint import CheckpointError, find_selected
from clipbert_mm.checkpoint.archives import load_torch
from clipbert_mm.datasets import train_vocabulary
from clipbert_mm.evaluation import read_rankings, retrieval_metrics
from clipbert_mm.visualization import answer_video

ROOT = Path(__file__).resolve().parents[2]
OBJECTS = str(ROOT / "configs/shapes/resnet_tiny_1xb32-5e_shapes-objects.py")
PRETRAIN = str(ROOT / "configs/shapes/clipbert_tiny_1xb32-4e_shapes-pretrain.py")
RETRIEVAL = next(str(path) for path in (ROOT / "configs/shapes").glob("*-retrieval.py"))
QUERIES = next(str(path) for path in (ROOT / "configs/shapes").glob("*-queries.py"))


def options(**more) -> list[str]:
    """Command-line options that shrink a config; keys have __ for dots."""
    shrunken = dict(
        train_dataloader__batch_size=8,
        default_hooks__checkpoint__interval=1,
        default_hooks__logger__interval=1,
        experiment_name=f"run-{time.monotonic_ns()}",  # runners of one name share their state
        log_level="WARNING",
    )
    return ["--cfg-options", *(f"{key.replace('__', '.')}={value}" for key, value in (shrunken | more).items())]


def few_clips(**more) -> list[str]:
    """Command-line options of a test of retrieval by two clips of each video."""
    return options(test_dataloader__dataset__pipeline__1__num_clips=2, **more)


def weights(path: Path) -> dict[str, torch.Tensor]:
    """The weights of a checkpoint."""
    return load_torch(path, mmap=False)["state_dict"]


def logged(work_dir: Path) -> list[dict]:
    """What was logged over the steps, in the order of the runs."""
    logs = sorted(work_dir.glob("*/vis_data/scalars.json"), key=lambda path: path.stat().st_mtime_ns)
    rows = [json.loads(line) for log in logs for line in log.read_text().splitlines()]
    return [row for row in rows if "loss" in row]


@pytest.fixture(scope="module")
def train(tool: Callable[[str], ModuleType]) -> Callable:
    return tool("train.py").main


@pytest.fixture(scope="module")
def test(tool: Callable[[str], ModuleType]) -> Callable:
    return tool("test.py").main


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, link_world: Callable, once: Callable) -> Iterator[Path]:
    """A folder with a world of its own in world/, which the configs read."""
    world = once("end-to-end", lambda: link_world(tmp_path_factory.mktemp("end-to-end") / "world"))
    folder = world.parent
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(answer_video, "MAX_FPS", 2.0)  # drawing is most of such a test
        patch.setenv("SHAPES_ROOT", str(folder / "world"))
        patch.setenv("LOCAL_RANK", "0")
        yield folder


@pytest.fixture(scope="module")
def named(folder: Path, train: Callable, once: Callable) -> Path:
    """The checkpoint of two short epochs in which mmpretrain's classifier learns to name objects."""
    arguments = [OBJECTS, "--work-dir", str(folder / "objects"), *options(train_cfg__max_epochs=2)]
    once("objects", lambda: train(arguments))
    return folder / "objects" / "epoch_2.pth"


@pytest.fixture(scope="module")
def pretrained(folder: Path, train: Callable, named: Path, once: Callable) -> Path:
    """The checkpoint of two short epochs of pre-training."""
    shrunken = options(train_cfg__max_epochs=2, load_from=named)
    once("pretrain", lambda: train([PRETRAIN, "--work-dir", str(folder / "pretrain"), *shrunken]))
    return folder / "pretrain" / "epoch_2.pth"


@pytest.fixture(scope="module")
def finetuned(folder: Path, train: Callable, pretrained: Path, once: Callable) -> Path:
    """The checkpoint of two short epochs of retrieval."""
    shrunken = options(train_cfg__max_epochs=2, load_from=pretrained)
    once("whole", lambda: train([RETRIEVAL, "--work-dir", str(folder / "whole"), *shrunken]))
    return folder / "whole" / "epoch_2.pth"


def test_naming_objects_is_learnt_tested_and_gone_on_with(
    folder: Path, named: Path, pretrained: Path, train: Callable, test: Callable
):
    rows = logged(folder / "objects")
    assert [row["step"] for row in rows] == list(range(1, 11))
    assert rows[-1]["loss"] < rows[0]["loss"]
    arguments = [
        OBJECTS,
        str(named),
        "--work-dir",
        str(folder / "objects-tested"),
        "--dump",
        str(folder / "objects.pkl"),
    ]
    metrics = test([*arguments, *options()])
    # By hand: the mean over classes of the precision at each image that has the class, images sorted by score.
    dumped = load(folder / "objects.pkl")
    scores = np.stack([sample["pred_score"] for sample in dumped])
    truth = np.stack([np.isin(np.arange(14), sample["gt_label"]) for sample in dumped])
    precisions = []
    for score, right in zip(scores.T, truth.T, strict=True):
        found = right[np.argsort(-score)]
        precisions.append((np.cumsum(found) / np.arange(1, len(found) + 1))[found].sum() / max(found.sum(), 1))
    assert metrics["multi-label/mAP"] == pytest.approx(100 * np.mean(precisions), rel=1e-4)
    part = {name: value for name, value in weights(named).items() if not name.startswith("head.")}
    torch.save(dict(state_dict=part), folder / "part.pth")
    for path, fault in (
        (pretrained, "was trained for something else"),
        (folder / "part.pth", "does not fit the model"),
    ):
        with pytest.raises(CheckpointError, match=fault):
            test([OBJECTS, str(path), "--work-dir", str(folder / "objects-tested"), *options()])
    cut = [OBJECTS, "--work-dir", str(folder / "on"), "--resume", str(folder / "objects" / "epoch_1.pth")]
    train([*cut, *options(train_cfg__max_epochs=2)])
    resumed = weights(folder / "on" / "epoch_2.pth")
    assert all(torch.equal(resumed[name], value) for name, value in weights(named).items()), "as if it had not been cut"


def test_naming_objects_reaches_every_parameter_and_names_bad_items(folder: Path, named: Path, train: Callable):
    first, last = (weights(folder / "objects" / f"epoch_{epoch}.pth") for epoch in (1, 2))
    still = [name for name in first if torch.equal(first[name], last[name])]
    assert still == ["neck.p"]
    wild = options(optim_wrapper__optimizer__lr=1e38, optim_wrapper__clip_grad=None)
    with pytest.raises(FloatingPointError, match=r"The loss is not finite at step .*\n  .*images/\d+\.jpg\n"):
        train([OBJECTS, "--work-dir", str(folder / "wild"), *wild])


def test_pretraining_begins_with_the_backbone_that_names_objects(folder: Path, named: Path, train: Callable):
    still = options(train_cfg__max_epochs=1, load_from=named, optim_wrapper__optimizer__lr=0.0)
    train([PRETRAIN, "--work-dir", str(folder / "begun"), *still])
    before, after = weights(named), weights(folder / "begun" / "epoch_1.pth")
    taken = {name for name in after if name.startswith("backbone.")}
    assert taken == {name for name in before if name.startswith("backbone.")}
    learnt = {name for name in taken if "running_" not in name and "num_batches" not in name}  # statistics go on
    assert len(learnt) > 40
    assert all(torch.equal(before[name], after[name]) for name in learnt)


def test_pretraining_writes_losses_and_a_checkpoint(folder: Path, pretrained: Path):
    rows = logged(folder / "pretrain")
    assert [row["step"] for row in rows] == list(range(1, 11))  # 40 images, batches of 8, 2 epochs
    assert all(row["loss"] == pytest.approx(row["loss_match"] + row["loss_mlm"], rel=1e-3) for row in rows)
    assert rows[-1]["loss_mlm"] < rows[0]["loss_mlm"]
    best, *regular = sorted(path.name for path in (folder / "pretrain").glob("*.pth"))
    assert regular == ["epoch_1.pth", "epoch_2.pth"]
    assert re.fullmatch(r"best_matching_accuracy_epoch_[12]\.pth", best)
    assert all(value.isfinite().all() for value in weights(pretrained).values())
    assert (folder / "world" / "tokenizer" / "tokenizer.json").is_file()


def test_retrieval_begins_with_the_pretrained_weights(folder: Path, pretrained: Path, train: Callable):
    train(
        [
            RETRIEVAL,
            *("--work-dir", str(folder / "still")),
            *options(train_cfg__max_epochs=1, load_from=pretrained, optim_wrapper__optimizer__lr=0.0),
        ]
    )
    before, after = weights(pretrained), weights(folder / "still" / "epoch_1.pth")
    assert before.keys() - after.keys() == {name for name in before if name.startswith("mlm_head")}
    assert all(torch.equal(before[name], value) for name, value in after.items()), "also the batch norms' statistics"


def test_a_run_that_was_cut_goes_on_as_if_it_had_not_been(
    folder: Path, pretrained: Path, finetuned: Path, train: Callable
):
    work_dir = folder / "cut"
    start = ["--work-dir", str(work_dir), "--resume"]  # nothing to go on from yet, so it begins with load_from
    train([RETRIEVAL, *start, *options(train_cfg__max_epochs=1, param_scheduler__0__end=2, load_from=pretrained)])
    assert (work_dir / "last_checkpoint").read_text().endswith("epoch_1.pth")
    train([RETRIEVAL, *start, *options(train_cfg__max_epochs=2, load_from=pretrained)])
    rows = logged(work_dir)
    assert [(row["epoch"], row["step"]) for row in rows] == [(1, 1), (2, 2)]
    whole = logged(folder / "whole")
    for key in ("loss", "lr", "match_accuracy"):
        assert [row[key] for row in rows] == pytest.approx([row[key] for row in whole])
    resumed = weights(work_dir / "epoch_2.pth")
    for name, value in weights(finetuned).items():
        torch.testing.assert_close(resumed[name], value)


def test_resuming_from_a_path(folder: Path, pretrained: Path, train: Callable):
    work_dir = folder / "elsewhere"
    train([PRETRAIN, "--work-dir", str(work_dir), "--resume", str(pretrained), *options(train_cfg__max_epochs=3)])
    assert {row["epoch"] for row in logged(work_dir)} == {3}


@pytest.fixture(scope="module")
def tested(folder: Path, finetuned: Path, test: Callable, once: Callable) -> dict[str, float]:
    """Metrics of a test that dumps and draws."""
    shown, dump = folder / "shown", folder / "predictions.pkl"
    arguments = ["--work-dir", str(folder / "test"), "--show-dir", str(shown), "--dump", str(dump)]
    arguments = [RETRIEVAL, str(finetuned), *arguments, *few_clips(test_dataloader__batch_size=3)]
    return once("tested", lambda: test(arguments))


def test_a_work_folder_stands_for_the_checkpoint_that_validation_selected(
    folder: Path,
    finetuned: Path,
    train: Callable,
    test: Callable,
    tmp_path: Path,
    capsys,
    monkeypatch: pytest.MonkeyPatch,
):
    (best,) = finetuned.parent.glob("best_t2v_R@1_epoch_*.pth")
    found = test([RETRIEVAL, str(finetuned.parent), "--work-dir", str(tmp_path / "test"), *few_clips()])
    assert found == test([RETRIEVAL, str(best), "--work-dir", str(tmp_path / "test"), *few_clips()])
    work_dir, seven = tmp_path / "unselected", options(load_from=finetuned, train_cfg__max_epochs=1)
    train([RETRIEVAL, "--work-dir", str(work_dir), "--no-validate", "--seed", "7", *seven])
    (last,) = work_dir.glob("*.pth")
    assert load_torch(last, mmap=False)["meta"]["seed"] == 7
    assert find_selected(str(work_dir)) == str(last), (
        "without validation it is the last one, once the training is finished"
    )
    (work_dir / "finished").unlink()
    message = said(capsys, monkeypatch, "test.py", RETRIEVAL, str(work_dir), *options())
    assert message == (
        f"error: {work_dir} has no checkpoint that validation selected. Name the file: {work_dir}/epoch_1.pth."
    )
    for name in ("best_a_epoch_1.pth", "best_b_epoch_1.pth"):
        (work_dir / name).symlink_to(last)
    message = said(capsys, monkeypatch, "test.py", RETRIEVAL, str(work_dir), *options())
    assert re.match(r"error: .* has 2 checkpoints that .*: .*best_a_epoch_1\.pth or .*best_b_epoch_1\.pth\.$", message)


def test_a_test_writes_predictions_that_give_its_metrics(folder: Path, tested: dict[str, float]):
    entries = load(folder / "predictions.pkl")
    assert [entry["sample_idx"] for entry in entries] == list(range(7))
    scores = np.stack([entry["scores"] for entry in entries], axis=1)
    text_video = np.repeat(np.arange(7), [len(entry["texts"]) for entry in entries])
    assert scores.shape == (14, 7)
    assert tested == pytest.approx(retrieval_metrics(scores, text_video) | {"coverage": 100})
    rankings = read_rankings(folder / "shown" / "rankings.json")
    assert rankings["scores"] == pytest.approx(scores)
    assert [Path(path).name for path in rankings["videos"]] == [f"test_0000{i}.mp4" for i in range(7)]


def test_metrics_of_short_queries_are_those_of_the_scores_and_what_the_world_shows(
    folder: Path, finetuned: Path, test: Callable
):
    shown, dump = folder / "shown-queries", folder / "queries.pkl"
    arguments = ["--work-dir", str(folder / "queries"), "--show-dir", str(shown), "--dump", str(dump)]
    shrunken = ["test_dataloader.num_workers=0", "test_dataloader.dataset.pipeline.1.num_clips=4"]
    shrunken.append(f"experiment_name=run-{time.monotonic_ns()}")
    metrics = test([QUERIES, str(finetuned), *arguments, "--cfg-options", *shrunken])
    rankings, entries = read_rankings(shown / "rankings.json"), load(dump)
    world = next(path.parent for path in folder.rglob("queries.jsonl"))
    lines = [json.loads(line) for line in (world / "queries.jsonl").read_text().splitlines()]
    right = {(line["caption"], line["video"]) for line in lines}
    videos = [Path(path).name for path in rankings["videos"]]
    precisions, told, pairs = [], [], []
    for text, row in zip(rankings["texts"], rankings["scores"].tolist(), strict=True):
        order = sorted(range(len(videos)), key=lambda i: -row[i])
        ranks = [rank for rank, i in enumerate(order, start=1) if (text, videos[i]) in right]
        precisions.append(np.mean([(i + 1) / rank for i, rank in enumerate(ranks)]))
        told += [row[i] >= 0 for i in range(len(videos)) if (text, videos[i]) in right]
        pairs += [(1 / (1 + np.exp(-row[i])), (text, videos[i]) in right) for i in range(len(videos))]
    assert metrics["t2v/mAP"] == pytest.approx(100 * np.mean(precisions))
    assert metrics["calibration/TPR@0.5"] == pytest.approx(100 * np.mean(told))
    assert metrics["calibration/Brier"] == pytest.approx(np.mean([(p - label) ** 2 for p, label in pairs]))
    inside = []
    for entry in entries:
        spans = [line["spans"] for line in lines if line["video"] == Path(entry["path"]).name]
        centers = np.mean(entry["clip_times"], axis=1)
        for scores, own in zip(entry["clip_scores"], spans, strict=True):
            center = centers[np.argmax(scores)]
            inside.append(any(start <= center < end for start, end in own))
    assert len(inside) == len(lines)
    assert metrics["moments/accuracy"] == pytest.approx(100 * np.mean(inside))
    assert metrics["coverage"] == 100
    assert cv2.imread(str(folder / "shown-queries" / "reliability.png")).std() > 10


def test_a_test_draws_its_rankings(folder: Path, tested: dict[str, float]):
    picture = cv2.imread(str(folder / "shown" / "retrieval.png"))
    assert picture.shape[0] > 500
    assert picture.std() > 10


def test_a_test_reads_the_checkpoint_it_was_given(folder: Path, pretrained: Path, tested: dict, test: Callable):
    # The pre-trained model fits too, since only its extra head is left over, and it gives other scores.
    arguments = ["--work-dir", str(folder / "test2"), "--dump", str(folder / "predictions2.pkl")]
    test([RETRIEVAL, str(pretrained), *arguments, *few_clips(test_dataloader__num_workers=0)])
    first, second = (load(folder / f"predictions{number}.pkl") for number in ("", 2))
    assert len(first) == len(second) == 7
    assert max(np.abs(a["scores"] - b["scores"]).max() for a, b in zip(first, second, strict=True)) > 1e-3


def test_mixed_precision_trains(folder: Path, pretrained: Path, finetuned: Path, train: Callable):
    work_dir = folder / "amp"
    train([RETRIEVAL, "--work-dir", str(work_dir), "--amp", *options(train_cfg__max_epochs=1, load_from=pretrained)])
    whole = [row["loss"] for row in logged(folder / "whole") if row["epoch"] == 1]
    found = [row["loss"] for row in logged(work_dir)]
    assert found == pytest.approx(whole, abs=0.02)
    assert found != whole


def said(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, script: str, *arguments: str) -> str:
    """Run a tool as from the shell; what it ends with."""
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(ROOT / "tools" / script), run_name="__main__")
    return str(caught.value.code)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("train_dataloader.batch_sise=2", r"no 'batch_sise' in train_dataloader\. Did you mean batch_size"),
        ("model.agregator.type=MaxAggregator", r"has no option 'agregator'\. Did you mean aggregator"),
        (
            "model.aggregator.type=MaxAgregator",
            r"'MaxAgregator' is not in the model registry\. Did you mean MaxAggregator",
        ),
        ("train_dataloader.dataset.num_negative=3", r"no option 'num_negative'\. Did you mean num_negatives"),
        ("train_dataloader.dataset.ann_file=nothing.jsonl", r"There is no annotation file .*/world/nothing\.jsonl"),
        ("data_root=data", r"'data_root' is a variable of the config file"),
        (
            "val_dataloader.dataset.ann_file=nothing.jsonl",
            r"There is no .*/world/nothing\.jsonl, which training validates on .*--no-validate",
        ),
        (
            "train_cfg.max_epochs=0",
            r"train_cfg\.max_epochs of the config: expected a whole number, 1 or more, got 0\.$",
        ),
        ("train_dataloader.batch_size=0", r"train_dataloader\.batch_size of the config: expected .*, got 0\.$"),
        ("randomness.seed=-1", r"randomness\.seed of the config: expected a whole number, 0 to 2147483647, got -1\.$"),
        ("load_from=nothing.pth", r"There is no checkpoint .*/nothing\.pth"),
    ],
)
def test_what_a_user_can_mend_is_said_in_one_message(
    folder: Path, capsys, monkeypatch: pytest.MonkeyPatch, option: str, message: str
):
    arguments = ["--work-dir", str(folder / "never"), *options()]
    if not option.startswith("load_from"):
        arguments.append("load_from=None")
    found = said(capsys, monkeypatch, "train.py", RETRIEVAL, *arguments, option)
    assert re.match(rf"error: .*{message}", found), found
    assert not list((folder / "never").glob("*.pth"))


def test_half_precision_that_the_machine_does_not_have_is_said(
    folder: Path, finetuned: Path, test: Callable, tested: dict[str, float], capsys, monkeypatch: pytest.MonkeyPatch
):
    message = "error: Mixed precision in float16 needs a GPU, and there is none."
    assert said(capsys, monkeypatch, "train.py", RETRIEVAL, "--amp", "fp16").startswith(message)
    assert said(capsys, monkeypatch, "test.py", RETRIEVAL, str(finetuned), "--amp", "fp16").startswith(message)
    from_nothing = ["--launcher", "slurm", "--cfg-options", "load_from=None"]
    assert said(capsys, monkeypatch, "train.py", RETRIEVAL, *from_nothing).startswith(
        "error: --launcher slurm is for processes started by srun"
    )
    half = test([RETRIEVAL, str(finetuned), "--work-dir", str(folder / "half"), "--amp", *few_clips()])
    assert half["t2v/MnR"] == pytest.approx(tested["t2v/MnR"], abs=0.5)
    assert half["coverage"] == 100


def test_a_test_says_what_is_wrong_with_its_checkpoint(
    folder: Path, finetuned: Path, capsys, monkeypatch: pytest.MonkeyPatch
):
    cut = folder / "cut.pth"
    cut.write_bytes(finetuned.read_bytes()[:10_000])
    work_dir = ["--work-dir", str(folder / "never")]
    for arguments, message in (
        ([RETRIEVAL, "none.pth", *work_dir], r"error: There is no checkpoint .*/none\.pth\."),
        ([RETRIEVAL, str(cut), *work_dir], r"error: .*cut\.pth \(10000 bytes\) is damaged: .*cut short"),
        (
            [RETRIEVAL, str(finetuned), *work_dir, *options(model__head__hidden_channels=64)],
            r"error: The checkpoint does not fit the model\. head\.classifier\.0\.weight: checkpoint \(256, 128\), model",
        ),
        (
            [RETRIEVAL, str(finetuned), *work_dir, *options(model__encoder__num_layers=4)],
            r"error: The checkpoint does not fit the model\. layers of the encoder: checkpoint 3, model 4\. Use the config",
        ),
    ):
        found = said(capsys, monkeypatch, "test.py", *arguments)
        assert re.match(message, found), found


def test_a_test_stops_at_a_broken_video_or_leaves_it_out(
    link_world: Callable,
    tmp_path: Path,
    break_file: Callable,
    finetuned: Path,
    test: Callable,
    capsys,
    monkeypatch: pytest.MonkeyPatch,
):
    world = link_world(tmp_path / "world")
    (world / "tokenizer").symlink_to(finetuned.parents[1] / "world" / "tokenizer")
    broken = break_file(world / "videos" / "test_00005.mp4", "cut in the data")
    monkeypatch.setenv("SHAPES_ROOT", str(world))
    arguments = [RETRIEVAL, str(finetuned), "--work-dir", str(tmp_path / "test")]
    found = said(capsys, monkeypatch, "test.py", *arguments, *options())
    assert re.match(rf"error: cannot read {broken}: .*on_broken='skip'", found), found
    assert "\n" not in found
    metrics = test([*arguments, *options(test_dataloader__dataset__on_broken="skip")])
    assert metrics["coverage"] == pytest.approx(600 / 7)


def test_a_dump_needs_the_name_of_a_pickle_file(capsys, monkeypatch: pytest.MonkeyPatch):
    assert said(capsys, monkeypatch, "test.py", RETRIEVAL, "a.pth", "--dump", "scores.json") == "2"
    assert "expected a name that ends with .pkl or .pickle, got scores.json" in capsys.readouterr().err


def test_a_checkpoint_refuses_another_vocabulary(
    folder: Path, finetuned: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    other = train_vocabulary(["quite other words"], tmp_path / "tokenizer", vocab_size=60)
    swap = f"test_dataloader.dataset.pipeline.4.tokenizer={other}"
    found = said(
        capsys, monkeypatch, "test.py", RETRIEVAL, str(finetuned), "--work-dir", str(folder / "n"), *options(), swap
    )
    assert re.match(r"error: The checkpoint .* was trained with another vocabulary \(digest \w+\)", found), found


def test_testing_needs_a_dataset_in_test_mode(
    folder: Path, finetuned: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    option = "test_dataloader.dataset.test_mode=False"
    found = said(
        capsys, monkeypatch, "test.py", RETRIEVAL, str(finetuned), "--work-dir", str(folder / "n"), *options(), option
    )
    assert found.startswith("error: RetrievalTestLoop expects a dataset with test_mode=True")
