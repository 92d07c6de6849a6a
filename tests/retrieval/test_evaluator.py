"""The scores of a block of texts and videos, against the joint encoder for each pair on its own."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from clipbert_mm.models import ClipBert
from clipbert_mm.registry import MODELS
from clipbert_mm.retrieval import FeatureStore, ScoreMatrix, evaluator
from clipbert_mm.retrieval.evaluator import Progress, RetrievalEvaluator, score_block
from clipbert_mm.retrieval.score_matrix import Tile


@pytest.fixture
def model(model_config: dict) -> ClipBert:
    """A small model in eval mode."""
    del model_config["mlm_head"]
    model = MODELS.build(model_config).eval()
    for parameter in model.head.parameters():
        torch.nn.init.normal_(parameter)
    return model


@torch.no_grad()
def test_a_block_is_scored_as_each_pair_on_its_own(model: ClipBert, tmp_path: Path):
    frames = torch.randn(5, 3, 2, 3, 32, 32)  # 5 videos of 3 clips of 2 frames
    store = FeatureStore(tmp_path)
    names = [f"video {i}" for i in range(5)]
    for name, video in zip(names, frames, strict=True):
        tokens = model.encode_with_coarse_tokens(video[None])
        store.add(name, {which: value[0] for which, value in tokens.items()}, {})
    token_ids = [np.arange(5, 5 + length) for length in (4, 9, 4)]
    pairs = model.pair_encoder()
    texts = pairs.encode_texts(token_ids)
    scores = score_block(model, pairs, texts, store.read(names))
    expected = np.empty((3, 5))
    for i, ids in enumerate(token_ids):
        text = torch.from_numpy(ids)[None]
        for j, video in enumerate(frames):
            states = model.fuse(
                model.encode_video(video[None]), text, torch.ones_like(text), torch.zeros(1, dtype=torch.long)
            )
            expected[i, j] = model.head.scores(model.aggregator(model.head(model.encoder.pool(states))))
    assert scores == pytest.approx(expected, abs=1e-5)
    assert expected.std() > 0.02
    selected = np.array([[1, 0, 0, 0, 1], [0, 0, 0, 0, 1], [0, 0, 0, 0, 0]], bool)
    part = score_block(model, pairs, texts, store.read(names), selected)
    assert np.array_equal(~np.isnan(part), selected)
    assert part[selected] == pytest.approx(expected[selected], abs=1e-5)
    coarse = score_block(model, pairs, texts, store.read(names, "coarse"))
    for j, video in enumerate(frames):  # one clip of its six frames
        tokens = model.encode_video(video.flatten(0, 1)[None, None])
        assert coarse[:, j] == pytest.approx(score_block(model, pairs, texts, tokens)[:, 0], abs=1e-5)
    assert np.abs(coarse - scores).max() > 1e-3


class Lines(logging.Handler):
    """Keeps the messages that are logged."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


@pytest.fixture
def logger() -> logging.Logger:
    logger = logging.Logger("lines")
    logger.addHandler(Lines())
    return logger


def test_progress_is_logged_every_ten_seconds_and_at_the_end(logger: logging.Logger, monkeypatch: pytest.MonkeyPatch):
    now = 100.0
    monkeypatch.setattr(evaluator.time, "monotonic", lambda: now)
    progress = Progress(logger, "encoded {} videos", 400)
    for now, count in ((105.0, 10), (110.0, 10), (110.5, 1), (120.0, 19), (140.0, 60), (141.0, 300)):  # noqa: B007
        progress(count)
    assert logger.handlers[0].texts == [
        "encoded 21/400 videos, 2 per second, 0:03:10 left",  # 379 at 2 a second
        "encoded 100/400 videos, 2.5 per second, 0:02:00 left",
        "encoded 400/400 videos, 9.76 per second, 0:00:00 left",
    ]
    Progress(logger, "scored {} pairs", 3)(3)
    assert len(logger.handlers[0].texts) == 3, "what is done at once is not worth a line"


@pytest.fixture
def tiles(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Tile]]:
    """The tiles that are written, with the name of their matrix."""
    written: list[tuple[str, Tile]] = []
    write = ScoreMatrix.write
    monkeypatch.setattr(
        ScoreMatrix,
        "write",
        lambda self, tile, scores: written.append((self.folder.name, tile)) or write(self, tile, scores),
    )
    return written


def fill(run: RetrievalEvaluator, texts_of_each: list[list[list[int]]], clips: int = 3) -> list[dict]:
    """Store videos of random tokens, with the token ids of their texts; returns the records."""
    records = []
    for i, texts in enumerate(texts_of_each):
        records.append(dict(sample_idx=i, broken=None, pieces=texts))
        run.store.add(f"{i:07d}", {"clips": torch.randn(clips, 4, 16), "coarse": torch.randn(1, 4, 16)}, {})
    return records


@pytest.mark.parametrize("clips_per_tile", [1, 6, 7, 40, 1000])
def test_a_tile_is_as_much_work_as_a_kill_may_lose(
    model: ClipBert, tmp_path: Path, tiles: list, logger: logging.Logger, clips_per_tile: int
):
    run = RetrievalEvaluator(model, model.pair_encoder(), tmp_path, logger, clips_per_tile=clips_per_tile)
    records = fill(run, [[[2, 5 + i, 3], [2, 5, 6 + i, 3]] for i in range(5)])
    scores, chosen = run.score(records)
    assert chosen is None
    assert scores.shape == (10, 5)
    pairs = [(t.rows.stop - t.rows.start) * (t.columns.stop - t.columns.start) for _, t in tiles]
    assert sum(pairs) == 50
    assert max(pairs) <= max(1, clips_per_tile // 3)
    rest = min(50, max(1, clips_per_tile // 3))
    assert max(pairs) > rest / 2, "as large as it may be, up to whole rows"
    tiles.clear()
    again, _ = RetrievalEvaluator(model, model.pair_encoder(), tmp_path, logger, clips_per_tile=clips_per_tile).score(
        records
    )
    assert tiles == []
    assert np.array_equal(again, scores)
    run.score(records, keep=2)
    coarse = [
        (t.rows.stop - t.rows.start) * (t.columns.stop - t.columns.start) for n, t in tiles if n == "coarse_scores"
    ]
    assert sum(coarse) == 50
    assert max(coarse) <= clips_per_tile, "of one clip each"
    assert max(coarse) > min(50, clips_per_tile) / 2


def test_by_itself_a_tile_on_a_cpu_is_of_a_thousand_clips_and_256_texts(
    model: ClipBert, tmp_path: Path, tiles: list, logger: logging.Logger
):
    run = RetrievalEvaluator(model, model.pair_encoder(), tmp_path, logger)
    run.score(fill(run, [[[2, 5 + i % 50, 3] for i in range(150)]] * 5, clips=1))  # 750 texts
    shapes = {(t.rows.stop - t.rows.start, t.columns.stop - t.columns.start) for _, t in tiles}
    assert shapes == {(256, 4), (256, 1), (238, 4), (238, 1)}


def test_by_itself_a_tile_on_a_gpu_is_of_32768_clips(model: ClipBert, tmp_path: Path, logger: logging.Logger):
    # With another number, scores of a GPU would differ in their last bits from those of before.
    pairs = model.to("meta").pair_encoder()
    assert RetrievalEvaluator(model, pairs, tmp_path, logger).clips_per_tile == 2**15
    assert RetrievalEvaluator(model, pairs, tmp_path, logger, clips_per_tile=5).clips_per_tile == 5


@pytest.mark.parametrize(
    ("clips_per_tile", "tokens"),
    [(1, 1 * 3 * 4 + 1 * 4), (6, 1 * 3 * 4 + 2 * 4), (40, 1 * 4 * 4 + 10 * 4)],  # videos, clips, cells + texts, length
)
def test_memory_is_asked_for_a_tile_a_pass_and_the_matrix(
    model: ClipBert, tmp_path: Path, logger: logging.Logger, monkeypatch, clips_per_tile: int, tokens: int
):
    asked = []
    monkeypatch.setattr(evaluator, "memory_left", lambda limit, needed: asked.append((limit, needed)) or 0)
    pairs = model.pair_encoder(tokens_per_pass=100)
    options = dict(clips_per_tile=clips_per_tile, memory_limit="9GiB")
    run = RetrievalEvaluator(model, pairs, tmp_path, logger, **options)
    run.score(fill(run, [[[2, 5 + i, 3], [2, 5, 6 + i, 3]] for i in range(5)]))
    # Float32: tokens of width 16 on disk and 4 copies of them, the pass' 100 tokens with 2 maps of width 32 and 8 of width 16,
    # and the metrics' 8 copies of 10 x 5 scores.
    assert asked == [("9GiB", 4 * (tokens * 16 * 5 + 100 * 192 + 400))]


def test_tiles_are_shared_out_by_their_tokens(model: ClipBert, tmp_path: Path, logger: logging.Logger, monkeypatch):
    costs = []
    share_out = evaluator.share_out
    monkeypatch.setattr(evaluator, "share_out", lambda tiles, *rest: costs.append(rest) or share_out(tiles, *rest))
    run = RetrievalEvaluator(model, model.pair_encoder(), tmp_path, logger, clips_per_tile=4)
    records = fill(run, [[[2, 5, 3]], [[2, 5, 5, 5, 3]]], clips=1)
    run.score(records, keep=2)
    # Texts of 3 and 5 tokens, each beside 4 of two videos in one tile.
    assert costs == [([2 * (3 + 4) + 2 * (5 + 4)], 1)] * 2
    costs.clear()
    run.folder /= "other"
    _, chosen = run.score(records, keep=1)
    assert not chosen.all()
    assert costs[1] == ([chosen[0].sum() * (3 + 4) + chosen[1].sum() * (5 + 4)], 1), "of the shortlist alone"


def test_a_test_that_goes_on_says_how_much_is_there(model: ClipBert, tmp_path: Path, logger: logging.Logger):
    run = RetrievalEvaluator(model, model.pair_encoder(), tmp_path, logger, clips_per_tile=1)
    records = fill(run, [[[2, 5, 3]]] * 2, clips=1)
    run.score(records)
    assert logger.handlers[0].texts == []
    run.score(records)
    assert logger.handlers[0].texts == ["4 of 4 tiles are scored already"]


def test_a_share_is_of_the_videos_for_a_text_and_of_the_texts_for_a_video(
    model: ClipBert, tmp_path: Path, logger: logging.Logger
):
    run = RetrievalEvaluator(model, model.pair_encoder(), tmp_path, logger)
    records = fill(run, [[[2, 5 + i, 3]] * 4 for i in range(5)])  # 20 texts, 5 videos
    records[3] = dict(sample_idx=3, broken="the file is empty", pieces=[])  # 16 texts, 4 videos
    scores, chosen = run.score(records, keep=0.25)
    assert scores.shape == chosen.shape == (16, 4)
    assert (chosen.sum(axis=1) >= 1).all()
    assert (chosen.sum(axis=0) >= 4).all()
    assert 16 <= chosen.sum() <= 16 * 1 + 4 * 4


def test_without_a_readable_video_there_are_no_scores(model: ClipBert, tmp_path: Path, logger: logging.Logger):
    run = RetrievalEvaluator(model, model.pair_encoder(), tmp_path, logger)
    scores, chosen = run.score([dict(sample_idx=0, broken="the file is empty", pieces=[])])
    assert (scores.shape, chosen) == ((0, 0), None)


def test_tokens_are_stored_in_the_precision_of_the_pairs(model: ClipBert, tmp_path: Path, logger: logging.Logger):
    run = RetrievalEvaluator(model, model.pair_encoder(precision="bf16"), tmp_path, logger)
    tokens = run._encode_video(torch.randn(3, 2, 3, 32, 32))
    assert {name: (value.dtype, value.shape) for name, value in tokens.items()} == {
        "clips": (torch.bfloat16, (3, 16, 16)),
        "coarse": (torch.bfloat16, (1, 16, 16)),
    }


@pytest.mark.parametrize("family", ["joined_config", "towers_config"])
@torch.no_grad()
def test_joined_clips_are_scored_as_by_the_model(
    family: str, tmp_path: Path, logger: logging.Logger, request: pytest.FixtureRequest
):
    """All pairs, and the best ones by vectors, against the model's plain forward; each clip alone for moments."""
    model = MODELS.build(request.getfixturevalue(family)).eval()
    frames = torch.randn(4, 3, 2, 3, 32, 32)  # 4 videos of 3 clips of 2 frames
    run = RetrievalEvaluator(model, model.pair_encoder(), tmp_path, logger, clips_per_tile=7)
    ids = [np.arange(5 + i, 9 + i + i % 2) for i in range(8)]
    records = []
    for i, video in enumerate(frames):
        tokens = {name: value[0] for name, value in model.encode_with_coarse_tokens(video[None]).items()}
        assert tokens["coarse"].shape == (1, 1, 8)
        records.append(dict(sample_idx=i, broken=None, pieces=[each.tolist() for each in ids[2 * i : 2 * i + 2]]))
        run.store.add(f"{i:07d}", tokens, {})
    tokens = model.encode_video(frames)
    expected, cosines = np.empty((8, 4)), np.empty((8, 4))
    with torch.enable_grad():  # without it the model scores as the evaluator does
        for i, text in enumerate(map(torch.from_numpy, ids)):
            mask = torch.ones_like(text)[None]
            logits = model.score(tokens, text[None].expand(4, -1), mask.expand(4, -1), torch.arange(4))  # (4, 1, C)
            expected[i] = model.head.scores(model.aggregator(logits)).detach()
            vector = model.encoder.text_vectors(text[None], mask)
            joined = model.encoder.clip_vectors(model.clip_fusion(tokens))[:, 0]
            cosines[i] = torch.cosine_similarity(vector, joined).detach()
    scores, chosen = run.score(records)
    assert chosen is None
    assert scores == pytest.approx(expected, abs=1e-5)
    assert expected.std() > 0.01
    of_all, chosen = run.score(records, keep=8)
    assert chosen.all()
    assert of_all == pytest.approx(expected, abs=1e-5)
    run.folder = tmp_path / "shortlist"
    merged, chosen = run.score(records, keep=2)
    best_videos, best_texts = np.argsort(-cosines, axis=1)[:, :2], np.argsort(-cosines, axis=0)[:2]
    for i, j in np.ndindex(8, 4):
        assert chosen[i, j] == (j in best_videos[i] or i in best_texts[:, j])
    assert not chosen.all()
    assert merged[chosen] == pytest.approx(expected[chosen], abs=1e-5)
    assert merged[~chosen].max() < merged[chosen].min()
    alone = run.score_clips(records[1])  # (2, 3)
    for row, each in zip(alone, records[1]["pieces"], strict=True):
        text = torch.tensor(each)[None]
        for k, score in enumerate(row):
            logits = model.score(tokens[1:2, k : k + 1], text, torch.ones_like(text), torch.tensor([0]))
            assert float(model.head.scores(model.aggregator(logits))) == pytest.approx(score, abs=1e-5)
