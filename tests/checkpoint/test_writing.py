"""Checkpoints are whole under their names or not there, whatever ends the writing; damage is recognized."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from clipbert_mm.checkpoint import CheckpointError, find_latest, read_checkpoint, verify_checkpoint, write_checkpoint
from clipbert_mm.checkpoint.writing import prepare_folder, size_of


def training(epoch: int, iterations: int, value: float = 0.0, **more) -> dict:
    """What a checkpoint of a training holds."""
    return dict(
        meta=dict(epoch=epoch, iter=iterations),
        optimizer={},
        message_hub={},
        state_dict={"head.weight": torch.full((100, 100), value)},
        **more,
    )


def test_what_is_written_is_read_again_and_nothing_else_is_left(tmp_path: Path):
    path = tmp_path / "new" / "a.pth"
    size = write_checkpoint(training(1, 5, 0.5), path)
    assert size == path.stat().st_size
    assert read_checkpoint(str(path))["state_dict"]["head.weight"].eq(0.5).all()
    write_checkpoint(training(2, 10, 0.25), path)
    assert read_checkpoint(str(path))["state_dict"]["head.weight"].eq(0.25).all()
    assert os.listdir(path.parent) == ["a.pth"]


def test_size_counts_shared_memory_once():
    tensor = torch.zeros(1000)
    assert size_of({"a": tensor, "b": [tensor.view(10, 100), {"c": torch.zeros(5, dtype=torch.int64)}], "d": 3}) == 4040


LIMITED = """
import resource, signal, sys
import torch
from clipbert_mm.checkpoint import write_checkpoint
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
write_checkpoint({"a": torch.zeros(100_000)}, sys.argv[1])
"""


def test_a_quota_that_is_reached_leaves_the_old_one_and_nothing_else(tmp_path: Path):
    path = tmp_path / "a.pth"
    write_checkpoint({"a": torch.ones(10)}, path)
    before = path.read_bytes()
    done = subprocess.run([sys.executable, "-c", LIMITED, str(path)], capture_output=True, text=True, check=False)
    last = done.stderr.strip().splitlines()[-1]
    assert f"CheckpointError: The checkpoint {path} cannot be written: File too large. It needs 0.4 MB, and" in last
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.pth"]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system")
def test_a_full_disk_leaves_the_old_one_and_nothing_else(tmp_path: Path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], check=False).returncode:
        pytest.skip("this machine allows no mount")
    try:
        path = disk / "a.pth"
        write_checkpoint({"a": torch.ones(100_000)}, path)  # 0.4 MB
        with pytest.raises(
            CheckpointError, match=r"a\.pth cannot be written: No space left on device\. It needs 0\.8 MB"
        ) as e:
            write_checkpoint({"a": torch.zeros(200_000)}, path)
        assert "and 0.6 MB are free. Older checkpoints are unchanged." in str(e.value)
        # What fits by its tensors alone may still be too large.
        free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        with pytest.raises(CheckpointError, match="No space left on device"):
            write_checkpoint({"a": torch.zeros(free // 4 - 10)}, path)
        assert read_checkpoint(str(path), mmap=False)["state_dict"]["a"].eq(1).all()
        assert os.listdir(disk) == ["a.pth"]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_folder_that_cannot_be_written_to_is_said_at_once(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=rf"cannot be written to {tmp_path}/file/work: Not a directory"):
        prepare_folder(tmp_path / "file" / "work")


def test_left_overs_of_a_kill_are_removed(tmp_path: Path):
    (tmp_path / ".epoch_1.pth.123.part").write_bytes(b"half")
    (tmp_path / ".mine.part.txt").write_text("keep")
    (tmp_path / "epoch_1.pth").write_bytes(b"whole")
    prepare_folder(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".mine.part.txt", "epoch_1.pth"]


def flip(path: Path, place: int) -> None:
    """Change one bit of a file."""
    data = bytearray(path.read_bytes())
    data[place] ^= 4
    path.write_bytes(data)


def test_one_bit_is_noticed(tmp_path: Path):
    path = tmp_path / "a.pth"
    write_checkpoint(training(1, 5), path)
    verify_checkpoint(path)
    flip(path, path.read_bytes().index(bytes(20_000)) + 10_000)  # in the zeros of a tensor
    for read in (verify_checkpoint, lambda path: read_checkpoint(str(path))):
        with pytest.raises(
            CheckpointError, match=r"a\.pth \(\d+ bytes\) is damaged: Bad CRC-32 for file 'archive/data/0'"
        ):
            read(path)


def test_files_that_torch_wrote_without_checksums_are_read(tmp_path: Path):
    path = tmp_path / "a.pth"
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"a": torch.ones(3)}, path)
    finally:
        torch.serialization.set_crc32_options(True)
    verify_checkpoint(path)
    assert read_checkpoint(str(path))["state_dict"]["a"].eq(1).all()


@pytest.fixture
def work_dir(tmp_path: Path) -> Path:
    """A folder with checkpoints of two epochs, of steps in between, and the best weights."""
    for name, epoch, iterations in (("epoch_9", 9, 90), ("epoch_10", 10, 100), ("iter_95", 9, 95)):
        write_checkpoint(training(epoch, iterations), tmp_path / f"{name}.pth")
    best = training(10, 100)
    del best["optimizer"]
    write_checkpoint(best, tmp_path / "best_accuracy_epoch_10.pth")
    (tmp_path / "last_checkpoint").write_text(str(tmp_path / "epoch_10.pth"))
    return tmp_path


def test_the_last_one_is_the_newest(work_dir: Path):
    assert find_latest(work_dir) == (str(work_dir / "epoch_10.pth"), [])
    # A run that was led back to an earlier one goes on from there.
    (work_dir / "last_checkpoint").write_text(str(work_dir / "epoch_9.pth"))
    assert find_latest(work_dir)[0] == str(work_dir / "epoch_9.pth")
    (work_dir / "last_checkpoint").unlink()
    assert find_latest(work_dir)[0] == str(work_dir / "epoch_10.pth"), "a kill may come before its name is noted"


def test_a_folder_that_was_moved(work_dir: Path, tmp_path_factory: pytest.TempPathFactory):
    moved = tmp_path_factory.mktemp("moved") / "work"
    work_dir.rename(moved)
    assert find_latest(moved)[0] == str(moved / "epoch_10.pth")


def test_the_newest_whole_one_is_found_and_the_others_named(work_dir: Path):
    cut = work_dir / "epoch_10.pth"
    cut.write_bytes(cut.read_bytes()[:20_000])
    found, passed_over = find_latest(work_dir)
    assert found == str(work_dir / "iter_95.pth")
    (said,) = passed_over
    assert said.startswith(f"{cut} (20000 bytes) is damaged: ")
    assert said.count("is damaged") == 1
    flip(work_dir / "iter_95.pth", 10_000)
    found, passed_over = find_latest(work_dir)
    assert found == str(work_dir / "epoch_9.pth")
    assert len(passed_over) == 2
    assert "iter_95.pth" in passed_over[1]
    assert "Bad CRC-32" in passed_over[1]


def test_where_none_is_whole_training_does_not_begin_anew_in_silence(work_dir: Path):
    for path in work_dir.glob("*.pth"):
        path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(CheckpointError, match=rf"All checkpoints in {work_dir} are damaged(.|\n)*Remove them to start"):
        find_latest(work_dir)


def test_an_empty_folder_has_none(tmp_path: Path):
    assert find_latest(tmp_path) == (None, [])
    assert find_latest(tmp_path / "none") == (None, [])


@pytest.mark.parametrize(
    ("pointer", "said"),
    [
        (b"\xff\xfe\0x", "last_checkpoint is damaged: 'utf-8' codec can't decode"),
        (bytes(50), "last_checkpoint is damaged: it names '"),
        (b"epoch_9\0.pth", "last_checkpoint is damaged: it names 'epoch_9"),
        (b"", "last_checkpoint is damaged: it names ''."),
        (b"/", "last_checkpoint is damaged: it names '/'."),
        (b"..", "last_checkpoint names '..', which is not there or cannot be resumed."),
        (b"/gone/iter_99.pth", "last_checkpoint names 'iter_99.pth', which is not there or cannot be resumed."),
        (b"best_accuracy_epoch_10.pth", "last_checkpoint names 'best_accuracy_epoch_10.pth', which is not there or"),
    ],
)
def test_l6_a_damaged_pointer_is_passed_over_for_the_newest_of_this_folder(work_dir: Path, pointer: bytes, said: str):
    work = work_dir / "work"
    work.mkdir()
    for path in [*work_dir.glob("*.pth"), work_dir / "last_checkpoint"]:
        path.rename(work / path.name)
    write_checkpoint(training(99, 990), work_dir / "epoch_99.pth")  # another run's, in the folder above
    (work / "last_checkpoint").write_bytes(pointer)
    found, passed_over = find_latest(work)
    assert found == str(work / "epoch_10.pth")
    assert len(passed_over) == 1
    assert said in passed_over[0]


def test_l6_odd_files_are_passed_over(work_dir: Path):
    (work_dir / "dangling.pth").symlink_to("/nowhere")
    (work_dir / "folder.pth").mkdir()
    (work_dir / "zero.pth").touch()
    for i, meta in enumerate(({}, {"epoch": "x", "iter": None}, {"epoch": 10**6, "iter": "3"}, 3)):
        torch.save({"optimizer": {}, "meta": meta}, work_dir / f"meta{i}.pth")
    found, passed_over = find_latest(work_dir)
    assert found == str(work_dir / "epoch_10.pth")
    assert len(passed_over) == 6
    assert f"{work_dir}/dangling.pth (a broken link) is damaged: " in passed_over[0]
    assert "meta1.pth" in passed_over[2]
    assert "it names epoch 'x' and iteration None." in passed_over[2]


def test_l6_checkpoints_that_went_to_another_folder_are_not_forgotten_in_silence(work_dir: Path, tmp_path_factory):
    moved = tmp_path_factory.mktemp("big")
    for path in work_dir.glob("*.pth"):
        path.rename(moved / path.name)
    with pytest.raises(
        CheckpointError, match=r"last_checkpoint names 'epoch_10\.pth', which is not there or cannot be resumed"
    ):
        find_latest(work_dir)
    assert find_latest(work_dir, moved) == (str(moved / "epoch_10.pth"), [])
