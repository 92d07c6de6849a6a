"""Calibration of scores: against a fit by another library, on pairs of a model, and damaged ones."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from scipy.optimize import minimize

from clipbert_mm.apis import LabelledPair, VideoIndexError, VideoSearch, read_pairs
from clipbert_mm.apis.calibration import Calibration, fit_calibration, fit_stage
from clipbert_mm.apis.search_options import SearchOptions
from clipbert_mm.errors import AnnotationError, OptionError


def test_the_fit_is_the_most_likely_one():
    rng = np.random.default_rng(0)
    scores = rng.normal(0.3, 0.05, 400)
    right = rng.random(400) < 1 / (1 + np.exp(-(scores - 0.31) / 0.02))
    matches = int(right.sum())
    targets = np.where(right, (matches + 1) / (matches + 2), 1 / (400 - matches + 2))

    def loss(line: np.ndarray) -> float:
        odds = line[0] * scores + line[1]
        return float((np.logaddexp(0, odds) - targets * odds).sum())

    slope, intercept = minimize(loss, [30.0, -9.0], method="Nelder-Mead", options=dict(xatol=1e-9, fatol=1e-12)).x
    fit = fit_calibration(scores.tolist(), right.tolist(), "max")
    assert fit.temperature == pytest.approx(1 / slope, rel=1e-4)
    assert fit.offset == pytest.approx(-intercept / slope, rel=1e-4)
    assert fit.probability(fit.offset) == 0.5
    assert abs(fit.offset - 0.31) < 0.01
    assert abs(fit.temperature - 0.02) < 0.006
    report = fit_stage(scores.tolist(), right.tolist(), "max", [0.5] * 400)
    assert report.ece_after < 0.1 < report.ece_before + 0.1
    assert report.ece_before == pytest.approx(abs(matches / 400 - 0.5), abs=1e-9)
    found = scores >= fit.offset
    assert report.precision == pytest.approx((found & right).sum() / found.sum())
    assert report.recall == pytest.approx((found & right).sum() / matches)
    f1 = [2 * (right & (scores >= s)).sum() / ((scores >= s).sum() + matches) for s in scores]
    assert report.best_f1 == pytest.approx(max(f1))
    assert report.best_threshold == pytest.approx(fit.probability(scores[int(np.argmax(f1))]))


def test_two_pairs_and_huge_scores_are_enough():
    for scale in (1e-9, 1.0, 1e9):
        fit = fit_calibration([2 * scale, -scale], [True, False], "max")
        assert 0.5 < fit.probability(2 * scale) < 0.8, "Platt's targets of one pair each are 2/3 and 1/3"
        assert fit.probability(2 * scale) == pytest.approx(2 / 3, abs=1e-3)
        assert fit.offset == pytest.approx(scale / 2, rel=1e-3)
    assert Calibration(1e-3, 0.0, "max").probability(-1e9) == 0.0


def test_scores_that_tell_nothing_are_refused():
    for scores, right, message in (
        ([0.1, 0.2], [True, True], "at least one pair that matches and one that does not, got 2 and 0"),
        ([0.1, 0.2], [True, False], "not larger than those of the 1 that do not"),
        ([0.1, 0.1], [True, False], "they tell nothing about a match"),
    ):
        with pytest.raises(OptionError, match=message):
            fit_calibration(scores, right, "max")


def test_pairs_are_read_or_named(tmp_path: Path):
    file = tmp_path / "pairs.jsonl"
    file.write_text(
        '\ufeff{"text": "a", "video": "b.mp4", "match": true}\n\n{"text": "c", "video": "/d", "match": false}\n'
    )
    assert read_pairs(file) == [LabelledPair("a", str(tmp_path / "b.mp4"), True), LabelledPair("c", "/d", False)]
    for line in (
        '{"text": "a", "video": "b"}',
        '{"text": "a", "video": "b", "match": 1}',
        "[]",
        "{",
        '{"text": "\\ud800"}',
    ):
        file.write_text(f'{{"text": "a", "video": "b.mp4", "match": true}}\n{line}\n')
        with pytest.raises(AnnotationError, match=r"pairs\.jsonl, line 2"):
            read_pairs(file)
    with pytest.raises(AnnotationError, match=r"Cannot read .*gone"):
        read_pairs(tmp_path / "gone")


@pytest.fixture
def towers(
    towers_config: dict, runner_config: Config, write_checkpoint: Callable, world: Path, tmp_path: Path
) -> VideoSearch:
    """A search by cosines."""
    runner_config.model = towers_config
    runner_config.train_dataloader.dataset.num_negatives = 1
    search = VideoSearch(write_checkpoint(), index=tmp_path / "towers")
    search.index(sorted((world / "videos").glob("test_*.mp4")), workers=0)
    return search


def test_cosines_get_probabilities_for_each_stage(towers: VideoSearch):
    text = "a red circle"
    before = towers.search(text, topk=7)
    assert (before.calibrated, before.best_probability) == (False, None)
    with pytest.raises(OptionError, match=r"A threshold needs probabilities, and .* gives none"):
        towers.search(text, threshold=0.5)
    alone = towers.search(text, topk=7, vectors_only=True)
    pairs = [LabelledPair(text, hit.path, rank < 3) for rank, hit in enumerate(before.hits)]
    report = towers.calibrate(pairs)
    assert set(report.stages) | set(report.failed) == {"model", "vectors"}
    assert report.stages["model"].ece_before is None
    json.dumps(report.to_dict())
    assert "temperature" in str(report)
    for search in (towers, VideoSearch(towers.predictor.source, index=towers.video_index.folder)):
        after = search.search(text, topk=7)
        fit = report.stages["model"].calibration
        assert after.calibrated
        assert [hit.score for hit in after.hits] == [hit.score for hit in before.hits]
        for hit in after.hits:
            assert hit.probability == pytest.approx(1 / (1 + math.exp(-(hit.score - fit.offset) / fit.temperature)))
        assert after.good_match is (after.hits[0].probability >= 0.5)
        middle = after.hits[3].probability
        some = search.search(text, topk=7, threshold=middle)
        assert [hit.path for hit in some.hits] == [hit.path for hit in after.hits[:4]]
        nothing = search.search(text, topk=7, threshold=1.0)
        assert (nothing.hits, nothing.good_match, nothing.searched) == ((), False, 7)
        assert nothing.best_probability == after.hits[0].probability
        best = f"nothing matches: the best has {after.hits[0].probability:.1%}, and the threshold is 100%"
        assert best in str(nothing).splitlines()
    if "vectors" in report.stages:
        fit = report.stages["vectors"].calibration
        found = towers.search(text, topk=7, vectors_only=True)
        assert [hit.probability for hit in found.hits] == pytest.approx(
            [fit.probability(hit.score) for hit in alone.hits]
        )
        other = "max" if fit.pooling != "max" else "mean"
        assert not towers.search(text, vectors_only=True, vector_pooling=other).calibrated, "it is for one pooling"
    assert (
        not VideoSearch(towers.predictor.source, index=towers.video_index.folder, pooling="max").search(text).calibrated
    )


def test_what_cannot_be_calibrated(towers: VideoSearch, tmp_path: Path):
    path = next(iter(towers.video_index.entries))
    with pytest.raises(OptionError, match="got 1 of one kind"):
        towers.calibrate([LabelledPair("a red circle", path, True)])
    with pytest.raises(VideoIndexError, match=r"gone\.mp4 is not in the index"):
        towers.calibrate(
            [LabelledPair("a red circle", path, True), LabelledPair("a red circle", str(tmp_path / "gone.mp4"), False)]
        )


@pytest.mark.parametrize(
    "kept",
    [
        [],
        "x",
        {"model": []},
        {"model": {"temperature": 1.0, "offset": 0.0}},
        {"model": {"temperature": 0.0, "offset": 0.0, "pooling": "mean"}},
        {"model": {"temperature": -1, "offset": 0.0, "pooling": "mean"}},
        {"model": {"temperature": math.nan, "offset": 0.0, "pooling": "mean"}},
        {"model": {"temperature": 1e-320, "offset": 1e300, "pooling": "mean"}},
        {"model": {"temperature": 10**400, "offset": 0.0, "pooling": "mean"}},
        {"model": {"temperature": True, "offset": 0.0, "pooling": "mean"}},
    ],
)
def test_a_damaged_calibration_is_told_and_can_be_replaced(checkpoint: Path, tmp_path: Path, kept: object):
    search = VideoSearch(checkpoint, index=tmp_path / "index")
    index, predictor = search.video_index, search.predictor
    index.start(predictor.identity, predictor.source, predictor.weights)
    index.set_facts({"calibration": kept})
    with pytest.raises(VideoIndexError, match=r"The calibration of the index .* is damaged: .*Calibrate again"):
        search.stages.find(predictor.token_ids(["a red circle"]), SearchOptions())
    index.set_facts({"calibration": {"model": {"temperature": 1, "offset": 0, "pooling": search.stages.score_pooling}}})
    (found,) = search.stages.find(predictor.token_ids(["a red circle"]), SearchOptions())
    assert found.calibrated


def test_the_command_calibrates(run_command: Callable, checkpoint: Path, world: Path, tmp_path: Path):
    videos = sorted((world / "videos").glob("test_*.mp4"))
    assert run_command("index", *videos, "--model", checkpoint, "--workers", 1)[0] == 0
    hits = json.loads(run_command("search", "a red circle", "--json", "--topk", 7)[1])["hits"]
    lines = [json.dumps(dict(text="a red circle", video=hit["path"], match=i < 2)) for i, hit in enumerate(hits)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(lines))
    code, out, err = run_command("calibrate", "pairs.jsonl", "--json")
    assert code == 0, err
    offset = json.loads(out)["stages"]["model"]["calibration"]["offset"]
    assert hits[6]["score"] < offset < hits[0]["score"]
    code, out, _ = run_command("search", "a red circle", "--threshold", "0.5", "--json")
    found = json.loads(out)
    assert [hit["path"] for hit in found["hits"]] == [hit["path"] for hit in hits if hit["score"] >= offset]
    assert found["calibrated"] is True
    code, out, _ = run_command("search", "a red circle", "--threshold", "1")
    assert (code, "nothing matches" in out) == (0, True)
    assert run_command("search", "a red circle", "--threshold", "2")[0] == 2
