"""The steps of a plan: making data, trainings, tests and benchmarks, each in a folder of its own and done once.

A step's folder is named by the content of what it does: the config as it is used, the seed, and what it starts from. Rows that
are the same training are therefore one step.
"""

import datetime
import json
import os
import pprint
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from benchmarks.timing import environment

from ablations.checks import naming
from ablations.outcomes import collect_outcomes
from ablations.tables import ROOT
from clipbert_mm.checkpoint import find_selected
from clipbert_mm.errors import CheckpointError
from clipbert_mm.fileio import atomic_write
from clipbert_mm.version import __version__

DATA_FOLDER = "/clipbert-data-of-the-seed"
"""Stands for the folder of a seed's data in configs whose content is compared."""
DONE = "done.json"
LOG = "log.txt"


@dataclass(frozen=True)
class Launcher:
    """How the training and the test of a step are started.

    Args:
        slurm: The Slurm partition; None runs on this machine.
    """

    slurm: str | None = None

    def command(self, script: str, name: str, gpus: int, arguments: Sequence[str]) -> list[str]:
        """Return the command that runs tools/train.py or tools/test.py (``script`` is "train" or "test").

        Args:
            script: "train" or "test".
            name: Name of the Slurm job.
            gpus: Processes; 1 runs without a launcher.
            arguments: The script's.
        """
        if self.slurm is not None:
            return ["bash", str(ROOT / f"tools/slurm_{script}.sh"), self.slurm, name, *arguments]
        if gpus > 1:
            place = 1 if script == "train" else 2  # after CONFIG, or after CONFIG CHECKPOINT
            arguments = [*arguments[:place], str(gpus), *arguments[place:]]
            return ["bash", str(ROOT / f"tools/dist_{script}.sh"), *arguments]
        return [sys.executable, str(ROOT / f"tools/{script}.py"), *arguments]

    def about(self) -> dict[str, str]:
        """Return where the steps run and with which packages, for their notes."""
        known = environment("cuda" if torch.cuda.is_available() else "cpu")
        machine = machine_of(known) if self.slurm is None else f"Slurm partition {self.slurm}"
        return dict(machine=machine, packages=packages_of(known))


def machine_of(about: Mapping[str, Any]) -> str:
    """Return the device and its cores as a text, of what :func:`~benchmarks.timing.environment` says."""
    return f"{about['device']}, {about['cores']} cores"


def packages_of(about: Mapping[str, Any]) -> str:
    """Return the packages but ours as a text, of what :func:`~benchmarks.timing.environment` says.

    >>> packages_of({"packages": {"clipbert_mm": "0.1.0", "torch": "2.14.1", "mmengine": "0.10.7"}})
    'torch 2.14.1, mmengine 0.10.7'
    """
    return ", ".join(f"{name} {release}" for name, release in about["packages"].items() if name != "clipbert_mm")


@dataclass
class Step:
    """What is done once, in a process of its own.

    Args:
        folder: Its folder.
        title: What it is, for messages.
        family: What it has in common with the same step of other seeds, for estimates of its duration.
        seed: The seed.
        needs: Steps that must be done before it.
        gpus: Its processes.
    """

    folder: Path
    title: str
    family: str
    seed: int
    needs: list["Step"] = field(default_factory=list)
    gpus: int = 1
    noted: ClassVar[Sequence[str]] = ("seconds", "date", "clipbert_mm")
    """What is known of a step that is done."""

    def is_done(self) -> bool:
        """Say whether it was done before."""
        return (self.folder / DONE).is_file()

    def done(self) -> dict[str, Any]:
        """Return what was noted when it was done.

        Raises:
            OptionError: If the file is damaged.
        """
        path = self.folder / DONE
        with naming(path, "Remove it, and the step is done again; a training continues from its last checkpoint."):
            noted = json.loads(path.read_text(encoding="utf-8"))
            if not set(self.noted) <= set(noted):
                raise ValueError(f"it needs {', '.join(self.noted)}")
            return noted

    def is_begun(self) -> bool:
        """Say whether it was begun and not finished."""
        return (self.folder / LOG).is_file() and not self.is_done()

    def progress(self) -> float:
        """Return what grows as the step proceeds, over several processes."""
        return 0.0

    def work_dir(self) -> Path | None:
        """Return the folder that the process locks, if it does."""
        return None

    def prepare(self, launcher: Launcher) -> list[str]:
        """Write what the process reads; return its command."""
        raise NotImplementedError

    def finish(self) -> dict[str, Any]:
        """Take what the process left; return what is to be noted."""
        return {}

    def note_done(self, seconds: float, launcher: Launcher) -> None:
        """Finish, and write down that it is done."""
        noted = {
            **self.finish(),
            "title": self.title,
            "seed": self.seed,
            "seconds": round(seconds, 1),
            "date": datetime.datetime.now().isoformat(timespec="seconds"),
            "clipbert_mm": __version__,
            **launcher.about(),
        }
        with atomic_write(self.folder / DONE) as file:
            json.dump(noted, file, indent=1)

    @property
    def log(self) -> Path:
        """The file with all that the process printed."""
        return self.folder / LOG


@dataclass
class DataStep(Step):
    """Makes the data of a seed by a command with ``{data}`` and ``{seed}``."""

    command: str = ""

    @property
    def data(self) -> Path:
        """The folder of the data."""
        return self.folder / "files"

    def prepare(self, launcher: Launcher) -> list[str]:
        """Return the command; "python" is this Python, and paths of tools are those of this repository.

        What a command that was killed has left is removed.
        """
        if self.data.is_symlink() or self.data.is_file():
            self.data.unlink()
        elif self.data.is_dir():
            shutil.rmtree(self.data)
        names = {"{data}": str(self.folder.resolve() / self.data.name), "{seed}": str(self.seed)}
        words = shlex.split(self.command)
        for name, value in names.items():
            words = [word.replace(name, value) for word in words]
        words = [str(ROOT / word) if word.startswith("tools/") else word for word in words]
        return [sys.executable if word == "python" else word for word in words]


@dataclass
class TrainingStep(Step):
    """Trains a config; continues where an earlier process was stopped."""

    config: Mapping[str, Any] = field(default_factory=dict)
    starts: Sequence["TrainingStep | str"] = ()
    noted: ClassVar[Sequence[str]] = (*Step.noted, "weights")
    data: Path | None = None
    micro_batch: int | None = None
    amp: str | None = None

    def prepare(self, launcher: Launcher) -> list[str]:
        """Write the config; return the command of tools/train.py."""
        paths = [start if isinstance(start, str) else start.weights() for start in self.starts]
        config = {**self.config, "load_from": paths[0] if len(paths) == 1 else paths or None}
        write_config(self.folder / "config.py", config, self.data)
        options = ["--work-dir", str(self.work_dir()), "--seed", str(self.seed), "--resume"]
        options += [] if self.micro_batch is None else ["--micro-batch", str(self.micro_batch)]
        options += [] if self.amp is None else ["--amp", self.amp]
        return launcher.command("train", self.folder.name, self.gpus, [str(self.folder / "config.py"), *options])

    def is_done(self) -> bool:
        """Say whether it is done and its weights are there."""
        return super().is_done() and os.path.isfile(self.weights())

    def finish(self) -> dict[str, Any]:
        """Note the checkpoint that validation selected, or else the last one."""
        path = find_selected(str(self.work_dir()))
        if not os.path.isfile(path):
            raise CheckpointError(f"{path} has no checkpoint, though the training has ended.")
        return {"weights": Path(path).name}

    def progress(self) -> float:
        """Return when the latest checkpoint was written, in seconds since 1970; 0 if there is none."""
        return max((path.stat().st_mtime for path in self.work_dir().glob("*.pth")), default=0.0)

    def work_dir(self) -> Path:
        """Return the work folder of the training."""
        return self.folder / "train"

    def weights(self) -> str:
        """Return the path of the checkpoint that is tested and started from."""
        return str(self.work_dir().resolve() / self.done()["weights"])


@dataclass
class TestStep(Step):
    """Tests a training; keeps what became of each query."""

    __test__ = False  # pytest would take the class for a test
    config: Mapping[str, Any] = field(default_factory=dict)
    training: TrainingStep | None = None
    data: Path | None = None

    def prepare(self, launcher: Launcher) -> list[str]:
        """Write the config, with files for the outcomes; return the command of tools/test.py."""
        assert self.training is not None
        config = {**self.config, "randomness": {**(self.config.get("randomness") or {}), "seed": self.seed}}
        write_config(self.folder / "config.py", with_outcome_files(config, self.folder.resolve()), self.data)
        arguments = [str(self.folder / "config.py"), self.training.weights(), "--work-dir", str(self.work_dir())]
        return launcher.command("test", self.folder.name, self.gpus, arguments)

    def work_dir(self) -> Path:
        """Return the work folder of the test."""
        return self.folder / "test"

    def finish(self) -> dict[str, Any]:
        """Keep the outcomes of the queries."""
        collect_outcomes(self.folder)
        return {}


@dataclass
class BenchmarkStep(Step):
    """Runs tools/analysis_tools/benchmark.py, which leaves a JSON report."""

    arguments: Sequence[str] = ()

    def prepare(self, launcher: Launcher) -> list[str]:
        """Return the command."""
        tool = str(ROOT / "tools/analysis_tools/benchmark.py")
        return [sys.executable, tool, *self.arguments, "--out", str(self.folder / "report")]

    def report(self) -> dict[str, Any]:
        """Return what it measured.

        Raises:
            OptionError: If the file is damaged, or not there.
        """
        with naming(self.folder / "report", f"Remove the folder {self.folder}, and it is measured again."):
            (path,) = (self.folder / "report").glob("*.json")
            return json.loads(path.read_text(encoding="utf-8"))


def with_outcome_files(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return a test's config whose metrics write what becomes of each query to a folder."""
    files = {"RetrievalMetric": ("rankings_file", "rankings.json"), "AnswerAccuracy": ("outcomes_file", "answers.json")}
    metrics = config["test_evaluator"]
    changed = []
    for metric in [metrics] if isinstance(metrics, Mapping) else metrics:
        key, name = files.get(metric["type"].rpartition(".")[2], (None, ""))
        changed.append(metric if key is None else {**metric, key: str(folder / name)})
    return {**config, "test_evaluator": changed[0] if isinstance(metrics, Mapping) else changed}


def write_config(path: Path, config: Mapping[str, Any], data: Path | None) -> None:
    """Write a config as a file, with the folder of a seed's data in its place."""
    with atomic_write(path) as file:
        for key, value in config.items():
            placed = value if data is None else replace_text(value, DATA_FOLDER, str(data.resolve()))
            file.write(f"{key} = {pprint.pformat(placed, width=120, sort_dicts=False)}\n")


def replace_text(value: Any, old: str, new: str) -> Any:
    """Return a value of a config with a text replaced in all its texts.

    >>> replace_text({"a": ["x/y", 1]}, "x", "z")
    {'a': ['z/y', 1]}
    """
    if isinstance(value, Mapping):
        return {key: replace_text(each, old, new) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(replace_text(each, old, new) for each in value)
    return value.replace(old, new) if isinstance(value, str) else value
