"""Every config: its model and its datasets are built, and what it says about itself is true."""

import ast
import copy
import functools
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.runner import Runner
from torch import nn

from clipbert_mm.datasets import train_vocabularies
from clipbert_mm.engine.config import RUNNER_KEYS, load_config
from clipbert_mm.errors import CheckpointError, OptionError
from clipbert_mm.models.backbones.folding import FoldedNorm
from clipbert_mm.registry import MODELS

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
BASES = CONFIGS / "_base_"
ALL = sorted(path for path in CONFIGS.rglob("*.py") if not {"_base_", "tables"} & set(path.parts))
# Those of the paper's tables are tried out in test_ablations.py and test_paper_rows.py.
SHAPES = [path for path in ALL if path.parent.name == "shapes"]
OWN = [path for path in ALL if "_custom" in path.stem]
LEAVES = [path for path in ALL if path in SHAPES or path in OWN]
# A model of mmpretrain's, tried out in tools/test_train_and_test.py.
(OBJECTS,) = [path for path in SHAPES if path.stem.endswith("-objects")]
# Not trained; tested with the checkpoint of another.
EVALUATIONS = [path for path in SHAPES if not re.search(r"_\d+xb\d+", path.stem)]
LEAVES = [path for path in LEAVES if path not in EVALUATIONS]
RECIPES = list(LEAVES)
LEAVES.remove(OBJECTS)
TINY = [path for path in LEAVES if "tiny" in path.stem]
LARGE = [path for path in LEAVES if "tiny" not in path.stem]
# By their names: those that are trained.
TRAINED = [path for path in ALL if re.search(r"_\d+xb\d+", path.stem)]
SPLITS = ("train", "val", "test")


def name_of(path: Path) -> str:
    return path.stem


@functools.cache
def as_written(path: Path) -> Config:
    """Read a config without data or weights; not to be written to."""
    return load_config(str(path))


def bases_of(path: Path) -> list[Path]:
    """The files that a config inherits."""
    for statement in ast.parse(path.read_text()).body:
        if names(statement, ast.Store) == {"_base_"}:
            bases = ast.literal_eval(statement.value)
            return [(path.parent / base).resolve() for base in ([bases] if isinstance(bases, str) else bases)]
    return []


def names(statement: ast.stmt, use: type[ast.expr_context]) -> set[str]:
    """The names that a statement sets (ast.Store) or reads (ast.Load)."""
    return {node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, use)}


@pytest.fixture(scope="module")
def read(link_world: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable]:
    """Read a config with its data in a small world of its own."""
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("CLIPBERT_BERT", "CLIPBERT_WEIGHTS"):
            patch.delenv(variable, raising=False)

        @functools.cache
        def load(path: Path) -> Config:
            world = link_world(tmp_path_factory.mktemp(path.stem) / "world")
            for kind in ("", "qa_", "choice_"):
                (world / f"{kind}val.jsonl").symlink_to(world / f"{kind}test.jsonl")
            (world / "pretrain_val.jsonl").symlink_to(world / "pretrain_test.jsonl")
            for variable in ("SHAPES_ROOT", "CLIPBERT_DATA"):
                patch.setenv(variable, str(world))
            config = load_config(str(path))
            train_vocabularies(config)
            return config

        yield lambda path: copy.deepcopy(load(path))


def loaders(config: Config) -> dict[str, dict[str, Any]]:
    """The dataloaders of a config by split."""
    return {split: config[f"{split}_dataloader"] for split in SPLITS if f"{split}_dataloader" in config}


def step_of(loader: dict[str, Any], kind: str) -> dict[str, Any]:
    """The transform of a kind in a dataloader's pipeline."""
    return next(step for step in loader["dataset"]["pipeline"] if step["type"] == kind)


def test_there_are_configs():
    assert len(TINY) >= 2
    assert len(LARGE) >= 1


@pytest.mark.parametrize("path", ALL, ids=name_of)
def test_a_leaf_inherits_bases_alone(path: Path):
    assert bases_of(path)
    for base in bases_of(path):
        assert base.is_relative_to(BASES)
        for part in bases_of(base):
            assert base.parent.name in ("ablations", "other_datasets"), "no other bases put others together"
            assert part.is_relative_to(BASES)
            assert not bases_of(part)


@pytest.mark.parametrize("path", ALL, ids=name_of)
def test_whatever_a_leaf_sets_has_an_effect(path: Path):
    statements = ast.parse(path.read_text()).body
    own = {name for statement in statements for name in names(statement, ast.Store)} - {"_base_"}
    used = {name for statement in statements for name in names(statement, ast.Load)}
    assert own - used <= RUNNER_KEYS, "of what a base made from such a name, nothing changes"
    for statement in statements:
        inherited = {
            node.attr
            for node in ast.walk(statement)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "_base_"
        }
        overridden = inherited & own - names(statement, ast.Store)
        assert not overridden, "_base_.name is the value before this file overrides it"


def test_a_name_of_a_base_set_anew_reaches_a_loader_only_by_composition(tmp_path: Path):
    leaf = tmp_path / "leaf.py"
    leaf.write_text(f"""
_base_ = "{BASES / "ablations" / "msrvtt_qa.py"}"
train_clips = dict(type="SampleClips", num_clips=7, num_frames=1, clip_seconds=1.0, mode="random")
test_clips = train_clips
train_dataloader = dict(dataset=dict(pipeline=[dict(type="OpenVideo"), train_clips, *_base_.frames_and_text]))
""")
    config = load_config(str(leaf))
    assert config.test_clips.num_clips == step_of(config.train_dataloader, "SampleClips").num_clips == 7
    assert step_of(config.test_dataloader, "SampleClips").num_clips == 1, "set anew, but not composed"


@pytest.mark.parametrize("path", ALL, ids=name_of)
def test_no_two_settings_are_one_object(path: Path):
    seen = set()

    def visit(node: Any) -> None:
        if isinstance(node, (dict, list)):
            assert id(node) not in seen, "who changes the one would change the other"
            seen.add(id(node))
            for value in node.values() if isinstance(node, dict) else node:
                visit(value)

    visit(dict(as_written(path)))


@pytest.mark.parametrize("path", RECIPES, ids=name_of)
def test_a_file_name_says_the_recipe(path: Path, read: Callable):
    config, name = read(path), path.stem
    recipe = re.search(r"_\d+xb(\d+)(?:-(\d+)x(\d+))?-(\d+)e_", name)
    if recipe is None:
        assert path in OWN, "only those for own data have no recipe"
        return
    batch, clips, frames, epochs = (None if value is None else int(value) for value in recipe.groups())
    assert config.train_dataloader.batch_size == batch
    assert config.train_cfg.max_epochs == epochs
    if clips is not None:
        sampling = step_of(config.train_dataloader, "SampleClips")
        assert (sampling.num_clips, sampling.num_frames, sampling.mode) == (clips, frames, "random")
    opening = path.read_text().partition("_base_")[0]
    assert f"python tools/train.py {path.relative_to(CONFIGS.parent)}" in opening


def check_validation_of(config: Config) -> None:
    """Validation is a cheaper test of the same kind, on frames such as the model is trained on, and selects the weights."""
    val, test = config.val_dataloader.dataset, config.test_dataloader.dataset
    assert val.type == test.type
    assert val.test_mode
    assert (config.val_cfg.type, config.val_evaluator.type) == (
        config.test_cfg.type.replace("Test", "Val"),
        config.test_evaluator.type,
    )
    train = config.train_dataloader.dataset.get("datasets", [config.train_dataloader.dataset])[0]
    for kind, setting in (("ResizePad", "size"), ("SampleClips", "num_frames"), ("SampleClips", "clip_seconds")):
        steps = [step for data in (train, val) for step in data.pipeline if step.type == kind]
        assert len({step[setting] for step in steps}) <= 1, "what is validated looks like what is trained on"
    assert config.default_hooks.checkpoint.save_best == "auto"
    assert "early_stopping" not in config.default_hooks


@pytest.mark.parametrize("path", TRAINED, ids=name_of)
def test_whatever_is_trained_is_validated_and_its_best_weights_are_kept(path: Path):
    check_validation_of(as_written(path))


@pytest.mark.parametrize("path", OWN, ids=name_of)
def test_own_data_is_validated_if_there_is_a_file_for_it(
    path: Path, read: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    check_validation_of(read(path))
    monkeypatch.setenv("CLIPBERT_DATA", str(tmp_path))
    config = load_config(str(path))
    assert config.val_dataloader is config.val_cfg is config.val_evaluator is None
    assert config.default_hooks.checkpoint.max_keep_ckpts == 1, "small runs do not fill the disk"


def test_the_rate_of_each_recipe_is_for_its_global_batch():
    assert len(TRAINED) > 90
    for path in TRAINED:
        gpus, batch, accumulation = re.search(r"_(\d+)xb(\d+)(?:-accum(\d+))?", path.stem).groups(default="1")
        items = int(gpus) * int(batch) * int(accumulation)
        assert as_written(path).auto_scale_lr == dict(enable=False, base_batch_size=items), path


@pytest.mark.parametrize("path", LEAVES, ids=name_of)
def test_what_has_to_agree_agrees(path: Path, read: Callable):
    config = read(path)
    model = config.model
    width = model.encoder.hidden_size
    assert model.projection.out_channels == model.head.in_channels == width
    assert model.data_preprocessor.vocab_size == model.encoder.vocab_size
    if "mlm_head" in model:
        assert (model.mlm_head.in_channels, model.mlm_head.vocab_size) == (width, model.encoder.vocab_size)
    sizes = {step_of(loader, "ResizePad").size for loader in loaders(config).values()}
    words = {step_of(loader, "Tokenize").tokenizer for loader in loaders(config).values()}
    assert len(sizes) == len(words) == 1, "training and testing prepare alike"
    # The rate rises over the first tenth of the steps and falls to 0 (Section 3 of the paper).
    (schedule,) = config.param_scheduler
    assert (schedule.type, schedule.warmup_share, schedule.convert_to_iter_based) == ("WarmupLinearLR", 0.1, True)


@pytest.mark.parametrize("path", LEAVES, ids=name_of)
def test_datasets_give_what_the_model_takes(path: Path, read: Callable):
    config = read(path)
    for split, loader in loaders(config).items():
        loader = Runner.build_dataloader(loader | dict(num_workers=0, persistent_workers=False, batch_size=2), seed=0)
        data = next(iter(loader))
        preprocessor = MODELS.build(config.model.data_preprocessor)
        inputs = preprocessor(data)["inputs"]
        size = step_of(config[f"{split}_dataloader"], "ResizePad").size
        assert inputs["frames"].shape[0] == 2
        assert inputs["frames"].shape[3:] == (3, size, size)
        tokenizer = loader.dataset.pipeline.transforms[-2].tokenizer
        if "mlm_labels" not in inputs:  # the captions reach the model, none as [UNK]
            texts = [text for sample in data["data_samples"] for text in sample.texts]
            for ids, mask, text in zip(inputs["text_ids"], inputs["text_mask"], texts, strict=True):
                assert tokenizer.decode(ids[mask.bool()]).replace(" ,", ",") == f"[CLS] {text} [SEP]"
        if split == "train" and "match_labels" in data["data_samples"][0]:
            labels = np.concatenate([sample.match_labels for sample in data["data_samples"]])
            assert len(labels) == len(inputs["text_ids"])
            assert set(labels) <= {0, 1}


def test_queries_are_tested_with_the_model_and_the_clips_of_retrieval(read: Callable):
    (path,) = EVALUATIONS
    (trained,) = [path for path in SHAPES if path.stem.endswith("-retrieval")]
    config, retrieval = load_config(str(path)), load_config(str(trained))
    assert config.model == retrieval.model
    assert config.test_dataloader.dataset.pipeline == retrieval.test_dataloader.dataset.pipeline
    assert trained.name in path.read_text().partition("_base_")[0]
    assert "train_dataloader" not in config
    dataset = Runner.build_dataloader(read(path).test_dataloader | dict(num_workers=0), seed=0).dataset
    assert len(dataset) == 7
    assert all(spans for i in range(7) for spans in dataset[i]["data_samples"].spans)


def test_the_vectors_of_a_shortlist_are_of_the_model_and_the_clips_of_retrieval(read: Callable):
    shortlist, retrieval = (
        next(read(path) for path in SHAPES if path.stem.endswith(f"-{kind}")) for kind in ("shortlist", "retrieval")
    )
    assert (
        shortlist.load_from == f"work_dirs/{Path(retrieval.filename).stem}/epoch_{retrieval.train_cfg.max_epochs}.pth"
    )
    assert shortlist.model.encoder.pop("vector_size")
    assert shortlist.model.pop("distillation").type == "VectorDistillation"
    del retrieval.model.pack_pairs
    assert shortlist.model == retrieval.model
    for split in SPLITS:
        ours, theirs = (step_of(each[f"{split}_dataloader"], "SampleClips") for each in (shortlist, retrieval))
        assert ours == theirs


def test_the_backbone_that_names_objects_is_that_of_the_pretraining(read: Callable):
    (pretraining,) = [path for path in SHAPES if path.stem.endswith("-pretrain")]
    objects, config = read(OBJECTS), read(pretraining)
    assert objects.model.backbone == config.model.backbone
    assert objects.model.data_preprocessor.mean == config.model.data_preprocessor.mean
    assert objects.model.data_preprocessor.std == config.model.data_preprocessor.std
    assert objects.model.data_preprocessor.to_rgb, "mmpretrain reads BGR"
    assert config.load_from == f"work_dirs/{OBJECTS.stem}/epoch_{objects.train_cfg.max_epochs}.pth"


@pytest.mark.parametrize("path", TINY, ids=name_of)
def test_one_step_of_training_reaches_every_parameter(path: Path, read: Callable, without_gradient: Callable):
    config = read(path)
    model = MODELS.build(config.model)
    model.init_weights()
    for module in model.backbone.modules():
        if isinstance(module, (nn.BatchNorm2d, FoldedNorm)) and not module.weight.any():
            nn.init.constant_(
                module.weight, 0.1
            )  # mmpretrain lets each block begin as the identity, with no gradient inside
    here = dict(num_workers=0, persistent_workers=False, batch_size=4)
    loader = Runner.build_dataloader(config.train_dataloader | here, seed=0)
    wrapper = build_optim_wrapper(model, config.optim_wrapper)
    model.train()
    before = {name: value.detach().clone() for name, value in model.named_parameters() if value.requires_grad}
    batch = model.data_preprocessor(next(iter(loader)), True)
    loss, log = model.parse_losses(model(**batch, mode="loss"))
    loss.backward()
    # A softmax over options does not change where all their logits do.
    needless = {"head.classifier.2.bias"} if config.model.head.type == "MultipleChoiceHead" else set()
    if config.model.get(
        "pack_pairs"
    ):  # nor does one over tokens where the bias of all keys does; unpacked it gets rounding errors
        needless = {"encoder.bert.encoder.layer.2.attention.self.key.bias"}
    assert set(without_gradient(model)) <= needless
    wrapper.step()
    still = [name for name, value in model.named_parameters() if name in before and torch.equal(before[name], value)]
    assert set(still) <= needless
    # Fresh weights know nothing: the losses begin near the logarithms of the number of choices.
    answers = {"OpenEndedHead": 14, "MultipleChoiceHead": 5, "MatchingHead": 2}
    first = next(value.item() for name, value in log.items() if name.startswith("loss_") and name != "loss_mlm")
    if config.model.head.type in answers and "distillation" not in config.model:
        assert first == pytest.approx(np.log(answers[config.model.head.type]), abs=0.15)
    if "loss_mlm" in log:
        losses = []
        for _ in range(16):  # of a few masked words, one draw of the head says little
            nn.init.normal_(model.mlm_head.transform[0].weight, std=0.02)
            losses.append(model(**batch, mode="loss")["loss_mlm"].item())
        assert np.mean(losses) == pytest.approx(np.log(config.model.encoder.vocab_size), rel=0.15)


@pytest.mark.parametrize("path", TINY, ids=name_of)
def test_weight_decay_spares_biases_and_norms(path: Path, read: Callable):
    config = read(path)
    model = MODELS.build(config.model)
    wrapper = build_optim_wrapper(model, config.optim_wrapper)
    decays = {id(value): group["weight_decay"] for group in wrapper.param_groups for value in group["params"]}
    norms = {
        id(value)
        for module in model.modules()
        if isinstance(module, (nn.LayerNorm, nn.BatchNorm2d))
        for value in module.parameters()
    }
    for name, value in model.named_parameters():
        if not value.requires_grad:
            assert id(value) not in decays
            continue
        spared = id(value) in norms or name.endswith("bias") or not value.ndim
        assert decays[id(value)] == (0 if spared else 1e-3), name
    assert {group["lr"] for group in wrapper.param_groups} == {config.optim_wrapper.optimizer.lr}


def test_the_paper_s_model_is_built(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CLIPBERT_WEIGHTS", "weights.pth")
    path, *others = sorted(LARGE, key=lambda path: path.parent.name != "retrieval")
    config = load_config(str(path)).model
    for other in others:
        own = load_config(str(other)).model
        assert own.encoder.pop("pixel_sampling", None) == (100 if "mlm_head" in own else None)
        assert {name: config[name] for name in config if name != "head"} == {
            name: own[name] for name in config if name != "head"
        }
    model = MODELS.build(config)
    model.train()
    names = {name for name, value in model.named_parameters() if not value.requires_grad}
    # Batch norms, stem and first stage stay as they are.
    assert names == {
        name
        for name, _ in model.backbone.named_parameters(prefix="backbone")
        if ".bn" in name or "downsample.1" in name or name.startswith(("backbone.conv1", "backbone.layer1"))
    }
    # The 53 batch norms are folded into the convolutions before them.
    assert sum(isinstance(module, FoldedNorm) for module in model.modules()) == 53
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    # The stride of a stage sits in its first 1x1 convolution, as in the Caffe-style ResNet.
    assert model.backbone.layer2[0].conv1.stride == (2, 2)
    assert model.backbone.layer2[0].conv2.stride == (1, 1)
    # ResNet-50 without its classifier, the projection, BERT-base, places and kind of grid cells with their norm, the head.
    resnet, projection = 23_508_032, 2048 * 768 * 9
    bert, visual = 109_482_240, (100 + 100 + 1 + 2) * 768
    head = 768 * 1536 + 1536 + 1536 * 2 + 2
    assert sum(value.numel() for value in model.parameters()) == resnet + projection + bert + visual + head


def test_without_weights_nothing_is_frozen(read: Callable):
    (path,) = [leaf for leaf in LEAVES if leaf.stem == "clipbert_custom"]
    config = read(path)
    assert all(read(each).load_from is None for each in OWN)
    model = MODELS.build(config.model).train()
    assert all(value.requires_grad for value in model.parameters())
    assert all(module.training for module in model.modules())


def write_text_model(folder: Path) -> str:
    """Write what says the sizes of a small text model, and its vocabulary, as a Hugging Face folder has them."""
    folder.mkdir()
    sizes = dict(hidden_size=24, num_hidden_layers=1, num_attention_heads=2, intermediate_size=48, vocab_size=97)
    (folder / "config.json").write_text(json.dumps(dict(model_type="bert", **sizes)))
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "circle"]))
    return str(folder)


@pytest.mark.parametrize("path", OWN, ids=name_of)
def test_all_follows_from_what_stands_at_the_top_of_a_config_for_own_data(
    path: Path, read: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    data = read(path).data_root
    monkeypatch.setenv("CLIPBERT_DATA", data)
    monkeypatch.setenv("CLIPBERT_BERT", write_text_model(tmp_path / "bert"))
    monkeypatch.setenv("CLIPBERT_FRAME_SIZE", "32")
    monkeypatch.setenv("CLIPBERT_BATCH_SIZE", "3")
    config = load_config(str(path))
    assert config.load_from == [str(tmp_path / "bert")]
    for split in SPLITS:
        loader = config[f"{split}_dataloader"]
        assert (loader.batch_size, loader.dataset.data_root) == (3, data)
        assert step_of(loader, "ResizePad").size == 32
        assert (step_of(loader, "Tokenize").tokenizer, step_of(loader, "Tokenize").train_on) == (config.bert, [])
    width = config.encoder.hidden_size
    assert (width, config.model.data_preprocessor.vocab_size, config.model.encoder.architecture) == (
        24,
        97,
        config.bert,
    )
    assert config.model.projection.out_channels == config.model.head.in_channels == width
    if path in LARGE:  # slow, and its settings are those lines
        return
    model = MODELS.build(config.model)
    assert model.encoder.bert.embeddings.word_embeddings.weight.shape == (97, 24)
    assert len(model.encoder.bert.encoder.layer) == 1
    loader = Runner.build_dataloader(config.train_dataloader | dict(num_workers=0, persistent_workers=False), seed=0)
    losses = model(**model.data_preprocessor(next(iter(loader)), True), mode="loss")
    assert all(torch.isfinite(value).all() for value in losses.values())


@pytest.mark.parametrize("path", OWN, ids=name_of)
@pytest.mark.parametrize("variable", ["CLIPBERT_FRAME_SIZE", "CLIPBERT_BATCH_SIZE", "CLIPBERT_EPOCHS"])
def test_a_variable_that_is_no_number_is_named(path: Path, variable: str, monkeypatch: pytest.MonkeyPatch):
    for value in ("abc", "0", "-64", "1.5"):
        monkeypatch.setenv(variable, value)
        with pytest.raises(OptionError, match=rf"^{variable}: expected a whole number, 1 or more, got '{value}'\.$"):
            Config.fromfile(str(path))
    monkeypatch.setenv(variable, "")
    with pytest.raises(
        OptionError, match=rf": expected a value of the environment variable {variable}, got nothing\. Set it"
    ):
        load_config(str(path))


def test_own_data_goes_on_with_the_sizes_and_the_vocabulary_of_a_checkpoint(
    read: Callable, checkpoint: Path, own_world: Path, tokenizer: str, monkeypatch: pytest.MonkeyPatch
):
    (path,) = [path for path in OWN if path.stem == "clipbert_tiny_custom-qa"]
    monkeypatch.setenv("CLIPBERT_DATA", str(own_world))
    monkeypatch.setenv("CLIPBERT_WEIGHTS", str(checkpoint))
    config = load_config(str(path))
    assert config.load_from == [str(checkpoint)]
    assert (config.model.encoder.hidden_size, config.model.encoder.num_layers) == (16, 2)
    assert config.model.head.in_channels == config.model.projection.out_channels == 16
    assert config.model.head.num_answers == len(json.loads((own_world / "answers.json").read_text()))
    train_vocabularies(config)
    words = [
        json.loads((Path(folder) / "tokenizer.json").read_text()) for folder in (tokenizer, own_world / "tokenizer")
    ]
    assert words[0]["model"] == words[1]["model"]
    known = (own_world / "tokenizer" / "training_words.txt").read_text().split("\n")
    assert {"what", "color"} <= set(known), (
        "words of its own questions, beside those that the checkpoint was trained on"
    )
    assert set((Path(tokenizer) / "training_words.txt").read_text().split("\n")) < set(known)


def test_a_vocabulary_of_own_data_is_of_captions_and_questions(
    own_world: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("CLIPBERT_DATA", str(own_world))
    (own_world / "pretrain.jsonl").unlink()
    for path in OWN:
        files = step_of(load_config(str(path)).train_dataloader, "Tokenize").train_on
        assert files == [str(own_world / f"{name}.jsonl") for name in ("train", "qa_train", "choice_train")]
    monkeypatch.setenv("CLIPBERT_DATA", str(tmp_path / "none"))
    assert step_of(load_config(str(OWN[0])).train_dataloader, "Tokenize").train_on == [
        str(tmp_path / "none/train.jsonl")
    ]
    monkeypatch.setenv("CLIPBERT_BERT", str(tmp_path / "none"))
    with pytest.raises(
        CheckpointError, match=r"^There is no text model \S+/none: expected a folder with a config\.json, or a "
    ):
        load_config(str(OWN[0]))
