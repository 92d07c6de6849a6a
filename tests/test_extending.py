"""The worked examples of docs/extending, as a reader would follow them: files saved, code run, the command given."""

import re
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from clipbert_mm.checkpoint.archives import load_torch
from clipbert_mm.engine.config import load_config
from clipbert_mm.registry import DATASETS, MODELS

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(path for path in (ROOT / "docs/extending").glob("*.md") if path.stem != "index")
BLOCK = re.compile(r"(?:^`(?P<file>[\w/.]+)`:\n\n)?^```(?P<language>python|bash)\n(?P<code>.*?)^```$", re.M | re.S)


def blocks_of(page: Path, language: str, *, saved: bool = False) -> dict[str, str]:
    """The blocks of a page in order: those that are saved by their file, the others by their line."""
    text = page.read_text()
    found = [match for match in BLOCK.finditer(text) if match["language"] == language]
    return {
        match["file"] or f"{page.name}, line {text.count(chr(10), 0, match.start()) + 1}": match["code"]
        for match in found
        if bool(match["file"]) == saved
    }


@pytest.fixture
def folder(link_world: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder that the pages are read in: configs and data/shapes as in the repository, and nothing of a reader's yet."""
    link_world(tmp_path / "data/shapes")
    (tmp_path / "configs").mkdir()
    for name in ("_base_", "shapes"):
        (tmp_path / "configs" / name).symlink_to(ROOT / "configs" / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("SHAPES_ROOT", raising=False)
    monkeypatch.setenv("LOCAL_RANK", "0")
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_parts"]:
        del sys.modules[name]


def own_class(module: ModuleType) -> type:
    """The class that a page's module registers."""
    registered = {**MODELS.module_dict, **DATASETS.module_dict}
    (found,) = [kind for kind in registered.values() if kind.__module__ == module.__name__]
    return found


def test_there_is_a_page_for_every_part():
    assert {page.stem for page in PAGES} >= {"backbone", "fusion", "head", "aggregator", "dataset"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_worked_example_does_what_its_page_says(page: Path, folder: Path, tool: Callable[[str], ModuleType]):
    files = blocks_of(page, "python", saved=True)
    for name, code in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(code)
    names, checks = {}, blocks_of(page, "python")
    assert any("assert " in code for code in checks.values()), "a page proves what it claims"
    for place, code in checks.items():
        exec(compile(code, place, "exec"), names)

    (command,) = blocks_of(page, "bash").values()
    path_setting, python, script, config = shlex.split(command)
    assert (path_setting, python, script) == ("PYTHONPATH=.", "python", "tools/train.py")
    assert config in files
    shrunken = [
        "train_dataloader.batch_size=4",
        "train_cfg.max_epochs=1",
        "default_hooks.checkpoint.interval=1",
        "default_hooks.checkpoint.by_epoch=False",
        "default_hooks.checkpoint.max_keep_ckpts=-1",
        "default_hooks.logger.interval=1",
        f"experiment_name={page.stem}-{time.monotonic_ns()}",  # runners of one name share their state
        "log_level=WARNING",
        "load_from=None",
    ]
    tool("train.py").main([config, "--cfg-options", *shrunken])
    first, *_, last = sorted((folder / "work_dirs" / Path(config).stem).glob("iter_*.pth"))

    (module,) = [sys.modules[name] for name in sys.modules if name.startswith("my_parts.")]
    kind = own_class(module)
    built = load_config(config)
    if issubclass(kind, torch.nn.Module):
        check_that_it_was_trained(kind, MODELS.build(built.model), first, last)
    else:
        assert built.train_dataloader.dataset.type == built.test_dataloader.dataset.type == kind.__name__
    fewer = ["test_dataloader.num_workers=0", "test_dataloader.dataset.pipeline.1.num_clips=2"]
    metrics = tool("test.py").main([config, str(last), "--cfg-options", *shrunken[-3:-1], *fewer])
    assert metrics["coverage"] == 100
    assert torch.tensor(list(metrics.values())).isfinite().all()


def check_that_it_was_trained(kind: type, model: torch.nn.Module, first: Path, last: Path) -> None:
    """See that a part is in the model and that training moved every parameter of it between two checkpoints."""
    (prefix,) = [name for name, module in model.named_modules() if isinstance(module, kind)]
    before, after = (load_torch(path, mmap=False)["state_dict"] for path in (first, last))
    own = [name for name, _ in model.named_parameters() if name.startswith(f"{prefix}.")]
    assert not [name for name in own if torch.equal(before[name], after[name])], "not reached by training"
