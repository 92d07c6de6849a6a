"""Damaged and hostile indexes of videos: their records, vectors and tokens, and links that lead out of them.

Models without vectors, with vectors, and with both vectors and kept tokens; and indexes of format 1, which are taken over.
What is damaged without a forged checksum may be refused or left out, and never changes an answer.
"""

import copy
import json
import random
import shutil
from collections.abc import Callable
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import torch
from benchmarks.bench_search import random_weights
from damage.index_damages import FORGERIES, MISHAPS, PRECIOUS
from damage.manifest_damages import MANIFEST_FORGERIES
from mmengine.config import Config

from clipbert_mm.apis import VideoIndex, VideoIndexError, VideoSearch
from clipbert_mm.datasets import train_vocabulary
from clipbert_mm.datasets.shapes.world import ShapesWorld
from clipbert_mm.errors import ClipBertError
from clipbert_mm.index.take_over import take_over

KINDS = {"tokens": (None, None), "vectors": (8, False), "both": (8, True)}
"""The size of the vectors, and whether tokens are kept, by the kind of index."""
OLD = "old"
"""The kind of an index of format 1, by the model of ``both``."""
TEXTS = ("a red circle", "a blue square")
DIFFERENCE = 1e-4
"""Most difference of a score that is right."""
_searches: dict[str, VideoSearch] = {}
_scores: dict[tuple[str, str], dict[str, float]] = {}


def prepare(folder: Path) -> None:
    """Write three videos, and indexes of them by tiny models."""
    torch.set_num_threads(1)
    ShapesWorld(seed=1, images=2, test_images=1, train_videos=2, test_videos=1).write(folder / "world")
    tokenizer = train_vocabulary(TEXTS, folder / "tokenizer", 40)
    (folder / PRECIOUS).write_text("precious")
    for kind, (vector_size, keep_tokens) in KINDS.items():
        name = "tokens" if vector_size is None else "vectors"
        config, weights = _config(str(tokenizer), vector_size), folder / f"{name}.pth"
        config.dump(folder / f"{name}.py")
        if not weights.exists():
            _write_weights(config, weights)
        search = VideoSearch(folder / f"{name}.py", "cpu", weights=weights, index=folder / kind)
        search.index(folder / "world" / "videos", workers=1, keep_tokens=keep_tokens)
        _searches[kind] = search
        for text in TEXTS:
            _scores[kind, text] = {hit.path: hit.score for hit in search.search(text, 3).hits}
            values = sorted(_scores[kind, text].values())
            assert len(values) == 3, "all videos are found"
            least = min(b - a for a, b in pairwise(values))
            assert least > 10 * DIFFERENCE, f"scores tell videos apart, got {values}"
    _write_old(folder / OLD, _searches["both"])
    _searches[OLD] = _searches["both"]
    _scores.update({(OLD, text): _scores["both", text] for text in TEXTS})


def _write_weights(config: Config, file: Path) -> None:
    """Write random weights by which a video matters for its scores."""
    torch.manual_seed(1)
    random_weights(config, file)
    content = torch.load(file)
    for name, value in content["state_dict"].items():
        if name.startswith(("projection.", "head.", "encoder.bert.encoder")) and value.ndim > 1:
            value *= 20
    torch.save(content, file)


def _write_old(folder: Path, search: VideoSearch) -> None:
    """Write the index of a search in format 1."""
    index = search.video_index
    shutil.copytree(index.folder / "tokens", folder / "tokens")
    videos = [{key: value for key, value in asdict(entry).items() if key != "digest"} for entry in index.listed()]
    facts = {name: index.manifest[name] for name in ("identity", "source", "weights", "folders")}
    unreadable = [dict(path="/v/broken.mp4", size=1, mtime_ns=1, reason="it is cut", rules=1)]
    manifest = dict(format=1, version="0.1", **facts, videos=videos, unreadable=unreadable)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def damage(rng: random.Random, folder: Path, target: Path) -> str:
    """Copy an index and do one of many things to it."""
    kind = rng.choice([*KINDS, OLD])
    mishap = rng.random() < 0.5
    damages = MISHAPS if mishap else MANIFEST_FORGERIES if kind == OLD else FORGERIES
    place = target.with_name(f"{kind}-{'mishap' if mishap else 'forgery'}")
    shutil.copytree(folder / kind, place)
    name = rng.choice(sorted(damages))
    return f"{place}: {name}: {damages[name](rng, place, folder)}"


def use(path: Path) -> None:
    """Open an index, search it, index the videos into it, take them out; each is tried after an error of the one before."""
    kind, _, how = path.name.partition("-")
    search = copy.copy(_searches[kind])
    videos = search.video_index.folder.parent / "world" / "videos"
    errors: list[ClipBertError] = []
    if kind == OLD:
        try:
            search.video_index = VideoIndex(path)
        except VideoIndexError:
            take_over(path, search.predictor)
    search.video_index = VideoIndex(path)
    if search.video_index.exists:
        search.video_index.check_identity(search.predictor.identity, search.predictor.source)
        for shortlist in (0, 1):
            _try(errors, lambda shortlist=shortlist: _search(search, kind, how, shortlist))
        str(search.video_index.states(list(search.video_index.entries)))
        str(search.video_index.unreadable)
    _try(errors, lambda: str(search.index(videos, workers=1, prune=True)))
    known = _scores[kind, TEXTS[0]].keys()
    if not errors:
        missing = known - _search(search, kind, how, 0)
        assert how == "forgery" or not missing, f"neither found nor left out: {missing}"
    _try(errors, lambda: _compact(search.video_index))
    _try(errors, lambda: search.remove(list(search.video_index.entries)))
    if errors:
        raise errors[0]


def _compact(index: VideoIndex) -> None:
    with index.locked():  # as the command does it
        index.compact(always=True)


def _try(errors: list[ClipBertError], act: Callable[[], object]) -> None:
    try:
        act()
    except ClipBertError as error:
        errors.append(error)


def _search(search: VideoSearch, kind: str, how: str, shortlist: int) -> set[str]:
    """Search, compare the scores with those of the sound index, and return the videos found or left out."""
    seen: set[str] = set()
    for text in TEXTS:
        found = search.search(text, 3 if shortlist == 0 else 1, shortlist=shortlist)
        str(found)
        paths = [hit.path for hit in found.hits]
        assert len(paths) == len(set(paths)), f"a video is found twice: {paths}"
        if how == "mishap":
            for hit in found.hits:
                known = _scores[kind, text].get(hit.path)
                assert known is not None, f"{hit.path} is no video of the index"
                assert abs(hit.score - known) < DIFFERENCE, f"{hit.path} has {hit.score}, not {known}"
        seen |= {*paths, *found.left_out}
    if _searches[kind].predictor.model.encoder.has_vectors:
        for hit in search.search(TEXTS[0], 3, vectors_only=True).hits:
            assert -1.01 < hit.score < 1.01 or how == "forgery", f"{hit.path} has similarity {hit.score}"
    return seen


def _config(tokenizer: str, vector_size: int | None) -> Config:
    kind = dict(type="mmpretrain.ResNet", depth=18, stem_channels=8, base_channels=8, strides=(1, 2, 2, 1))
    encoder = dict(vocab_size=40, hidden_size=16, num_layers=1, num_heads=2, intermediate_size=32, max_text_length=20)
    encoder |= dict(vector_size=vector_size)
    model = dict(
        type="ClipBert",
        data_preprocessor=dict(type="VideoTextPreprocessor", mean=[0.0] * 3, std=[255.0] * 3, vocab_size=40),
        backbone=kind,
        projection=dict(type="GridProjection", in_channels=64, out_channels=16),
        temporal_fusion=dict(type="MeanFusion"),
        encoder=dict(type="JointEncoder", dropout=0.0, grid_size=8, **encoder),
        head=dict(type="MatchingHead", in_channels=16, hidden_channels=32, dropout=0.0),
        aggregator=dict(type="LogSumExpAggregator"),
    )
    pipeline = [
        dict(type="OpenVideo"),
        dict(type="SampleClips", num_clips=2, num_frames=2, mode="uniform"),
        dict(type="DecodeClips"),
        dict(type="ResizePad", size=32),
        dict(type="Tokenize", tokenizer=tokenizer, max_length=20),
        dict(type="PackInputs"),
    ]
    return Config(dict(default_scope="clipbert_mm", model=model, test_dataloader=dict(dataset=dict(pipeline=pipeline))))
