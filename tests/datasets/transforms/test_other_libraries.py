"""Transforms of other libraries among ours, and pipelines that do not pack, are refused at the start in a sentence."""

from pathlib import Path
from typing import Any

import pytest
from mmcv.transforms import BaseTransform
from mmengine.config import Config
from sister_libraries import import_mmaction

from clipbert_mm.apis.opening import _split
from clipbert_mm.datasets import RetrievalDataset
from clipbert_mm.datasets.transforms import ClipBertTransforms, MMActionTransforms, collate_items
from clipbert_mm.engine.launch import build_runner
from clipbert_mm.errors import OptionError

pytest.importorskip("decord", reason="mmaction2 needs decord, which has wheels for x86-64 only")
import_mmaction()
FLIP = dict(type="mmaction.Flip")


class OwnPacking(BaseTransform):
    """A last transform of one's own."""

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Pack nothing."""
        return dict(inputs=None, data_samples=None)


def test_own_and_general_transforms_are_taken(world: Path):
    mapped = dict(type="mmcv.KeyMapper", mapping=dict(imgs="frames", img_shape="size"), transforms=[FLIP])
    steps = [mapped, dict(type="mmcv.ToTensor", keys=["frames"]), dict(type=OwnPacking)]
    dataset = RetrievalDataset(ann_file="train.jsonl", data_root=str(world), media_folder="videos", pipeline=steps)
    assert len(dataset.pipeline.transforms) == 3


@pytest.mark.parametrize(
    ("step", "name"),
    [
        (FLIP, "MMAction2's Flip"),
        (dict(type="mmaction.DecordInit"), "MMAction2's DecordInit"),
        (dict(type="mmpretrain.RandomFlip", prob=0.5), "MMCV's RandomFlip"),
        (dict(type="mmpretrain.ColorJitter"), "MMPretrain's ColorJitter"),
        (dict(type="mmcv.RandomApply", transforms=[FLIP]), "MMAction2's Flip"),
        (dict(type="mmcv.RandomChoice", transforms=[[dict(type="DecodeClips")], [FLIP]]), "MMAction2's Flip"),
    ],
)
def test_a_transform_of_another_library_among_ours(runner_config: Config, step: dict, name: str):
    message = (
        rf" has {name} among our transforms, which does not take our frames\. Put it, .*dict\(type='MMActionTransforms'"
    )
    runner_config.train_dataloader.dataset.pipeline.insert(3, step)
    with pytest.raises(OptionError, match=f"^The pipeline of RetrievalDataset{message}"):
        build_runner(runner_config).train()
    with pytest.raises(OptionError, match=f"^ClipBertTransforms{message}"):
        ClipBertTransforms(transforms=[step])


def test_a_transform_of_another_library_in_a_test_pipeline(runner_config: Config):
    steps = [step.to_dict() for step in runner_config.test_dataloader.dataset.pipeline]
    with pytest.raises(OptionError, match=r"^The test pipeline has MMAction2's Flip among our transforms"):
        _split([*steps[:3], FLIP, *steps[3:]])


@pytest.mark.parametrize("kind", ["mmpretrain.ColorJitter", "mmcv.RandomFlip", "RandomGrayscale"])
def test_a_transform_of_single_images_among_mmaction2s(kind: str):
    with pytest.raises(
        OptionError, match=r"^MMActionTransforms takes .*, got MM\w+'s \w+, which takes a single image\."
    ):
        MMActionTransforms(transforms=[dict(type=kind)])


@pytest.mark.parametrize("stage", ["train", "test"])
@pytest.mark.parametrize("last", ["Tokenize", "none"])
def test_a_pipeline_that_does_not_pack(runner_config: Config, checkpoint: Path, stage: str, last: str):
    steps = runner_config[f"{stage}_dataloader"].dataset.pipeline
    del steps[len(steps) - 1 if last == "Tokenize" else 0 :]
    runner_config.load_from = str(checkpoint)
    with pytest.raises(
        OptionError, match=rf"jsonl expects PackInputs at its end, got {last}\. Add dict\(type='PackInputs'\)\.$"
    ):
        getattr(build_runner(runner_config), stage)()


@pytest.mark.parametrize("ending", ["none", "PackActionInputs", "ResizePad"])
def test_a_pipeline_of_mmaction2_that_does_not_pack(runner_config: Config, tmp_path: Path, ending: str):
    (tmp_path / "labels.txt").write_text("a.mp4 0\n")
    end = dict(type="PackActionInputs")
    if ending != "PackActionInputs":
        ours = [dict(type="ResizePad", size=48)] * (ending == "ResizePad")
        end = dict(type="clipbert_mm.ClipBertTransforms", transforms=ours)
    pipeline = [dict(type="DecordInit"), end]
    runner_config.train_dataloader.dataset = dict(
        type="mmaction.VideoDataset", ann_file=str(tmp_path / "labels.txt"), pipeline=pipeline, _scope_="mmaction"
    )
    with pytest.raises(OptionError, match=rf"PackInputs at its end, in ClipBertTransforms, got {ending}\. Add"):
        build_runner(runner_config).train()


def test_items_of_a_packing_of_ones_own(world: Path):
    with pytest.raises(
        OptionError, match=r"^Expected an item with inputs and data_samples, got one with frames, path\. End the"
    ):
        collate_items([dict(frames=1, path="a.mp4")])
    own = dict(type="mmcv.ToTensor", keys=[])
    dataset = RetrievalDataset(ann_file="train.jsonl", data_root=str(world), media_folder="videos", pipeline=[own])
    with pytest.raises(OptionError, match=r"^Expected an item with data_samples, got one with .*path, "):
        dataset[0]
