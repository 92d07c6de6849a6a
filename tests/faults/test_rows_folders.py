"""The rows of work folders: nothing that a run wrote is lost, mixed or left for good. Real processes, real kills."""

import os
from collections.abc import Callable
from pathlib import Path

from video_files import write_file


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
    assert ": its new name is too long: " in capsys.readouterr().out
    assert sorted(os.listdir(out)) == sorted([".reencoded.json", *written])
