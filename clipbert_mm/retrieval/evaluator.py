"""Retrieval over a whole gallery: encode each video once, score every text with every video, and store both on the way."""

import time
from collections.abc import Sequence
from datetime import timedelta
from logging import Logger
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from mmengine.dist import get_dist_info
from torch import Tensor
from torch.utils.data import DataLoader

from clipbert_mm.engine.rank_sync import FolderSync, broadcast_from_first
from clipbert_mm.engine.watched_loader import WatchedLoader
from clipbert_mm.retrieval.feature_store import SUFFIX as TOKENS
from clipbert_mm.retrieval.feature_store import FeatureStore
from clipbert_mm.retrieval.memory_limit import memory_left
from clipbert_mm.retrieval.rerank import candidates, merge_scores, score_vectors, shortlist
from clipbert_mm.retrieval.score_matrix import SUFFIX as TILES
from clipbert_mm.retrieval.score_matrix import ScoreMatrix, share_out

if TYPE_CHECKING:
    from clipbert_mm.models import ClipBert
    from clipbert_mm.models.encoders import BasePairEncoder, EncodedTexts

LOG_SECONDS = 10
"""Seconds between two progress lines."""
TEXTS_PER_TILE = 256
"""Most texts in a tile, enough that the work per video is negligible, and that texts of equal length come together."""
CLIPS_PER_TILE = {"cpu": 1024, "cuda": 32768}
"""Pairs of a text and a clip in a tile, by device type; the most work that a killed run loses."""


class Progress:
    """Log the number of items done, the rate, and the time left.

    Args:
        logger: Takes the lines.
        message: Text of a line, with braces for the count, such as "scored {} pairs".
        total: Number of items to do.
    """

    def __init__(self, logger: Logger, message: str, total: int) -> None:
        self.logger, self.message, self.total = logger, message, total
        self.done = 0
        self.started = self.logged = time.monotonic()

    def __call__(self, count: int) -> None:
        """Add ``count`` items, and log a line if the last one is old."""
        self.done += count
        now = time.monotonic()
        if now - self.logged > LOG_SECONDS or (self.done == self.total and self.logged > self.started):
            self.logged = now
            rate = self.done / (now - self.started)
            left = timedelta(seconds=round((self.total - self.done) / rate))
            self.logger.info(f"{self.message.format(f'{self.done}/{self.total}')}, {rate:.3g} per second, {left} left")


def score_block(
    model: "ClipBert",
    pairs: "BasePairEncoder",
    texts: "EncodedTexts",
    tokens: Tensor,
    selected: np.ndarray | None = None,
) -> np.ndarray:
    """Score texts with videos, whose clips are joined first if the model joins them.

    Args:
        model: The model.
        pairs: Its joint encoder for pairs.
        texts: The M texts.
        tokens: Visual tokens, (V, K, S, D).
        selected: Pairs to score, bool (M, V); None for all.

    Returns:
        Scores, float32 (M, V), NaN for pairs that are not selected.
    """
    shape = (len(texts.lengths), len(tokens))
    rows, columns = np.ones(shape, bool).nonzero() if selected is None else selected.nonzero()
    joined = model.clip_fusion(tokens)
    clip_logits = model.score_pairs(pairs, texts, joined, torch.from_numpy(rows), torch.from_numpy(columns))
    scores = np.full(shape, np.nan, np.float32)
    scores[rows, columns] = model.pool_scores(clip_logits).float().cpu().numpy()
    return scores


class RetrievalEvaluator:
    """Score all texts with all videos in one folder, and resume there after a kill.

    Args:
        model: The model, in eval mode.
        pairs: Its joint encoder for pairs; visual tokens are stored in its precision.
        folder: The folder.
        logger: Takes the progress lines.
        clips_per_tile: Pairs of a text and a clip in a tile; None for :data:`CLIPS_PER_TILE`.
        memory_limit: Most memory of this process, such as "4GiB"; None for no limit.
        unique_texts: Whether to encode and score equal texts once.
        machines: The processes that share the folder; None to find out.
    """

    def __init__(
        self,
        model: "ClipBert",
        pairs: "BasePairEncoder",
        folder: Path,
        logger: Logger,
        *,
        clips_per_tile: int | None = None,
        memory_limit: str | None = None,
        unique_texts: bool = False,
        machines: FolderSync | None = None,
    ) -> None:
        self.model, self.pairs, self.folder, self.logger = model, pairs, folder, logger
        self.machines = machines or FolderSync(folder)
        self.clips_per_tile = clips_per_tile or CLIPS_PER_TILE.get(pairs.device.type, CLIPS_PER_TILE["cuda"])
        self.memory_limit, self.unique_texts = memory_limit, unique_texts
        self.store = FeatureStore(folder / "gallery", budget=0)
        self.rank, self.world = get_dist_info()

    def encode(self, dataloader: DataLoader[Any]) -> list[dict[str, Any]]:
        """Encode the videos that are not stored yet, each process its share of them.

        Args:
            dataloader: How to load the items of a RetrievalDataset in test mode; their order does not matter.

        Returns:
            One record per video, with ``sample_idx``, ``path``, ``texts``, ``broken``, and the token ids ``pieces``; also
            ``spans`` and ``clip_times`` if its captions have time spans.
        """
        names = [f"{i:07d}" for i in range(len(dataloader.dataset))]  # type: ignore[arg-type]
        self.machines.exchange(self.store.folder, TOKENS)
        missing = broadcast_from_first([i for i, name in enumerate(names) if name not in self.store])
        if 0 < len(missing) < len(names):
            self.logger.info(f"{len(names) - len(missing)} of {len(names)} videos are encoded already")
        share = missing[self.rank :: self.world]
        progress = Progress(self.logger, "encoded {} videos", len(share))
        for batch in WatchedLoader(dataloader, share) if share else ():
            frames = iter(self.model.data_preprocessor(batch)["inputs"].get("frames", ()))
            token_ids = iter(batch["inputs"].get("text_ids", ()))
            for sample in batch["data_samples"]:
                record = {key: getattr(sample, key) for key in ("sample_idx", "path", "texts", "broken")}
                broken = sample.broken is not None
                if "spans" in sample:
                    record |= dict(spans=sample.spans, clip_times=sample.clip_times.tolist())
                record["pieces"] = [] if broken else [ids.tolist() for ids in next(token_ids)]
                tokens = {} if broken else self._encode_video(next(frames))
                self.store.add(names[sample.sample_idx], tokens, record)
            progress(len(batch["data_samples"]))
        self.machines.exchange(self.store.folder, TOKENS)
        return [self.store.record(name) for name in names]

    @torch.no_grad()
    def _encode_video(self, frames: Tensor) -> dict[str, Tensor]:
        """Encode normalized frames (K, T, 3, H, W) on their own, so that the rest of a batch never changes a bit of a video."""
        tokens = self.model.encode_with_coarse_tokens(frames[None])
        return {name: value[0].to(self.pairs.dtype) for name, value in tokens.items()}

    @torch.no_grad()
    def score(
        self, records: Sequence[dict[str, Any]], keep: float | None = None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Score the texts of all readable videos with each of these videos.

        Args:
            records: The record of each video.
            keep: Size of each query's shortlist, a share or a number: its pairs, chosen by the coarse tokens, are scored with
                all clips. None scores all pairs with all clips.

        Returns:
            Scores, float32 (texts, videos), and the pairs in the shortlist, bool, or None without a shortlist.
        """
        readable = [record for record in records if record["broken"] is None]
        token_ids = [tuple(ids) for record in readable for ids in record["pieces"]]
        different = dict.fromkeys(token_ids) if self.unique_texts else token_ids
        texts = [np.array(ids, np.int64) for ids in different]
        names = [f"{record['sample_idx']:07d}" for record in readable]
        if not names:
            return np.empty((0, 0), np.float32), None
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        by_length = [texts[i] for i in order]
        tokens = self.store.read(names[:1])
        passed = self.model.clip_fusion(tokens).shape[2]  # of a pair, in a forward pass
        clips, cells, width = tokens.shape[1:]
        needed = self._needs(by_length, len(token_ids) * len(names), clips, cells, width, passed)
        self.store.budget = memory_left(self.memory_limit, needed)
        chosen = None
        if keep is None:
            scores = self._matrix("scores", "clips", by_length, names)
        else:
            coarse = self._matrix("coarse_scores", "coarse", by_length, names)
            chosen = shortlist(coarse, candidates(keep, len(names)), candidates(keep, len(texts)))
            scores = merge_scores(coarse, self._matrix("scores", "clips", by_length, names, chosen), chosen)
        rows = np.argsort(order)  # row of each text among those sorted by length
        if self.unique_texts:
            row_of = dict(zip(different, rows, strict=True))
            rows = np.array([row_of[ids] for ids in token_ids])
        return scores[rows], None if chosen is None else chosen[rows]

    @torch.no_grad()
    def score_clips(self, record: dict[str, Any]) -> np.ndarray:
        """Score each text of a video with each of its clips alone, float32 (m, K)."""
        texts = self.pairs.encode_texts([np.array(ids, np.int64) for ids in record["pieces"]])
        tokens = self.store.read([f"{record['sample_idx']:07d}"])  # (1, K, S, D)
        count = len(record["pieces"])
        video_index = torch.zeros(count, dtype=torch.long)
        clip_logits = self.model.score_pairs(self.pairs, texts, tokens, torch.arange(count), video_index)  # (m, K, C)
        scores = self.model.pool_scores(clip_logits.flatten(0, 1)[:, None])  # (m·K,)
        return scores.unflatten(0, clip_logits.shape[:2]).float().cpu().numpy()

    def _needs(self, texts: Sequence[np.ndarray], pairs: int, clips: int, cells: int, width: int, passed: int) -> int:
        """Estimate the bytes of memory to come: a tile, a forward pass, and the metric's copies of the matrix."""
        height, _ = self._tile_shape(len(texts), clips)
        # Of the videos and the texts of a tile.
        tokens = max(clips, self.clips_per_tile // height) * cells + height * len(texts[-1])
        on_device = 4 * width * tokens + self.pairs.numbers_per_pass(passed)
        numbers = width * tokens + on_device * (self.pairs.device.type == "cpu") + 8 * pairs
        return 4 * numbers

    def _tile_shape(self, texts: int, clips: int) -> tuple[int, int]:
        pairs = max(1, self.clips_per_tile // clips)
        height = min(texts, pairs, TEXTS_PER_TILE)
        return height, max(1, pairs // height)

    def _matrix(
        self,
        name: str,
        which: str,
        texts: Sequence[np.ndarray],
        videos: Sequence[str],
        selected: np.ndarray | None = None,
    ) -> np.ndarray:
        """Score the tiles that are not stored yet, each process its share of them; returns the whole matrix."""
        shape = (len(texts), len(videos))
        _, clips, cells, _ = self.store.read(videos[:1], which).shape
        matrix = ScoreMatrix(self.folder / name, shape=shape, tile=self._tile_shape(len(texts), clips))
        selected = np.ones(shape, bool) if selected is None else selected
        tokens = np.array([len(text) + cells for text in texts])[:, None]  # of a pair with one clip
        self.machines.exchange(matrix.folder, TILES)
        missing = broadcast_from_first(matrix.missing())
        if len(missing) < len(matrix.tiles):
            self.logger.info(f"{len(matrix.tiles) - len(missing)} of {len(matrix.tiles)} tiles are scored already")
        costs = [float((tokens[tile.rows] * selected[tile.rows, tile.columns]).sum()) for tile in missing]
        share = share_out(missing, costs, self.world)[self.rank]
        progress = Progress(self.logger, "scored {} pairs", sum(int(selected[t.rows, t.columns].sum()) for t in share))
        encoded, rows = None, None
        for tile in share:
            chosen = selected[tile.rows, tile.columns]
            if encoded is None or rows != tile.rows:
                encoded, rows = self.pairs.encode_texts(texts[tile.rows]), tile.rows
            visual_tokens = self.store.read(videos[tile.columns], which)
            if which == "coarse" and self.model.encoder.has_vectors:
                scores = score_vectors(encoded, visual_tokens).cpu().numpy()
            else:
                scores = score_block(self.model, self.pairs, encoded, visual_tokens, chosen)
            matrix.write(tile, scores)
            progress(int(chosen.sum()))
        matrix.close()
        self.machines.exchange(matrix.folder, TILES)
        return matrix.read()
