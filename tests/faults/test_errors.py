"""What a user sees when a training meets a fault: real processes, real faults. ``pytest -s`` prints the transcripts."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from faulty_runs import ROOT, Run, assert_same_training, final, write_config
from ports import free_port

pytestmark = pytest.mark.faults


@pytest.fixture
def config(tmp_path: Path, world: Path, tokenizer: str) -> Path:
    return write_config(tmp_path / "config.py", world, tokenizer)


def children(pid: int) -> list[int]:
    """The processes that a process began: the workers of a training."""
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def wait_for_steps(run: Run, steps: int) -> None:
    """Wait until that many steps are logged."""
    for _ in range(6000):
        if run.steps_done() >= steps:
            return
        time.sleep(0.01)
    raise AssertionError(run.log().read_text()[-3000:])


def said(run: Run, rank: int = 0) -> str:
    """What a process said at its end, from its last warning or error on; printed for a transcript."""
    lines = run.log(rank).read_text().splitlines()
    starts = [i for i, line in enumerate(lines) if line.startswith("error:") or " WARNING " in line]
    text = "\n".join(lines[starts[-1] :] if starts else lines[-3:])
    sys.stdout.write(f"\n--- rank {rank} of {run.ranks}\n{text}\n")
    return text


def test_a_loss_that_is_no_number(config: Path, tmp_path: Path):
    run = Run(config, tmp_path / "run", arguments=["--cfg-options", "optim_wrapper.optimizer.lr=1e30"])
    assert run.finish() == [1]
    assert re.search(r"error: (The loss is not finite at step \d|iter_\d\.pth is not written: \d+ of the)", said(run))


def test_a_worker_that_hangs(config: Path, tmp_path: Path):
    options = [f"train_dataloader.{option}" for option in ("num_workers=2", "timeout=5", "persistent_workers=True")]
    run = Run(config, tmp_path / "run", arguments=["--cfg-options", *options])
    (process,) = run.start()
    wait_for_steps(run, 3)
    for worker in children(process.pid):
        os.kill(worker, signal.SIGSTOP)
    process.join(60)
    assert process.exitcode == 0
    assert re.search(
        r"A worker of the dataloader \(process \d+\) hangs (at|after) .*: it took longer than 5 s\. A new worker",
        said(run),
    )


def test_a_worker_that_is_killed(config: Path, tmp_path: Path):
    options = ["train_dataloader.num_workers=2", "train_dataloader.persistent_workers=True"]
    whole, cut = (Run(config, tmp_path / name, arguments=["--cfg-options", *options]) for name in ("whole", "cut"))
    assert whole.finish() == [0]
    (process,) = cut.start()
    wait_for_steps(cut, 3)
    os.kill(children(process.pid)[0], signal.SIGKILL)
    process.join(60)
    assert process.exitcode == 0
    assert re.search(
        r"A worker of the dataloader \(.*\) died (at|after) .*: it was killed \(SIGKILL\), .* A new worker continues with",
        said(cut),
    )
    assert_same_training(final(cut.work_dir, 5), final(whole.work_dir, 5))


def test_a_truncated_newest_checkpoint(config: Path, tmp_path: Path):
    whole, cut = Run(config, tmp_path / "whole"), Run(config, tmp_path / "cut")
    assert whole.finish() == [0]
    (process,) = cut.start()
    wait_for_steps(cut, 9)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    newest = cut.work_dir / (cut.work_dir / "last_checkpoint").read_text()
    newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])
    assert cut.finish("--resume") == [0]
    log = cut.log().read_text()
    skipped = next(line for line in log.splitlines() if "Skipped a checkpoint" in line)
    resumes = next(line for line in log.splitlines() if "Resumes from" in line)
    sys.stdout.write(f"\n{skipped}\n{resumes}\n")
    assert f"Skipped a checkpoint: {newest}" in skipped
    assert str(newest) not in resumes
    assert_same_training(final(cut.work_dir, 5), final(whole.work_dir, 5))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB, on which one checkpoint has room."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if (
        os.geteuid()
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)], check=False).returncode
    ):
        pytest.skip("this machine allows no mount")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk(config: Path, tmp_path: Path, small_disk: Path):
    whole, cut = Run(config, tmp_path / "whole"), Run(config, tmp_path / "run")
    assert whole.finish() == [0]
    cut.arguments = ["--cfg-options", f"default_hooks.checkpoint.out_dir={small_disk}"]
    assert cut.finish() == [1]
    assert re.search(
        rf"error: The checkpoint {small_disk}/run/\S+ cannot be written: No space left on device\. It needs [\d.]+ MB, and "
        r"[\d.]+ MB are free\. Older checkpoints are unchanged\.",
        said(cut),
    )
    left = sorted(path.name for path in (small_disk / "run").iterdir())
    sys.stdout.write(f"left on the disk: {left}\n")
    assert left
    assert not any(name.endswith(".part") for name in left)
    cut.arguments = []  # it is resumed in another folder
    assert cut.finish("--resume", str(small_disk / "run" / "iter_1.pth")) == [0]
    assert_same_training(final(cut.work_dir, 5), final(whole.work_dir, 5))


def test_a_folder_that_cannot_be_written_to(config: Path, tmp_path: Path):
    (tmp_path / "file").touch()
    run = Run(
        config, tmp_path / "run", arguments=["--cfg-options", f"default_hooks.checkpoint.out_dir={tmp_path}/file"]
    )
    assert run.finish() == [1]
    assert f"error: {tmp_path}/file/run cannot be written to: Not a directory. Choose another folder" in said(run)
    assert run.steps_done() == 0


@pytest.mark.parametrize("notice", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_to_all_processes_of_a_job(config: Path, tmp_path: Path, notice: signal.Signals):
    run = Run(config, tmp_path / "run", arguments=["--cfg-options", "train_dataloader.num_workers=2"])
    (process,) = run.start()
    wait_for_steps(run, 3)
    os.killpg(process.pid, notice)  # the workers too, as a cluster does
    process.join(60)
    assert process.exitcode == 75
    assert f"with exit status 75, since this process got {notice.name}. Its state is saved" in said(run)


def test_a_signal_to_one_of_two_processes(config: Path, tmp_path: Path):
    run = Run(config, tmp_path / "run", ranks=2)
    first, second = run.start()
    wait_for_steps(run, 3)
    os.kill(second.pid, signal.SIGTERM)
    for process in (first, second):
        process.join(60)
    assert [first.exitcode, second.exitcode] == [75, 75]
    assert "since another process got a signal to stop. Its state is saved" in said(run)


def test_the_error_of_one_of_two_processes(config: Path, tmp_path: Path):
    options = ["train_dataloader.num_workers=1", "train_dataloader.persistent_workers=True"]
    run = Run(config, tmp_path / "run", ranks=2, arguments=["--cfg-options", *options])
    first, second = run.start()
    wait_for_steps(run, 3)
    killed: set[int] = set()
    while second.is_alive():  # some are borne
        for worker in set(children(second.pid)) - killed:
            os.kill(worker, signal.SIGKILL)
            killed.add(worker)
        time.sleep(0.01)
    began = time.monotonic()
    for process in (first, second):
        process.join(60)
    sys.stdout.write(f"\nended {time.monotonic() - began:.1f} s after the last fault\n")
    assert [first.exitcode, second.exitcode] == [1, 1]
    assert "error: A worker of the dataloader" in said(run, 1)
    assert "error: Process 0 lost another process of this training" in said(run, 0)


@pytest.mark.parametrize(("fault", "status"), [("SIGKILL", 1), ("SIGTERM", 75), ("SIGUSR1", 75)])
def test_a_launcher_s_processes(config: Path, tmp_path: Path, fault: str, status: int):
    """One rank killed, or the launcher told to stop, with tools/dist_train.sh as it is used."""
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "PORT": str(free_port()),
    }
    environment.pop("LOCAL_RANK", None)
    run = Run(config, tmp_path / "run", ranks=2)
    run.work_dir.mkdir()
    command = ["bash", str(ROOT / "tools/dist_train.sh"), str(config), "2", "--work-dir", str(run.work_dir)]
    with open(run.log(), "w") as log:
        launcher = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    wait_for_steps(run, 3)
    ranks = [pid for pid in children(launcher.pid) if "train.py" in Path(f"/proc/{pid}/cmdline").read_text()]
    assert len(ranks) == 2
    os.kill(ranks[1] if fault == "SIGKILL" else launcher.pid, getattr(signal, fault))
    began = time.monotonic()
    assert launcher.wait(90) == status, run.log().read_text()[-3000:]
    sys.stdout.write(f"\nended {time.monotonic() - began:.1f} s after {fault} with status {launcher.returncode}\n")
    sys.stdout.write("\n".join(run.log().read_text().splitlines()[-25:]) + "\n")
