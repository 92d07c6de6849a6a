"""The configs of the paper's tables: each is found from the paper and back, builds, and takes a training and a test step."""

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
from mmengine.dataset import Compose
from mmengine.evaluator import Evaluator
from mmengine.optim import build_optim_wrapper
from mmengine.runner import Runner
from shrinking import build, shrink_loader, shrink_model
from torch import nn

from clipbert_mm.engine.config import RUNNER_KEYS, load_config
from clipbert_mm.models import MultipleChoiceHead
from clipbert_mm.models.backbones.folding import FoldedNorm
from clipbert_mm.registry import MODELS
from clipbert_mm.structures import VideoTextSample

ROOT = Path(__file__).resolve().parents[1]
ROWS = sorted((ROOT / "configs" / "ablations").glob("*.py"))
PAGE = ROOT / "docs" / "paper_ablations.md"
BASES = ROOT / "configs" / "_base_"
CLIPS, FRAMES = (rf"(train|val|test)_dataloader\.dataset\.pipeline\.{step}" for step in (1, 3))
VARIED = {
    1: rf"{FRAMES}\.size",
    2: rf"{CLIPS}\.num_frames|model\.temporal_fusion\..*",
    3: rf"{CLIPS}\.num_clips|test_dataloader\.dataset\.pipeline\.1\.mode|model\.aggregator\.type",
    4: rf"{CLIPS}\.(num_clips|mode)",
    5: r"load_from.*|model\.(data_preprocessor|backbone)\..*",
    6: r"model\.frozen.*",
}
"""The settings that the rows of each table differ in."""
HEADS = dict(
    matching=dict(type="MatchingHead", hidden_channels=1536),
    ranking=dict(type="MarginRankingHead", hidden_channels=1536, margin=5.0),  # no pair is beyond it
    open_ended=dict(type="OpenEndedHead", num_answers=1500, hidden_channels=1536),
    multiple_choice=dict(type="MultipleChoiceHead", hidden_channels=1536),
    soft_answers=dict(type="SoftAnswerHead", num_answers=3129, hidden_channels=1536),
    count=dict(type="CountHead", hidden_channels=1536),
    pretraining=dict(type="MatchingHead", hidden_channels=None),
)


def name_of(path: Path) -> str:
    return path.stem


@pytest.fixture(scope="module")
def msrvtt(link_world: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder laid out as MSRVTT's, of the small world; a question asks for the second word of a caption."""
    folder = link_world(tmp_path_factory.mktemp("msrvtt") / "world")
    annotations = folder / "annotations"
    annotations.mkdir()
    words = set()
    for split, retrieval, questions in (("train", "train-7k", "train"), ("test", "val-local", "val")):
        records = [json.loads(line) for line in (folder / f"{split}.jsonl").read_text().splitlines()]
        asked = [dict(video=r["video"], question=r["caption"], answer=r["caption"].split()[1]) for r in records]
        words |= {record["answer"] for record in asked}
        for name, lines in ((f"retrieval_{retrieval}", records), (f"qa_{questions}", asked)):
            (annotations / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    places = {word: place for place, word in enumerate(sorted(words))}
    (annotations / "qa_answers.json").write_text(json.dumps(places))
    return folder


@pytest.fixture(scope="module")
def read(msrvtt: Path, tokenizer: str) -> Iterator[Callable[[Path], Config]]:
    """Read a config with its data in the small world."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLIPBERT_MSRVTT", str(msrvtt))
        patch.setenv("CLIPBERT_BERT", tokenizer)
        for variable in ("CLIPBERT_WEIGHTS", "CLIPBERT_RESNET"):
            patch.delenv(variable, raising=False)
        once = functools.cache(lambda path: load_config(str(path)))
        yield lambda path: copy.deepcopy(once(path))


@functools.lru_cache(maxsize=2)  # neighbours have the same, one for each task
def build_without_numbers(config: str) -> nn.Module:
    """Build the model of a config, which is given as JSON, at its full size: names and shapes, no numbers."""
    with pytest.MonkeyPatch.context() as patch, torch.device("meta"):
        patch.setattr(torch, "linspace", functools.partial(torch.linspace, device="cpu"))  # mmpretrain reads it
        return MODELS.build(json.loads(config)).train()


def settings(config: Config) -> dict[str, Any]:
    """What a run reads of a config, by dotted keys."""
    found = {}

    def visit(key: str, node: Any) -> None:
        if not isinstance(node, (dict, list)):
            found[key] = node
            return
        for name, value in node.items() if isinstance(node, dict) else enumerate(node):
            visit(f"{key}.{name}", value)

    for name in RUNNER_KEYS & set(config):
        visit(name, config[name])
    return found


def check_gradients(model: nn.Module, without_gradient: Callable) -> None:
    """Every trainable parameter has a gradient, and every frozen one none."""
    # A softmax over options does not change where all their logits do: there the gradient of the last bias is zero or about.
    needless = {"head.classifier.2.bias"} if isinstance(model.head, MultipleChoiceHead) else set()
    assert set(without_gradient(model)) <= needless
    assert all((value.grad is not None) == value.requires_grad for value in model.parameters())


def test_every_row_of_the_six_tables_has_its_configs():
    rows = {1: 4, 2: 9, 3: 9, 4: 4, 5: 6, 6: 3}  # counted in the paper
    for task in ("msrvtt-retrieval", "msrvtt-qa"):
        for table, count in rows.items():
            assert sum(path.stem.startswith(f"table{table}_") and path.stem.endswith(task) for path in ROWS) == count
    assert len(ROWS) == 2 * sum(rows.values())


def test_the_page_and_the_configs_name_the_same_rows_and_numbers():
    listed = {}
    for line in PAGE.read_text().splitlines():
        if links := re.findall(r"\(\.\./(configs/ablations/[^)]+)\)", line):
            label, *numbers = [cell.strip() for cell in line.split("|")[1:7]]
            listed |= dict.fromkeys(links, (label, numbers))
    assert set(listed) == {str(path.relative_to(ROOT)) for path in ROWS}
    for path in ROWS:
        label, numbers = listed[str(path.relative_to(ROOT))]
        opening = path.read_text().partition("_base_")[0]
        table = re.match(r"table(\d)_", path.stem)[1]
        assert opening.startswith(f'# Table {table} of the paper, row "{label}": ')
        said = re.search(r"The paper's numbers: (.*)\.\n", opening)[1]
        retrieval = dict(zip(("R1", "R5", "R10", "MdR"), numbers[:4], strict=True))
        wanted = retrieval if "retrieval" in path.stem else {"accuracy": numbers[4]}
        assert said == ", ".join(f"{name} {value}" for name, value in wanted.items())
        gpus = re.search(r"_(\d)xb16-", path.stem)[1]
        assert f"bash tools/dist_train.sh {path.relative_to(ROOT)} {gpus}\n" in opening


@pytest.mark.parametrize("path", ROWS, ids=name_of)
def test_a_row_varies_what_its_table_is_about_and_nothing_else(path: Path, read: Callable):
    base = BASES / "ablations" / f"{path.stem.rsplit('_', 1)[1].replace('-', '_')}.py"
    own, usual = settings(read(path)), settings(read(base))
    varied = {key for key in {*own, *usual} if own.get(key) != usual.get(key)}
    assert not {key for key in varied if not re.fullmatch(VARIED[int(path.stem[5])], key)}
    reference = re.search(r"_(l448|t1|image-text-pretraining|trained-trained)_", path.stem) is not None
    assert reference == (not varied), "the reference row of Tables 1, 2, 5 and 6 has what the page calls usual"


def test_rows_of_one_recipe_have_one_result(read: Callable):
    results: dict[str, set[str]] = {}
    for path in ROWS:
        recipe = json.dumps(settings(read(path)), sort_keys=True)
        results.setdefault(recipe, set()).add(re.search(r"The paper's numbers: (.*)\.\n", path.read_text())[1])
    assert all(len(numbers) == 1 for numbers in results.values())
    # The reference row stands in four tables; N_train = 1 and 2 by LogSumExp in Tables 3 and 4.
    assert len(results) == len(ROWS) - 2 * (3 + 1 + 1)


@pytest.mark.parametrize("path", ROWS, ids=name_of)
def test_a_row_builds_and_is_what_its_name_says(path: Path, read: Callable):
    config = read(path)
    model = build_without_numbers(json.dumps(config.model.to_dict()))
    clips, frames, epochs = map(int, re.search(r"xb16-(\d+)x(\d+)-(\d+)e_", path.stem).groups())
    loaders = (config.train_dataloader, config.val_dataloader, config.test_dataloader)
    train, validation, test = (
        next(step for step in loader.dataset.pipeline if step["type"] == "SampleClips") for loader in loaders
    )
    assert (train.num_clips, train.num_frames, config.train_cfg.max_epochs) == (clips, frames, epochs)
    assert test.num_frames == frames
    assert (validation.num_clips, validation.num_frames, validation.mode) == (1, frames, "middle")
    manifold = path.stem.startswith(("table3", "table4"))
    assert (test.num_clips, test.mode) == ((16, "uniform") if manifold else (1, "middle"))
    assert train.mode == ("uniform" if "dense-uniform" in path.stem else "random")
    for loader in loaders:
        Compose([step for step in loader.dataset.pipeline if step["type"] != "Tokenize"])
    frozen = {name.split(".")[0] for name, value in model.named_parameters() if not value.requires_grad}
    random = "_random-" in path.stem
    norms = [
        module for module in model.backbone.modules() if isinstance(module, nn.BatchNorm2d if random else FoldedNorm)
    ]
    assert len(norms) == 53
    if random:
        assert not frozen
        assert all(norm.training for norm in norms)
    tables = {"_frozen-frozen_": {"backbone", "projection", "encoder"}, "_frozen-trained_": {"backbone", "projection"}}
    if wanted := next((parts for part, parts in tables.items() if part in path.stem), None):
        assert frozen == wanted
        words = model.encoder.bert.embeddings.word_embeddings.weight
        assert words.requires_grad == ("encoder" not in wanted)
        assert model.encoder.bert.encoder.layer[0].output.dense.weight.requires_grad
    pytorch = re.search(r"_(random|tsn|imagenet)-", path.stem) is not None
    assert model.backbone.layer2[0].conv2.stride == ((2, 2) if pytorch else (1, 1))
    assert model.data_preprocessor.to_bgr != pytorch


@pytest.mark.parametrize("path", ROWS, ids=name_of)
def test_a_row_takes_a_training_and_a_test_step(path: Path, read: Callable, without_gradient: Callable):
    config = read(path)
    model = build(shrink_model(config.model))
    wrapper = build_optim_wrapper(model, config.optim_wrapper)
    data = next(iter(Runner.build_dataloader(shrink_loader(config.train_dataloader), seed=0)))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    losses = model(**model.data_preprocessor(data, True), mode="loss")
    classes = 2 if "retrieval" in path.stem else 1500
    loss, _ = model.parse_losses(losses)
    assert loss.item() == pytest.approx(np.log(classes), abs=1.5)
    loss.backward()
    check_gradients(model, without_gradient)
    wrapper.step()
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    assert {name for name in moved if ".running_" not in name and "num_batches" not in name} == set(trained)
    assert {id(value) for value in wrapper.optimizer.state} == {id(value) for value in trained.values()}

    loader = Runner.build_dataloader(shrink_loader(config.test_dataloader), seed=0)
    model.eval()
    data = next(iter(loader))
    with torch.no_grad():
        predicted = model.test_step(data)
    assert all(sample.scores.isfinite().all() for sample in predicted)
    if "qa" in path.stem:
        evaluator = Evaluator(config.test_evaluator)
        evaluator.process(predicted)
        right = [s.scores.argmax(dim=1).numpy() == s.answer_labels for s in predicted]
        assert evaluator.evaluate(2)["accuracy"] == pytest.approx(np.concatenate(right).mean() * 100)
    else:
        assert [len(sample.scores) for sample in predicted] == [len(sample.texts) for sample in predicted]


@pytest.mark.parametrize("frozen", [[], ["visual_encoder"], ["text_encoder", "fusion_encoder"]], ids=str)
@pytest.mark.parametrize("head", HEADS)
def test_with_each_head_gradients_reach_what_is_trained_and_nothing_else(
    head: str, frozen: list[str], make_batch: Callable, without_gradient: Callable
):
    config = Config.fromfile(BASES / "models" / "clipbert_r50_bert-base.py").model
    config.update(head=dict(HEADS[head]), frozen=frozen)
    if head == "pretraining":
        config.mlm_head = dict(type="MaskedLanguageHead", in_channels=768, vocab_size=30522)
    model = build(shrink_model(config))
    data = make_batch(texts=(4, 4), size=128)
    for sample in data["data_samples"]:
        label(sample, head)
    loss, _ = model.parse_losses(model(**model.data_preprocessor(data, True), mode="loss"))
    loss.backward()
    check_gradients(model, without_gradient)
    still = {"backbone"} | {"projection" for part in frozen if part == "visual_encoder"}
    still |= {"encoder" for part in frozen if part != "visual_encoder"}
    assert {name.split(".")[0] for name, value in model.named_parameters() if value.grad is None} == still


def label(sample: VideoTextSample, head: str) -> None:
    """Give a sample of four texts the labels that a head trains on."""
    sample.match_labels = np.array([1, 0, 1, 0])
    sample.answer_labels = np.array([1, 0] if head == "multiple_choice" else [3, 700, 1499, 0])
    sample.counts = np.array([1, 2, 3, 10], np.float32)
    sample.answer_scores = np.eye(4, 3129, dtype=np.float32)
