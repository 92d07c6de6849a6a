"""Short queries of the Shapes world: each is shown at its times, and at no others."""

import json
from pathlib import Path

import av
import numpy as np
import pytest

from clipbert_mm.datasets.shapes.queries import find_spans
from clipbert_mm.datasets.shapes.scenes import COLORS, Scene, ShapeObject


def scene_of(seconds: float, *names: tuple[str, str]) -> Scene:
    """A scene of shapes of these colors and kinds."""
    return Scene(
        tuple(ShapeObject(kind, color, "small", (0.5, 0.5), (0.0, 0.0)) for color, kind in names), "black", seconds
    )


def test_spans_are_of_whole_frames_and_join_where_a_shape_stays():
    red, orange = ("red", "ring"), ("orange", "star")
    scenes = [scene_of(1.56, red), scene_of(2.04, red, orange), scene_of(1.5, orange), scene_of(1.96, red)]
    # 16, 20, 15 and 20 frames at 10 per second.
    assert find_spans(scenes, 10) == {"a red ring": [[0.0, 3.6], [5.1, 7.1]], "an orange star": [[1.6, 5.1]]}


def shows(frame: np.ndarray, color: str) -> bool:
    """Whether 30 pixels of a frame are near a color, nearer than to any other."""
    distances = {name: np.abs(frame.astype(int) - value).max(axis=2) for name, value in COLORS.items()}
    nearest = np.min(list(distances.values()), axis=0)
    return int(((distances[color] == nearest) & (nearest < 40)).sum()) > 30


def test_queries_are_the_shapes_of_each_held_out_video_at_the_times_of_its_frames(world: Path):
    stories = json.loads((world / "world.json").read_text())["videos"]["test"]
    records = [json.loads(line) for line in (world / "queries.jsonl").read_text().splitlines()]
    assert [(record["video"], record["caption"]) for record in records] == [
        (video, caption)
        for video, scenes in stories.items()
        for caption in dict.fromkeys(
            f"{'an' if item['color'] == 'orange' else 'a'} {item['color']} {item['shape']}"
            for scene in scenes
            for item in scene["objects"]
        )
    ]
    compared = 0
    for video in stories:
        spans: dict[str, list[list[float]]] = {}
        for record in records:
            if record["video"] == video:
                spans.setdefault(record["caption"].split()[1], []).extend(record["spans"])
        with av.open(str(world / "videos" / video)) as container:
            fps = float(container.streams.video[0].average_rate)
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert max(end for own in spans.values() for _, end in own) == pytest.approx(len(frames) / fps)
        for color, own in spans.items():
            for i in range(0, len(frames), 3):
                middle = (i + 0.5) / fps
                assert shows(frames[i], color) == any(start <= middle < end for start, end in own), (video, color, i)
                compared += 1
    assert compared > 100
