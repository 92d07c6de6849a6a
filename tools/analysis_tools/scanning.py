"""Knowing the data: open every video, decode three of its frames, and keep a ledger of what was found.

A ledger is a JSON-lines file with one object per file: ``path`` (absolute), ``status``, ``reason``, ``frames``, ``fps`` (on
average), ``seconds`` (from the first frame to the end of the last), ``width``, ``height``, ``size`` and ``mtime``, which tell
whether the file has changed since, and ``rules``, the version of the rules by which it was read.
"""

import functools
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.utils import is_abs

from clipbert_mm.datasets.annotations import read_records
from clipbert_mm.datasets.ledger import NO_PROPERTIES, ledger_path, parse_entry
from clipbert_mm.datasets.transforms.decoding import DecodeClips
from clipbert_mm.engine.config import missing_validation
from clipbert_mm.errors import AnnotationError, BrokenMediaError
from clipbert_mm.json_text import json_line, write_records
from clipbert_mm.media import DECODING_RULES
from clipbert_mm.media.isolation import run_each
from clipbert_mm.media.listing import list_names, missing_media
from clipbert_mm.media.storage import stamp_media
from clipbert_mm.registry import TRANSFORMS

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What counts as usual.

    Args:
        min_seconds: Length of a video, in seconds; one of a single frame is too short in any case.
        min_fps: Frames a second.
        max_fps: Frames a second.
        max_aspect_ratio: Longer side over shorter side.
    """

    min_seconds: float = 0.5
    min_fps: float = 2.0
    max_fps: float = 120.0
    max_aspect_ratio: float = 4.0


def classify(found: Mapping[str, Any], limits: Limits) -> tuple[str, str]:
    """Return the status of a file that can be read, and the reason where it is not "ok".

    Args:
        found: ``frames``, ``fps`` (None for an image), ``seconds``, ``width`` and ``height`` in pixels.
        limits: What counts as usual.

    >>> classify(dict(frames=300, fps=1000.0, seconds=0.3, width=64, height=48), Limits())
    ('too_short', '0.30 seconds, 300 frames; expected at least 0.5 and 2')
    """
    ratio = max(found["width"], found["height"]) / min(found["width"], found["height"])
    if found["fps"] is not None:
        seconds, frames, fps = found["seconds"], found["frames"], found["fps"]
        if frames < 2 or seconds < limits.min_seconds:
            return (
                "too_short",
                f"{seconds:.2f} seconds, {frames} frames; expected at least {limits.min_seconds:g} and 2",
            )
        if not limits.min_fps <= fps <= limits.max_fps:
            return "odd_frame_rate", f"{fps:g} frames a second; expected {limits.min_fps:g} to {limits.max_fps:g}"
    if ratio > limits.max_aspect_ratio:
        return (
            "extreme_aspect_ratio",
            f"{found['width']} x {found['height']} pixels; expected at most {limits.max_aspect_ratio:g} to 1",
        )
    return "ok", ""


@functools.cache
def _build(opener: str) -> Any:
    return TRANSFORMS.build(json.loads(opener))


@functools.cache
def _decoder() -> DecodeClips:
    return DecodeClips()


def probe(job: tuple[str, str]) -> dict[str, Any]:
    """Open a file and decode its first, middle and last frame, or the image that it is.

    Args:
        job: The path, and the config of the transform that opens it, as JSON.

    Returns:
        ``frames``, ``fps``, ``seconds``, ``width``, ``height``; or ``reason`` if it cannot be read.
    """
    path, opener = job
    try:
        results = _build(opener).transform(dict(path=path))
        total, fps = results.get("total_frames", 1), results.get("avg_fps")
        if "frames" not in results:
            results |= dict(frame_inds=np.array([0, total // 2, total - 1]), num_clips=3, clip_len=1)
            results = _decoder().transform(results)
        height, width = results["frames"].shape[2:4]
    except BrokenMediaError as error:
        return dict(reason=error.reason)
    if fps is None:
        return dict(frames=total, fps=None, seconds=0.0, width=width, height=height)
    seconds = results.get("duration") or total / fps
    return dict(frames=total, fps=round(total / seconds, 4), seconds=round(seconds, 3), width=width, height=height)


def scan(
    files: Mapping[str, Mapping[str, Any]],
    ledger: str | os.PathLike,
    *,
    workers: int,
    timeout: float,
    limits: Limits,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> list[dict[str, Any]]:
    """Open every file, in processes of their own, and write the ledger.

    What an earlier ledger, or one that was interrupted, says of a file that has not changed since is taken over, save that
    the file was missing or took too long, or it was read by older rules.

    Args:
        files: The config of the transform that opens it, by each path.
        ledger: The ledger's file; it appears when it is whole.
        workers: Number of processes.
        timeout: Seconds that one file may take.
        limits: What counts as usual.
        report: Called with how many files are done, and of how many.

    Returns:
        The ledger's entries, by path.
    """
    openers = {ledger_path(path): json.dumps(opener, sort_keys=True) for path, opener in files.items()}
    stamps = {path: stamp_media(path) for path in openers}
    entries = _known(ledger, stamps)
    todo = {path: opener for path, opener in sorted(openers.items()) if path not in entries}
    part = Path(f"{ledger}.part")
    write_records(entries.values(), part)
    with open(part, "a", encoding="utf-8") as lines:
        for path, status, reason, found in _look_at(todo, workers, timeout):
            size, mtime = stamps[path] or (None, None)
            entries[path] = dict(
                path=path, status=status, reason=reason, **found, size=size, mtime=mtime, rules=DECODING_RULES
            )
            lines.write(json_line(entries[path]))
            lines.flush()
            report(len(entries), len(openers))
    for entry in entries.values():  # those taken over too, since the limits may be others
        if entry["width"] is not None:
            entry["status"], entry["reason"] = classify(entry, limits)
    whole = [entries[path] for path in sorted(entries)]
    write_records(whole, ledger)
    part.unlink()
    return whole


def _look_at(
    openers: Mapping[str, str], workers: int, timeout: float
) -> Iterator[tuple[str, str, str, Mapping[str, Any]]]:
    """Open files; yields path, status, reason, and what was found."""
    missing = set(missing_media(list(openers)))
    for path in missing:
        yield path, "missing", "there is no such file", NO_PROPERTIES
    jobs = [(path, opener) for path, opener in openers.items() if path not in missing]
    for outcome in run_each(probe, jobs, workers=workers, timeout=timeout):
        found = outcome.value or dict(reason=outcome.failure)
        if "reason" in found:
            yield outcome.job[0], "timeout" if outcome.timed_out else "unreadable", found["reason"], NO_PROPERTIES
        else:
            yield outcome.job[0], "ok", "", found


def _known(ledger: str | os.PathLike, stamps: Mapping[str, tuple[int, float] | None]) -> dict[str, dict[str, Any]]:
    """Return what earlier scans say of the files that have not changed since."""
    known: dict[str, dict[str, Any]] = {}
    for path in (Path(ledger), Path(f"{ledger}.part")):
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n") if path.is_file() else []
        for entry in filter(None, map(parse_entry, lines)):  # the last line of one that was killed may be half a line
            if entry["status"] in ("missing", "timeout") or stamps.get(entry["path"]) is None:
                continue
            if (entry["size"], entry["mtime"]) == stamps[entry["path"]] and entry.get("rules") == DECODING_RULES:
                known[entry["path"]] = entry
    return known


def folder_files(folder: str) -> dict[str, dict[str, Any]]:
    """Return the files of a folder, LMDB or address, each with the transform that opens it: images by their ending.

    Raises:
        AnnotationError: If there are none.
    """
    names = list_names(folder)
    if not names:
        raise AnnotationError(f"There is no folder or LMDB {ledger_path(folder)} with files in it.")
    root = folder.rstrip("/")
    return {
        f"{root}/{name}": dict(type="LoadImage" if name.lower().endswith(IMAGE_ENDINGS) else "OpenVideo")
        for name in names
    }


def config_files(config: Mapping[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the files of all datasets of a config's dataloaders, without building these, by the name of their folder.

    A validation whose annotation file does not exist is left out, as ``tools/train.py --no-validate`` does.

    Args:
        config: A config with ``train_dataloader``, ``val_dataloader`` or ``test_dataloader``.

    Returns:
        For each folder's name the files, each with the transform that opens it, which is the first of the pipeline.

    Raises:
        AnnotationError: If there is no dataset, or an annotation file cannot be used.
    """
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for loader in ("train_dataloader", "val_dataloader", "test_dataloader"):
        if loader == "val_dataloader" and missing_validation(config) is not None:
            continue
        for dataset in _datasets((config.get(loader) or {}).get("dataset")):
            root = dataset.get("data_root", "")
            prefix = dataset.get("data_prefix") or dataset.get("media_folder", "")
            folder = _join(root, prefix if isinstance(prefix, str) else next(iter(prefix.values())))
            name = os.path.basename(os.path.normpath(root or folder))
            example = '{"video": "a.mp4"}'
            ann_files = [dataset["ann_file"]] if isinstance(dataset["ann_file"], str) else dataset["ann_file"]
            for record in (record for each in ann_files for record in read_records(_join(root, each), {}, example)):
                path = os.path.join(folder, record["media"] + dataset.get("media_suffix", ""))
                found.setdefault(name, {})[path] = dataset["pipeline"][0]
    if not found:
        raise AnnotationError(
            "The config has no dataset in train_dataloader, val_dataloader or test_dataloader: nothing to scan."
        )
    return found


def _datasets(config: Any) -> Iterator[Mapping[str, Any]]:
    """Find the datasets in a config, within wrappers too."""
    if isinstance(config, (list, tuple)):
        for each in config:
            yield from _datasets(each)
    elif isinstance(config, Mapping):
        if "ann_file" in config:
            yield config
        for name in ("dataset", "datasets"):
            yield from _datasets(config.get(name))


def _join(root: str, path: str) -> str:
    return path if not root or is_abs(path) else os.path.join(root, path)


def describe_lengths(seconds: Sequence[float]) -> str:
    """Say how long videos are.

    >>> describe_lengths([1.0, 2.0, 9.0])
    '3 videos, 0.00 hours; seconds: mean 4.0, shortest 1.0, median 2.0, 95 % up to 8.3, longest 9.0'
    """
    values = np.asarray(seconds)
    low, median, most, high = np.percentile(values, [0, 50, 95, 100])
    return (
        f"{len(values):,} videos, {values.sum() / 3600:.2f} hours; seconds: mean {values.mean():.1f}, shortest {low:.1f}, "
        f"median {median:.1f}, 95 % up to {most:.1f}, longest {high:.1f}"
    )
