"""What MMAction2 and MMPretrain use a trained model by: ``test_pipeline``, and the names of files in a pipeline."""

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hook_runs import written
from mmengine.config import Config
from mmengine.dataset import Compose

from clipbert_mm.apis import ClipBertInferencer, Predictor, VideoSearch, inference_model, init_model
from clipbert_mm.engine.launch import build_runner
from clipbert_mm.errors import OptionError
from clipbert_mm.registry import MODELS, TRANSFORMS


def test_h22_test_pipeline_is_what_a_model_is_used_by(
    runner_config: Config, checkpoint: Path, tmp_path: Path, world: Path
):
    video = str(next((world / "videos").glob("test_*.mp4")))
    clips = []
    for name in ("test_dataloader", "test_pipeline"):
        if name == "test_pipeline":
            runner_config.test_pipeline = runner_config.test_dataloader.dataset.pipeline.copy()
            runner_config.test_pipeline[1] = dict(type="SampleClips", num_clips=5, num_frames=2, mode="uniform")
        model = init_model(written(runner_config, tmp_path, name), checkpoint)
        clips.append(len(model.inferencer.predictor.read(video).clip_times))
        ranked = inference_model(model, video, texts=["a red circle", "a blue ring"])
    assert clips == [3, 5]
    runner_config.default_hooks.checkpoint.interval = 1
    build_runner(runner_config).train()
    again = inference_model(str(Path(runner_config.work_dir) / "epoch_1.pth"), video, texts=["a red circle"])
    assert len(again.scores) == 1
    assert len(ranked.scores) == 2
    model = init_model(str(Path(runner_config.work_dir) / "epoch_1.pth"))
    assert len(model.inferencer.predictor.read(video).clip_times) == 5, "the checkpoint has it, too"
    with pytest.raises(
        OptionError, match=r"^inference_model takes one video or image, got \[.*call a ClipBertInferencer"
    ):
        inference_model(model, [video, video], texts=["a red circle"])
    with pytest.raises(OptionError, match=r"is a config, whose load_from is what its training starts from\."):
        init_model(written(runner_config, tmp_path, "alone"))


@pytest.mark.parametrize("named", ["'clipbert_mm.{}'", "{}"], ids=["scope", "class"])
def test_transforms_may_be_named_by_scope_or_class(
    runner_config: Config, checkpoint: Path, tmp_path: Path, world: Path, named: str
):
    video = str(next((world / "videos").glob("test_*.mp4")))
    plain = written(runner_config, tmp_path, "plain")
    names = {step.type for step in runner_config.test_dataloader.dataset.pipeline}
    text = Path(plain).read_text()
    for name in names:
        text = text.replace(f"type='{name}'", f"type={named.format(name)}")
    imported = "" if "'" in named else f"from clipbert_mm.datasets.transforms import {', '.join(sorted(names))}\n"
    (tmp_path / "named.py").write_text(imported + text)
    found, wanted = (
        inference_model(init_model(path, checkpoint), video, texts=["a ring"])
        for path in (str(tmp_path / "named.py"), plain)
    )
    assert torch.equal(found.scores, wanted.scores)


def test_configs_are_opened_as_objects_and_models_have_theirs(
    runner_config: Config, checkpoint: Path, tmp_path: Path, world: Path
):
    path = written(runner_config, tmp_path, "file")
    video, texts = str(next((world / "videos").glob("test_*.mp4"))), ["a red circle", "a blue ring"]
    given = Config.fromfile(path)
    before = given.pretty_text
    wanted = inference_model(init_model(path, checkpoint), video, texts=texts)
    made = Config(given.to_dict())  # of no file
    for config in (path, Path(path), given, made, made.to_dict(), made._cfg_dict):
        model = init_model(config, checkpoint, device="cpu")
        found = inference_model(model, video, texts=texts)
        assert found.texts == wanted.texts
        assert torch.equal(found.scores, wanted.scores)
        assert isinstance(model.cfg, Config)
        assert model.cfg.test_dataloader.dataset.pipeline == given.test_dataloader.dataset.pipeline
        assert model.inferencer.cfg is model.cfg
    assert given.pretty_text == before
    for opened in (
        VideoSearch(made, index=tmp_path / "index", weights=checkpoint),
        ClipBertInferencer("video-retrieval", made, checkpoint, show_progress=False),
    ):
        assert opened.predictor.identity == Predictor(path, weights=checkpoint).identity
    cfg = init_model(checkpoint).cfg  # of a checkpoint alone, what it says
    assert cfg.model.type == "ClipBert"
    assert [step.type for step in cfg.test_pipeline] == [step.type for step in given.test_dataloader.dataset.pipeline]
    assert MODELS.build(cfg.model).__class__.__name__ == "ClipBert"
    Compose(cfg.test_dataloader.dataset.pipeline[:4])(dict(path=video))
    for config, said in (
        (made, r"^a Config without a file is a config, whose load_from is what its training starts from\."),
        (given, rf"^{re.escape(path)} is a config, whose"),
        (Config(dict(model=made.model)), "^The config needs test_dataloader for this"),
        (made.model, "^The config needs model for this"),
    ):
        with pytest.raises(OptionError, match=said):
            init_model(config)


@pytest.mark.parametrize(("key", "kind"), [("filename", "OpenVideo"), ("img_path", "LoadImage")])
def test_h22_files_may_have_the_names_of_the_other_libraries(world: Path, key: str, kind: str):
    folder, suffix = ("videos", "mp4") if kind == "OpenVideo" else ("images", "jpg")
    path = str(next((world / folder).glob(f"*.{suffix}")))
    steps = [dict(type=kind)]
    if kind == "OpenVideo":
        steps += [dict(type="SampleClips", num_clips=2, num_frames=1, mode="uniform"), dict(type="DecodeClips")]
    pipeline = Compose([TRANSFORMS.build(step) for step in steps])
    theirs, ours = pipeline({key: path}), pipeline({"path": path})
    assert theirs["path"] == path
    assert np.array_equal(theirs["frames"], ours["frames"])
    if kind == "LoadImage":
        assert np.array_equal(theirs["frames"][0, 0], cv2.imread(path)[..., ::-1])
    with pytest.raises(
        OptionError, match=r"needs the path of a file as 'path', 'filename' or 'img_path', got sample_idx\."
    ):
        pipeline({"sample_idx": 0})
