"""The configs of the paper's Tables 7 to 9 and of its pre-training: what they say, and a training and a test step of each."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from modelindex.load_model_index import load as load_model_index
from shrinking import build, shrink_model, take_a_step, train_a_step
from torch import nn

from clipbert_mm.engine.config import load_config

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
ROWS = sorted(
    path
    for folder in ("retrieval", "video_qa", "image_qa", "pretrain")
    for path in (CONFIGS / folder).glob("*.py")
    if "_custom" not in path.stem and not path.stem.endswith("-shortlist")
)
SHORTLIST = CONFIGS / "retrieval" / "clipbert_r50_8xb32-2x2-3e_msrvtt-shortlist.py"  # none of the paper's
TRAINED = [path for path in ROWS if not path.stem.endswith(("-mc", "-moments"))]
# Tables 10 and 11 and Section 3: batch x accumulation x GPUs, epochs, rate; clips x frames, N_test, seconds, words.
SETTINGS = {
    "8xb16-4x1-20e_msrvtt": ("16x1x8", 20, 5e-5, "4x1", 16, 1.0, 20),
    "8xb16-8x2-20e_msrvtt": ("16x1x8", 20, 5e-5, "8x2", 16, 1.0, 20),
    "8xb8-accum4-4x1-20e_didemo": ("8x4x8", 20, 5e-5, "4x1", 16, 1.0, 100),
    "8xb8-accum4-8x2-20e_didemo": ("8x4x8", 20, 5e-5, "8x2", 16, 1.0, 100),
    "8xb16-accum2-4x2-80e_activitynet": ("16x2x8", 80, 5e-5, "4x2", 16, 2.0, 100),
    "8xb16-accum2-4x2-80e_activitynet-ntest20": ("16x2x8", 80, 5e-5, "4x2", 20, 2.0, 100),
    "8xb32-1x1-55e_tgif-action": ("32x1x8", 55, 1e-4, "1x1", 16, 1.0, 25),
    "8xb32-1x1-55e_tgif-action-ntest1": ("32x1x8", 55, 1e-4, "1x1", 1, 1.0, 25),
    "8xb32-1x1-15e_tgif-transition": ("32x1x8", 15, 1e-4, "1x1", 16, 1.0, 25),
    "8xb32-1x1-15e_tgif-transition-ntest1": ("32x1x8", 15, 1e-4, "1x1", 1, 1.0, 25),
    "8xb32-1x1-15e_tgif-frameqa": ("32x1x8", 15, 1e-4, "1x1", 16, 1.0, 25),
    "8xb32-1x1-15e_tgif-frameqa-ntest1": ("32x1x8", 15, 1e-4, "1x1", 1, 1.0, 25),
    "8xb32-4x1-15e_tgif-count": ("32x1x8", 15, 1e-4, "4x1", 16, 1.0, 25),
    "4xb16-4x1-10e_msrvtt-qa": ("16x1x4", 10, 5e-5, "4x1", 16, 1.0, 100),
    "4xb16-8x2-10e_msrvtt-qa": ("16x1x4", 10, 5e-5, "8x2", 16, 1.0, 100),
    "8xb32-13e_vqa2": ("32x1x8", 13, 5e-5, None, None, None, 20),
    "8xb32-40e_coco-vg": ("32x1x8", 40, 5e-5, None, None, None, 20),
}


def recipe_of(path: Path) -> str:
    return path.stem.removeprefix("clipbert_r50_")


@pytest.fixture
def datasets(own_world: Path) -> Path:
    """A folder laid out as each of the datasets, of the small world; questions ask for the second word of a caption."""
    annotations = own_world / "annotations"
    annotations.mkdir()
    for name, target in (("gifs", "videos"), ("coco", "images"), ("vg", "images")):
        (own_world / name).symlink_to(own_world / target)
    lines = {split: (own_world / f"{split}.jsonl").read_text().splitlines() for split in ("train", "test", "pretrain")}
    records = {split: [json.loads(line) for line in own] for split, own in lines.items()}
    words = sorted({record["caption"].split()[1] for own in records.values() for record in own})

    def write(name: str, split: str, **fields: Callable[[dict], Any]) -> None:
        media = "image" if split == "pretrain" else "video"
        made = [{media: r[media]} | {key: value(r) for key, value in fields.items()} for r in records[split]]
        (annotations / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in made))

    def caption(record: dict) -> str:
        return record["caption"]

    def answer(record: dict) -> str:
        return record["caption"].split()[1]

    def options(record: dict) -> list[str]:
        return [answer(record), "a star", "two", "a red ring", "blue"]

    for name in ("retrieval_test-1ka", "retrieval_val-local", "val1"):
        write(name, "test", caption=caption)
    write("retrieval_train-7k", "train", caption=caption)
    records["val"] = records["test"]
    for split in ("train", "val", "test"):
        write(split, split, caption=caption)
        write(f"{split}_sentences", split, caption=caption, spans=lambda r: [[0, 2.5]])
        for task in ("qa", "frameqa"):
            write(f"{task}_{split}", split, question=caption, answer=answer, answer_type=lambda r: "what")
        for task in ("action", "transition", "mc"):
            write(f"{task}_{split}", split, question=lambda r: "what ?", options=options, answer=lambda r: 0)
        write(f"count_{split}", split, question=caption, count=lambda r: len(r["caption"]) % 9 + 1)
    for name in ("vqa_train", "vqa_val"):
        write(name, "pretrain", question=caption, labels=lambda r: {answer(r): 1.0, words[0]: 0.3})
    for name in ("pretrain_coco", "pretrain_vg", "pretrain_coco-val"):
        write(name, "pretrain", caption=caption)
    for name in ("qa", "frameqa", "vqa"):
        (annotations / f"{name}_answers.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    return own_world


@pytest.fixture
def read(datasets: Path, tokenizer: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Config]:
    """Read a config with its data in the small world."""
    for name in ("MSRVTT", "DIDEMO", "ACTIVITYNET", "TGIF", "VQA", "PRETRAIN"):
        monkeypatch.setenv(f"CLIPBERT_{name}", str(datasets))
    monkeypatch.setenv("CLIPBERT_BERT", tokenizer)
    for variable in ("CLIPBERT_WEIGHTS", "CLIPBERT_RESNET"):
        monkeypatch.setenv(variable, variable.lower())
    answers = len(json.loads((datasets / "annotations" / "vqa_answers.json").read_text()))

    def with_its_answers(path: Path) -> Config:
        config = load_config(str(path))
        if config.model.head.type == "SoftAnswerHead":
            assert config.model.head.num_answers == 3129
            config.model.head.num_answers = answers
        return config

    return with_its_answers


def step_of(dataset: dict[str, Any], kind: str) -> dict[str, Any]:
    """The transform of a kind in a dataset's pipeline."""
    return next(step for step in dataset["pipeline"] if step["type"] == kind)


def test_every_row_has_a_config():
    assert {recipe_of(path) for path in TRAINED} == set(SETTINGS)
    tested = {"4x1_msrvtt-mc", "8x2_msrvtt-mc", "8x2_didemo-moments"}
    assert {recipe_of(path) for path in ROWS} - set(SETTINGS) == tested


def test_openmmlab_s_reader_lists_every_row_with_the_paper_s_numbers(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(CONFIGS.parent)
    index = load_model_index("model-index.yml")
    index.build_models_with_collections()
    models = {model.name: model for model in index.models}
    folders = ("shapes", "other_datasets", "video_encoders", "public")
    others = {path.stem for folder in folders for path in (CONFIGS / folder).glob("*.py")}
    assert set(models) == {path.stem for path in (*ROWS, SHORTLIST)} | others
    for name, model in models.items():
        path = Path(model.config)
        assert path.is_file()
        assert path.stem == name
        metrics = {} if model.results is None else dict(model.results[0].metrics)
        assert all(key.endswith(" (paper)") for key in metrics), "none is ours"
        said = re.search(r"The paper's numbers: (.*)\.\n", path.read_text())
        shown = ", ".join(f"{key.removesuffix(' (paper)')} {value}" for key, value in metrics.items())
        assert shown == (said[1] if said else "")


@pytest.mark.parametrize("path", TRAINED, ids=recipe_of)
def test_the_settings_are_the_paper_s(path: Path, read: Callable):
    config = read(path)
    batch, epochs, rate, sampling, test_clips, seconds, words = SETTINGS[recipe_of(path)]
    gpus = re.match(r"(\d+)xb", recipe_of(path))[1]
    accumulation = config.optim_wrapper.get("accumulative_counts", 1)
    assert f"{config.train_dataloader.batch_size}x{accumulation}x{gpus}" == batch
    assert (config.train_cfg.max_epochs, config.optim_wrapper.optimizer.lr) == (epochs, rate)
    assert config.optim_wrapper.clip_grad.max_norm == (2 if "vqa2" in path.stem else 5)
    (schedule,) = config.param_scheduler  # linear to 0; its own tests say what the share means
    assert (schedule.type, schedule.warmup_share, schedule.convert_to_iter_based) == ("WarmupLinearLR", 0.1, True)
    assert config.randomness.seed == 42
    train = config.train_dataloader.dataset
    train = train.get("datasets", [train])[0]
    assert step_of(train, "Tokenize").max_length == words
    assert step_of(train, "ResizePad").size == (768 if sampling is None else 448)
    if sampling is not None:
        clips, test = step_of(train, "SampleClips"), step_of(config.test_dataloader.dataset, "SampleClips")
        assert (f"{clips.num_clips}x{clips.num_frames}", clips.mode, clips.clip_seconds) == (
            sampling,
            "random",
            seconds,
        )
        wanted = (test_clips, clips.num_frames, "middle" if test_clips == 1 else "uniform", seconds)
        assert (test.num_clips, test.num_frames, test.mode, test.clip_seconds) == wanted
    assert f"bash tools/dist_train.sh configs/{path.relative_to(CONFIGS)} {gpus}\n" in path.read_text()


@pytest.mark.parametrize("path", ROWS, ids=recipe_of)
def test_the_model_is_the_paper_s(path: Path, read: Callable):
    model = read(path).model
    frames, encoder = model.data_preprocessor, model.encoder
    assert (frames.mean, frames.std, frames.to_bgr) == ([123.675, 116.28, 103.53], [1, 1, 1], True)
    resnet = {name: model.backbone[name] for name in ("type", "depth", "style", "frozen_stages", "norm_eval")}
    assert resnet == dict(type="mmpretrain.ResNet", depth=50, style="caffe", frozen_stages=1, norm_eval=True)
    assert (model.projection.in_channels, model.projection.out_channels) == (2048, 768)
    pooling = "MeanAggregator" if "count" in path.stem else "LogSumExpAggregator"  # a count is no log-probability
    assert (model.temporal_fusion.type, model.aggregator.type) == ("MeanFusion", pooling)
    sizes = (encoder.vocab_size, encoder.hidden_size, encoder.num_layers, encoder.num_heads, encoder.intermediate_size)
    assert sizes == (30522, 768, 12, 12, 3072), "BERT-base, uncased"
    assert encoder.get("pixel_sampling") == (100 if "coco-vg" in path.stem else None)
    if "coco-vg" not in path.stem:
        assert model.head.hidden_channels == 1536


@pytest.mark.parametrize("path", TRAINED, ids=recipe_of)
def test_a_row_takes_a_training_step(path: Path, read: Callable):
    config = read(path)
    model, wrapper, moved = train_a_step(config)
    assert type(wrapper.optimizer) is torch.optim.AdamW
    groups = wrapper.optimizer.param_groups
    assert {(group["betas"], group["eps"]) for group in groups} == {((0.9, 0.98), 1e-8)}
    assert {group["weight_decay"] for group in groups} == {1e-3, 0}, "none on biases and norm scales"
    # Before the visual embeddings, BERT's, each of its layers' three, and the head.
    dropout = [module.p for module in model.modules() if isinstance(module, nn.Dropout)]
    assert (set(dropout), len(dropout)) == ({0.1}, 1 + 1 + 2 * 3 + 1)
    assert {module.eps for module in model.encoder.modules() if isinstance(module, nn.LayerNorm)} == {1e-12}
    needless = {"head.classifier.2.bias"} if "tgif-action" in path.stem or "transition" in path.stem else set()
    assert {name for name, value in model.named_parameters() if value.requires_grad} - moved <= needless


@pytest.mark.parametrize("path", ROWS, ids=recipe_of)
def test_a_row_takes_a_test_step_and_its_metric_takes_the_result(path: Path, read: Callable):
    config = read(path)
    model: nn.Module = build(shrink_model(config.model)).eval()
    for split in ("val", "test") if path in TRAINED else ("test",):
        take_a_step(model, config[f"{split}_dataloader"], config[f"{split}_evaluator"])


def test_the_vectors_of_a_shortlist_are_of_the_model_and_the_clips_of_its_row(read: Callable):
    config, row = read(SHORTLIST), read(SHORTLIST.with_stem("clipbert_r50_8xb16-8x2-20e_msrvtt"))
    assert config.load_from == f"work_dirs/{Path(row.filename).stem}/epoch_{row.train_cfg.max_epochs}.pth"
    assert config.model.encoder.pop("vector_size") == 256
    assert config.model.pop("distillation") == dict(type="VectorDistillation")
    assert config.model == row.model
    assert config.test_dataloader == row.test_dataloader
    assert step_of(config.train_dataloader.dataset, "SampleClips").num_frames == 2


def test_the_vectors_of_a_shortlist_take_a_training_and_a_test_step(read: Callable):
    config = read(SHORTLIST)
    model, _, moved = train_a_step(config)
    assert moved == {
        name for name, _ in model.named_parameters() if name.startswith(("encoder.vectors.", "distillation."))
    }
    for split in ("val", "test"):
        take_a_step(model.eval(), config[f"{split}_dataloader"], config[f"{split}_evaluator"])
