"""Short queries for the Shapes world, of a color and a kind, with the times at which its held-out videos show it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clipbert_mm.datasets.shapes.scenes import Scene
from clipbert_mm.json_text import write_records

Spans = list[list[float]]
"""Start and end in seconds of each time span, in their order."""


def find_spans(scenes: Sequence[Scene], fps: float) -> dict[str, Spans]:
    """Find when a video shows each of its shapes.

    A scene has round(seconds · fps) frames, as :func:`~clipbert_mm.datasets.shapes.scenes.write_video` writes it. A shape that
    consecutive scenes show has one span.

    Args:
        scenes: The scenes of the video.
        fps: Frames per second.

    Returns:
        The spans by the noun phrase of the shape, such as "a red circle", in the order of their first scene.
    """
    shown: dict[str, Spans] = {}
    first = 0  # frame of the scene
    for scene in scenes:
        last = first + round(scene.seconds * fps)
        for name in dict.fromkeys(item.describe() for item in scene.objects):
            spans = shown.setdefault(name, [])
            if spans and spans[-1][1] == first / fps:
                spans[-1][1] = last / fps
            else:
                spans.append([first / fps, last / fps])
        first = last
    return shown


def write_queries(folder: Path, stories: Mapping[str, Sequence[Scene]], rates: Mapping[str, float]) -> None:
    """Write ``queries.jsonl``: a line for each video and each color and kind that it shows, with the spans.

    Args:
        folder: The folder of the world.
        stories: The scenes of each video, by file name.
        rates: Frames per second of each video, by file name.
    """
    records: list[dict[str, Any]] = [
        dict(video=name, caption=text, spans=spans)
        for name, scenes in stories.items()
        for text, spans in find_spans(scenes, rates[name]).items()
    ]
    write_records(records, folder / "queries.jsonl")
