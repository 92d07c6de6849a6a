"""The configs of docs/datasets.md, as they stand there, on a few videos: MMAction2's transforms, and its datasets."""

import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import pytest
import torch
from mmengine.config import Config
from sister_libraries import import_mmaction

from clipbert_mm.__main__ import main
from clipbert_mm.apis import ClipBertInferencer
from clipbert_mm.checkpoint import read_metadata
from clipbert_mm.engine.config import load_config
from clipbert_mm.engine.launch import build_runner
from clipbert_mm.errors import CheckpointError, OptionError

pytest.importorskip("decord", reason="mmaction2 needs decord, which has wheels for x86-64 only")
import_mmaction()

BLOCK = re.compile(r"^`([\w/.]+)`(?:, and [^\n]*)?:\n\n```(?:python)?\n(.*?)^```$", re.M | re.S)
CLASSES = ["jumping", "running", "walking the dog"]
SMALL = [
    "train_dataloader.batch_size=4",
    "train_cfg.max_epochs=2",
    "default_hooks.logger.interval=1",
    "log_level=WARNING",
    *(f"{split}_dataloader.num_workers=0" for split in ("train", "val", "test")),
]


@pytest.fixture
def page(root: Path, link_world: Callable, world: Path, tokenizer: str, tmp_path: Path, monkeypatch: Any) -> Path:
    """Save the files of the page in a folder with the configs, the tokenizer and the data that they name."""
    link_world(tmp_path / "data/shapes")
    (tmp_path / "data/shapes/tokenizer").symlink_to(tokenizer)
    (tmp_path / "bert-base-uncased").symlink_to(tokenizer)
    (tmp_path / "configs/my").mkdir(parents=True)
    for name in ("_base_", "shapes"):
        (tmp_path / "configs" / name).symlink_to(root / "configs" / name)
    (tmp_path / "data/actions/videos").mkdir(parents=True)
    for path, text in BLOCK.findall((root / "docs/datasets.md").read_text()):
        (tmp_path / path).write_text(text)
    videos = sorted((world / "videos").glob("*.mp4"))
    for number, video in enumerate(videos, start=1):
        (tmp_path / "data/actions/videos" / f"{number:04d}.mp4").symlink_to(video)
    with open(tmp_path / "data/actions/train.txt", "a") as file:
        file.writelines(f"{number:04d}.mp4 {number % 3}\n" for number in range(3, 9))
    for split, numbers in dict(val=(9, 10, 11), test=(12, 13, 14)).items():
        lines = [f"{number:04d}.mp4 {number % 3}\n" for number in numbers]
        (tmp_path / f"data/actions/{split}.txt").write_text("".join(lines))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SHAPES_ROOT", raising=False)
    monkeypatch.setenv("LOCAL_RANK", "0")
    return tmp_path


def test_augmentation_trains(page: Path, runner_config: Config):
    runner_config.train_dataloader.dataset = load_config("configs/my/augmented.py").train_dataloader.dataset
    runner_config.train_cfg = dict(type="ResumableIterTrainLoop", max_iters=1)
    runner = build_runner(runner_config)
    before = [parameter.clone() for parameter in runner.model.parameters()]
    runner.train()
    assert any(not torch.equal(*pair) for pair in zip(before, runner.model.parameters(), strict=True))


def test_a_users_classes_are_trained_tested_and_answered(
    page: Path, tool: Callable[[str], ModuleType], capsys: pytest.CaptureFixture
):
    config = "configs/my/mmaction_videos.py"
    name = f"experiment_name={page.name}"  # runners of one name share their state
    tool("train.py").main([config, "--cfg-options", *SMALL, name])
    work = page / "work_dirs/mmaction_videos"
    checkpoint = work / "epoch_2.pth"
    assert list(work.glob("best_accuracy_*.pth"))
    metrics = tool("test.py").main([config, str(work), "--cfg-options", *SMALL[-4:], f"{name}-test"])
    assert metrics["coverage"] == metrics["ceiling"] == 100
    assert metrics["accuracy"] in (0, *map(pytest.approx, (100 / 3, 200 / 3, 100)))

    metadata = read_metadata(checkpoint)
    assert metadata.answers == CLASSES
    assert "tokenizer.json" in metadata.text_files
    assert [step["type"] for step in metadata.pipelines["test"]][:2] == ["OpenVideo", "SampleClips"]
    with pytest.raises(SystemExit, match="0"):
        main(["ask", "--model", str(work), "data/actions/videos/0012.mp4", "what is shown?"])
    said = capsys.readouterr().out
    assert all(f" {each}" in said for each in CLASSES)
    for source, weights in ((str(checkpoint), None), (config, str(checkpoint))):
        asked = ClipBertInferencer("video-qa", source, weights, "cpu", show_progress=False)
        (found,) = asked(["data/actions/videos/0012.mp4"], question="what is shown?")["predictions"]
        assert sorted(each["text"] for each in found["answers"]) == CLASSES
    with pytest.raises(OptionError, match=r"of a dataset of ours such as OpenEndedDataset, got a VideoDataset"):
        tool("test.py").main(
            [config, str(work), "--show-dir", str(page / "shown"), "--cfg-options", *SMALL[-4:], f"{name}-shown"]
        )
    (page / "data/actions/label_map.txt").write_text("jumping\nwalking the dog\nrunning\n")
    with pytest.raises(CheckpointError, match=r"answer 1: checkpoint 'running', config 'walking the dog'"):
        tool("test.py").main([config, str(work), "--cfg-options", *SMALL[-4:], f"{name}-other"])


@pytest.fixture
def train(page: Path) -> Callable[..., None]:
    """Train by the config of the page, with other settings."""

    def run(val_dataloader: Any = None, **changes: Any) -> None:
        config = load_config("configs/my/mmaction_videos.py")
        same = dict(work_dir=str(page / "work"), launcher="none", experiment_name=page.name, log_level="WARNING")
        config.merge_from_dict(same | {"train_dataloader.batch_size": 4, "train_dataloader.num_workers": 0} | changes)
        config.val_dataloader = val_dataloader or config.val_dataloader
        config.val_dataloader.num_workers = 0
        build_runner(config).train()

    return run


def test_a_dataset_of_mmaction2_is_browsed(page: Path, tool: Callable[[str], ModuleType]):
    tool("analysis_tools/browse_dataset.py").main(["configs/my/mmaction_videos.py", "-n", "2", "--out", "shown.png"])
    assert cv2.imread("shown.png") is not None


def test_labels_are_checked_before_training(page: Path, train: Callable):
    (page / "data/actions/val.txt").write_text("0009.mp4 0\n0010.mp4 3\n")
    with pytest.raises(
        OptionError, match=r"^ClipBertTransforms expects a label of 0 to 2, .*videos/0010\.mp4, got 3\."
    ):
        train()


def test_the_head_has_as_many_answers_as_there_are_classes(train: Callable):
    with pytest.raises(
        OptionError, match=r"^The head has 14 answers, and the answer_file for data/actions/train.txt has 3"
    ):
        train(**{"model.head.num_answers": 14})


def test_a_validation_set_with_other_answers_is_refused(page: Path, train: Callable):
    (page / "data/shapes/own.json").write_text('{"red": 0, "blue": 1, "green": 2}')
    inherited = load_config("configs/shapes/clipbert_tiny_1xb16-2x2-12e_shapes-qa.py").val_dataloader
    inherited.dataset.answer_file = "own.json"
    message = (
        r"^Answer 0 is 'jumping' in the vocabulary of data/actions/train\.txt and 'red' in that of \S*qa_test\.jsonl"
    )
    with pytest.raises(OptionError, match=message):
        train(inherited)
    message = r"^The training set data/actions/train\.txt does not name the answers .* set \S*qa_test\.jsonl has 3, .* is 'red'"
    with pytest.raises(OptionError, match=message):
        train(inherited, **{"train_dataloader.dataset.pipeline": [dict(type="ClipBertTransforms", transforms=[])]})
