"""A test over a whole gallery: each video encoded once, every text beside every video, all of it on disk as it is done."""

import time
from collections.abc import Sequence
from datetime import timedelta
from logging import Logger
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dist import get_dist_info
from torch.utils.data import DataLoader

from clipbert_mm.engine.rank_sync import Machines, told_by_first
from clipbert_mm.engine.watched_loader import WatchedLoader
from clipbert_mm.retrieval.feature_store import SUFFIX as TOKENS
from clipbert_mm.retrieval.feature_store import FeatureStore
from clipbert_mm.retrieval.memory_limit import memory_left
from clipbert_mm.retrieval.rerank import candidates, merge, shortlist
from clipbert_mm.retrieval.score_matrix import SUFFIX as TILES
from clipbert_mm.retrieval.score_matrix import ScoreMatrix, share_out
from clipbert_mm.retrieval.scoring import PairScorer

LOG_SECONDS = 10
"""Time between two lines of progress."""
TEXTS_PER_TILE = 256
"""Most texts of a tile, so many that what a video needs once does not count, and that texts of one length come together."""
CLIPS_PER_TILE = {"cpu": 1024, "cuda": 32768}
"""Pairs of a text and a clip in a tile by the device's type, which is what a run that is killed loses at most."""


class Progress:
    """Logs how much is done, how fast, and how long it will take.

    Args:
        logger: Takes the lines.
        words: What is done, such as "scored {} pairs".
        total: How much there is to do.
    """

    def __init__(self, logger: Logger, words: str, total: int) -> None:
        self.logger, self.words, self.total = logger, words, total
        self.done = 0
        self.started = self.logged = time.monotonic()

    def __call__(self, more: int) -> None:
        """Note that more is done."""
        self.done += more
        now = time.monotonic()
        if now - self.logged > LOG_SECONDS or (self.done == self.total and self.logged > self.started):
            self.logged = now
            rate = self.done / (now - self.started)
            left = timedelta(seconds=round((self.total - self.done) / rate))
            self.logger.info(f"{self.words.format(f'{self.done}/{self.total}')}, {rate:.3g} a second, {left} left")


class RetrievalEvaluator:
    """One test in a folder of its own, which goes on where one in the same folder was killed.

    Args:
        scorer: Scores pairs.
        folder: The folder.
        logger: Is told the progress.
        clips_per_tile: Pairs of a text and a clip in a tile; None for :data:`CLIPS_PER_TILE`.
        memory_limit: Most memory of this process, such as "4GiB"; None for no limit.
        machines: Which processes share the folder; None to find out.
    """

    def __init__(
        self,
        scorer: PairScorer,
        folder: Path,
        logger: Logger,
        *,
        clips_per_tile: int | None = None,
        memory_limit: str | None = None,
        machines: Machines | None = None,
    ) -> None:
        self.scorer, self.folder, self.logger = scorer, folder, logger
        self.machines = machines or Machines(folder)
        self.clips_per_tile = clips_per_tile or CLIPS_PER_TILE.get(scorer.device.type, CLIPS_PER_TILE["cuda"])
        self.memory_limit = memory_limit
        self.gallery = FeatureStore(folder / "gallery", budget=0)
        self.rank, self.world = get_dist_info()

    def encode(self, dataloader: DataLoader[Any]) -> list[dict[str, Any]]:
        """Encode the videos that are not in the gallery yet, a share of them in each process.

        Args:
            dataloader: How to load the items of a RetrievalDataset in test mode; in which order does not matter.

        Returns:
            Of each video a record with ``sample_idx``, ``path``, ``texts``, ``broken`` and ``pieces``, its texts' word pieces.
        """
        names = [f"{i:07d}" for i in range(len(dataloader.dataset))]  # type: ignore[arg-type]
        self.machines.exchange(self.gallery.folder, TOKENS)
        missing = told_by_first([i for i, name in enumerate(names) if name not in self.gallery])
        if 0 < len(missing) < len(names):
            self.logger.info(f"{len(names) - len(missing)} of {len(names)} videos are encoded already")
        own = missing[self.rank :: self.world]
        progress = Progress(self.logger, "encoded {} videos", len(own))
        for batch in WatchedLoader(dataloader, own) if own else ():
            frames = iter(self.scorer.model.data_preprocessor(batch)["inputs"].get("frames", ()))
            pieces = iter(batch["inputs"].get("text_ids", ()))
            for sample in batch["data_samples"]:
                record = {key: getattr(sample, key) for key in ("sample_idx", "path", "texts", "broken")}
                broken = sample.broken is not None
                record["pieces"] = [] if broken else [ids.tolist() for ids in next(pieces)]
                tokens = {} if broken else self.scorer.encode_video(next(frames))
                self.gallery.add(names[sample.sample_idx], tokens, record)
            progress(len(batch["data_samples"]))
        self.machines.exchange(self.gallery.folder, TOKENS)
        return [self.gallery.record(name) for name in names]

    def score(
        self, records: Sequence[dict[str, Any]], keep: float | None = None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Score the texts of all videos that could be read beside each of these.

        Args:
            records: The record of each video.
            keep: Candidates of each query, a share or a number, that all clips are looked at of, chosen by the overview; None
                for all clips of all pairs.

        Returns:
            Scores, float32 (texts, videos), and which pairs are in the shortlist, bool; None where there is no such list.
        """
        readable = [record for record in records if record["broken"] is None]
        texts = [np.array(ids, np.int64) for record in readable for ids in record["pieces"]]
        names = [f"{record['sample_idx']:07d}" for record in readable]
        if not names:
            return np.empty((0, 0), np.float32), None
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        by_length = [texts[i] for i in order]
        _, clips, cells, _ = self.gallery.read(names[:1]).shape
        self.gallery.budget = memory_left(self.memory_limit, self._needs(by_length, len(names), clips, cells))
        chosen = None
        if keep is None:
            scores = self._matrix("scores", "clips", by_length, names)
        else:
            first = self._matrix("scores_of_overviews", "overview", by_length, names)
            chosen = shortlist(first, candidates(keep, len(names)), candidates(keep, len(texts)))
            scores = merge(first, self._matrix("scores", "clips", by_length, names, chosen), chosen)
        places = np.argsort(order)  # of each text among those by length
        return scores[places], None if chosen is None else chosen[places]

    def _needs(self, texts: Sequence[np.ndarray], videos: int, clips: int, cells: int) -> int:
        """Estimate the bytes of memory to come: a tile, a pass, and what the metric makes of the matrix."""
        config = self.scorer.pairs.encoder.bert.config
        height, _ = self._tile_shape(len(texts), clips)
        tokens = max(clips, self.clips_per_tile // height) * cells + height * len(
            texts[-1]
        )  # of a tile's videos and texts
        on_device = 4 * config.hidden_size * tokens
        on_device += self.scorer.pairs.tokens_per_pass * (2 * config.intermediate_size + 8 * config.hidden_size)
        numbers = config.hidden_size * tokens + on_device * (self.scorer.device.type == "cpu") + 8 * len(texts) * videos
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
        wanted: np.ndarray | None = None,
    ) -> np.ndarray:
        """Score by tiles what is not scored yet, a share of them in each process; returns the whole matrix."""
        shape = (len(texts), len(videos))
        _, clips, cells, _ = self.gallery.read(videos[:1], which).shape
        matrix = ScoreMatrix(self.folder / name, shape=shape, tile=self._tile_shape(len(texts), clips))
        wanted = np.ones(shape, bool) if wanted is None else wanted
        tokens = np.array([len(text) + cells for text in texts])[:, None]  # of a pair with one clip
        self.machines.exchange(matrix.folder, TILES)
        missing = told_by_first(matrix.missing())
        if len(missing) < len(matrix.tiles):
            self.logger.info(f"{len(matrix.tiles) - len(missing)} of {len(matrix.tiles)} tiles are scored already")
        costs = [float((tokens[tile.rows] * wanted[tile.rows, tile.columns]).sum()) for tile in missing]
        own = share_out(missing, costs, self.world)[self.rank]
        progress = Progress(self.logger, "scored {} pairs", sum(int(wanted[t.rows, t.columns].sum()) for t in own))
        encoded, rows = None, None
        for tile in own:
            chosen = wanted[tile.rows, tile.columns]
            if encoded is None or rows != tile.rows:
                encoded, rows = self.scorer.encode_texts(texts[tile.rows]), tile.rows
            videos_of_tile = self.gallery.read(videos[tile.columns], which)
            matrix.write(tile, self.scorer.score_block(encoded, videos_of_tile, chosen))
            progress(int(chosen.sum()))
        matrix.close()
        self.machines.exchange(matrix.folder, TILES)
        return matrix.read()
