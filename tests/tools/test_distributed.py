"""Two processes do what one does: the same weights, the same metrics, also where the gallery does not divide by two.

They are started by torchrun on one machine, by torchrun on what stands for two machines, and by what stands for Slurm's srun.
The ``python`` that the scripts find is that of warm_python.py, and so are the processes that torchrun starts.
"""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.fileio import load
from ports import free_port
from warm_python import quick_python

from clipbert_mm.checkpoint.archives import load_torch
from clipbert_mm.engine.config import load_config
from clipbert_mm.evaluation import read_rankings
from clipbert_mm.registry import MODELS

ROOT = Path(__file__).resolve().parents[2]
BLIP = str(ROOT / "configs/public/blip_tiny_1xb16-4x1-3e_shapes-retrieval.py")
RETRIEVAL, QUERIES, QUESTIONS = (
    next(str(path) for path in (ROOT / "configs/shapes").glob(f"*shapes-{task}.py"))
    for task in ("retrieval", "queries", "qa")
)
ONE_LAYER = "model.encoder.num_layers=1"
NO_VALIDATION = ["val_cfg=None", "val_dataloader=None", "val_evaluator=None"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, link_world: Callable, break_file: Callable) -> Iterator[Path]:
    """A folder with a world in world/, of which one video in eight is broken, and a quick ``python`` in bin/."""
    folder = tmp_path_factory.mktemp("distributed")
    world = link_world(folder / "world")
    break_file(world / "videos" / "train_00003.mp4", "empty")
    (folder / "bin").mkdir()
    with quick_python(folder / "bin"):
        yield folder


def options(batch_size: int, name: str, trains: bool = True) -> list[str]:
    """Command-line options: eight items a step over all processes, one epoch."""
    training = [
        f"train_dataloader.batch_size={batch_size}",
        "train_dataloader.num_workers=0",
        "train_dataloader.dataset.captions_per_item=1",
        "default_hooks.checkpoint.interval=1",
        "default_hooks.broken_media.max_share=0.5",
        "param_scheduler.0.warmup_share=0.5",
        "train_cfg.max_epochs=1",
        "load_from=None",
    ]
    testing = ["test_dataloader.num_workers=0", "test_dataloader.batch_size=2", f"experiment_name={name}"]
    testing += ["test_dataloader.dataset.pipeline.1.num_clips=2", ONE_LAYER]
    return ["--cfg-options", *(training if trains else []), *testing]


def environment_of(folder: Path, **more: str) -> dict[str, str]:
    """What processes on the CPU are started with."""
    own = {
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHON_EXEC": str(folder / "bin" / "python"),  # which torchrun starts
        "PYTHONPATH": str(ROOT),
        "SHAPES_ROOT": str(folder / "world"),
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
    }
    launched = {
        name for name in os.environ if name in ("LOCAL_RANK", "RANK", "WORLD_SIZE") or name.startswith("SLURM_")
    }
    return {name: value for name, value in os.environ.items() if name not in launched} | own | more


def run_script(script: str, folder: Path, *arguments: str, **variables: str) -> str:
    """Run a shell script of tools/; returns what it printed."""
    command = ["bash", str(ROOT / "tools" / script), *arguments]
    environment = environment_of(folder, **variables)
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def one_process(folder: Path, tool: Callable, once: Callable) -> Path:
    """The checkpoint of one process with batches of 8."""

    def train() -> Path:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SHAPES_ROOT", str(folder / "world"))
            tool("train.py").main([RETRIEVAL, "--work-dir", str(folder / "one"), *options(8, "train-one")])
        return folder / "one" / "epoch_1.pth"

    return once("one-process", train)


def assert_same_weights(path: Path, wanted: Path) -> None:
    """See that two checkpoints agree to rounding.

    Where a gradient is hardly more than rounding, Adam makes a step of it, of 5e-4 at most to either side; so a few numbers in
    10,000 may be apart by that.
    """
    found, first = (load_torch(each, mmap=False)["state_dict"] for each in (path, wanted))
    assert found.keys() == first.keys()
    apart = {name: ~torch.isclose(found[name], value, atol=2e-5, rtol=1e-3) for name, value in first.items()}
    assert sum(int(each.sum()) for each in apart.values()) < 1e-4 * sum(each.numel() for each in apart.values())
    for name, value in first.items():
        torch.testing.assert_close(found[name], value, atol=1e-3, rtol=1e-3)


def test_training_gives_the_same_weights(folder: Path, one_process: Path):
    printed = run_script(
        "dist_train.sh", folder, RETRIEVAL, "2", "--work-dir", str(folder / "two"), *options(4, "train-two")
    )
    assert_same_weights(folder / "two" / "epoch_1.pth", one_process)
    # What either process had to replace is told once, in one number.
    assert printed.count("3 of 24 items were replaced in this epoch; 1 files cannot be read") == 1
    assert "8 items per step = 2 processes x 4 items x 1 batches; 3 steps per epoch" in printed
    assert not (folder / ".dist_test").exists()
    assert len(list((folder / "two").glob("*/*.log"))) == 1, "one process writes the log"


def test_two_machines_give_the_same_weights_and_accumulate(folder: Path, one_process: Path):
    arguments = [RETRIEVAL, "1", "--work-dir", str(folder / "machines"), *options(2, "train-machines")]
    arguments += ["optim_wrapper.accumulative_counts=2", *NO_VALIDATION]
    command = ["bash", str(ROOT / "tools" / "dist_train.sh"), *arguments]
    where = dict(NNODES="2", MASTER_ADDR="127.0.0.1", PORT=str(free_port()))
    machines = [
        subprocess.Popen(
            command,
            env=environment_of(folder, **where, NODE_RANK=str(number)),
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number in range(2)
    ]
    printed = [machine.communicate(timeout=300)[0] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], "\n".join(text[-3000:] for text in printed)
    assert "8 items per step = 2 processes x 2 items x 2 batches; 3 steps per epoch, 3 in total" in printed[0]
    assert "items per step" not in printed[1]
    assert_same_weights(folder / "machines" / "epoch_1.pth", one_process)


SRUN = """#!/usr/bin/env bash
# Stands for Slurm's srun: starts the tasks here, each with the variables that Slurm would give it.
while [[ "$1" == --* ]]; do
  case "$1" in --ntasks=*) tasks="${1#*=}" ;; esac
  echo "$1" >> srun_options.txt
  shift
done
for (( task = 0; task < tasks; task++ )); do
  SLURM_PROCID=$task SLURM_LOCALID=$task SLURM_NTASKS=$tasks SLURM_STEP_NODELIST=localhost SLURM_JOB_ID="$JOB" "$@" &
done
for (( task = 0; task < tasks; task++ )); do wait -n || exit; done
"""


def test_slurm_asks_of_an_odd_number_of_videos_what_one_process_does(
    folder: Path, tool: Callable, monkeypatch: pytest.MonkeyPatch
):
    (folder / "bin" / "srun").write_text(SRUN)
    (folder / "bin" / "srun").chmod(0o755)
    monkeypatch.setenv("SHAPES_ROOT", str(folder / "world"))
    config = load_config(QUESTIONS, {"model.encoder.num_layers": 1})
    torch.manual_seed(1)
    torch.save({"state_dict": MODELS.build(config.model).state_dict()}, folder / "questions.pth")

    def arguments(name: str) -> list[str]:
        dump = ["--work-dir", str(folder / name), "--dump", str(folder / f"{name}.pkl")]
        return [QUESTIONS, str(folder / "questions.pth"), *dump, *options(2, name)]

    wanted = tool("test.py").main(arguments("questions-one"))
    given = dict(GPUS="2", GRES="", CPUS_PER_TASK="1", SRUN_ARGS="--time=5 --exclusive", JOB=str(os.getpid()))
    run_script("slurm_test.sh", folder, "cpus", "ask", *arguments("questions-two"), **given)
    logged = json.loads(next((folder / "questions-two").glob("*/*.json")).read_text().splitlines()[-1])
    names = {"accuracy", "accuracy/color", "accuracy/shape", "ceiling", "coverage"}
    assert {name: logged[name] for name in names} == pytest.approx({name: wanted[name] for name in names})
    one, two = (load(folder / f"questions-{name}.pkl") for name in ("one", "two"))
    assert [entry["sample_idx"] for entry in two] == [entry["sample_idx"] for entry in one] == list(range(7)), "videos"
    options_given = set((folder / "srun_options.txt").read_text().split())
    assert options_given == {
        "--partition=cpus",
        "--job-name=ask",
        "--ntasks=2",
        "--ntasks-per-node=2",
        "--cpus-per-task=1",
        "--kill-on-bad-exit=1",
        "--signal=USR1@300",
        "--time=5",
        "--exclusive",
    }


EXPERIMENT = """
import json, os, sys
import numpy as np, torch
from mmengine.hooks import Hook
from clipbert_mm.engine.config import load_config
from clipbert_mm.engine.launch import build_runner


class Notes(Hook):
    def __init__(self):
        self.syncs, self.losses, self.items, self.dropped = 0, [], [], []

    def before_train(self, runner):
        runner.model.register_comm_hook(self, Notes.synchronize)
        runner.model.module.head.dropout.register_forward_hook(lambda m, i, o: self.dropped.append((o == 0).tolist()))

    @staticmethod
    def synchronize(notes, bucket):
        notes.syncs += bucket.is_last()
        return torch.distributed.all_reduce(bucket.buffer().div_(2), async_op=True).get_future().then(lambda f: f.value()[0])

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.losses.append(outputs["loss"].item().hex())
        self.items.append([sample.sample_idx for sample in data_batch["data_samples"] if not sample.replaced])


def train(name):
    config = load_config(sys.argv[1])
    config.merge_from_dict({
        "launcher": "pytorch", "work_dir": name, "experiment_name": name, "load_from": None,
        "randomness": dict(seed=3, deterministic=True), "train_cfg.max_epochs": 1, "optim_wrapper.accumulative_counts": 2,
        "train_dataloader.batch_size": 2, "train_dataloader.num_workers": 1, "model.head.dropout": 0.5,
        "default_hooks.broken_media.max_share": 0.5, "default_hooks.checkpoint.interval": 1,
        "train_dataloader.dataset.captions_per_item": 1, "model.encoder.num_layers": 1,
        "val_cfg": None, "val_dataloader": None, "val_evaluator": None,
    })
    runner, notes = build_runner(config), Notes()
    runner.register_hook(notes)
    runner.train()
    return vars(notes)


first, second = train("deterministic-first"), train("deterministic-second")
with open(f"rank{os.environ['RANK']}.json", "w") as file:
    json.dump([first, second], file)
"""


def test_two_processes_synchronize_once_a_step_and_train_alike_twice(folder: Path):
    (folder / "experiment.py").write_text(EXPERIMENT)
    command = [folder / "bin" / "python", ROOT / "tools/torch_run.py", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*command, "experiment.py", RETRIEVAL],
        env=environment_of(folder),
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    ranks = [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]
    for first, second in ranks:
        assert first["syncs"] == 3, "3 steps of 2 batches"
        assert first == second, "to the last bit"
    (one, _), (other, _) = ranks
    items = [set(chain.from_iterable(notes["items"])) for notes in (one, other)]
    assert not items[0] & items[1], "each has its own shard"
    assert len(items[0] | items[1]) == 24 - 3, "of one video cannot be read"
    assert one["dropped"][0] != other["dropped"][0], "and its own random numbers"
    paths = [folder / f"deterministic-{name}" / "epoch_1.pth" for name in ("first", "second")]
    first, second = (load_torch(path, mmap=False)["state_dict"] for path in paths)
    assert all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.parametrize(
    ("script", "arguments", "said"),
    [
        ("dist_train.sh", ["config.py"], "CONFIG GPUS"),
        ("dist_test.sh", ["config.py", "a.pth"], "CONFIG CHECKPOINT GPUS"),
        ("dist_train.sh", ["config.py", "--amp"], "error: expected a number of processes (GPUS), got '--amp'."),
        ("slurm_train.sh", ["part", "name"], "PARTITION JOB_NAME CONFIG"),
        ("slurm_test.sh", ["part", "name", "config.py"], "PARTITION JOB_NAME CONFIG CHECKPOINT"),
    ],
)
def test_what_a_script_was_not_told(tmp_path: Path, script: str, arguments: list[str], said: str):
    command = ["bash", str(ROOT / "tools" / script), *arguments]
    done = subprocess.run(command, env=environment_of(tmp_path), capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(("config", "name"), [(RETRIEVAL, ""), (QUERIES, "queries-")])
def test_testing_gives_the_same_scores_and_metrics(
    folder: Path, one_process: Path, tool: Callable, monkeypatch: pytest.MonkeyPatch, config: str, name: str
):
    monkeypatch.setenv("SHAPES_ROOT", str(folder / "world"))
    one, two = f"{name}one", f"{name}two"

    def arguments(each: str) -> list[str]:
        rankings = f"test_evaluator.rankings_file={folder / each}.json"
        return ["--work-dir", str(folder / f"test-{each}"), *options(8, f"test-{each}", config == RETRIEVAL), rankings]

    metrics = tool("test.py").main([config, str(one_process), *arguments(one)])
    shown = ["--show-dir", str(folder / "shown")] if config == RETRIEVAL else []  # which writes the rankings there
    run_script("dist_test.sh", folder, config, str(one_process), "2", *shown, *arguments(two))
    logged = next((folder / f"test-{two}").glob("*/*.json"))
    assert not shown or (folder / "shown" / "retrieval.png").is_file()
    second = folder / "shown" / "rankings.json" if shown else folder / f"{two}.json"
    one, two = (read_rankings(path) for path in (folder / f"{one}.json", second))
    assert len(one["videos"]) == 7, "two processes have four each, one of them twice"
    assert one["videos"] == two["videos"]
    assert one["texts"] == two["texts"]
    assert np.array_equal(two["scores"], one["scores"]), "to the bit"
    assert one["scores"].std() > 1e-3
    assert json.loads(logged.read_text().splitlines()[-1]) == pytest.approx(metrics)


WITH_VECTORS = {
    "hard-negatives": (BLIP, []),
    "no-loss-of-vectors": (BLIP, ["model.hard_negatives=None", "train_dataloader.dataset.num_negatives=1"]),
    "vectors-of-a-joint-encoder": (RETRIEVAL, ["model.encoder.vector_size=8"]),
}


@pytest.mark.parametrize("name", WITH_VECTORS)
def test_two_processes_train_a_model_with_vectors(folder: Path, name: str):
    """Each process draws negatives from its own part of a batch; unused parameters would show in the second step."""
    config, given = WITH_VECTORS[name]
    given = [*options(2, name), "train_cfg.max_epochs=2", *given, "default_hooks.logger.interval=1"]
    given += NO_VALIDATION
    if config == BLIP:
        given.remove("train_dataloader.dataset.captions_per_item=1")
    printed = run_script("dist_train.sh", folder, config, "2", "--work-dir", str(folder / name), *given)
    assert "2 processes x 2 items" in printed
    (scalars,) = (folder / name).glob("*/vis_data/scalars.json")
    losses = [json.loads(line) for line in scalars.read_text().splitlines()]
    assert len(losses) >= 2
    assert all(np.isfinite(each["loss"]) for each in losses)
    assert all(("loss_contrast" in each) == (name == "hard-negatives") for each in losses)
