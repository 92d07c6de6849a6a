"""The configs of public models: sizes and transforms are the published files'; each is trained for a step, and tested."""

import copy
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.runner import Runner
from public_models import OPENAI_MEAN, OPENAI_STD, VOCABULARY, write_blip
from transformers import BlipForQuestionAnswering

from clipbert_mm.checkpoint.families import read_family
from clipbert_mm.checkpoint.image_processor import image_transforms
from clipbert_mm.engine.config import load_config
from clipbert_mm.engine.launch import build_runner
from clipbert_mm.errors import AnnotationError, OptionError
from clipbert_mm.registry import MODELS
from clipbert_mm.structures import read_answers

CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "public"
LARGE = sorted(path for path in CONFIGS.glob("*.py") if "shapes" not in path.stem)
TRAINED = [path for path in LARGE if "xb" in path.stem]
PUBLISHED = {
    "blip_base": dict(
        architectures=["BlipForImageTextRetrieval"],
        model_type="blip",
        image_text_hidden_size=256,
        text_config=dict(num_attention_heads=12),
        vision_config=dict(image_size=384),
    ),
    "blip_vqa_base": dict(
        architectures=["BlipForQuestionAnswering"],
        model_type="blip",
        text_config=dict(num_attention_heads=12),
        vision_config=dict(image_size=384),
    ),
    "vilt_b32": dict(architectures=["ViltForImageAndTextRetrieval"], model_type="vilt"),
    "clip_vit-b32": dict(architectures=["CLIPModel"], model_type="clip"),
    "siglip2_base": dict(
        architectures=["SiglipModel"], model_type="siglip", text_config=dict(vocab_size=256000, pad_token_id=0)
    ),
}
"""What stands in the config.json of the published models; the rest is the default of transformers."""
QUESTIONS = dict(architectures=["ViltForQuestionAnswering"], id2label={str(i): f"answer {i}" for i in range(3129)})
PROCESSORS = {
    "blip_base": dict(
        image_processor_type="BlipImageProcessor", size=dict(height=384, width=384), image_mean=OPENAI_MEAN
    ),
    "blip_vqa_base": dict(
        image_processor_type="BlipImageProcessor", size=dict(height=384, width=384), image_mean=OPENAI_MEAN
    ),
    "vilt_b32": dict(image_processor_type="ViltImageProcessor", size=dict(shortest_edge=384)),
    "clip_vit-b32": dict(image_processor_type="CLIPImageProcessor", size=224, crop_size=224, image_std=OPENAI_STD),
    "siglip2_base": dict(image_processor_type="SiglipImageProcessor", size=dict(height=224, width=224), resample=2),
}


def family_of(path: Path) -> str:
    return next(name for name in PROCESSORS if path.stem.startswith(name))


def completed(part: dict[str, Any]) -> dict[str, Any]:
    """Return the config of a part with the defaults of its class, and so of its own parts."""
    defaults = {name: value.default for name, value in inspect.signature(MODELS.get(part["type"])).parameters.items()}
    return defaults | {name: completed(value) if isinstance(value, dict) else value for name, value in part.items()}


def steps_of(config: Config, split: str = "test") -> dict[str, Any]:
    return {step["type"]: step for step in config[f"{split}_dataloader"].dataset.pipeline}


@pytest.mark.parametrize("path", LARGE, ids=lambda path: path.stem)
def test_sizes_and_transforms_are_those_of_the_published_files(path: Path, monkeypatch: pytest.MonkeyPatch):
    config, family = load_config(str(path)), family_of(path)
    with torch.device("meta"):
        model = MODELS.build(config.model)
    steps, spec = image_transforms(PROCESSORS[family], "preprocessor_config.json")
    assert config.model.data_preprocessor.mean == pytest.approx(spec.mean)
    assert config.model.data_preprocessor.std == pytest.approx(spec.std)
    for split in ("train", "val", "test"):
        if config.get(f"{split}_dataloader"):
            assert steps_of(config, split).get("ResizeTo", steps[0]) == steps[0]
    words = model.encoder.word_embeddings
    assert len(words) == config.model.data_preprocessor.vocab_size
    assert steps_of(config)["Tokenize"]["max_length"] <= model.encoder.max_text_length
    published = read_family(
        PUBLISHED[family] | (QUESTIONS if "qa" in path.stem and family == "vilt_b32" else {}), "config.json"
    )
    for part in ("backbone", "temporal_fusion", "encoder", "head"):
        assert type(getattr(model, part)) is MODELS.get(published.model[part]["type"])
        assert completed(config.model[part]) == completed(published.model[part])
    given = {kind: {key: step[key] for key in step if key != "type"} for kind, step in steps_of(config).items()}
    assert given["Tokenize"] == published.tokenize | dict(tokenizer=given["Tokenize"]["tokenizer"])
    assert given.get("SampleClips", published.clips) == published.clips
    opening = path.read_text().partition("\n_base_ =")[0]
    assert f" configs/public/{path.name} " in opening


SMALL = dict(hidden_size=32, num_layers=2, num_heads=2, intermediate_size=64, initializer_range=0.2)


def shrink(config: Config, tokenizer: str) -> Config:
    """The same config with a small model and small frames."""
    model = config.model
    model.data_preprocessor.vocab_size = model.encoder.vocab_size = 200
    model.encoder.update(SMALL)
    model.head.in_channels = 32
    if model.backbone.type == "BlipVision":
        model.backbone.update(image_size=32, patch_size=8, **SMALL)
        model.encoder.update(visual_size=32, frame_tokens=17, vector_size=16, joint_token=199, max_text_length=40)
    else:
        model.backbone.update(patch_size=8, hidden_size=32, initializer_range=0.2)
        model.encoder.update(grid_size=4)
    for split in ("train", "val", "test"):
        loader = config[f"{split}_dataloader"]
        loader.update(batch_size=2, num_workers=0, persistent_workers=False)
        for step in loader.dataset.pipeline:
            if step.type == "Tokenize":
                step.tokenizer = tokenizer
        resize = next(i for i, step in enumerate(loader.dataset.pipeline) if step.type == "ResizeTo")
        loader.dataset.pipeline[resize] = dict(type="ResizeTo", size=[32, 32])
    return config


@pytest.mark.parametrize("path", TRAINED, ids=lambda path: path.stem)
def test_a_fine_tuning_takes_a_step(
    path: Path, own_world: Path, tokenizer: str, without_gradient: Callable, monkeypatch: pytest.MonkeyPatch
):
    (own_world / "annotations").mkdir()
    for name, source in dict(train="train-7k", test="test-1ka", val="val-local").items():
        file = own_world / f"{'test' if name == 'val' else name}.jsonl"
        (own_world / "annotations" / f"retrieval_{source}.jsonl").symlink_to(file)
    monkeypatch.setenv("CLIPBERT_MSRVTT", str(own_world))
    config = shrink(load_config(str(path)), tokenizer)
    assert config.train_dataloader.dataset.num_negatives == (0 if "hard_negatives" in config.model else 15)
    config.train_dataloader.dataset.num_negatives = min(config.train_dataloader.dataset.num_negatives, 2)
    model = MODELS.build(config.model).train()
    wrapper = build_optim_wrapper(model, config.optim_wrapper)
    data = next(iter(Runner.build_dataloader(config.train_dataloader, seed=0)))
    loss, _ = model.parse_losses(model(**model.data_preprocessor(data, True), mode="loss"))
    loss.backward()
    keys = {name for name, _ in model.named_parameters() if name.endswith("key.bias")}  # no softmax depends on them
    assert set(without_gradient(model)) <= keys
    wrapper.step()


def test_a_public_folder_is_tested_by_a_config(
    runner_config: Config, tool: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Zero-shot, with tools/test.py, by a config whose model has the folder's sizes."""
    monkeypatch.setenv("LOCAL_RANK", "0")
    folder = tmp_path / "blip"
    write_blip(folder)
    family = read_family(json.loads((folder / "config.json").read_text()), "config.json")
    config = copy.deepcopy(runner_config)
    spec = dict(mean=[255 * each for each in OPENAI_MEAN], std=[255 * each for each in OPENAI_STD])
    frames = dict(type="VideoTextPreprocessor", vocab_size=len(VOCABULARY) + 2, **spec)
    config.model = dict(type="ClipBert", data_preprocessor=frames, **family.model)
    for step in config.test_dataloader.dataset.pipeline:
        if step.type == "Tokenize":
            step.tokenizer = str(folder)
    config.dump(tmp_path / "blip.py")
    scores = tool("test.py").main([str(tmp_path / "blip.py"), str(folder), "--work-dir", str(tmp_path / "work")])
    assert 0 <= scores["t2v/R@1"] <= 100
    config.model.encoder.num_heads = 2
    config.dump(tmp_path / "other.py")
    with pytest.raises(Exception, match="attention heads of the encoder: checkpoint 4, model 2"):
        tool("test.py").main([str(tmp_path / "other.py"), str(folder), "--work-dir", str(tmp_path / "other")])


def test_candidates_of_a_test_are_the_answers_of_its_dataset(
    world: Path,
    runner_config: Config,
    tool: Callable[[str], ModuleType],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    """BLIP for questions, zero-shot on MSRVTT-QA's config with the sizes of a tiny folder and the questions of Shapes."""
    monkeypatch.setenv("LOCAL_RANK", "0")
    folder = tmp_path / "blip"
    write_blip(folder, BlipForQuestionAnswering, visual_size=32)
    family = read_family(json.loads((folder / "config.json").read_text()), "config.json")
    config = load_config(str(CONFIGS / "blip_vqa_base_8x1_msrvtt-qa.py"))
    config.model.update(family.model)
    config.model.data_preprocessor.vocab_size = len(VOCABULARY) + 2
    loader = config.test_dataloader
    loader.update(num_workers=0, batch_size=4)
    loader.dataset.update(
        data_root=str(world), ann_file="qa_test.jsonl", answer_file="answers.json", media_folder="videos", indices=4
    )
    for step in loader.dataset.pipeline:
        if step.type == "Tokenize":
            step.tokenizer = str(folder)
        if step.type == "ResizeTo":
            step["size"] = [32, 32]
    config.dump(tmp_path / "qa.py")
    scores = tool("test.py").main([str(tmp_path / "qa.py"), str(folder), "--work-dir", str(tmp_path / "work")])
    assert 0 <= scores["accuracy"] <= 100
    given = copy.deepcopy(runner_config)
    given.custom_hooks = [dict(type="CandidateAnswersHook")]
    with pytest.raises(
        OptionError, match=r"gives an AnswerEncoder the answers of an OpenEndedDataset, got a JointEncoder and"
    ):
        build_runner(given).test()


def test_the_answers_of_a_public_model_are_those_of_its_config(tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps(dict(model_type="vilt", id2label={"1": "no", "0": "yes"})))
    assert read_answers(str(tmp_path / "config.json")) == {"yes": 0, "no": 1}
    (tmp_path / "config.json").write_text(json.dumps(dict(id2label={"0": "yes", "2": "no"})))
    with pytest.raises(AnnotationError, match=r"config\.json, id2label 1: expected the name of an answer, got None"):
        read_answers(str(tmp_path / "config.json"))
