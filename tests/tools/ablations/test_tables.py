"""Table files: what cannot be used is named before anything runs; the paper's tables name each of its rows once."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ablations.outcomes import reported_metrics
from ablations.plan import Plan
from ablations.steps import Launcher, TrainingStep
from ablations.tables import PAPER_ROWS, Table, find_table, paper_numbers, read_table, read_tables, table_names

from clipbert_mm.errors import OptionError

ROOT = Path(__file__).resolve().parents[3]
RETRIEVAL = next(str(path) for path in (ROOT / "configs/shapes").glob("*-retrieval.py"))
TABLE = f'''
title = "One"
data = dict(command="python tools/dataset_converters/shapes.py {{data}} --seed {{seed}}", variable="SHAPES_ROOT")
tasks = dict(retrieval=dict(config="{RETRIEVAL}", start=None, validate=False))
rows = dict(one=dict(label=dict(n=1)), two=dict(overrides={{"model.aggregator.type": "MaxAggregator"}}))
'''
CLAIM = "conclusions = [dict(number='i', statement='', task='retrieval', metric='{}', better=['one', 'two'])]\ntitle"


@pytest.fixture
def main(tool: Callable[[str], ModuleType]) -> Callable:
    return tool("analysis_tools/ablation.py").main


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], str]:
    """Write a table file; returns its path."""

    def write(text: str) -> str:
        (tmp_path / "one.py").write_text(text)
        return str(tmp_path / "one.py")

    return write


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands for the weights of all rows of the paper."""
    for variable in ("CLIPBERT_WEIGHTS", "CLIPBERT_RESNET"):
        monkeypatch.setenv(variable, str(tmp_path / "weights.pth"))
    (tmp_path / "weights.pth").write_bytes(b"weights")
    return tmp_path / "weights.pth"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tabel2", "There is no table 'tabel2' (--on paper). Did you mean table2"),
        ("zzz", "There are: figure4, figure5, table1, table2"),
        ("nowhere/table2.py", "There is no table file"),
    ],
)
def test_a_table_that_does_not_exist(main: Callable, name: str, message: str):
    with pytest.raises(OptionError, match=re.escape(message)):
        main([name])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("title =", "titel ="), "needs title"),
        (("rows = dict(one", "rows = dict() #"), "needs rows"),
        (("label=dict(n=1)", "lable=dict(n=1)"), "row 'one' has no 'lable'. Did you mean label?"),
        (("title", "conclusion = []\ntitle"), "'conclusion' is not used by anything. Did you mean conclusions?"),
        (("start=None", "strat=None"), "has no 'strat'. Did you mean start?"),
        (("model.aggr", "modell.aggr"), "one-quick, two, retrieval: --cfg-options modell.aggregator.type: "),
        (("label=dict(n=1)", "paper='table9_x'"), "The paper has no row 'table9_x' for retrieval"),
        ((RETRIEVAL, "nowhere.py"), "there is no config"),
        (("title", "reference = 'three'\ntitle"), "reference 'three' is no row. There are: one, two."),
        (("title", "quick = dict(epochs=1)\ntitle"), "quick has no 'epochs'"),
        (("title", "quick = dict(starts=dict(pre={}))\ntitle"), "quick, starts has no 'pre'. There are: none."),
        (('"One"', "("), "one.py cannot be used (SyntaxError: '(' was never closed"),
        (('"One"', "zz"), "one.py cannot be used (NameError: name 'zz' is not defined). Correct the file."),
        (('"One"', "5"), "one.py: title expects a text, got 5"),
        (("rows = dict", "rows = [1] #"), "one.py: rows expects a dict of dicts, got [1]"),
        (("tasks = dict", "tasks = [1] #"), "one.py: tasks expects a dict of dicts, got [1]"),
        (("title", "seeds = 3\ntitle"), "seeds expects a list of whole numbers from 0, one at least, got 3"),
        (("title", "seeds = (0, 'x')\ntitle"), "one at least, got (0, 'x')"),
        (("title", "seeds = ()\ntitle"), "one at least, got ()"),
        (("two=dict(", "two=dict(tasks=dict(qa=None), "), "row 'two', tasks has no 'qa'. There are: retrieval."),
        (("overrides={", "test=5, overrides={"), "row 'two': test expects a dict with texts as keys, got 5"),
        (("overrides={", "overrides=5, test={"), "row 'two': overrides expects a dict with texts as keys, got 5"),
        (("label=dict(n=1)", "label=5"), "row 'one': label expects a dict, got 5"),
        (("validate=False", "validate='no'"), "validate expects True or False, got 'no'"),
        (("validate=False", "gpus=0"), "gpus expects a whole number from 1, got 0"),
        (("validate=False", "metrics='accuracy'"), "metrics expects a list of texts, got 'accuracy'"),
        (
            ("label=dict(n=1)", "metrics=['t2v/R@1']"),
            "rows name different metrics of task 'retrieval': [t2v/R@1] and []",
        ),
        (("start=None", "start=5"), "start expects a text or a list of texts, got 5"),
        (("start=None", "start='nope'"), "start 'nope' is neither in starts nor a file. There are: none. A model of"),
        ((', variable="SHAPES_ROOT"', ""), "data needs both command and variable, got command"),
        (("title", "quick = dict(data=dict(comand='x'))\ntitle"), "quick, data has no 'comand'. Did you mean command?"),
        (("{data}", "there"), "data: command needs {data}, which stands for the folder that it makes, got python"),
        (("{data}", "'{data}"), "data: command cannot be split into words (No closing quotation): python"),
        (("title", "figure = dict(x='N')\ntitle"), "figure: x is 'N', a label that no row has. There are: n, row."),
        (("title", "figure = dict(x='n', lines='zz')\ntitle"), "figure: lines is 'zz', a label that no row has."),
        (("title", "figure = dict(lines='n')\ntitle"), "figure needs x, the label along the axis, got lines"),
        (("title", "figure = dict(x='row')\ntitle"), "label 'row' of row 'two' expects a number above 0, got 'two'"),
        (("title", "benchmark = dict(step=[])\ntitle"), "benchmark needs config, got step"),
        (("title", "benchmark = dict(config='c.py', conclusions=[{}])\ntitle"), "a conclusion on costs has number"),
        (("validate=False", "metrics=['t2v/R@7']"), "gives no metric 't2v/R@7' of metrics. Did you mean t2v/R@5"),
        (("validate=False", "metrics=['t2v/mAP']"), "its test gives no metric 't2v/mAP' of metrics."),
        (
            ("validate=False", "test={'test_evaluator.type': 'PretrainingAccuracy'}"),
            "no RetrievalMetric and no AnswerA",
        ),
        (("title", CLAIM.format("t2v/R@7")), "gives no metric 't2v/R@7' of conclusion (i). Did you mean t2v/R@5"),
        (
            ("title", CLAIM.format("accuracy")),
            "one-quick, one, retrieval: its test gives no metric 'accuracy' of concl",
        ),
    ],
)
def test_mistakes_in_a_table_file_are_named(
    main: Callable, write: Callable, tmp_path: Path, change: tuple[str, str], message: str
):
    arguments = [write(TABLE.replace(*change)), "--out", str(tmp_path / "out"), "--quick", "--dry-run"]
    with pytest.raises(OptionError, match=re.escape(message)):
        main(arguments)
    assert not (tmp_path / "out").exists()


def test_starts_that_are_misspelt_or_go_in_a_circle_are_named(write: Callable):
    table = TABLE.replace("start=None", "start='pretrain'")

    def read(other: str) -> Table:
        own = (
            f"dict(pretrain=dict(config='{RETRIEVAL}', start='other'), other=dict(config='{RETRIEVAL}', start={other}))"
        )
        return read_table(Path(write(f"{table}starts = {own}\n")))

    assert read("None").rows["one"].runs["retrieval"].starts == ("pretrain",)
    for other in ("gone.pth", "owner/model", "https://host/weights"):
        assert read(f"'{other}'").starts["other"].starts == (other,)
    with pytest.raises(
        OptionError, match=r"start 'pretrian' is neither in starts nor a file\. Did you mean pretrain\?"
    ):
        read("['gone.pth', 'pretrian']")
    with pytest.raises(OptionError, match=r"start 'other': overrides expects a dict with texts as keys, got 5"):
        read("None, overrides=5")
    with pytest.raises(OptionError, match=r"start 'other' starts from itself \(other -> pretrain -> other\)"):
        read("'pretrain'")


def test_a_config_that_is_no_python_is_named(main: Callable, write: Callable, tmp_path: Path):
    (tmp_path / "row.py").write_text("model = dict(\n")
    with pytest.raises(OptionError, match=r"row\.py cannot be used \(SyntaxError: (?!.*<unknown>).*never closed"):
        main([write(TABLE.replace(RETRIEVAL, str(tmp_path / "row.py"))), "--dry-run"])


def test_tables_that_would_write_the_same_report_are_named(write: Callable, tmp_path: Path):
    first = write(TABLE)
    (tmp_path / "other").mkdir()
    for name in ("one", "index"):
        (tmp_path / "other" / f"{name}.py").write_text(TABLE)
    assert [table.name for table in read_tables([first, first], "paper")] == ["one"]
    with pytest.raises(OptionError, match=r"one\.py and .*other/one\.py would both write the report one\.md"):
        read_tables([first, str(tmp_path / "other" / "one.py")], "paper")
    with pytest.raises(OptionError, match=r"index\.py: the report of this table would be index\.md"):
        read_tables([str(tmp_path / "other" / "index.py")], "paper")


@pytest.mark.parametrize(
    ("evaluator", "metrics"),
    [
        (dict(type="RetrievalMetric"), ["t2v/R@10", "v2t/MnR"]),
        (dict(type="clipbert_mm.RetrievalMetric", multi_positive=True), ["t2v/mAP", "v2t/R-precision"]),
        ([dict(type="mmpretrain.Accuracy"), dict(type="AnswerAccuracy")], ["accuracy"]),
    ],
)
def test_metrics_that_a_report_can_show(evaluator: Any, metrics: list[str]):
    assert set(metrics) <= set(reported_metrics(evaluator))


def test_rows_that_are_not_run_need_no_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("CLIPBERT_WEIGHTS", str(tmp_path / "gone.pth"))
    table = read_table(find_table("figure5", "paper"))
    plan = Plan([table], seeds=None, out=tmp_path, conclusions_only=True)
    plan.check_weights()
    assert [step.title.partition(" of ")[0] for step in plan.pending()] == ["benchmark 'memory'", "benchmark 'step'"]
    with pytest.raises(OptionError, match=r"gone\.pth: figure5 clips-1, .*\n.*--skip-missing runs the rest, 2 steps\."):
        Plan([table], seeds=None, out=tmp_path).check_weights()


def test_missing_weights_are_named_before_anything_runs(
    main: Callable, write: Callable, tmp_path: Path, capsys: pytest.CaptureFixture
):
    text = TABLE.replace("two=dict(", "two=dict(start='gone/a.pth', ")
    arguments = [write(text), "--out", str(tmp_path / "out")]
    with pytest.raises(OptionError, match=r"nothing was run:\n  .*/gone/a\.pth: one two\n"):
        main(arguments)
    assert not (tmp_path / "out").exists()
    assert main([*arguments, "--dry-run"]) == 0
    listed = capsys.readouterr().out
    assert re.search(r"^no weights +one two +.*gone/a\.pth$", listed, re.MULTILINE)
    assert "9 steps, 9 to do" in listed  # data, training and test of the other row, for three seeds


def test_rows_that_are_the_same_training_are_one_step(write: Callable, tmp_path: Path):
    text = TABLE.replace(
        "rows = dict(", "rows = dict(same=dict(overrides={'model.aggregator.type': 'LogSumExpAggregator'}), "
    )
    plan = Plan([read_table(Path(write(text)))], seeds=[0], out=tmp_path)
    assert plan.tests["one", "same", "retrieval", 0] is plan.tests["one", "one", "retrieval", 0]
    assert len(plan.steps) == 5  # data, two trainings, two tests


def test_what_a_run_is_hashes_to_does_not_depend_on_folders_but_on_what_is_computed(write: Callable, tmp_path: Path):
    def family(text: str = TABLE, **options: str) -> str:
        table = read_table(Path(write(text)))
        return Plan([table], seeds=[0], out=tmp_path, options=options).tests["one", "one", "retrieval", 0].family

    assert family() == family(**{"visualizer.type": "Visualizer"})
    assert family() != family(**{"optim_wrapper.optimizer.lr": 0.1})
    assert family() != family(TABLE.replace("--seed {seed}", "--seed {seed} --images 9")), "other data"


def test_other_numbers_of_gpus_keep_the_global_batch_and_are_the_same_run(weights: Path, tmp_path: Path):
    table = read_table(find_table("table1", "paper"))
    table = replace(table, rows={"l224": table.rows["l224"]})

    def training(task: str, **options: Any) -> TrainingStep:
        return Plan([table], seeds=[0], out=tmp_path, **options).tests["table1", "l224", task, 0].training

    assert training("retrieval", gpus=8).micro_batch is None
    assert training("retrieval", gpus=2).micro_batch == 0
    assert training("qa", gpus=8).micro_batch == 0, "a recipe for 4"
    assert training("retrieval", gpus=2, micro_batch=4).micro_batch == 4
    assert training("retrieval", gpus=2).family == training("retrieval", gpus=8).family
    assert training("retrieval", gpus=8, amp="bf16").family != training("retrieval", gpus=8).family
    options = training("retrieval", gpus=2, micro_batch=4, amp="bf16").prepare(Launcher())[2:]
    assert options[1] == "2"
    assert options[-5:] == ["--resume", "--micro-batch", "4", "--amp", "bf16"]


def test_the_papers_tables_have_all_of_its_rows(weights: Path, tmp_path: Path):
    tables = [read_table(find_table(name, "paper")) for name in table_names("paper")]
    plan = Plan(tables, seeds=[0], out=tmp_path, gpus=8)
    assert not plan.missing
    configs = {
        run.config
        for table in tables
        if table.name.startswith("table")
        for row in table.rows.values()
        for run in row.runs.values()
    }
    assert configs == set(PAPER_ROWS.glob("*.py"))
    assert {claim.number for table in tables for claim in table.claims} == {"i", "ii", "iii", "iv", "v", "vi"}
    training = {key[:2]: step.training for key, step in plan.tests.items() if key[2] == "retrieval"}
    assert training["table3", "n1"] is training["table1", "l448"] is training["figure4", "t1-n8"]
    assert plan.tests["figure4", "t1-n16", "qa", 0] is plan.tests["table4", "sparse-random-n1", "qa", 0]


def test_the_papers_numbers_are_those_of_the_configs():
    assert paper_numbers("table3_lse-n16", "retrieval") == {
        "t2v/R@1": 17.4,
        "t2v/R@5": 41.5,
        "t2v/R@10": 55.5,
        "t2v/MdR": 8,
    }
    assert paper_numbers("table5_random-random", "qa") == {"accuracy": 28.05}
    for path in PAPER_ROWS.glob("*.py"):
        numbers = paper_numbers(path.stem.rsplit("_", 2)[0], path.stem.rpartition("-")[2])
        assert len(numbers) == (1 if path.stem.endswith("qa") else 4), path


def test_quick_is_less_of_everything_and_other_runs(write: Callable, tmp_path: Path):
    path = Path(write(TABLE + "quick = dict(seeds=(7,), overrides={'train_cfg.max_epochs': 1})\n"))
    quick, whole = read_table(path, quick=True), read_table(path)
    assert (quick.name, quick.seeds, whole.seeds) == ("one-quick", (7,), (0, 1, 2))
    steps = [
        Plan([table], seeds=[7], out=tmp_path).tests[table.name, "one", "retrieval", 7] for table in (quick, whole)
    ]
    assert steps[0].training.config["train_cfg"]["max_epochs"] == 1
    assert steps[0].training.family != steps[1].training.family


def test_only_what_conclusions_are_judged_by(main: Callable, write: Callable[[str], str], tmp_path: Path, capsys: Any):
    claim = """
rows["three"] = dict(overrides={"model.aggregator.type": "MeanAggregator"})
conclusions = [dict(number="i", statement="", task="retrieval", metric="t2v/R@1", better=["two", "three"])]
"""
    main([write(TABLE + claim), "--out", str(tmp_path / "out"), "--seeds", "4", "--conclusions", "--dry-run"])
    listed = capsys.readouterr().out.splitlines()
    assert [line[:10].strip() for line in listed if "one, retrieval" in line] == ["not needed"] * 2
    assert [line[:10].strip() for line in listed if "two, retrieval" in line or "three, retrieval" in line] == [
        "to do"
    ] * 4
