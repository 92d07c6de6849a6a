"""A table of the ablation runner whose outcomes were written by hand, for the tests of its reports."""

import json
from pathlib import Path

import cv2
import numpy as np
from ablations.plan import Plan
from ablations.report import write_reports
from ablations.tables import read_table

ROOT = Path(__file__).resolve().parents[1]
RETRIEVAL, QUESTIONS = (
    next(str(path) for path in (ROOT / "configs/shapes").glob(f"*shapes-{t}.py")) for t in ("retrieval", "qa")
)
TABLE = f'''
title = "By hand"
data = dict(command="true {{data}} {{seed}}", variable="SHAPES_ROOT")
tasks = dict(retrieval=dict(config="{RETRIEVAL}", start=None), qa=dict(config="{QUESTIONS}", start=None))
rows = {{
    "n1": dict(label={{"N": 1}}, paper="table3_n1", test={{"test_dataloader.dataset.pipeline.1.num_clips": 1}}),
    "n2": dict(label={{"N": 2}}, paper="table3_lse-n2", test={{"test_dataloader.dataset.pipeline.1.num_clips": 2}}),
    "n4": dict(label={{"N": 4}}, test={{"test_dataloader.dataset.pipeline.1.num_clips": 4}}, tasks=dict(qa=None)),
}}
conclusions = [
    dict(number="iii", statement="2 clips rank better", task="retrieval", metric="t2v/MdR", better=["n2", "n1"], margin=1.0),
    dict(number="iii", statement="2 clips answer better", task="qa", metric="accuracy", better=["n2", "n1"], margin=1.0),
    dict(number="iv", statement="4 clips are on par", task="retrieval", metric="t2v/R@1", no_worse=["n4", "n1"], margin=9.0),
]
figure = dict(x="N")
'''
AS_CHOICE = (
    TABLE.replace("t2v/MdR", "accuracy")
    .replace("t2v/R@1", "accuracy")
    .replace('retrieval.py", ', 'retrieval.py", test={"test_evaluator.type": "AnswerAccuracy"}, ')
)
"""The table with retrieval tested as a choice of one of some captions."""
RANKS = {"n1": ([4, 6, 5, 5], [4, 4, 6, 6], [5, 5, 5, 7]), "n2": ([1, 1, 2, 2], [1, 1, 1, 3], [2, 2, 1, 1])}
ANSWERS = {"n1": ([1, 0, 0, 1],) * 3, "n2": ([1, 1, 0, 1], [1, 0, 0, 1], [1, 1, 0, 1])}


def report(tmp_path: Path, text: str = TABLE, as_choice: bool = False) -> tuple[dict, str, str]:
    """The report as JSON and as Markdown, and the index, of two rows and three seeds; the third row was not run.

    With ``as_choice``, retrieval was tested as a choice of one of some captions.
    """
    (tmp_path / "hand.py").write_text(text)
    table = read_table(tmp_path / "hand.py")
    plan = Plan([table], seeds=None, out=tmp_path / "out")
    for (_, row, task, seed), step in plan.tests.items():
        if row == "n4":
            continue
        step.folder.mkdir(parents=True, exist_ok=True)
        ranks = np.array(RANKS[row][seed])
        kept = {"t2v/rank": ranks.tolist()} | {f"t2v/R@{k}": (ranks <= k).tolist() for k in (1, 5, 10)}
        (step.folder / "outcomes.json").write_text(
            json.dumps(kept if task == "retrieval" and not as_choice else dict(accuracy=ANSWERS[row][seed]))
        )
        noted = dict(
            weights="epoch_1.pth",
            date=f"2026-01-0{seed + 1}T08:00:00",
            clipbert_mm="0.1.0",
            machine="CPU, small, 2 cores",
            packages="torch 2.14.1, numpy 2.4.6, mmengine 0.10.7",
        )
        for each, seconds in ((step, 10.0), (step.training, 50.0)):
            (each.folder / "done.json").write_text(json.dumps(noted | dict(seconds=seconds)))
    write_reports(plan, [table], tmp_path / "reports")
    assert cv2.imread(str(tmp_path / "reports" / "hand.png")).std() > 5
    texts = [(tmp_path / "reports" / name).read_text() for name in ("hand.json", "hand.md", "index.md")]
    return json.loads(texts[0]), texts[1], texts[2]
