"""Several processes index what one does, also where one of them is killed, and indexing goes on with another number."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from ports import free_port

from clipbert_mm.apis import VideoIndex, VideoSearch

ROOT = Path(__file__).resolve().parents[2]
COUNT = 24


@pytest.fixture
def checkpoint(runner_config: Config, joined_config: dict, write_checkpoint: Callable) -> Path:
    """A model with vectors and tokens, which needs nothing of the tests."""
    runner_config.model = joined_config
    runner_config.train_dataloader.dataset.num_negatives = 1
    return write_checkpoint()


@pytest.fixture
def videos(world: Path, tmp_path: Path, break_file: Callable) -> Path:
    """A folder of videos, one of them broken."""
    folder = tmp_path / "videos"
    folder.mkdir()
    sources = sorted((world / "videos").glob("*.mp4"))
    for i in range(COUNT):
        (folder / f"{i:02}.mp4").symlink_to(sources[i % len(sources)])
    (folder / "broken.mp4").write_bytes(sources[0].read_bytes())
    break_file(folder / "broken.mp4", "empty")
    return folder


def environment(**more: object) -> dict[str, str]:
    launched = ("LOCAL_RANK", "RANK", "WORLD_SIZE")
    own = dict(PYTHONPATH=str(ROOT), CUDA_VISIBLE_DEVICES="", OMP_NUM_THREADS="1")
    own["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return (
        {name: value for name, value in os.environ.items() if name not in launched}
        | own
        | {name: str(value) for name, value in more.items()}
    )


def assert_equal(found: VideoIndex, wanted: VideoIndex) -> None:
    """See that two indexes have the same records, vectors and tokens."""
    assert dict(found.entries) == dict(wanted.entries)
    assert found.unreadable == wanted.unreadable
    for path in wanted.entries:
        assert torch.allclose(found.vectors(path), wanted.vectors(path), atol=1e-3)
        assert torch.allclose(found.tokens(path), wanted.tokens(path), atol=2e-3, rtol=2e-3)
    assert found.folders == wanted.folders
    assert not (found.folder / "parts").exists()


def test_two_processes_index_what_one_does_also_after_a_kill(checkpoint: Path, videos: Path, tmp_path: Path):
    whole = VideoSearch(checkpoint, index=tmp_path / "one")
    report = whole.index(videos, workers=0, keep_tokens=True)
    assert (len(report.added), len(report.unreadable)) == (COUNT, 1)

    options = ["--keep-tokens", "--workers", "1", "--batch-size", "1", "--device", "cpu"]
    command = ["bash", str(ROOT / "tools" / "dist_index.sh"), str(videos), str(checkpoint), "2", *options]
    done = subprocess.run(
        [*command, "--index", str(tmp_path / "two")], env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 3, done.stdout[-2000:] + done.stderr[-4000:]
    assert done.stdout.startswith(
        f"{COUNT} added, 0 changed, 0 unchanged, 0 removed, 1 unreadable\n  {videos}/broken.mp4: "
    )
    assert_equal(VideoIndex(tmp_path / "two"), whole.video_index)

    folder = tmp_path / "killed"
    where = dict(WORLD_SIZE=2, MASTER_ADDR="127.0.0.1", MASTER_PORT=free_port())
    arguments = [str(videos), "--model", str(checkpoint), "--index", str(folder), *options, "--launcher", "pytorch"]
    processes = [
        subprocess.Popen(
            [sys.executable, str(ROOT / "tools" / "index.py"), *arguments],
            env=environment(**where, RANK=rank, LOCAL_RANK=rank),
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    while len(list(folder.glob("parts/1-of-2/tokens/*.safetensors"))) < 2:
        assert processes[1].poll() is None, processes[1].communicate()
        time.sleep(0.005)
    os.kill(processes[1].pid, signal.SIGKILL)
    assert "lost another process" in processes[0].communicate(timeout=120)[1]
    assert (processes[0].returncode, processes[1].wait()) == (1, -signal.SIGKILL)
    processes[1].communicate()
    left = {part.name: VideoIndex(part).count() for part in (folder / "parts").iterdir()}
    assert left.keys() == {"0-of-2", "1-of-2"}
    assert 1 <= left["1-of-2"] < COUNT // 2
    search = VideoSearch(checkpoint, index=folder)
    report = search.index(videos, workers=0)  # one process
    assert len(report.unchanged) == sum(left.values())
    assert_equal(search.video_index, whole.video_index)
