"""Files and folders are there whole or not at all; folders are locked; what killed processes leave goes."""

import errno
import os
import re
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from clipbert_mm.errors import BusyFolderError
from clipbert_mm.fileio import atomic_path, atomic_write, locked, scratch, sweep

WRITER = """
import sys
from pathlib import Path
from clipbert_mm.fileio import atomic_path, atomic_write, locked
folder = Path(sys.argv[1])
with locked(folder), atomic_write(folder / "file", "wb") as file, atomic_path(folder / "below" / "made", folder=True) as part:
    file.write(b"half")
    (part / "inside").write_text("half")
    print(flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def writer(tmp_path: Path) -> subprocess.Popen:
    """A process that holds the lock of a folder, and writes a file there and a folder in a folder below."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    process.stdout.readline()
    yield process
    process.kill()
    process.communicate()


def parts(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob(".clipbert-*.part")]


def test_what_a_killed_process_leaves_goes_with_the_next_lock_and_what_a_living_one_writes_stays(
    writer: subprocess.Popen, tmp_path: Path
):
    (tmp_path / ".mine.part").write_text("of the user")
    sweep(tmp_path, below=True)
    assert len(parts(tmp_path)) == 2
    with pytest.raises(BusyFolderError) as error, locked(tmp_path, "Wait."):
        pass
    host = os.uname().nodename
    assert str(error.value) == f"{tmp_path} is in use: process {writer.pid} on {host} writes to it. Wait."
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    with locked(tmp_path):
        assert not parts(tmp_path)
        assert sorted(os.listdir(tmp_path)) == [".lock", ".mine.part", "below"]
    assert sorted(os.listdir(tmp_path)) == [".mine.part", "below"]


def test_a_lock_that_is_released_while_its_holder_is_read_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    read_text, other = Path.read_text, ExitStack()

    def read_after_release(path: Path, **options: str) -> str:
        other.close()
        return read_text(path, **options)

    monkeypatch.setattr(Path, "read_text", read_after_release)
    other.enter_context(locked(tmp_path))
    with locked(tmp_path):
        assert read_text(tmp_path / ".lock").startswith(f"process {os.getpid()} on ")


def test_a_folder_that_nobody_locks_is_swept_by_the_next_write_once_the_left_overs_are_old(
    writer: subprocess.Popen, tmp_path: Path
):
    below = tmp_path / "below"
    (part,) = parts(below)
    os.utime(below / part, (1, 1))
    with atomic_write(below / "other"):
        assert part in parts(below), "it is still being written"
    writer.kill()
    writer.wait()
    script = "import sys; from clipbert_mm.fileio import atomic_write as w\nwith w(sys.argv[1]) as f: f.write('new')"
    subprocess.run([sys.executable, "-c", script, str(below / "other")], check=True)
    assert os.listdir(below) == ["other"]


def test_a_child_that_outlives_its_parent_holds_no_lock(tmp_path: Path):
    script = """
import os, sys
from clipbert_mm.fileio import locked
with locked(sys.argv[1]):
    if os.fork() == 0:
        print(os.getpid(), flush=True)
        sys.stdin.read()
        os._exit(0)
    os.kill(os.getpid(), 9)
"""
    command = [sys.executable, "-c", script, str(tmp_path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    child = int(process.stdout.readline())
    process.wait()
    with locked(tmp_path):
        os.kill(child, 0)  # it lives
    process.communicate()


def test_a_name_as_long_as_the_system_takes(tmp_path: Path):
    for path in (tmp_path / ("a" * 255), tmp_path / ("ü" * 127)):
        with atomic_write(path) as file:
            file.write("text")
        assert path.read_text() == "text"


def test_an_error_leaves_what_was_there(tmp_path: Path):
    path = tmp_path / "file"
    path.write_text("old")

    def fail_in_file(kind: type[BaseException]) -> None:
        with atomic_write(path) as file:
            file.write("half")
            raise kind

    def fail_in_folder() -> None:
        with atomic_path(tmp_path / "folder", folder=True) as part:
            (part / "inside").mkdir()
            raise KeyError

    for kind in (KeyboardInterrupt, ValueError, OSError):
        with pytest.raises(kind):
            fail_in_file(kind)
    assert (path.read_text(), os.listdir(tmp_path)) == ("old", ["file"])
    with pytest.raises(KeyError):
        fail_in_folder()
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_e_a_full_disk_is_told_with_the_path(tmp_path: Path, number: int):
    path = tmp_path / "file"
    with pytest.raises(OSError, match=re.escape(f"{os.strerror(number)}: '{path}'")), atomic_write(path):
        raise OSError(number, os.strerror(number))


def test_a_scratch_folder_goes_at_the_end(tmp_path: Path):
    with scratch(tmp_path) as folder:
        (folder / "a").write_text("")
        assert len(parts(tmp_path)) == 1
    assert os.listdir(tmp_path) == []


def test_what_a_killed_process_leaves_among_temporary_files_goes_with_the_next(tmp_path: Path):
    start = "from clipbert_mm.fileio import temporary_folder as f\nimport os\nwith f() as folder: "
    for end in ("os.kill(os.getpid(), 9)", "print(os.listdir(folder.parent))"):
        done = subprocess.run(
            [sys.executable, "-c", start + end],
            env=os.environ | {"TMPDIR": str(tmp_path)},
            capture_output=True,
            check=False,
        )
        assert len(parts(tmp_path)) == (done.returncode == -9)


def test_a_lock_follows_no_link_out_of_the_folder(tmp_path: Path):
    (tmp_path / "mine").write_text("keep")
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / ".lock").symlink_to(tmp_path / "mine")
    with pytest.raises(OSError, match=r"\.lock"), locked(tmp_path / "work"):
        pass
    assert (tmp_path / "mine").read_text() == "keep"
