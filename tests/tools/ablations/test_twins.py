"""The twins of the paper's tables on Shapes: each row has its counterpart, differs in what is varied, and trains a step."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from ablations.plan import Plan
from ablations.steps import DATA_FOLDER, DataStep, TestStep, TrainingStep, replace_text
from ablations.tables import Table, find_table, read_table, table_names
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from clipbert_mm.datasets import train_vocabularies
from clipbert_mm.datasets.shapes.hard import HARD_ANSWERS, HardShapesWorld
from clipbert_mm.registry import MODELS

CLIPS, SIZE = (rf"(train|test)_dataloader\.dataset\.pipeline\.{step}" for step in (r"1\.", r"3\.size"))
VARIED = {
    "figure4": rf"test_{CLIPS.removeprefix('(train|test)_')}(num_clips|mode)|{CLIPS}num_frames",
    "table1": SIZE,
    "table2": rf"{CLIPS}num_frames|model\.temporal_fusion\..*",
    "table3": rf"train_{CLIPS.removeprefix('(train|test)_')}num_clips|model\.aggregator\.type",
    "table4": rf"train_{CLIPS.removeprefix('(train|test)_')}(num_clips|mode)",
    "table5": r"model\.backbone\.norm_eval",
    "table6": r"model\.frozen.*",
}
"""The settings that the rows of a table may differ in."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hard") / "world"
    HardShapesWorld(images=4, test_images=2, train_videos=3, test_videos=3, options=3).write(folder)
    return folder


@pytest.fixture(scope="module")
def tables() -> dict[str, Table]:
    return {name: read_table(find_table(name, "shapes")) for name in table_names("shapes")}


@pytest.fixture(scope="module")
def plan(tables: dict[str, Table], tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return Plan(list(tables.values()), seeds=[0], out=tmp_path_factory.mktemp("plan"))


@pytest.fixture
def scope() -> Iterator[None]:
    with DefaultScope.overwrite_default_scope("clipbert_mm"):
        yield


def settings(config: dict[str, Any]) -> dict[str, Any]:
    """The settings of a config by dotted keys."""
    found = {}

    def visit(key: str, node: Any) -> None:
        if not isinstance(node, (dict, list)):
            found[key] = node
            return
        for name, value in node.items() if isinstance(node, dict) else enumerate(node):
            visit(f"{key}.{name}", value)

    for name, value in config.items():
        visit(name, value)
    return found


def test_every_table_of_the_paper_has_its_twin(tables: dict[str, Table]):
    # Of the paper's rows these have none: ImageNet and TSN, and the fourth of LogSumExp is in Table 4.
    assert {name: len(table.rows) for name, table in tables.items()} == {
        "figure4": 10,
        "table1": 4,
        "table2": 9,
        "table3": 8,
        "table4": 4,
        "table5": 5,
        "table6": 3,
    }
    numbers = {claim.number for table in tables.values() for claim in table.claims}
    assert numbers == {"i", "ii", "ii, control", "iii", "iv", "v", "vi"}
    for name, table in tables.items():
        assert table.seeds == (0, 1, 2)
        shown = [row.paper["qa"] for row in table.rows.values() if row.paper]
        assert len({json.dumps(paper) for paper in shown}) == len(shown) or name in ("table1", "figure4")


def test_rows_differ_in_what_their_table_varies_alone(tables: dict[str, Table], plan: Plan):
    for name, table in tables.items():
        for task in ("retrieval", "qa"):
            steps = [plan.tests[name, row, task, 0] for row in table.rows]
            known = [settings({**step.config, **step.training.config}) for step in steps]
            keys = {key for one in known for key in one}
            differing = {key for key in keys if len({json.dumps(one.get(key, "none")) for one in known}) > 1}
            assert differing, name
            assert not [key for key in differing if not re.fullmatch(VARIED[name], key)], name


def test_a_table_starts_from_what_its_rows_say(tables: dict[str, Table], plan: Plan):
    def starts(row: str) -> list[str]:
        return [start.title for start in plan.tests["table5", row, "qa", 0].training.starts]

    found = {row: starts(row) for row in tables["table5"].rows}
    named = {None: [], **{name: [f"training of start '{name}', seed 0"] for name in tables["table5"].starts}}
    assert found == {
        "random-random": named[None],
        "random-text": named["text"],
        "objects-random": named["objects"],
        "objects-text": named["objects_text"],
        "image-text": named["pretrain"],
    }
    everywhere = {test.training.starts[0].folder for (name, *_), test in plan.tests.items() if name != "table5"}
    assert everywhere == {plan.tests["table5", "image-text", "qa", 0].training.starts[0].folder}


def test_what_is_the_same_is_done_once(plan: Plan):
    baseline = plan.tests["table1", "l64", "qa", 0]
    for name, row in (("table2", "t1"), ("table5", "image-text"), ("table6", "trained-trained")):
        assert plan.tests[name, row, "qa", 0] is baseline
    for name, row in (("table3", "n1"), ("table4", "sparse-random-n1"), ("figure4", "t1-n4")):
        assert plan.tests[name, row, "qa", 0].training is baseline.training
    assert plan.tests["table3", "n1", "qa", 0] is plan.tests["figure4", "t1-n8", "qa", 0]
    assert sum(isinstance(step, DataStep) for step in plan.steps.values()) == 1


def test_a_quick_run_has_the_same_rows(plan: Plan, tmp_path: Path):
    less = Plan([read_table(find_table("table5", "shapes"), quick=True)], seeds=None, out=tmp_path)
    assert {("table5", *rest) for _, *rest in less.tests} == {test for test in plan.tests if test[0] == "table5"}
    for (_, *rest), step in less.tests.items():
        full = plan.tests[("table5", *rest)].training
        for quick, usual in [(step.training, full), *zip(step.training.starts, full.starts, strict=True)]:
            assert quick.config["train_cfg"]["max_epochs"] < usual.config["train_cfg"]["max_epochs"]


def test_every_row_trains_a_step(plan: Plan, world: Path, scope: None):
    rows = [step for step in plan.steps.values() if isinstance(step, TrainingStep)]
    # Questions have another head and nothing else that a row changes.
    tried = [step for step in rows if ", qa, " not in step.title or "table1, l64" in step.title]
    assert len(rows) / 2 < len(tried) < len(rows)
    for step in tried:
        take_step(step, world)


def take_step(step: TrainingStep, world: Path) -> None:
    """Check that the losses of a batch and an update by them are finite."""
    config = Config(replace_text(step.config, DATA_FOLDER, str(world)))
    train_vocabularies(config)
    loader = config.train_dataloader
    loader.update(batch_size=2)
    torch.manual_seed(0)
    model = MODELS.build(config.model)
    model.init_weights()
    model.train()
    optimizer = build_optim_wrapper(model, config.optim_wrapper)
    batch = next(iter(Runner.build_dataloader(loader, seed=0)))
    values = model.train_step(batch, optimizer)
    assert all(torch.isfinite(value).all() for value in values.values()), step.title


@pytest.mark.parametrize("task", ["retrieval", "qa"])
def test_a_test_answers_every_question_of_the_videos(plan: Plan, world: Path, scope: None, task: str):
    step: TestStep = plan.tests["figure4", "t2-n4", task, 0]
    config = Config(replace_text(step.config, DATA_FOLDER, str(world)))
    train_vocabularies(config)
    torch.manual_seed(0)
    model = MODELS.build(config.model).eval()
    model.init_weights()
    evaluator = Evaluator(config.test_evaluator)
    loader = Runner.build_dataloader(config.test_dataloader, seed=0)
    for batch in loader:
        with torch.no_grad():
            evaluator.process(model.test_step(batch), batch)
    metrics = evaluator.evaluate(len(loader.dataset))
    asked = (world / ("choice_test.jsonl" if task == "retrieval" else "qa_test.jsonl")).read_text().splitlines()
    right = metrics["accuracy"] * len(asked) / 100
    assert right == pytest.approx(round(right)), "a share of all questions"
    assert metrics["ceiling"] == metrics["coverage"] == 100
    assert model.head.classifier[-1].out_features == (2 if task == "retrieval" else len(HARD_ANSWERS))
