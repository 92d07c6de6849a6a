"""The notebook runs from top to bottom, with a model that the demo's last stage trained for an epoch."""

import sys
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from warm_python import quick_python


def test_the_notebook_runs(
    root: Path, own_world: Path, tool: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "shapes").symlink_to(own_world)
    monkeypatch.setenv("SHAPES_ROOT", str(own_world))
    monkeypatch.setenv("CLIPBERT_DEMO", str(tmp_path / "demo"))
    monkeypatch.setenv("PYTHONPATH", str(root))
    config = root / "configs" / "shapes" / "clipbert_tiny_1xb16-2x2-4e_shapes-retrieval.py"
    options = [
        "train_dataloader.batch_size=8",
        "train_cfg.max_epochs=1",
        "load_from=None",
        f"experiment_name={tmp_path.name}",
    ]
    tokenizer = [
        f"{split}_dataloader.dataset.pipeline.4.tokenizer={tmp_path / 'tokenizer'}" for split in ("train", "test")
    ]
    work_dir = ["--work-dir", str(tmp_path / "demo" / "retrieval")]
    tool("train.py").main([str(config), *work_dir, "--cfg-options", *options, *tokenizer])
    path = root / "docs" / "notebooks" / "search_your_videos.ipynb"
    notebook = nbformat.read(path, as_version=4)
    with quick_python(tmp_path):
        monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
        NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(path.parent)}}).execute()
    printed = ["".join(out.get("text", "") for out in cell.get("outputs", ())) for cell in notebook.cells]
    assert "7 added, 0 changed, 0 unchanged, 0 removed, 0 unreadable" in printed[3]
    assert "0 added, 0 changed, 7 unchanged" in printed[3]
    assert printed[5].startswith("'a red circle' in 7 videos, scored by log-odds\n")
    assert "1 added, 0 changed, 6 unchanged" in printed[-1]
    assert any("image/png" in out.get("data", {}) for out in notebook.cells[9].outputs)
