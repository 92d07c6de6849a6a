"""Pictures: the figure before it is saved says what it shows, and the file that is saved can be read."""

import json
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from clipbert_mm.evaluation import CalibrationBins, write_rankings
from clipbert_mm.visualization import draw_curves, draw_items, draw_reliability, draw_retrieval, figures


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Figures as they were saved."""
    saved: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda figure, *args, **options: saved.append(figure) or save(figure, *args, **options)
    )
    return saved


def has_color(picture: Path, color: str) -> bool:
    """Whether many pixels of a PNG file have a color."""
    pixels = cv2.imread(str(picture))[..., ::-1].astype(float) / 255
    return (np.abs(pixels - to_rgb(color)).max(axis=2) < 0.02).sum() > 100


def test_a_film_strip_is_frames_of_the_whole_video_side_by_side(world: Path, decode_with_pyav):
    path = world / "videos" / "test_00000.mp4"
    frames = decode_with_pyav(path)
    strip = figures.read_film_strip(str(path))
    assert strip.shape == (frames.shape[1], 3 * frames.shape[2], 3)
    for place, part in enumerate(np.split(strip, 3, axis=1)):
        differences = np.abs(frames.astype(int) - part).mean(axis=(1, 2, 3))
        assert differences.min() < 1
        closest = differences.argmin() / len(frames)
        assert (0, 1 / 3, 2 / 3)[place] <= closest <= (1 / 3, 2 / 3, 1)[place]


def test_retrieval_shows_the_best_videos_and_frames_the_right_one(world: Path, tmp_path: Path, drawn: list[Figure]):
    videos = [str(path) for path in sorted((world / "videos").glob("test_*"))[:4]]
    scores = [[0.1, 3.0, 2.0, -1.0], [5.0, 1.0, 2.0, 3.0], [0.0, -1.0, 4.0, 9.0]]
    texts = ["text of video 2", "text of video 0", "text of video 1"]
    write_rankings(tmp_path / "rankings.json", videos, texts, np.array([2, 0, 1]), np.array(scores), {})
    draw_retrieval(tmp_path / "rankings.json", tmp_path / "new" / "a.png", queries=3, topk=3)
    axes = np.array(drawn[0].axes).reshape(3, 4)
    assert [row[0].texts[0].get_text() for row in axes] == texts
    assert [row[0].get_title(loc="left") for row in axes] == [
        f"query; correct video at rank {rank}" for rank in (2, 1, 4)
    ]
    assert [cell.get_title() for cell in axes[0, 1:]] == ["1.  score 3.00", "2.  score 2.00", "3.  score 0.10"]
    framed = [[cell.spines["top"].get_edgecolor()[:3] == to_rgb(figures.CORRECT) for cell in row[1:]] for row in axes]
    assert framed == [[False, True, False], [True, False, False], [False, False, False]]
    shown = axes[0, 1].images[0].get_array()
    assert np.array_equal(shown, figures.read_film_strip(videos[1]))
    assert has_color(tmp_path / "new" / "a.png", figures.CORRECT)


def test_every_right_video_of_a_query_is_framed(world: Path, tmp_path: Path, drawn: list[Figure]):
    videos = [str(path) for path in sorted((world / "videos").glob("test_*"))[:4]]
    scores = np.array([[0.1, 3.0, 2.0, -1.0], [5.0, 1.0, 2.0, 3.0]])
    write_rankings(tmp_path / "rankings.json", videos, ["a", "b"], [[0, 2], [0]], scores, {})
    draw_retrieval(tmp_path / "rankings.json", tmp_path / "a.png", queries=2, topk=3)
    axes = np.array(drawn[0].axes).reshape(2, 4)
    titles = ["query; first of 2 correct videos at rank 2", "query; correct video at rank 1"]
    assert [row[0].get_title(loc="left") for row in axes] == titles
    framed = [[cell.spines["top"].get_edgecolor()[:3] == to_rgb(figures.CORRECT) for cell in row[1:]] for row in axes]
    assert framed == [[False, True, True], [True, False, False]]


def test_a_reliability_diagram_has_a_bar_a_point_and_a_number_for_each_bin_with_pairs(
    tmp_path: Path, drawn: list[Figure]
):
    bins = CalibrationBins()
    odds = np.log(np.array([0.02, 0.04, 0.55, 0.57, 0.96]) / (1 - np.array([0.02, 0.04, 0.55, 0.57, 0.96])))
    bins.add(np.repeat(odds, 700), np.repeat([False, True, True, False, True], 700))
    draw_reliability(bins.to_dict(), tmp_path / "new" / "a.png")
    above, below = drawn[0].axes
    bars = [(bar.get_x() + bar.get_width() / 2, bar.get_height()) for bar in above.patches]
    assert bars == [pytest.approx(bar) for bar in ((0.5 / 15, 0.5), (8.5 / 15, 0.5), (14.5 / 15, 1.0))]
    (points,) = [line for line in above.lines if line.get_marker() == "o"]
    assert points.get_xdata() == pytest.approx([0.03, 0.56, 0.96])
    assert points.get_ydata() == pytest.approx([0.03, 0.56, 0.96])
    assert [text.get_text() for text in below.texts] == ["1,400", "1,400", "700"]
    assert [bar.get_height() for bar in below.patches] == bins.pairs.tolist()
    assert (
        drawn[0].get_suptitle().startswith("3,500 pairs, 2,100 of them right: expected calibration error 0.220, Brier")
    )
    assert cv2.imread(str(tmp_path / "new" / "a.png")).shape[0] > 500


def test_items_show_every_frame_of_every_clip_in_order(tmp_path: Path, drawn: list[Figure]):
    frames = np.arange(2 * 3, dtype=np.uint8).reshape(2, 3, 1, 1, 1) * np.full((1, 1, 8, 8, 3), 40, np.uint8)
    image = np.full((1, 1, 8, 8, 3), 7, np.uint8)
    items = [
        dict(frames=frames, title="0: a.mp4", texts=["+ a cat", "- a dog"], clip_titles=["0.0-1.0 s", "4.0-5.0 s"]),
        dict(frames=image, title="1: b.jpg", texts=["a"], clip_titles=[""]),
    ]
    draw_items(items, tmp_path / "a.png")
    video, picture = drawn[0].subfigs
    assert [axes.images[0].get_array().mean() for axes in video.axes] == [0, 40, 80, 120, 160, 200]
    assert [axes.get_title(loc="left") for axes in video.axes] == ["0.0-1.0 s", "", "", "4.0-5.0 s", "", ""]
    assert video.get_suptitle() == "0: a.mp4\n+ a cat\n- a dog"
    assert [len(axes.images) for axes in picture.axes] == [1, 0, 0, 0, 0, 0]
    assert cv2.imread(str(tmp_path / "a.png")) is not None
    draw_items(items[1:], tmp_path / "one.png")
    assert has_color(tmp_path / "one.png", "#070707")


def test_curves_are_what_was_logged_also_after_resuming(tmp_path: Path, drawn: list[Figure]):
    def log(run: str, rows: list[dict]) -> None:
        folder = tmp_path / "work" / run / "vis_data"
        folder.mkdir(parents=True)
        (folder / "scalars.json").write_text("\n".join(map(json.dumps, rows)))

    log("20250101_000000", [dict(step=1, loss=2.0, loss_match=0.5, match_accuracy=0.4), {"step": 1, "t2v/R@1": 3.0}])
    log("20250102_000000", [dict(step=2, loss=1.0, loss_match=0.25, match_accuracy=0.75)])
    draw_curves({"stage": tmp_path / "work"}, tmp_path / "a.png")
    above, below = drawn[0].axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in [*above.lines, *below.lines]}
    assert lines == {
        "loss": [[1, 2.0], [2, 1.0]],
        "loss_match": [[1, 0.5], [2, 0.25]],
        "match_accuracy": [[1, 0.4], [2, 0.75]],
    }
    assert above.get_title() == "stage"
    assert cv2.imread(str(tmp_path / "a.png")) is not None


def test_a_training_that_logs_no_accuracy_has_losses_alone(tmp_path: Path, drawn: list[Figure]):
    log = tmp_path / "work" / "1" / "vis_data" / "scalars.json"
    log.parent.mkdir(parents=True)
    log.write_text('{"loss": 2.0, "step": 1}\n')
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns of a legend of nothing
        draw_curves({"stage": tmp_path / "work"}, tmp_path / "a.png")
    above, below = drawn[0].axes
    assert [line.get_label() for line in above.lines] == ["loss"]
    assert not below.axison
