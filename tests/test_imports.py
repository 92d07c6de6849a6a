"""What is not used is not imported, and importing changes nothing; each is looked at in a process of its own.

Where the libraries that nearly every task uses are no question, it is a fork of a process that has them.
"""

import json
import subprocess
import sys

import pytest
from forking import ForkingProcess

HEAVY = {
    "transformers", "mmpretrain", "mmaction", "mmcv", "cv2", "av", "decord", "lmdb", "matplotlib", "torchvision", "timm",
    "fvcore", "scipy", "mmengine.optim", "mmengine.runner", "torch._dynamo", "torch.distributed.fsdp",
}  # fmt: skip
"""Libraries that tasks use, each by some of them."""
HEAVIEST = {"torch", "mmengine", "numpy"}
"""What nearly every task uses, but for those that only say something."""


def modules_after(code: str) -> set[str]:
    """Return the modules that a new process has after it ran the code."""
    code = f"{code}\nimport sys\nprint()\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    ("statement", "needed"),
    [
        ("import clipbert_mm.registry", set()),
        ("import clipbert_mm.evaluation", set()),
        ("import clipbert_mm.checkpoint", set()),
        (
            "from clipbert_mm.engine.config import load_config",
            {"mmengine.optim", "mmengine.runner", "transformers", "cv2", "torch.distributed.fsdp"},
        ),
        ("from clipbert_mm.engine.run_tool import run_tool", set()),
    ],
)
def test_what_is_not_used_is_not_imported(with_torch: ForkingProcess, statement: str, needed: set[str]):
    imported = with_torch.modules_after(statement)
    assert statement.split()[1] in imported
    assert imported & HEAVY <= needed


COMMAND = """
from contextlib import suppress
from clipbert_mm.__main__ import main
with suppress(SystemExit):
    main({})
"""
START = modules_after("")
"""What Python imports before it does anything."""


@pytest.mark.parametrize(
    ("code", "most"),
    [
        ("import clipbert_mm\nclipbert_mm.__version__", 10),
        ("import clipbert_mm.errors, clipbert_mm.fileio, clipbert_mm.deprecation", 70),
        (COMMAND.format(["--help"]), 70),
        (COMMAND.format(["search", "--help"]), 70),
        (COMMAND.format(["search"]), 70),  # a wrong command line
    ],
    ids=["the package", "errors and files", "help", "help of a command", "a wrong command line"],
)
def test_what_only_says_something_imports_no_library(code: str, most: int):
    imported = modules_after(code) - START
    assert not imported & (HEAVY | HEAVIEST)
    assert len(imported) <= most, sorted(imported)


def test_a_gallery_that_is_missing_is_told_without_a_model(with_torch: ForkingProcess):
    code = COMMAND.format(["search", "a red circle", "--index", "/nowhere"])
    imported = with_torch.modules_after(code)
    assert "clipbert_mm.__main__" in imported
    assert not any(name.startswith("transformers.models.") for name in imported)


def test_mmengine_finds_the_registries_of_a_package_that_was_only_imported(with_libraries: ForkingProcess):
    code = """
import clipbert_mm, sys
assert "clipbert_mm.registry" not in sys.modules
from mmengine.registry import MODELS, DefaultScope
assert MODELS.get("clipbert_mm.MeanAggregator").__module__.startswith("clipbert_mm.models.")
with DefaultScope.overwrite_default_scope("clipbert_mm"):
    assert type(MODELS.build(dict(type="MaxAggregator"))).__name__ == "MaxAggregator"
assert clipbert_mm.registry.MODELS.get("MeanAggregator") is MODELS.get("clipbert_mm.MeanAggregator")
"""
    assert "clipbert_mm.models" in with_libraries.modules_after(code)


PROCESS = """
import atexit, gc, json, locale, logging, multiprocessing, os, random, signal, socket, sys, threading, warnings
import torch, numpy, mmengine, mmengine.logging
import torch.serialization
from mmengine.registry import DefaultScope

forks, exits = [], []
os.register_at_fork = lambda **functions: forks.append(sys._getframe(1).f_globals["__name__"])
atexit.register = lambda function, *arguments, **more: exits.append(function.__module__) or function

def state():
    return {
        "torch's functions": [id(value) for value in (torch.load, torch.save, torch.nn.Module.__init__, torch.empty)],
        "torch's safe globals": sorted(map(repr, torch.serialization.get_safe_globals())),
        "torch's settings": [
            torch.get_num_threads(), torch.get_num_interop_threads(), str(torch.get_default_dtype()),
            torch.is_grad_enabled(), torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark,
            torch.get_float32_matmul_precision(), torch.multiprocessing.get_sharing_strategy(),
        ],
        "random states": [
            hash(random.getstate()), hash(numpy.random.get_state()[1].tobytes()), hash(torch.get_rng_state().numpy().tobytes()),
        ],
        "numpy's errors": numpy.geterr(),
        "environment": dict(os.environ),
        "path": sys.path[:],
        "finders": [repr(type(each)) for each in sys.meta_path + sys.path_hooks],
        "hooks": [id(each) for each in (sys.excepthook, sys.displayhook, threading.excepthook, sys.unraisablehook)],
        "streams": [id(sys.stdout), id(sys.stderr), id(sys.stdin)],
        "signals": {number: repr(signal.getsignal(number)) for number in map(int, signal.valid_signals())},
        "warnings": [list(map(repr, warnings.filters)), id(warnings.showwarning)],
        "loggers": {
            name: [logger.level, logger.propagate, list(map(repr, logger.handlers)), list(map(repr, logger.filters))]
            for name, logger in [("root", logging.root), *logging.root.manager.loggerDict.items()]
            if isinstance(logger, logging.Logger)
        },
        "start method": multiprocessing.get_start_method(allow_none=True),
        "threads": [each.name for each in threading.enumerate()],
        "time-outs, folder, limits": [
            socket.getdefaulttimeout(), os.getcwd(), sys.getrecursionlimit(), sys.getswitchinterval(), gc.get_threshold(),
            gc.isenabled(), locale.setlocale(locale.LC_ALL),
        ],
        "scope of MMEngine": repr(DefaultScope.get_current_instance()),
        "called when the process forks or ends": [forks[:], exits[:]],
        "mmpretrain": vars(sys.modules["mmpretrain.utils.dependency"]).get("WITH_MULTIMODAL")
        if "mmpretrain.utils.dependency" in sys.modules else None,
    }
"""


def changes_by(ours: str) -> str:
    """Return code that prints what importing modules changes of the process."""
    return f"""{PROCESS}
state()
before = state()
import {ours}
after = state()
for name in set(after["loggers"]) - set(before["loggers"]):  # a new logger is one that says what others say
    assert after["loggers"].pop(name) == [0, True, [], []], name
print(json.dumps([[key, before[key], after[key]] for key in before if before[key] != after[key]]))
"""


def test_importing_the_package_leaves_the_process_as_it_was(with_torch: ForkingProcess):
    assert json.loads(with_torch.run(changes_by("clipbert_mm")).stdout) == []


def test_importing_its_rooms_after_other_libraries_leaves_the_process_as_it_was(with_libraries: ForkingProcess):
    ours = (
        "clipbert_mm, clipbert_mm.apis, clipbert_mm.checkpoint, clipbert_mm.datasets, clipbert_mm.engine, "
        "clipbert_mm.evaluation, clipbert_mm.models, clipbert_mm.retrieval"
    )
    code = "import mmpretrain.models\n" + changes_by(ours)
    assert json.loads(with_libraries.run(code).stdout.splitlines()[-1]) == []
