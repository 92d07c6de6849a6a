"""The scan: what it says of a file is so, whatever the file does to the decoder, and datasets can go by it."""

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import cv2
import length_figures
import numpy as np
import pytest
import scanning
from scanning import Limits, classify, config_files, probe, scan

from clipbert_mm.datasets.ledger import STATUSES, ledger_path, read_exclusions
from clipbert_mm.errors import AnnotationError
from clipbert_mm.media.isolation import Outcome

OPEN = dict(type="OpenVideo")


@pytest.fixture(scope="session")
def main(tool: Callable) -> Callable[..., None]:
    run = tool("analysis_tools/scan_videos.py").main
    return lambda *arguments: run([*map(str, arguments), "--workers=2"])


def write_video(path: Path, count: int = 20, fps: int = 10, size: tuple[int, int] = (64, 48)) -> Path:
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps, width=size[0], height=size[1], pix_fmt="yuv420p")
        for _ in range(count):
            container.mux(stream.encode(av.VideoFrame(*size, "yuv420p")))
        container.mux(stream.encode())
    return path


@pytest.fixture
def folder(tmp_path: Path, break_file: Callable) -> Path:
    """A folder of good, unusual and broken videos."""
    root = tmp_path / "videos"
    root.mkdir()
    write_video(root / "good.mp4", count=25)
    write_video(root / "no_ending", count=40)
    write_video(root / "short.mp4", count=4)
    write_video(root / "one.mp4", count=1, fps=1)
    write_video(root / "slow.mp4", count=3, fps=1)
    write_video(root / "fast.mp4", count=400, fps=200)
    write_video(root / "wide.mp4", size=(256, 48))
    write_video(root / "tall.mp4", size=(64, 320))
    cv2.imwrite(str(root / "image.png"), np.zeros((30, 40, 3), np.uint8))
    for how in ("empty", "text", "cut"):
        break_file(write_video(root / f"{how}.mp4"), how)
    os.mkfifo(root / "pipe.mp4")  # no file; whoever opened it would wait for someone to write to it
    (root / "dangling.mp4").symlink_to(root / "nowhere.mp4")
    return root


EXPECTED = {
    "good.mp4": ("ok", ""),
    "no_ending": ("ok", ""),
    "image.png": ("ok", ""),
    "short.mp4": ("too_short", "0.40 seconds, 4 frames; expected at least 0.5 and 2"),
    "one.mp4": ("too_short", "1.00 seconds, 1 frames; expected at least 0.5 and 2"),
    "slow.mp4": ("odd_frame_rate", "1 frames a second; expected 2 to 120"),
    "fast.mp4": ("odd_frame_rate", "200 frames a second; expected 2 to 120"),
    "wide.mp4": ("extreme_aspect_ratio", "256 x 48 pixels; expected at most 4 to 1"),
    "tall.mp4": ("extreme_aspect_ratio", "64 x 320 pixels; expected at most 4 to 1"),
    "empty.mp4": ("unreadable", "the file is empty (0 bytes)"),
    "text.mp4": ("unreadable", "not a video, or cut short"),
    "cut.mp4": ("unreadable", "not a video, or cut short"),
    "dangling.mp4": ("missing", "there is no such file"),
}


def read(out: Path) -> dict[str, dict[str, Any]]:
    entries = [json.loads(line) for line in (out / "ledger.jsonl").read_text().splitlines()]
    return {Path(entry["path"]).name: entry for entry in entries}


def test_the_ledger_says_what_is_there(main: Callable, folder: Path, tmp_path: Path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main("videos", "--out", "out", "--timeout", 8)
    ledger = read(tmp_path / "out")
    assert {name: (entry["status"], entry["reason"]) for name, entry in ledger.items()} == EXPECTED
    said = {
        name: [entry[key] for key in ("frames", "fps", "seconds", "width", "height")] for name, entry in ledger.items()
    }
    assert said["good.mp4"] == [25, 10.0, 2.5, 64, 48]
    assert said["tall.mp4"] == [20, 10.0, 2.0, 64, 320]
    assert said["image.png"] == [1, None, 0.0, 40, 30]
    for name in ("empty.mp4", "dangling.mp4"):
        assert said[name] == [None] * 5
    for name, entry in ledger.items():
        assert entry["path"] == str(folder / name)
        if name != "dangling.mp4":
            assert (entry["size"], entry["mtime"]) == ((folder / name).stat().st_size, (folder / name).stat().st_mtime)
    printed = capsys.readouterr().out
    counts = Counter(status for status, _ in EXPECTED.values())
    for status in STATUSES:
        assert f"{status}: {counts[status]}" in printed
    assert f"  unreadable: {folder / 'empty.mp4'}: the file is empty (0 bytes)" in printed
    # 2.5, 4, 0.4, 1, 3, 2, 2 and 2 seconds
    assert (
        "videos: 8 videos, 0.00 hours; seconds: mean 2.1, shortest 0.4, median 2.0, 95 % up to 3.6, longest 4.0"
        in printed
    )
    assert (cv2.imread("out/durations.png") != 255).any()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["durations.png", "ledger.jsonl"]


@pytest.fixture
def probed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are opened, in this process."""
    opened: list[str] = []

    def run_here(function: Callable, jobs: list[tuple[str, str]], **options: Any):
        for job in jobs:
            opened.append(Path(job[0]).name)
            yield Outcome(job, function(job))

    monkeypatch.setattr(scanning, "run_each", run_here)
    return opened


@pytest.fixture
def three(tmp_path: Path) -> dict[str, dict[str, str]]:
    """Three videos."""
    return {str(write_video(tmp_path / f"{name}.mp4")): OPEN for name in "abc"}


def scan_here(files: dict, ledger: Path, limits: Limits | None = None) -> dict[str, dict[str, Any]]:
    entries = scan(files, ledger, workers=1, timeout=60, limits=limits or Limits())
    assert [json.loads(line) for line in ledger.read_text().splitlines()] == entries
    return {Path(entry["path"]).stem: entry for entry in entries}


def test_only_what_has_changed_is_opened_again(three: dict, tmp_path: Path, probed: list[str]):
    ledger = tmp_path / "out" / "ledger.jsonl"
    gone = tmp_path / "gone.mp4"
    first = scan_here(three | {str(gone): OPEN}, ledger)
    assert probed == ["a.mp4", "b.mp4", "c.mp4"]
    assert first["gone"]["status"] == "missing"
    probed.clear()
    write_video(tmp_path / "b.mp4", count=50)
    write_video(gone)
    entries = scan_here(three | {str(gone): OPEN}, ledger)
    assert probed == ["b.mp4", "gone.mp4"]
    assert (entries["b"]["frames"], entries["gone"]["status"]) == (50, "ok")
    assert entries["a"] == first["a"]
    probed.clear()
    assert scan_here({path: OPEN for path in three if "a.mp4" in path}, ledger).keys() == {"a"}
    assert probed == []


def test_other_limits_need_no_other_scan(three: dict, tmp_path: Path, probed: list[str]):
    ledger = tmp_path / "ledger.jsonl"
    assert scan_here(three, ledger)["a"]["status"] == "ok"
    probed.clear()
    assert scan_here(three, ledger, Limits(min_seconds=3))["a"]["status"] == "too_short"
    assert scan_here(three, ledger, Limits(max_fps=9))["a"]["status"] == "odd_frame_rate"
    assert scan_here(three, ledger)["a"]["status"] == "ok"
    assert probed == []


def test_a_scan_that_was_killed_goes_on(three: dict, tmp_path: Path, probed: list[str], monkeypatch):
    ledger = tmp_path / "ledger.jsonl"

    def stop(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scan(three, ledger, workers=1, timeout=60, limits=Limits(), report=stop)
    assert not ledger.exists(), "no half-written ledger is left"
    part = tmp_path / "ledger.jsonl.part"
    with open(part, "a") as lines:
        lines.write(part.read_text()[:50])  # a line that was not finished
    probed.clear()
    assert scan_here(three, ledger).keys() == {"a", "b", "c"}
    assert probed == ["c.mp4"]
    assert not part.exists()


def test_a_file_that_hangs_the_decoder_is_named(three: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def run(function: Callable, jobs: list[tuple[str, str]], **options: Any):
        yield Outcome(jobs[0], failure="it took longer than 60 seconds", timed_out=True)
        yield Outcome(jobs[1], failure="the decoder ended its process (signal SIGSEGV)")
        yield Outcome(jobs[2], function(jobs[2]))

    monkeypatch.setattr(scanning, "run_each", run)
    entries = scan_here(three, tmp_path / "ledger.jsonl")
    assert {name: (entry["status"], entry["reason"]) for name, entry in entries.items()} == {
        "a": ("timeout", "it took longer than 60 seconds"),
        "b": ("unreadable", "the decoder ended its process (signal SIGSEGV)"),
        "c": ("ok", ""),
    }


def test_what_was_read_by_older_rules_is_read_again(three: dict, tmp_path: Path, probed: list[str]):
    ledger = tmp_path / "ledger.jsonl"
    entries = list(scan_here(three, ledger).values())
    del entries[0]["rules"]
    ledger.write_text("\n".join(map(json.dumps, entries)))
    assert read_exclusions(ledger) == {}, "datasets take it"
    probed.clear()
    scan_here(three, ledger)
    assert probed == ["a.mp4"]


def test_a_timeout_is_tried_again(three: dict, tmp_path: Path, probed: list[str]):
    ledger = tmp_path / "ledger.jsonl"
    entries = list(scan_here(three, ledger).values())
    entries[0] |= dict(status="timeout", **scanning.NO_PROPERTIES)
    entries[1] |= dict(status="unreadable", **scanning.NO_PROPERTIES)
    ledger.write_text("\n".join(map(json.dumps, entries)))
    probed.clear()
    assert [entry["status"] for entry in scan_here(three, ledger).values()] == ["ok", "unreadable", "ok"]
    assert probed == ["a.mp4"]


def test_every_storage_is_scanned(tool: Callable, main: Callable, three: dict, tmp_path: Path):
    source = tmp_path / "source"
    source.mkdir()
    for path in three:
        shutil.move(path, source)
    tool("dataset_converters/pack_lmdb.py").main([str(source), str(tmp_path / "a.lmdb")])
    main(tmp_path / "a.lmdb", "--out", tmp_path / "out")
    assert {name: entry["status"] for name, entry in read(tmp_path / "out").items()} == dict.fromkeys("abc", "ok")
    frames = tmp_path / "frames"
    frames.mkdir()
    for i in range(30):
        cv2.imwrite(str(frames / f"{i}.png"), np.zeros((12, 16, 3), np.uint8))
    found = probe((str(frames), json.dumps(dict(type="OpenFrames", fps=10))))
    assert found == dict(frames=30, fps=10.0, seconds=3.0, width=16, height=12)


@pytest.fixture
def shapes_config(root: Path, own_world: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SHAPES_ROOT", str(own_world))
    return next(root.glob("configs/shapes/*-retrieval.py"))


def test_a_config_names_all_files_of_its_datasets(main: Callable, shapes_config: Path, own_world: Path, tmp_path: Path):
    missing, video = sorted((own_world / "videos").iterdir())[:2]
    missing.unlink()
    main(shapes_config, "--out", tmp_path / "out")
    ledger = read(tmp_path / "out")
    assert Counter(entry["status"] for entry in ledger.values()) == {"ok": 14, "missing": 1}
    assert ledger[missing.name]["status"] == "missing"
    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        expected = (stream.frames, float(stream.average_rate), stream.width, stream.height)
    assert tuple(ledger[video.name][key] for key in ("frames", "fps", "width", "height")) == expected


def test_datasets_are_found_within_others(own_world: Path, tmp_path: Path):
    (tmp_path / "a.jsonl").write_text('{"clip_name": "video0", "caption": "x"}\n')
    pipeline = [dict(type="OpenFrames", fps=5)]
    inner = dict(
        ann_file=str(tmp_path / "a.jsonl"), media_folder="s3://frames/msrvtt", media_suffix=".x", pipeline=pipeline
    )
    images = dict(
        data_root=str(own_world), ann_file="pretrain.jsonl", media_folder="images", pipeline=[dict(type="LoadImage")]
    )
    wrapped = dict(type="MixedDataset", datasets=[dict(type="RepeatDataset", dataset=inner), images])
    found = config_files(
        dict(train_dataloader=dict(dataset=wrapped), test_dataloader=dict(dataset=inner), val_dataloader=None)
    )
    assert found["msrvtt"] == {"s3://frames/msrvtt/video0.x": pipeline[0]}
    assert len(found["world"]) == 40
    assert found["world"][str(own_world / "images" / "00003.jpg")] == dict(type="LoadImage")
    without = dict(
        train_dataloader=dict(dataset=wrapped), val_dataloader=dict(dataset=images | dict(ann_file="none.jsonl"))
    )
    assert config_files(without) == found, "not all who train have a validation file"
    with pytest.raises(AnnotationError, match="The config has no dataset in train_dataloader"):
        config_files(dict(train_dataloader=None))


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list:
    drawn: list = []
    save = length_figures.save_figure
    monkeypatch.setattr(
        length_figures, "save_figure", lambda figure, picture: drawn.append(figure) or save(figure, picture)
    )
    return drawn


def test_the_figure_shows_the_average_length_of_each_dataset(main: Callable, tmp_path: Path, figures: list, capsys):
    for name, counts in {"a": (20, 40), "b": (10,), "c": (90, 90, 120)}.items():
        (tmp_path / name).mkdir()
        for i, count in enumerate(counts):
            write_video(tmp_path / name / f"{i}.mp4", count=count)
    arguments = [f"Short={tmp_path}/a", tmp_path / "b", f"Long={tmp_path}/c"]
    main(*arguments, "--out", tmp_path / "out")
    histograms, bars = figures
    labels = [label.get_text() for label in bars.axes[0].get_xticklabels()]
    assert dict(zip(labels, [bar.get_height() for bar in bars.axes[0].patches], strict=True)) == {
        "b": 1.0,
        "Short": 3.0,
        "Long": 10.0,
    }
    assert labels == ["b", "Short", "Long"]
    assert [axes.get_title("left") for axes in histograms.axes] == ["Long: 3 videos", "Short: 2 videos", "b: 1 videos"]
    assert [sum(bar.get_height() for bar in axes.patches) for axes in histograms.axes] == [3, 2, 1]
    assert (cv2.imread(str(tmp_path / "out" / "average_lengths.png")) != 255).any()
    assert "wrote ledger.jsonl, durations.png, average_lengths.png to" in capsys.readouterr().out


def test_an_avi_file_without_its_end_is_unreadable(tmp_path: Path):
    path = tmp_path / "a.AVI"
    with av.open(str(path), "w", format="avi") as container:
        stream = container.add_stream("mpeg4", rate=10, width=64, height=48, pix_fmt="yuv420p")
        for _ in range(50):
            container.mux(stream.encode(av.VideoFrame(64, 48, "yuv420p")))
        container.mux(stream.encode())
    assert probe((str(path), json.dumps(OPEN)))["frames"] == 50
    whole = path.read_bytes()
    with av.open(str(path)) as container:
        ends = [packet.pos + packet.size for packet in container.demux(video=0) if packet.size]
    path.write_bytes(whole[: ends[29]])
    assert "cut short" in probe((str(path), json.dumps(OPEN)))["reason"]


def test_images_have_no_length(main: Callable, world: Path, tmp_path: Path, capsys):
    main(world / "images", "--out", tmp_path / "out")
    assert "ok: 46" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["ledger.jsonl"]


def found(**values: float) -> dict[str, float]:
    return dict(frames=100, fps=25.0, seconds=4.0, width=64, height=48) | values


@pytest.mark.parametrize(
    ("values", "status"),
    [
        ({}, "ok"),
        (dict(seconds=0.5), "ok"),
        (dict(seconds=0.49), "too_short"),
        (dict(frames=1), "too_short"),
        (dict(fps=2.0), "ok"),
        (dict(fps=120.0), "ok"),
        (dict(fps=1.99), "odd_frame_rate"),
        (dict(fps=120.1), "odd_frame_rate"),
        (dict(width=192), "ok"),
        (dict(width=193), "extreme_aspect_ratio"),
        (dict(height=257), "extreme_aspect_ratio"),
        (dict(frames=1, fps=0.1, height=999), "too_short"),
        (dict(frames=1, fps=None, seconds=0.0), "ok"),
        (dict(frames=1, fps=None, seconds=0.0, width=999), "extreme_aspect_ratio"),
    ],
)
def test_what_is_usual_has_limits(values: dict[str, float], status: str):
    found_status, reason = classify(found(**values), Limits())
    assert found_status == status
    assert bool(reason) == (status != "ok")


def test_a_ledger_says_what_to_leave_out(tmp_path: Path):
    shape = dict.fromkeys((*scanning.NO_PROPERTIES, "size", "mtime"))
    entries = [dict(path=f"/v/{status}.mp4", status=status, reason="because", **shape) for status in STATUSES]
    ledger = tmp_path / "ledger.jsonl"
    ledger.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    useless = ("missing", "unreadable", "timeout")
    assert read_exclusions(ledger) == {f"/v/{status}.mp4": f"{status}: because" for status in useless}
    assert read_exclusions(ledger, ["too_short"]) == {"/v/too_short.mp4": "too_short: because"}
    assert read_exclusions(ledger, []) == {}
    assert ledger_path(os.path.relpath("/v/missing.mp4")) in read_exclusions(ledger)
    with pytest.raises(ValueError, match=r"statuses of a ledger \(ok, missing, .*\), got 'broken', 'short'\."):
        read_exclusions(ledger, ["short", "ok", "broken"])
    with pytest.raises(
        AnnotationError, match=r"There is no ledger .*none\.jsonl\. tools/analysis_tools/scan_videos\.py"
    ):
        read_exclusions(tmp_path / "none.jsonl")
    for wrong in ("no JSON", '{"video": "a.mp4", "caption": "x"}', json.dumps(entries[0] | dict(status="fine")), "3"):
        ledger.write_text(f"{json.dumps(entries[0])}\n{wrong}\n")
        with pytest.raises(AnnotationError, match=r"ledger\.jsonl, line 2: expected a ledger entry, .*, got "):
            read_exclusions(ledger)


def test_a_folder_without_files_is_refused(main: Callable, tmp_path: Path):
    for name in ("none", "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(AnnotationError, match=rf"There is no folder or LMDB .*{name} with files in it\."):
            main(tmp_path / name, "--out", tmp_path / "out")
