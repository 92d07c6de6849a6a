"""Four libraries, one behavior: the same frames, or a word on why not."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from video_files import cut_without_encoding, decode, decode_whole, moving_frames, turn, write_file
from warm_python import run_code

from clipbert_mm.datasets.transforms import BackendError, BrokenMediaError, OpenVideo
from clipbert_mm.media.readers import BACKENDS, backends

INDS = [0, 3, 24, 25, 26, 49, 51, 60, 74]
LATE = [5000 + 40 * i + (17 * i % 31) for i in range(75)]


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files in which readers have been known to differ."""
    folder = tmp_path_factory.mktemp("files")
    found = {
        "b frames": write_file(folder / "b.mp4"),
        "open groups": write_file(folder / "open.mp4", options={"x264-params": "open-gop=1:bframes=5"}),
        "uneven times and a late start": write_file(folder / "uneven.mp4", milliseconds=LATE),
        "uneven times in mkv": write_file(folder / "uneven.mkv", milliseconds=LATE),
        "odd size": write_file(folder / "odd.mp4", size=(97, 63), pix_fmt="yuv444p"),
        "fragments": write_file(folder / "fragments.mp4", container_options={"movflags": "frag_keyframe+empty_moov"}),
        "mpeg-4 avi": write_file(folder / "a.avi", "mpeg4"),
        "vp8": write_file(folder / "a.webm", "libvpx"),
        "hevc": write_file(folder / "hevc.mp4", "libx265", options={"x265-params": "log-level=error"}),
    }
    for degrees in (90, 180, 270):
        found[f"turned by {degrees}"] = write_file(folder / f"{degrees}.mp4")
        turn(found[f"turned by {degrees}"], degrees)
    for name, standard, full in (
        ("bt.709", "ITU709", False),
        ("bt.601", "ITU601", False),
        ("full range", "ITU709", True),
    ):
        found[name] = write_colors(folder / f"{standard}{full}.mp4", standard, full)
    return found


@pytest.fixture(scope="session")
def hard_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files of which some libraries take wrong frames in silence."""
    folder = tmp_path_factory.mktemp("hard")
    return {
        "transport stream": write_file(folder / "a.ts"),
        "avi with b frames": write_file(folder / "a.avi", "mpeg4", options={"bf": "2"}),
        "cut": cut_without_encoding(write_file(folder / "a.mp4", count=90, keyframes=30), folder / "cut.mp4", 0.6),
    }


def write_colors(path: Path, standard: str, full: bool) -> Path:
    """Write a video that says by which matrix, and over which range, its colors are coded."""
    with av.open(str(path), "w") as container:
        pix_fmt = "yuvj420p" if full else "yuv420p"
        stream = container.add_stream("libx264", rate=25, width=96, height=64, pix_fmt=pix_fmt)
        stream.codec_context.colorspace = {"ITU709": 1, "ITU601": 5}[standard]
        stream.codec_context.color_range = 2 if full else 1
        for pixels in moving_frames(75, 96, 64):
            into = dict(dst_colorspace=standard, dst_color_range="JPEG" if full else "MPEG")
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format=pix_fmt, **into)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def needs(backend: str) -> None:
    """Skip a test where a library cannot be used, and say why."""
    try:
        OpenVideo(backend=backend)
    except BackendError as error:
        pytest.skip(str(error))


def compare(files: dict[str, Path], backend: str) -> dict[str, int]:
    """Return the largest difference to a full decode by PyAV, for each file; -1 where the picture has another size."""
    found = {}
    for name, path in files.items():
        frames, wanted = decode(path, INDS, backend=backend), decode_whole(path)[INDS]
        found[name] = int(np.abs(frames.astype(int) - wanted).max()) if frames.shape == wanted.shape else -1
    return found


def refused_by(backend: str) -> set[str]:
    """Return the files of which a library takes wrong frames, and which are refused."""
    return {"open groups"} if backend == "decord" else set()


@pytest.mark.parametrize("backend", ["pyav", "decord", "opencv"])
def test_backends_agree_on_frames(files: dict[str, Path], backend: str):
    needs(backend)
    read = {name: path for name, path in files.items() if name not in refused_by(backend)}
    assert compare(read, backend) == dict.fromkeys(read, 0)
    for name in refused_by(backend):
        with pytest.raises(BrokenMediaError, match=r"shown before the key frame that they follow\); use OpenVideo"):
            decode(files[name], INDS, backend=backend)


@pytest.mark.parametrize("backend", ["pyav", "decord", "opencv"])
def test_count_and_rate_do_not_depend_on_the_backend(files: dict[str, Path], backend: str):
    needs(backend)
    for path in (path for name, path in files.items() if name not in refused_by(backend)):
        found, wanted = (OpenVideo(backend=each).transform(dict(path=str(path))) for each in (backend, "pyav"))
        for key in ("total_frames", "avg_fps", "duration", "frame_times"):
            assert np.array_equal(found[key], wanted[key]) or found[key] is wanted[key] is None


def test_colors_are_what_they_were(files: dict[str, Path]):
    for name in ("bt.709", "bt.601", "full range"):
        drawn = np.stack(list(moving_frames(75, 96, 64)))[INDS]
        assert np.abs(decode(files[name], INDS).astype(int) - drawn).mean() < 6, name


def test_hard_files_are_read_right_or_refused(hard_files: dict[str, Path]):
    for backend in ("pyav", "opencv"):
        assert compare(hard_files, backend) == dict.fromkeys(hard_files, 0)
    needs("decord")
    for name, reason in {
        "transport stream": r"decord takes wrong frames of such a file \(mpegts\)",
        "avi with b frames": r"decord takes wrong frames .* \(avi, which does not say when its frames are shown\)",
        "cut": "decord counts 90 frames, the file shows 75",
    }.items():
        with pytest.raises(BrokenMediaError, match=rf"{reason}; use OpenVideo\(backend='pyav'\) or 'opencv'"):
            decode(hard_files[name], INDS, backend="decord")


@pytest.mark.parametrize("backend", ["pyav", "decord", "opencv"])
@pytest.mark.parametrize("how", ["text", "cut", "cut in the data", "zeros in the data", "no head"])
def test_no_backend_takes_a_broken_file_for_a_whole_one(tmp_path: Path, break_file, backend: str, how: str):
    needs(backend)
    path = break_file(write_file(tmp_path / "a.mp4"), how)
    with pytest.raises(BrokenMediaError, match=re.escape(f"cannot read {path}: ")):
        decode(path, list(range(75)), backend=backend)


def test_a_cut_avi_does_not_end_the_process(tmp_path: Path, capfd: pytest.CaptureFixture):
    needs("decord")  # which does, where it is given bytes
    data = write_file(tmp_path / "a.avi", "mpeg4").read_bytes()
    for share in (2, 5, 7):
        (tmp_path / f"{share}.avi").write_bytes(data[: len(data) * share // 10])
    code = """
from video_files import decode
from clipbert_mm.datasets.transforms import BrokenMediaError
for path in paths:
    for backend in ("pyav", "decord", "opencv"):
        try:
            print(len(decode(path, [0], backend=backend)), "whole")
        except BrokenMediaError as error:
            print("cannot read", error.reason)
"""
    printed = run_code(code, paths=[str(tmp_path / f"{name}.avi") for name in (2, 5, 7, "a")])
    assert "deprecated" not in printed + capfd.readouterr().err
    *cut, one, two, three = printed.strip().splitlines()
    assert [one, two, three] == ["1 whole"] * 3
    assert len(cut) == 9
    assert all(line.startswith("cannot read") for line in cut)


@pytest.fixture(scope="session")
def with_torchcodec(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment in which torchcodec finds an FFmpeg: the system's, or the one within PyAV under its usual names."""
    environment = dict(os.environ, CUDA_VISIBLE_DEVICES="")
    needed = Path(av.__file__).parents[1] / "av.libs"
    if sys.platform == "linux" and needed.is_dir():
        links = tmp_path_factory.mktemp("ffmpeg")
        for library in needed.glob("lib[as]*"):
            if found := re.fullmatch(r"(lib(?:av|sw)\w+)-\w+(\.so\.\d+).*", library.name):
                (links / (found[1] + found[2])).symlink_to(library)
        environment["LD_LIBRARY_PATH"] = os.pathsep.join(
            [str(links), str(needed), os.environ.get("LD_LIBRARY_PATH", "")]
        )
    return environment


def test_torchcodec_agrees(
    files: dict[str, Path], hard_files: dict[str, Path], with_torchcodec: dict[str, str], root: Path
):
    code = """
import json, sys
import numpy as np
from video_files import decode, decode_whole
from clipbert_mm.datasets.transforms import BackendError, BrokenMediaError
found = {}
files, inds = json.loads(sys.argv[1]), json.loads(sys.argv[2])
for name, path in files.items():
    try:
        frames, wanted = decode(path, inds, backend="torchcodec"), decode_whole(path)[inds]
        found[name] = int(np.abs(frames.astype(int) - wanted).max()) if frames.shape == wanted.shape else -1
    except BrokenMediaError as error:
        found[name] = error.reason
    except BackendError as error:
        found = str(error)
        break
print(json.dumps(found))
"""
    paths = json.dumps({name: str(path) for name, path in {**files, **hard_files}.items()})
    environment = with_torchcodec | dict(PYTHONPATH=os.pathsep.join([str(root), str(root / "tests")]))
    run = [sys.executable, "-c", code, paths, json.dumps(INDS)]
    done = subprocess.run(run, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.strip().splitlines()[-1])
    if isinstance(found, str):
        pytest.skip(found)
    refused = {name: found.pop(name) for name in ("transport stream", "avi with b frames")}
    assert found == dict.fromkeys([*files, "cut"], 0)
    assert all("torchcodec takes wrong frames of such a file" in reason for reason in refused.values())


def test_a_backend_that_is_not_installed_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(backends, "find_spec", lambda name: None)
    for backend, (module, command) in backends.MODULES.items():
        library = module.partition(".")[0]
        message = f"OpenVideo(backend={backend!r}) needs {library}, which is not installed: {command}"
        with pytest.raises(BackendError, match=f"^{re.escape(message)}$"):
            OpenVideo(backend=backend)


def test_videos_are_read_without_decord(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "decord", None)  # as on a machine for which it has no wheel
    with pytest.raises(BackendError, match=r"needs decord, which is not installed: .*on x86-64; .* use backend='pyav'"):
        OpenVideo(backend="decord")
    assert np.array_equal(decode(files["bt.709"], INDS), decode_whole(files["bt.709"])[INDS])


@pytest.mark.parametrize(
    ("package", "decoders", "reason"),
    [
        ("", "raise RuntimeError('Could not load libtorchcodec.\\nMore lines')", r"Could not load libtorchcodec\."),
        ("ffmpeg_major_version = None", "", "FFmpeg was not found"),
    ],
    ids=["as_of_0.7", "as_of_0.17"],
)
def test_torchcodec_without_ffmpeg_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, package: str, decoders: str, reason: str
):
    (tmp_path / "torchcodec").mkdir()
    (tmp_path / "torchcodec" / "__init__.py").write_text(package)
    (tmp_path / "torchcodec" / "decoders.py").write_text(decoders)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchcodec"]:
        monkeypatch.delitem(sys.modules, name)
    message = r"torchcodec cannot be used and needs the system's FFmpeg \(apt-get install ffmpeg\), and .*torch"
    with pytest.raises(BackendError, match=rf"{message} \({reason}\)$"):
        OpenVideo(backend="torchcodec")
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchcodec"]:
        del sys.modules[name]  # the stand-in


def test_options_out_of_range_are_refused():
    with pytest.raises(ValueError, match="OpenVideo expects backend pyav, decord, opencv, torchcodec, got 'ffmpeg'"):
        OpenVideo(backend="ffmpeg")
    with pytest.raises(ValueError, match="OpenVideo expects num_threads >= 1, got 0"):
        OpenVideo(num_threads=0)
    assert list(BACKENDS) == list(backends.MODULES)
