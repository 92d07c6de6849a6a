"""requirements/install.py: uv gets pip's settings, and pip installs where uv cannot."""

import itertools
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import pytest
from packaging.requirements import Requirement

REQUIREMENTS = Path(__file__).resolve().parents[1] / "requirements"
PIP_CONFIG = """\
:env:.find-links='/wheels'
:env:.timeout='30'
global.constraint='/etc/constraints.txt'
global.extra-index-url='https://one.example/simple https://two.example/simple'
global.find-links='/elsewhere /and-here'
global.index-url='https://global.example/simple'
install.index-url='https://install.example/simple'
download.index-url='https://download.example/simple'
"""


@pytest.fixture
def install() -> SimpleNamespace:
    """The script's functions."""
    return SimpleNamespace(**run_path(str(REQUIREMENTS / "install.py")))


def test_uv_gets_pip_s_settings(install: SimpleNamespace):
    assert install.uv_settings(PIP_CONFIG) == {
        "UV_DEFAULT_INDEX": "https://install.example/simple",
        "UV_INDEX": "https://one.example/simple https://two.example/simple",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_FIND_LINKS": "/wheels",
        "UV_CONSTRAINT": "/etc/constraints.txt",
    }
    assert install.uv_settings("global.find-links='/one /two'\n") == {"UV_FIND_LINKS": "/one,/two"}
    assert install.uv_settings("") == {}


Run = Callable[..., list[list[str]]]


@pytest.fixture
def run(install: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the script with commands of which some fail, and return them without this Python's name."""

    def run_script(*, failing: Callable[[str], bool], on_path: tuple[str, ...] = ()) -> list[list[str]]:
        commands = []

        def answer(command: list[str], **_: object) -> SimpleNamespace:
            commands.append([word for word in command if word not in (sys.executable, "-m")])
            return SimpleNamespace(returncode=int(failing(" ".join(commands[-1]))), stdout=PIP_CONFIG)

        monkeypatch.setattr(subprocess, "run", answer)
        monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}" if name in on_path else None)
        monkeypatch.delenv("UV_TORCH_BACKEND", raising=False)
        install.main()
        return commands

    return run_script


@pytest.mark.parametrize(
    ("on_path", "answers", "wheels_for_cpu", "excluded"),
    [
        (("uv",), True, True, ["opencv.txt", "gpu.txt"]),
        (("uv",), False, False, ["opencv.txt", "gpu.txt"]),
        (("uv", "nvidia-smi"), True, False, ["opencv.txt"]),
    ],
    ids=["the index of CPU wheels answers", "it does not", "a GPU"],
)
def test_wheels_for_the_cpu_where_there_is_no_gpu_and_their_index_answers(
    run: Run, on_path: tuple[str, ...], answers: bool, wheels_for_cpu: bool, excluded: list[str]
):
    commands = run(failing=lambda command: "--dry-run" in command and not answers, on_path=on_path)
    last = commands[-1]
    assert last[:3] == ["/bin/uv", "pip", "install"]
    assert last[-3:] == [
        "--editable",
        f"{REQUIREMENTS.parent}[tests,docs,page,open-clip,faiss]",
        "opencv-python-headless",
    ]
    assert ("--torch-backend" in last) is wheels_for_cpu
    assert [Path(word).name for before, word in itertools.pairwise(last) if before == "--excludes"] == excluded


@pytest.mark.parametrize("writes_none", [True, False])
def test_bytecode_is_compiled_where_python_writes_none(run: Run, monkeypatch: pytest.MonkeyPatch, writes_none: bool):
    monkeypatch.setattr(sys, "dont_write_bytecode", writes_none)
    last = run(failing=lambda command: False, on_path=("uv",))[-1]
    assert ("--compile-bytecode" in last) is writes_none


@pytest.mark.parametrize("unusable", ["pip install uv", "/uv pip install"])
def test_pip_installs_where_uv_cannot(run: Run, capsys: pytest.CaptureFixture, unusable: str):
    commands = [" ".join(command) for command in run(failing=lambda command: unusable in command)]
    assert commands[0] == "pip install uv -qq"
    assert f"pip install --editable {REQUIREMENTS.parent}[tests,docs,page,open-clip,faiss] -qq" in commands
    assert "pip installs instead" in capsys.readouterr().out


def test_headless_opencv_takes_the_place_of_one_that_cannot_be_imported(run: Run):
    commands = run(failing=lambda command: command == "pip install uv -qq" or "import cv2" in command)
    assert commands[-1] == ["pip", "install", "--force-reinstall", "--no-deps", "opencv-python-headless", "-qq"]


def test_a_failed_install_fails(run: Run):
    with pytest.raises(SystemExit, match=r"^1$"):
        run(failing=lambda command: command.startswith("pip install"))


def test_decord_is_left_out_where_it_has_no_wheel_and_the_install_says_so(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    wheels = {
        ("linux", "x86_64"): True,
        ("linux", "aarch64"): False,
        ("darwin", "arm64"): False,
        ("win32", "AMD64"): True,
    }
    for file, name in (("runtime.txt", "decord"), ("runtime.txt", "mmaction2")):  # which needs decord
        (line,) = [line for line in (REQUIREMENTS / file).read_text().splitlines() if line.startswith(name)]
        marker = Requirement(line.partition("#")[0]).marker
        found = {each: marker.evaluate(dict(sys_platform=each[0], platform_machine=each[1])) for each in wheels}
        assert found == wheels
    monkeypatch.setitem(sys.modules, "decord", None)
    run(failing=lambda command: False)
    assert "Left out: decord, which has no wheel for this machine." in capsys.readouterr().out
