"""The rows of work folders: nothing that a run wrote is lost, mixed or left for good. Real processes, real kills."""

import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from faulty_runs import Run, write_config
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from video_files import write_file

from clipbert_mm.engine import runner
from clipbert_mm.engine.config import load_config
from clipbert_mm.engine.launch import build_runner
from clipbert_mm.errors import CheckpointError, OptionError
from clipbert_mm.evaluation import read_rankings
from clipbert_mm.fileio import locked
from clipbert_mm.registry import METRICS, MODELS
from clipbert_mm.visualization import answer_video


def test_l5_a_second_training_in_a_folder_is_refused_and_a_killed_one_lets_go_of_it(
    tmp_path: Path, world: Path, tokenizer: str
):
    more = "train_cfg.update(max_epochs=1000); train_dataloader.update(num_workers=1, persistent_workers=True)"
    first = Run(write_config(tmp_path / "config.py", world, tokenizer, more), tmp_path / "work")
    (process,) = first.start()
    while not (first.work_dir / "iter_2.pth").exists():
        assert process.is_alive(), first.log().read_text()
        time.sleep(0.02)
    second = Run(write_config(tmp_path / "short.py", world, tokenizer), tmp_path / "work")
    second.log = lambda rank=0: tmp_path / "second.log"
    assert second.finish() == [1]
    said = f"error: {first.work_dir} is in use: process {process.pid} on {os.uname().nodename} writes to it. "
    (line,) = [line for line in second.log().read_text().splitlines() if line.startswith("error:")]
    assert line == f"{said}Wait until it ends, stop it, or choose another work folder (--work-dir)."
    assert "Traceback" not in second.log().read_text()
    assert not (first.work_dir / "short.py").exists()
    assert process.is_alive()
    process.kill()
    process.join()
    with locked(first.work_dir):  # at once, though its worker may live a little longer
        assert list(first.work_dir.glob(".*")) == [first.work_dir / ".lock"]


def test_l9_machines_that_share_no_folder_test_retrieval_and_go_on_after_a_kill(
    tmp_path: Path, world: Path, tokenizer: str
):
    more = "test_cfg.update(clips_per_tile=2, shortlist=3)"
    config = write_config(tmp_path / "config.py", world, tokenizer, more)
    torch.manual_seed(0)
    model = MODELS.build(load_config(str(config)).model)
    torch.save({"state_dict": model.state_dict()}, tmp_path / "random.pth")
    scores, tool = {}, ("test.py", str(tmp_path / "random.pth"))
    for name, ranks in (("one", 1), ("two", 2)):
        rankings = tmp_path / name / "rankings.json"
        arguments = ["--cfg-options", f"test_evaluator.rankings_file={rankings}"]
        run = Run(config, tmp_path / name, ranks, arguments, tool, apart=ranks == 2)
        if ranks == 2:
            processes = run.start()
            while not list(run.work_dir.glob("machine1/retrieval_test-*/coarse_scores/*.tiles")):
                assert processes[1].is_alive(), run.log(1).read_text()
                time.sleep(0.01)
            os.kill(processes[1].pid, signal.SIGKILL)
            for process in processes:
                process.join(60)
            assert len(list(run.work_dir.glob("machine0/retrieval_test-*/gallery/*.safetensors"))) == 7
            next(run.work_dir.glob("machine1/retrieval_test-*/coarse_scores")).joinpath("empty.tiles").touch()
            shutil.rmtree(next(run.work_dir.glob("machine0/retrieval_test-*/gallery")))  # one machine lost what it had
        assert set(run.finish()) == {0}, run.log().read_text()
        scores[name] = read_rankings(rankings)["scores"]
        assert not list(run.work_dir.glob("**/retrieval_test*"))
        assert not list(run.work_dir.glob("*/.[!.]*"))
    assert np.array_equal(scores["one"], scores["two"])
    assert scores["one"].std() > 1e-3


def test_l9_a_machine_without_the_checkpoint_that_the_first_resumes_is_told(runner_config: Config, monkeypatch):
    runner_config.resume = True
    monkeypatch.setattr(runner, "broadcast_from_first", lambda name: "epoch_3.pth")
    with pytest.raises(
        CheckpointError, match=r"Process 0 would resume from no checkpoint, process 0 from epoch_3\.pth\."
    ):
        build_runner(runner_config).train()


LAUNCHED = """
import os, signal, sys
from clipbert_mm.engine.signals import end_with_launcher
end_with_launcher()
print(os.getpid(), flush=True)
signal.pause()
"""


def test_l5_a_killed_launcher_takes_its_processes_along(tmp_path: Path, root: Path):
    (tmp_path / "rank.py").write_text(LAUNCHED)
    command = [
        sys.executable,
        root / "tools" / "torch_run.py",
        "--standalone",
        "--nproc-per-node=1",
        tmp_path / "rank.py",
    ]
    launcher = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(root)})
    rank = os.pidfd_open(int(launcher.stdout.readline()))
    launcher.kill()
    launcher.communicate()  # what the rank prints to ends with it
    assert select.select([rank], [], [], 60)[0], "it goes on without its launcher"


def test_m9_names_as_long_as_the_system_takes_are_encoded_and_longer_ones_told(tool: Callable, tmp_path: Path, capsys):
    videos, out = tmp_path / "videos", tmp_path / "out"
    names = [f"{'a' * 247}.mp4", f"{'b' * 251}.mp4", f"{'c' * 251}.avi", f"{'d' * 252}.ts"]
    for name in names:
        source = tmp_path / f"short{Path(name).suffix}"
        write_file(source, count=5)
        videos.mkdir(exist_ok=True)
        source.rename(videos / name)
    main = tool("dataset_converters/reencode_videos.py").main
    assert main([str(videos), str(out), "--workers", "1"]) == 1
    written = sorted(path.name for path in out.glob("*.mp4"))
    assert written == [f"{'a' * 247}.mp4", f"{'b' * 251}.mp4", f"{'c' * 251}.mp4"]
    assert ": the name of the new file is too long: " in capsys.readouterr().out
    assert sorted(os.listdir(out)) == sorted([".reencoded.json", *written])


def test_e_fewer_items_than_a_batch_are_told_at_the_start(runner_config: Config):
    runner_config.train_dataloader.update(batch_size=25, drop_last=True)  # of 24 items
    said = "^The training set has 24 items, fewer than a batch of 25 in each of 1 processes, and drop_last drops such"
    with pytest.raises(OptionError, match=said):
        build_runner(runner_config).train()


PACK = """
import resource, runpy, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
sys.argv[0] = sys.argv.pop(1)
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_e_a_full_disk_is_told_with_the_path_of_the_lmdb_and_packing_goes_on(
    tmp_path: Path, root: Path, tool: Callable
):
    (tmp_path / "files").mkdir()
    for i in range(30):
        (tmp_path / "files" / f"{i}.bin").write_bytes(bytes([i]) * 10_000)
    script = "tools/dataset_converters/pack_lmdb.py"
    command = [sys.executable, "-c", PACK, root / script, tmp_path / "files", tmp_path / "out.lmdb"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": str(root)}
    )
    assert done.returncode == 1
    said = (
        rf"error: {tmp_path}/out\.lmdb\.part cannot be written: mdb_\w+: [\w/ ]+\. [\d.]+ MB are free there\. Make room"
    )
    assert re.match(said, done.stderr), done.stderr
    main = tool("dataset_converters/pack_lmdb.py").main
    assert main([str(tmp_path / "files"), str(tmp_path / "out.lmdb")]) == 0
    assert main([str(tmp_path / "files"), str(tmp_path / "out.lmdb"), "--check"]) == 0
    assert not list(tmp_path.glob("**/.lock"))


def test_e_a_list_of_metrics_is_tested_and_drawn(
    runner_config: Config, tmp_path: Path, tool: Callable, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(answer_video, "MAX_FPS", 2.0)  # drawing is most of the test
    runner_config.train_cfg.max_epochs = 1
    runner_config.default_hooks.checkpoint.update(interval=1)
    runner_config.test_evaluator = [dict(type="CountingMetric"), dict(type="RetrievalMetric")]
    runner_config.dump(tmp_path / "config.py")
    build_runner(runner_config).train()
    checkpoint, shown = str(tmp_path / "work" / "epoch_1.pth"), tmp_path / "shown"
    metrics = tool("test.py").main(
        [str(tmp_path / "config.py"), checkpoint, "--work-dir", str(tmp_path / "test"), "--show-dir", str(shown)]
    )
    assert metrics["seen"] == 7
    assert "t2v/R@1" in metrics
    assert sorted(path.name for path in shown.iterdir()) == ["rankings.json", "rankings.npy", "retrieval.png", "videos"]


@METRICS.register_module()
class CountingMetric(BaseMetric):
    """Counts what it is given."""

    def process(self, data_batch: object, data_samples: list) -> None:
        """Keep the samples."""
        self.results.extend(data_samples)

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Count them."""
        return {"seen": float(len(results))}
