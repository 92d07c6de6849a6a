"""Runs tools/analysis_tools/ablation.py in a process of its own, with a quick ``python`` for its trainings and tests."""

import functools
import importlib.util
import os
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]


def run_ablation(python: str, arguments: list[str], log: str) -> None:
    """Run the tool; what it prints goes to a file."""
    os.setsid()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    torch.set_num_threads(1)
    sys.executable = python
    sys.path.insert(0, str(ROOT / "tools" / "analysis_tools"))
    spec = importlib.util.spec_from_file_location("ablation_tool", ROOT / "tools" / "analysis_tools" / "ablation.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    tool.run_tool(functools.partial(tool.main, arguments))
