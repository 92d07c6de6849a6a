"""Searching and ranking; the oracle is the retrieval loop of testing."""

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from clipbert_mm.apis import Filter, VideoIndexError, VideoSearch, reading, two_stages, video_tokens
from clipbert_mm.apis.results import Moment, clock
from clipbert_mm.engine.launch import build_runner
from clipbert_mm.evaluation import read_rankings
from clipbert_mm.index import Entry


@pytest.fixture
def search(checkpoint: Path, world: Path, tmp_path: Path) -> VideoSearch:
    """A search over the world's test videos."""
    search = VideoSearch(checkpoint, index=tmp_path / "gallery")
    search.index(sorted((world / "videos").glob("test_*.mp4")), workers=0)
    return search


def test_the_scores_are_those_of_testing(search: VideoSearch, runner_config: Config, checkpoint: Path, tmp_path: Path):
    runner_config.load_from = str(checkpoint)
    runner_config.test_evaluator.rankings_file = str(tmp_path / "rankings.json")
    runner_config.experiment_name = f"{tmp_path.name}-test"
    runner: Runner = build_runner(runner_config)
    runner.test()
    rankings = read_rankings(tmp_path / "rankings.json")
    scores = rankings["scores"]
    for row, text in zip(scores[::3], rankings["texts"][::3], strict=True):
        result = search.search(text, topk=100)
        found = {hit.path: hit.score for hit in result.hits}
        expected = dict(zip(map(str, rankings["videos"]), row.tolist(), strict=True))
        assert found == pytest.approx(expected, abs=2e-3)
        assert [hit.score for hit in result.hits] == sorted(found.values(), reverse=True)
        ranking = search.rank(rankings["videos"][0], [text, "a red circle"])
        assert next(r.score for r in ranking.texts if r.text == text) == pytest.approx(row[0], abs=2e-3)


def test_a_config_with_weights_does_the_same(
    search: VideoSearch, runner_config: Config, checkpoint: Path, tmp_path: Path
):
    runner_config.dump(str(tmp_path / "config.py"))
    other = VideoSearch(tmp_path / "config.py", weights=checkpoint, index=search.video_index.folder)
    found, expected = other.search("a red circle"), search.search("a red circle")
    assert found.model == f"{tmp_path / 'config.py'} (digest {search.predictor.identity})"
    assert replace(found, model="") == replace(expected, model="")
    with pytest.raises(ValueError, match=r"weights= goes with a config file, and .* is a checkpoint"):
        VideoSearch(checkpoint, weights=checkpoint)
    with pytest.raises(
        ValueError,
        match=r"config\.py is a config, whose load_from is what its training starts from\. Give weights=CHECKPOINT",
    ):
        VideoSearch(tmp_path / "config.py")


def test_a_clip_scores_as_a_video_of_its_own(search: VideoSearch):
    hit = search.search("a red circle").hits[0]
    token_ids = search.predictor.token_ids(["a red circle"])
    tokens = search.video_index.tokens(hit.path)
    alone = [
        float(search.predictor.pooled_scores(search.predictor.clip_logits(clip[None, None], token_ids)))
        for clip in tokens
    ]
    assert [moment.score for moment in hit.moments] == pytest.approx(alone, abs=1e-5)
    assert hit.moment == max(hit.moments, key=lambda moment: moment.score)
    assert hit.probability == pytest.approx(1 / (1 + np.exp(-hit.score)))
    assert [(m.start, m.end) for m in hit.moments] == list(search.video_index.entries[hit.path].clip_times)


def test_a_shortlist_is_chosen_by_the_coarse_tokens(search: VideoSearch):
    everything = search.search("a red circle", topk=7)
    token_ids = search.predictor.token_ids(["a red circle"])
    first = {
        path: float(search.predictor.clip_logits(search.video_index.tokens(path, "coarse")[None], token_ids).diff())
        for path in search.video_index.entries
    }
    chosen = set(sorted(first, key=first.get, reverse=True)[:3])
    expected = [hit for hit in everything.hits if hit.path in chosen][:2]
    result = search.search("a red circle", topk=2, shortlist=3)
    assert [hit.path for hit in result.hits] == [hit.path for hit in expected]
    assert [hit.score for hit in result.hits] == pytest.approx([hit.score for hit in expected], abs=1e-5)
    assert result.searched == 7


@pytest.fixture
def search_joined(
    joined_config: dict, runner_config: Config, write_checkpoint: Callable, world: Path, tmp_path: Path
) -> VideoSearch:
    """A search by a model that joins the clips of a video, and has vectors."""
    runner_config.model = joined_config
    search = VideoSearch(write_checkpoint(), index=tmp_path / "joined")
    search.index(sorted((world / "videos").glob("test_*.mp4")), workers=0, keep_tokens=True)
    return search


def test_joined_clips_have_one_score_and_each_its_own(search_joined: VideoSearch, monkeypatch: pytest.MonkeyPatch):
    """The score is that of the model's own forward; of the videos that are found alone, each clip is scored too."""
    predictor, index, text = search_joined.predictor, search_joined.video_index, "a red circle"
    (ids,) = predictor.token_ids([text])
    model, read = predictor.model, []
    logits = {}
    for path in index.entries:
        tokens = index.tokens(path)[None]
        for name, clips in (("video", tokens), *((k, tokens[:, k : k + 1]) for k in range(3))):
            one = torch.from_numpy(ids)[None]
            logits[path, name] = model.score(clips, one, torch.ones_like(one), torch.tensor([0]))[0, 0].tolist()
    stored = index.tokens
    monkeypatch.setattr(index, "tokens", lambda path, which="clips": read.append(which) or stored(path, which))
    result = search_joined.search(text, topk=2)
    assert read == ["clips"] * 9, "each video once, and again those that are found"
    assert (result.score_kind, result.searched, len(result.hits)) == ("logit + similarity", 7, 2)
    expected = sorted(
        (match + similarity for _, match, similarity in (logits[path, "video"] for path in index.entries))
    )
    assert [hit.score for hit in result.hits] == pytest.approx(expected[::-1][:2], abs=1e-4)
    for hit in result.hits:
        other, match, _ = logits[hit.path, "video"]
        assert hit.probability == pytest.approx(1 / (1 + np.exp(other - match)), abs=1e-4), "of the log-odds alone"
        alone = [logits[hit.path, k][1] + logits[hit.path, k][2] for k in range(3)]
        assert [moment.score for moment in hit.moments] == pytest.approx(alone, abs=1e-4)
    assert result.good_match is (max(hit.probability for hit in result.hits) >= 0.5)
    ranking = search_joined.rank(result.hits[0].path, [text, "a blue square"])
    ranked = next(each for each in ranking.texts if each.text == text)
    assert ranking.score_kind == "logit + similarity"
    assert ranked.score == pytest.approx(result.hits[0].score, abs=2e-2), "the index stores half precision"


def test_a_shortlist_is_chosen_by_vectors_without_reading_all_tokens(
    search_joined: VideoSearch, monkeypatch: pytest.MonkeyPatch
):
    predictor, index, read = search_joined.predictor, search_joined.video_index, []
    everything = search_joined.search("a red circle", topk=7)
    assert search_joined.search("a red circle", topk=7, shortlist=7) == everything
    assert (everything.by_vectors, everything.by_model) == (0, 7)
    vector = predictor.pairs.encode_texts(predictor.token_ids(["a red circle"])).vectors[0]
    stored = index.tokens
    for pooling, pool in (("mean", torch.mean), ("max", torch.amax)):
        cosines = {
            path: float(pool(predictor.model.encoder.clip_vectors(stored(path)) @ vector, dim=0))
            for path in index.entries
        }
        chosen = sorted(cosines, key=cosines.get, reverse=True)[:3]
        read.clear()
        monkeypatch.setattr(index, "tokens", lambda path, which="clips": read.append(which) or stored(path, which))
        result = search_joined.search("a red circle", topk=2, shortlist=3, vector_pooling=pooling)
        assert read == ["clips"] * (3 + 2)
        assert (result.by_vectors, result.by_model, result.searched) == (7, 3, 7)
        expected = [hit for hit in everything.hits if hit.path in chosen][:2]
        assert [hit.path for hit in result.hits] == [hit.path for hit in expected]
        assert [hit.score for hit in result.hits] == pytest.approx([hit.score for hit in expected], abs=1e-5)
        assert {hit.stage for hit in result.hits} == {"model"}
        assert "(the best 3 by vectors)" in str(result)
        read.clear()
        alone = search_joined.search("a red circle", topk=3, vectors_only=True, vector_pooling=pooling)
        assert (read, alone.by_vectors, alone.by_model, alone.score_kind) == ([], 7, 0, "cosine")
        assert [hit.path for hit in alone.hits] == chosen
        assert [hit.score for hit in alone.hits] == pytest.approx([cosines[path] for path in chosen], abs=1e-3)
        assert {(hit.stage, hit.probability) for hit in alone.hits} == {("vectors", None)}
        assert "(by vectors alone)" in str(alone)
    with pytest.raises(ValueError, match=r"vector_pooling is one of max, mean, .* got 'sum'"):
        search_joined.search("a red circle", vector_pooling="sum")


def test_a_shortlist_without_kept_tokens_is_decoded_again(
    search_joined: VideoSearch, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, break_file: Callable
):
    """It gives the scores of kept tokens; what cannot be read, or has changed, is left out and named."""
    videos = tmp_path / "videos"
    videos.mkdir()
    for path in search_joined.video_index.entries:
        shutil.copy(path, videos)
    lean = VideoSearch(search_joined.predictor.source, index=tmp_path / "lean")
    assert len(lean.index(videos, workers=0).added) == 7
    assert not (tmp_path / "lean" / "tokens").exists()
    decoded = []
    read = reading.read_media
    monkeypatch.setattr(video_tokens, "DECODING_PROCESSES", 0)
    monkeypatch.setattr(reading, "read_media", lambda steps, path: decoded.append(path) or read(steps, path))
    kept, made = (each.search("a red circle", topk=2, shortlist=3) for each in (search_joined, lean))
    assert [os.path.basename(hit.path) for hit in made.hits] == [os.path.basename(hit.path) for hit in kept.hits]
    assert [hit.score for hit in made.hits] == pytest.approx([hit.score for hit in kept.hits], abs=1e-5)
    assert len(decoded) == 3, "the shortlist, once"
    again = lean.search("a red circle", topk=2, shortlist=3)
    assert [(hit.path, hit.score) for hit in again.hits] == [(hit.path, pytest.approx(hit.score)) for hit in made.hits]
    assert len(decoded) == 3, "they are in memory now"
    assert not lean.search("a red circle", topk=3, vectors_only=True).left_out
    first, second = (hit.path for hit in made.hits)
    again = VideoSearch(search_joined.predictor.source, index=tmp_path / "lean")
    break_file(Path(first), "empty")
    os.utime(second, ns=(1, 1))
    result = again.search("a red circle", topk=3, shortlist=3)
    changed = "the file is gone, or has changed since it was indexed; index it again"
    assert dict(result.left_out) == {first: changed, second: changed}
    assert len(result.hits) == 1
    assert again.search("a red circle", topk=3, vectors_only=True).hits[0].stage == "vectors"


@pytest.mark.parametrize("at_once", [4096, 2])
def test_many_texts_find_what_each_finds_alone(
    search: VideoSearch, search_joined: VideoSearch, monkeypatch: pytest.MonkeyPatch, at_once: int
):
    """With all pairs, a shortlist by coarse tokens or vectors, and vectors alone; each video is read once for all texts."""
    texts = ["a red circle", "a blue square on green", "a red circle", "a green triangle moves left"]
    for each, options in (
        (search, dict(topk=3)),
        (search, dict(topk=2, shortlist=3)),
        (search_joined, dict(topk=2, shortlist=3)),
        (search_joined, dict(topk=3, vectors_only=True)),
    ):
        alone = [each.search(text, **options) for text in texts]
        monkeypatch.setattr(two_stages, "PAIRS_AT_ONCE", at_once)
        read, index = Counter(), each.video_index

        def tokens(path: str, which: str = "clips", read=read, stored=index.tokens) -> torch.Tensor:
            read[path, which] += 1
            return stored(path, which)

        with monkeypatch.context() as patched:
            patched.setattr(index, "tokens", tokens)
            found = each.search_many(texts, **options)
        again = 2 if each is search_joined else 1  # the hits' clips alone, where the clips are joined before
        assert max(read.values(), default=0) <= again
        for one, many in zip(alone, found, strict=True):
            assert (one.text, one.searched, one.by_vectors, one.by_model) == (
                *(many.text, many.searched, many.by_vectors, many.by_model),
            )
            assert [hit.path for hit in many.hits] == [hit.path for hit in one.hits]
            for a, b in zip(one.hits, many.hits, strict=True):
                assert b.score == pytest.approx(a.score, abs=1e-4)
                assert [m.score for m in b.moments] == pytest.approx([m.score for m in a.moments], abs=1e-4)
    lost = next(iter(search.video_index.entries))
    search.video_index.store.path_of(search.video_index.entries[lost].key).unlink()
    search.video_index.store = type(search.video_index.store)(search.video_index.folder / "tokens")
    for each in search.search_many(texts[:2]):
        assert list(each.left_out) == [lost]
    for wrong in ([], "a red circle"):
        with pytest.raises(ValueError, match="search_many expects a list of one or more texts"):
            search.search_many(wrong)


def test_the_best_clips_of_all_videos(search: VideoSearch, search_joined: VideoSearch):
    """The oracle scores every clip of every video alone."""
    text = "a red circle"
    for each, options, scores_of in (
        (search, {}, clip_scores),
        (search_joined, dict(shortlist=0), clip_scores),
        (search_joined, dict(vectors_only=True), clip_cosines),
    ):
        index = each.video_index
        clips = {}
        for path, entry in index.entries.items():
            for times, score in zip(entry.clip_times, scores_of(each, path, text), strict=True):
                clips[path, times] = float(score)
        best = sorted(clips, key=clips.get, reverse=True)[:5]
        result = each.search(text, 5, clips=True, **options)
        assert [(hit.path, (hit.moment.start, hit.moment.end)) for hit in result.hits] == best
        assert [hit.score for hit in result.hits] == pytest.approx([clips[clip] for clip in best], abs=2e-3)
        assert {(len(hit.moments), hit.probability) for hit in result.hits} == {(1, None)}
        assert (result.clips, result.searched) == (True, 7)
        start, end = best[0][1]
        assert f"{start:.1f}–{end:.1f} s" in str(result).splitlines()[1]
    for options in (dict(threshold=0.5), dict(vector_pooling="mean")):
        with pytest.raises(ValueError, match="goes with videos"):
            search.search(text, clips=True, **options)


def clip_scores(search: VideoSearch, path: str, text: str) -> list[float]:
    predictor = search.predictor
    logits = predictor.clip_logits(search.video_index.tokens(path)[None], predictor.token_ids([text]))
    return predictor.clip_scores(logits)[0, 0].tolist()


def clip_cosines(search: VideoSearch, path: str, text: str) -> list[float]:
    vector = search.stages.text_vectors(search.predictor.token_ids([text]))[0]
    return (search.video_index.vectors(path) @ vector).tolist()


def test_a_model_without_vectors_says_so(search: VideoSearch):
    with pytest.raises(ValueError, match=r"has no vectors to search by\. Use a model that has, such as BLIP"):
        search.search("a red circle", vectors_only=True)
    with pytest.raises(ValueError, match=r"has no vectors, so that its index keeps visual tokens"):
        search.index(next(iter(search.video_index.entries)), keep_tokens=False)


def test_only_videos_that_meet_the_conditions_are_searched(search: VideoSearch, search_joined: VideoSearch):
    for each, options in (
        (search, {}),
        (search_joined, dict(shortlist=2, topk=2)),
        (search_joined, dict(vectors_only=True)),
    ):
        paths = list(each.video_index.entries)
        result = each.search("a red circle", **options, where=Filter(folders=tuple(paths[2:6])))
        assert result.searched == 4
        assert {hit.path for hit in result.hits} <= set(paths[2:6])
        assert len(result.hits) == options.get("topk", 4)
        nothing = each.search("a red circle", **options, where=Filter(min_seconds=1e6))
        assert (nothing.hits, nothing.searched) == ((), 0)


def test_cosines_are_no_probabilities(
    towers_config: dict, runner_config: Config, write_checkpoint: Callable, world: Path, tmp_path: Path
):
    runner_config.model = towers_config
    runner_config.train_dataloader.dataset.num_negatives = 1
    search = VideoSearch(write_checkpoint(), index=tmp_path / "towers")
    search.index(sorted((world / "videos").glob("test_*.mp4")), workers=0)
    result = search.search("a red circle", topk=3)
    assert (result.score_kind, result.good_match, result.hits[0].probability) == ("cosine", None, None)
    assert "%" not in str(result)
    predictor, hit = search.predictor, result.hits[0]
    vectors = search.video_index.vectors(hit.path)
    text = predictor.pairs.encode_texts(predictor.token_ids(["a red circle"])).vectors[0]
    mean = vectors.mean(dim=0)
    assert hit.score == pytest.approx(float(text @ mean / mean.norm()), abs=1e-4)
    assert [moment.score for moment in hit.moments] == pytest.approx((vectors @ text).tolist(), abs=1e-3)
    ranking = search.rank(hit.path, ["a red circle", "a blue square"])
    assert (ranking.score_kind, ranking.good_match, ranking.texts[0].probability) == ("cosine", None, None)


def test_texts_are_ranked_by_their_scores_and_equal_ones_keep_their_order(search: VideoSearch):
    path, predictor = next(iter(search.video_index.entries)), search.predictor
    texts = ["a red circle", "a blue square", "A RED circle", "a 日"]
    ranking = search.rank(Path(path), texts)
    media = predictor.read(path)
    logits = predictor.clip_logits(predictor.encode([media.frames]), predictor.token_ids(texts))[:, 0]  # (M, K, 2)
    gaps = logits.diff()[..., 0]
    pooled = logits.logsumexp(dim=1).diff()[:, 0]
    order = sorted(range(4), key=lambda i: -pooled[i])
    assert [each.text for each in ranking.texts] == [texts[i] for i in order]
    assert order.index(0) < order.index(2)
    for i, ranked in zip(order, ranking.texts, strict=True):
        assert ranked.score == pytest.approx(float(pooled[i]), abs=1e-5)
        assert [moment.score for moment in ranked.moments] == pytest.approx(gaps[i].tolist(), abs=1e-5)
        assert ranked.moment.score == max(moment.score for moment in ranked.moments)
        assert ranked.probability == pytest.approx(float(pooled[i].sigmoid()), abs=1e-6)
    assert (ranking.path, ranking.unknown_words) == (path, ("日",))


def test_tokens_that_cannot_be_used_are_left_out_with_the_reason(search: VideoSearch, monkeypatch: pytest.MonkeyPatch):
    whole = {hit.path: hit.score for hit in search.search("a red circle").hits}
    assert len(whole) == 7
    first, second = list(search.video_index.entries)[:2]
    tokens = search.video_index.tokens
    odd = {first: lambda own: own * float("nan"), second: lambda own: own[..., :8]}
    monkeypatch.setattr(
        search.video_index, "tokens", lambda path, which="clips": odd.get(path, lambda own: own)(tokens(path, which))
    )
    result = search.search("a red circle", topk=9)
    assert dict(result.left_out) == {
        first: "its visual tokens are not finite; index it again",
        second: "expected visual tokens of width 16, got (3, 16, 8)",
    }
    assert result.searched == 5
    assert {hit.path: hit.score for hit in result.hits} == pytest.approx(
        {path: score for path, score in whole.items() if path not in odd}, abs=1e-5
    )
    odd.update(dict.fromkeys(whole, odd[first]))
    with pytest.raises(VideoIndexError, match="can be searched: its visual tokens are not finite"):
        search.search("a red circle")


def test_results_print_and_turn_into_json(search: VideoSearch):
    result = search.search("a red circle", topk=2)
    assert str(result).splitlines()[0] == "'a red circle' in 7 videos, scored by log-odds"
    assert str(result).splitlines()[1].endswith(result.hits[0].path)
    read = json.loads(json.dumps(result.to_dict()))
    assert read["hits"][1]["moments"][2]["end"] == result.hits[1].moments[2].end
    ranking = search.rank(result.hits[0].path, ["a red circle", "a blue square on green"])
    assert json.loads(json.dumps(ranking.to_dict()))["texts"][0]["text"] == ranking.texts[0].text
    assert str(Moment(59.2, 60.3, 0.0)) == "00:59–01:01"
    assert clock(3600) == "1:00:00"


def test_an_explanation_says_where_the_score_comes_from(search: VideoSearch, tmp_path: Path):
    hit = search.search("a red circle").hits[0]
    found = search.explain("a red circle", hit.path, tmp_path / "why.png")
    assert found.score == pytest.approx(hit.score, abs=2e-3)
    assert found.moments[found.best] == max(found.moments, key=lambda moment: moment.score)
    assert found.heat.shape == found.frames.shape[1:3]
    assert found.heat.min() >= 0
    assert found.heat.max() == pytest.approx(1)
    assert (tmp_path / "why.png").read_bytes()[:4] == b"\x89PNG"
    assert f"{clock(found.moments[0].start)}–" in str(found)
    json.dumps(found.to_dict())


def test_the_heat_is_the_slope_of_the_score(search: VideoSearch):
    from clipbert_mm.apis.explanation import _heat

    predictor = search.predictor
    predictor.model.double()
    token_ids = predictor.token_ids(["a red circle"])
    tokens = search.video_index.tokens(next(iter(search.video_index.entries)))[None, :1].double()  # (1, 1, S, D)

    def score(scaled: torch.Tensor) -> float:
        return float(predictor.model.head.scores(predictor.score(scaled, token_ids)[0, 0]))

    heat, step = _heat(predictor, tokens, token_ids[0], None), 1e-4
    for cell in range(tokens.shape[2]):
        scale = torch.ones(1, 1, tokens.shape[2], 1, dtype=torch.double)
        scale[0, 0, cell] += step
        up, scale[0, 0, cell] = score(tokens * scale), 1 - step
        slope = (up - score(tokens * scale)) / (2 * step)
        assert float(heat[cell]) == pytest.approx(max(slope, 0.0), rel=1e-2, abs=1e-6)
    assert heat.max() > 0


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda s: s.search("  "), "The text is empty"),
        (lambda s: s.search("red " * 60), r"'red red .* has \d+ tokens, and the model takes at most 40. Shorten it"),
        (lambda s: s.search("red", topk=0), "search expects topk >= 1"),
        (lambda s: s.rank("a.mp4", "red"), "rank expects a list of one or more texts, got 'red'"),
        (lambda s: s.rank("gone.mp4", ["red"]), "cannot read gone.mp4: there is no such file"),
    ],
)
def test_what_cannot_be_asked(search: VideoSearch, ask: Callable, message: str):
    with pytest.raises((ValueError, RuntimeError), match=message):
        ask(search)


def test_token_ids_that_the_model_does_not_know_are_refused(search: VideoSearch):
    predictor = search.predictor
    tokens = search.video_index.tokens(next(iter(search.video_index.entries)))[None]
    size = len(predictor.model.encoder.word_embeddings)
    with pytest.raises(ValueError, match=rf"gave token id {size}, but the model has {size} tokens"):
        predictor.clip_logits(tokens, [np.array([2, size, 3])])


def test_old_names_work_with_a_warning(search: VideoSearch, checkpoint: Path, tmp_path: Path):
    folder, path = search.video_index.folder, next(iter(search.video_index.entries))
    with pytest.warns(
        FutureWarning, match=r"VideoSearch\(gallery=\.\.\.\) is deprecated .* Use VideoSearch\(index="
    ) as said:
        old = VideoSearch(checkpoint, gallery=folder)
    ours = [warning for warning in said if "VideoSearch" in str(warning.message)]
    assert [warning.filename for warning in ours] == [__file__]
    with pytest.warns(FutureWarning, match=r"Use VideoSearch\.video_index\."):
        assert old.gallery.folder == folder
    with pytest.warns(FutureWarning, match=r"Use Predictor\.token_ids\."):
        (ids,) = old.predictor.word_pieces(["a red circle"])
    assert ids.tolist() == search.predictor.token_ids(["a red circle"])[0].tolist()
    with pytest.warns(FutureWarning, match=r"VideoSearch\.explain\(out_file="):
        old.explain("a red circle", path, picture=tmp_path / "why.png")
    assert (tmp_path / "why.png").is_file()


def test_nothing_to_search(checkpoint: Path, tmp_path: Path):
    with pytest.raises(VideoIndexError, match=r"The index .*none is empty. Index videos first"):
        VideoSearch(checkpoint, index=tmp_path / "none").search("a red circle")


def test_more_than_1000_videos_are_searched_by_a_tenth(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    search = VideoSearch(checkpoint, index=tmp_path / "index")
    index, read, blocks = search.video_index, [], []

    def tokens(path: str, which: str = "clips") -> torch.Tensor:
        read.append(which)
        return torch.randn(1 if which == "coarse" else 3, 1, 16)

    monkeypatch.setattr(index, "tokens", tokens)
    logits = search.predictor.pair_logits
    search.predictor.pair_logits = lambda tokens, *pairs: (
        blocks.append(len(tokens) * tokens.shape[1]) or logits(tokens, *pairs)
    )
    for videos, options, coarse, fine in (
        (1000, {}, 0, 1000),
        (1009, {}, 1009, 100),
        (1001, dict(topk=150), 1001, 150),
        (1001, dict(shortlist=0), 0, 1001),
        (20, dict(shortlist=12), 20, 12),
        (20, dict(shortlist=20), 0, 20),
        (20, dict(topk=5, shortlist=5), 20, 5),
    ):
        entries = {path: Entry(path, 1, 1, None, None, (2, 2)) for path in (f"/{i}.mp4" for i in range(videos))}
        monkeypatch.setattr(index, "count", lambda where=None, count=videos: count)
        monkeypatch.setattr(index, "listed", lambda where=None, entries=entries: iter(entries.values()))
        monkeypatch.setattr(index, "found", lambda paths, entries=entries: {path: entries[path] for path in paths})
        read.clear(), blocks.clear()
        result = search.search("a red circle", **options)
        assert (read.count("coarse"), read.count("clips")) == (coarse, fine)
        assert (len(result.hits), result.searched) == (options.get("topk", 10), videos)
        assert sum(blocks) == coarse + 3 * fine
        assert max(blocks) < 256 + 3, "as many clips are in memory at a time, up to a whole video"
        assert len(blocks) <= 2 + coarse // 256 + 3 * fine // 256
    for options in (dict(topk=5, shortlist=4), dict(shortlist=9), dict(topk=0), dict(shortlist=-1)):
        with pytest.raises(ValueError, match="expects topk >= 1 and shortlist 0 or >= topk"):
            search.search("a red circle", **options)
