#!/usr/bin/env python
"""Scale videos down and encode them anew: python tools/dataset_converters/reencode_videos.py FOLDER OUT."""

import argparse
import json
import os
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path

from clipbert_mm.engine.run_tool import run_tool
from clipbert_mm.errors import OptionError, printable
from clipbert_mm.fileio import atomic_write, locked
from clipbert_mm.media.isolation import run_each
from clipbert_mm.media.listing import list_names
from clipbert_mm.media.reencoding import Encoding, reencode
from clipbert_mm.media.storage import stamp_media

SETTINGS = ".reencoded.json"


def plan(folder: str, out: Path) -> dict[str, Path]:
    """Return the new file of each video: the same name with the ending .mp4."""
    names = list_names(folder)
    if not names:
        raise OptionError(f"There is no folder or LMDB {printable(folder)} with files in it.")
    sources = defaultdict(list)
    for name in names:
        sources[Path(name).with_suffix(".mp4")].append(name)
    for target, own in sources.items():
        if len(own) > 1:
            both = printable(" and ".join(own))
            raise OptionError(
                f"{both} of {printable(folder)} would become one {printable(str(target))}. Move one away."
            )
    return {f"{folder.rstrip('/')}/{own[0]}": out / target for target, own in sources.items()}


def remember(out: Path, encoding: Encoding) -> None:
    """Note how the videos of a folder are written; a folder written otherwise is not to be mixed."""
    settings = out / SETTINGS
    if settings.is_file():
        try:
            found = json.loads(settings.read_text(encoding="utf-8"))
        except ValueError as error:
            raise OptionError(f"{settings} does not say how the videos were written ({error}). Delete it.") from error
        if found != asdict(encoding):
            raise OptionError(
                f"{out} holds videos written with {found}, expected {asdict(encoding)}. Give another folder."
            )
        return
    with atomic_write(settings) as file:
        json.dump(asdict(encoding), file)


def is_done(source: str, target: Path) -> bool:
    """Whether the new file is there, and not older than the video."""
    stamp = stamp_media(source)
    try:
        return stamp is not None and target.stat().st_mtime >= stamp[1]
    except OSError:  # it is not there, or its name is too long
        return False


def encode(targets: dict[str, Path], encoding: Encoding, workers: int | None, timeout: float) -> int:
    """Encode the videos that are not done yet; returns how many could not be."""
    jobs = [(source, str(target), encoding) for source, target in targets.items() if not is_done(source, target)]
    if len(jobs) < len(targets):
        print(f"{len(targets) - len(jobs):,} of {len(targets):,} are done already")
    broken = 0
    for number, outcome in enumerate(run_each(reencode, jobs, workers=workers, timeout=timeout), start=1):
        if failure := outcome.failure or outcome.value:
            broken += 1
            print(f"broken: {printable(outcome.job[0])}: {failure}", flush=True)
        if number % 100 == 0:
            print(f"{number:,} of {len(jobs):,}", flush=True)
    return broken


def main(argv: list[str] | None = None) -> int:
    """Encode anew; returns 1 if a video could not be."""
    parser = argparse.ArgumentParser(
        description="Scale videos down, never up, and encode them as H.264 in MP4, upright and without sound. Run again, it "
        "resumes where it was stopped. A video that is broken is named and skipped; the exit code is then 1."
    )
    parser.add_argument("folder", help="folder or LMDB of videos")
    parser.add_argument("out", help="where the new ones go, under the same names with the ending .mp4")
    usual = Encoding()
    parser.add_argument(
        "--height", type=int, default=usual.height, help="pixels of the shorter side, at most (default: 240)"
    )
    parser.add_argument("--fps", type=float, help="frames a second (default: as they are)")
    parser.add_argument(
        "--keyframes", type=int, default=usual.keyframes, help="frames between key frames, at most (default: 30)"
    )
    parser.add_argument("--crf", type=int, default=usual.crf, help="quality of x264; less is better (default: 23)")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes (default: one a core)")
    parser.add_argument("--timeout", type=float, default=1800, help="seconds that one video may take (default: 1800)")
    args = parser.parse_args(argv)
    encoding = Encoding(height=args.height, fps=args.fps, keyframes=args.keyframes, crf=args.crf)
    out = Path(args.out)
    targets = plan(args.folder, out)
    with locked(out):
        remember(out, encoding)
        broken = encode(targets, encoding, args.workers, args.timeout)
    print(f"{len(targets) - broken:,} of {len(targets):,} videos are in {out}, {broken:,} are broken")
    return 1 if broken else 0


if __name__ == "__main__":
    run_tool(main)
