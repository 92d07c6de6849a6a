"""An explanation in lines, in JSON, and on the frame."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from clipbert_mm import visualization
from clipbert_mm.apis import Explanation, Moment, VideoSearch
from clipbert_mm.apis.explanation import _on_frame
from clipbert_mm.media.media_file import Media

MOMENTS = (Moment(0.0, 1.0, -0.5), Moment(59.2, 60.3, 2.0))


@pytest.fixture
def explanation() -> Explanation:
    """An explanation of a video of two clips."""
    return Explanation(
        "/videos/a.mp4", "a dog", None, 1.25, MOMENTS, 1, np.zeros((2, 4, 6, 3), np.uint8), np.zeros((4, 6)), "log-odds"
    )


def test_it_has_a_line_for_each_clip(explanation: Explanation):
    assert str(explanation).splitlines() == [
        "a dog  (/videos/a.mp4): log-odds 1.25",
        "  00:00–00:01    -0.50",
        "  00:59–01:01     2.00  <- best",
    ]


def test_it_turns_into_json_without_its_pixels(explanation: Explanation):
    assert json.loads(json.dumps(explanation.to_dict())) == dict(
        path="/videos/a.mp4",
        text="a dog",
        answer=None,
        score=1.25,
        moments=[dict(start=0.0, end=1.0, score=-0.5), dict(start=59.2, end=60.3, score=2.0)],
        best=1,
        score_kind="log-odds",
    )


def test_what_is_drawn(explanation: Explanation, monkeypatch: pytest.MonkeyPatch):
    drawn: list[tuple] = []
    monkeypatch.setattr(visualization, "draw_explanation", lambda *what: drawn.append(what))
    explanation.draw("a.png")
    replace(explanation, answer="brown").draw("b.png")
    spans = [(0.0, 1.0, -0.5), (59.2, 60.3, 2.0)]
    rest = (spans, 1, explanation.frames, explanation.heat)
    assert drawn == [
        ("a dog", "a.mp4", *rest, "a.png", "log-odds"),
        ("a dog  brown", "a.mp4", *rest, "b.png", "log-odds"),
    ]


@pytest.mark.parametrize(
    ("shape", "content"), [((32, 32), (32, 32)), ((32, 32), (24, 32)), ((32, 32), (32, 10)), ((16, 32), (16, 32))]
)
def test_heat_is_laid_on_the_frame_without_its_padding(shape: tuple[int, int], content: tuple[int, int]):
    heat = torch.rand(16)
    media = Media(np.zeros((3, 2, *shape, 3), np.uint8), None, content, None)
    large = cv2.resize(heat.view(4, 4).numpy(), shape[::-1], interpolation=cv2.INTER_LINEAR)
    cropped = large[: content[0], : content[1]]
    assert _on_frame(heat.view(4, 4), media) == pytest.approx(cropped / cropped.max(), abs=1e-5)
    assert not _on_frame(torch.zeros(4, 4), media).any()


def test_the_frames_are_those_of_the_best_clip(checkpoint: Path, world: Path, tmp_path: Path):
    search = VideoSearch(checkpoint, index=tmp_path / "index")
    path = str(world / "videos" / "test_00000.mp4")
    media = replace(search.predictor.read(path), content_shape=(24, 20))
    search.predictor.read = lambda path: media
    found = search.explain("a red circle", path)
    alone = [moment.score for moment in found.moments]
    assert found.best == int(np.argmax(alone))
    assert np.array_equal(found.frames, media.frames[found.best, :, :24, :20])
    assert [(moment.start, moment.end) for moment in found.moments] == [tuple(times) for times in media.clip_times]
    assert (found.path, found.text, found.answer) == (path, "a red circle", None)
    assert found.heat.shape == (24, 20)
    only = replace(media, frames=media.frames[found.best][None], clip_times=media.clip_times[found.best][None])
    search.predictor.read = lambda path: only
    assert search.explain("a red circle", path).heat == pytest.approx(found.heat, abs=1e-5), "of the best clip alone"
