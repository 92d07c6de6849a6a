"""Which micro-batch fits: the largest divisor of the batch whose counted memory leaves room."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[3]
TINY = str(next((ROOT / "configs/shapes").glob("*-qa.py")))


def test_the_largest_divisor_that_fits(tool: Callable[[str], ModuleType]):
    found = tool("analysis_tools/plan_memory.py").Plan({1: 1e9, 2: 2e9, 4: 4e9, 8: 8e9}, 1.0)
    # A fifth and 1 GB are left.
    sizes = {2.4e9: 0, 2.6e9: 1, 6.2e9: 2, 6.3e9: 4, 11.3e9: 8, 80e9: 8}
    assert {memory: found.micro_batch(memory) for memory in sizes} == sizes


def test_a_config_s_row_is_printed(tool: Callable[[str], ModuleType], capsys: pytest.CaptureFixture):
    few = ["--memory", "1.2GB", "24GB", "--cfg-options", "train_dataloader.batch_size=1"]
    tool("analysis_tools/plan_memory.py").main([TINY, *few])
    title, rule, row = capsys.readouterr().out.splitlines()
    assert title == "| config | TFLOP per item | 1.2 GB | 24 GB |"
    assert rule.count("---") == 4
    assert [cell.strip() for cell in row.split("|")[3:-1]] == ["none", "1 (0.0 GB)"]
