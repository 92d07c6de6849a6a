"""The page on one GPU and a few: each of its rows is a command that trains with the global batch of its config."""

import copy
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from test_paper_rows import TRAINED

from clipbert_mm.engine.config import load_config
from clipbert_mm.engine.global_batch import keep_global_batch

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "few_gpus.md").read_text()
ROWS = re.findall(r"^\| (configs/\S+\.py) \| [\d.]+ \| (.*) \|$", PAGE, re.MULTILINE)


def test_each_recipe_of_the_paper_has_a_row():
    listed = {path for path, _ in ROWS if "ablations" not in path}
    trained = {str(path.relative_to(ROOT)) for path in TRAINED if "-ntest" not in path.stem}
    assert listed == trained
    assert len(ROWS) == len(trained) + 10


@pytest.mark.parametrize(("path", "cells"), ROWS, ids=[Path(path).stem for path, _ in ROWS])
def test_each_command_of_a_row_keeps_the_global_batch(path: str, cells: str, tool: Callable[[str], ModuleType]):
    config = load_config(str(ROOT / path))
    gpus, batch, accumulation = map(int, re.search(r"_(\d+)xb(\d+)(?:-accum(\d+))?", path).groups(default="1"))
    sizes = [int(cell) for cell in re.findall(r"(\d+) \([\d.]+ GB\)", cells)]
    assert len(sizes) == 4
    assert sizes == sorted(sizes), "a larger GPU takes no less"
    for size in (*sizes, 0):
        for processes in (1, 2, 4):
            args = tool("train.py").parse_args([path, "--amp", "bf16", "--micro-batch", *([str(size)] if size else [])])
            own = copy.deepcopy(config)
            keep_global_batch(own, args.micro_batch, processes)
            step = own.train_dataloader.batch_size * own.optim_wrapper.accumulative_counts * processes
            assert step == gpus * batch * accumulation
            assert own.train_dataloader.batch_size == (size or batch)
            assert (own.optim_wrapper.optimizer, own.train_cfg) == (config.optim_wrapper.optimizer, config.train_cfg)


def test_the_log_line_of_the_page_is_the_real_one():
    config = load_config(str(ROOT / "configs/retrieval/clipbert_r50_8xb16-4x1-20e_msrvtt.py"))
    assert f"```\n{keep_global_batch(config, 8, 1)}\n```" in PAGE
