"""Search a user's own videos by a text, and rank texts for a video."""

import math
import os
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from clipbert_mm.apis.explanation import Explanation, explain_match
from clipbert_mm.apis.index_records import Entry
from clipbert_mm.apis.indexing import Places, Progress, index
from clipbert_mm.apis.predictor import Predictor
from clipbert_mm.apis.results import (
    Hit,
    IndexReport,
    RankedText,
    Ranking,
    SearchResult,
    best_of,
    moments_of,
    probability,
)
from clipbert_mm.apis.video_index import VideoIndex
from clipbert_mm.errors import OptionError, VideoIndexError, printable, quoted

CLIPS_AT_ONCE = 256
"""Clips whose visual tokens are read from the gallery at a time."""
TASKS = ("retrieval",)
"""What a model may have been trained for that is asked to search."""
SHORTLIST_FROM = 1000
"""Galleries of more videos are searched by a shortlist, unless told otherwise."""


class VideoSearch:
    """Search videos by text, and rank texts for a video, with a model trained for retrieval.

    Args:
        config_or_checkpoint: Checkpoint of ours, or a config file.
        device: Where the model runs; None for a GPU where there is one.
        gallery: Folder of the gallery that :meth:`index` fills and :meth:`search` reads.
        weights: Checkpoint beside a config file; None for the config's ``load_from``.

    Raises:
        CheckpointError: If the checkpoint cannot be read or does not fit.
        VideoIndexError: If the folder is no gallery, or another model's.
        OptionError: If the model was trained for another task.

    Example:
        >>> search = VideoSearch("epoch_4.pth", gallery="my_gallery")  # doctest: +SKIP
        >>> print(search.index("my_videos"))  # doctest: +SKIP
        >>> print(search.search("a dog catches a ball", topk=5))  # doctest: +SKIP
    """

    def __init__(
        self,
        config_or_checkpoint: str | os.PathLike,
        device: str | torch.device | None = None,
        *,
        gallery: str | os.PathLike = "clipbert_gallery",
        weights: str | os.PathLike | None = None,
    ) -> None:
        self.predictor = Predictor(config_or_checkpoint, weights=weights, device=device)
        if self.predictor.task not in TASKS:
            raise OptionError(
                f"{config_or_checkpoint} was trained for {self.predictor.task}, and a search needs a model for retrieval. "
                "Ask questions with VideoQA (clipbert ask)."
            )
        self.gallery = VideoIndex(gallery)
        if self.gallery.exists:
            self.gallery.check_identity(self.predictor.identity, self.predictor.source)

    def index(
        self,
        places: Places,
        *,
        workers: int = 2,
        batch_size: int = 4,
        timeout: float = 120.0,
        prune: bool = False,
        retry: bool = False,
        progress: Progress | None = None,
    ) -> IndexReport:
        """Encode the videos of folders and files into the gallery; see :func:`~clipbert_mm.apis.indexing.index`."""
        return index(
            self.predictor,
            self.gallery,
            places,
            workers=workers,
            batch_size=batch_size,
            timeout=timeout,
            prune=prune,
            retry=retry,
            progress=progress,
        )

    def remove(self, places: Places) -> list[str]:
        """Take videos, or all that lie below folders, out of the gallery; see :func:`remove`."""
        return remove(self.gallery, places)

    def search(self, text: str, topk: int = 10, *, shortlist: int | None = None) -> SearchResult:
        """Find the videos of the gallery that match a text best; nothing is decoded.

        Args:
            text: What is to be seen.
            topk: Number of hits.
            shortlist: Videos that are scored with all clips, chosen by their coarse tokens; 0 for all. None is for a tenth of
                a gallery of more than 1,000 videos, and for all of a smaller one.

        Raises:
            VideoIndexError: If the gallery is empty, or some of it is damaged.
            OptionError: If the text is empty or too long, or ``topk`` is below 1.
        """
        if topk < 1 or (shortlist is not None and shortlist != 0 and shortlist < topk):
            raise OptionError(f"search expects topk >= 1 and shortlist 0 or >= topk, got {topk} and {shortlist}.")
        pieces = self.predictor.word_pieces([text])
        self.gallery.refresh()
        entries, left_out = (
            self.gallery.entries,
            dict.fromkeys(self.gallery.missing, "its visual tokens are missing; index it again"),
        )
        if not entries and not left_out:
            raise VideoIndexError(
                f"There is nothing in the gallery {self.gallery.folder}. Index videos first: clipbert index FOLDER."
            )
        chosen = list(entries)
        if shortlist is None:
            shortlist = max(topk, len(chosen) // 10) if len(chosen) > SHORTLIST_FROM else 0
        if 0 < shortlist < len(chosen):
            coarse = self._score(chosen, pieces[0], left_out, "coarse")
            chosen = sorted(coarse, key=lambda path: -coarse[path][0])[:shortlist]
        scored = self._score(chosen, pieces[0], left_out)
        if not scored:
            raise VideoIndexError(
                f"No video of the gallery {self.gallery.folder} can be searched: {next(iter(left_out.values()))}"
            )
        best = sorted(scored, key=lambda path: -scored[path][0])[:topk]
        hits = [_hit(entries[path], *scored[path]) for path in best]
        searched = len(entries) - len(left_out.keys() & entries.keys())
        return SearchResult(text, searched, tuple(hits), left_out, self.predictor.unknown_words([text]))

    def rank(self, video: str | os.PathLike, texts: Sequence[str]) -> Ranking:
        """Put texts into the order in which they match a video, which need not be in the gallery.

        Raises:
            BrokenMediaError: If the video cannot be read.
            OptionError: If there is no text, or one is empty or too long.
        """
        if isinstance(texts, str) or not texts:
            raise OptionError(f"rank expects a list of one text or more, got {quoted(texts)}.")
        pieces = self.predictor.word_pieces(texts)
        media = self.predictor.read(os.fspath(video))
        logits = self.predictor.clip_logits(self.predictor.encode([media.frames]), pieces)  # (M, 1, K, C)
        scores, clips = self.predictor.pooled_scores(logits)[:, 0], self.predictor.clip_scores(logits)[:, 0]
        ranked = []
        for i in np.argsort(-scores.numpy(), kind="stable"):
            moments = moments_of(media.clip_times, clips[i].numpy())
            score = float(scores[i])
            ranked.append(RankedText(texts[i], score, probability(score), best_of(moments), moments))
        return Ranking(os.fspath(video), tuple(ranked), self.predictor.unknown_words(texts))

    def explain(self, text: str, video: str | os.PathLike, picture: str | os.PathLike | None = None) -> Explanation:
        """Show why a video matches a text: each clip's score, the best clip, and where in it the score comes from.

        Args:
            text: The text.
            video: The video, which need not be in the gallery.
            picture: PNG file to draw it in; None draws nothing.

        Raises:
            BrokenMediaError: If the video cannot be read.
            OptionError: If the text is empty or too long.
        """
        found = explain_match(self.predictor, os.fspath(video), text)
        if picture is not None:
            found.draw(picture)
        return found

    def _score(
        self, paths: Sequence[str], pieces: np.ndarray, left_out: dict[str, str], which: str = "clips"
    ) -> dict[str, tuple[float, np.ndarray]]:
        """Score a text beside videos of the gallery: by path the score and that of each clip alone, (K,).

        A video whose visual tokens cannot be used is added to ``left_out``, with the reason.
        """
        scored: dict[str, tuple[float, np.ndarray]] = {}
        for own, tokens in self._blocks(paths, left_out, which):
            logits = self.predictor.clip_logits(tokens, [pieces])  # (1, v, K, C)
            scores, clips = (
                self.predictor.pooled_scores(logits)[0].tolist(),
                self.predictor.clip_scores(logits)[0].numpy(),
            )
            for path, score, clip_scores in zip(own, scores, clips, strict=True):
                if math.isfinite(score):
                    scored[path] = score, clip_scores
                else:
                    left_out[path] = "its visual tokens are not finite; index it again"
        return scored

    def _blocks(self, paths: Sequence[str], left_out: dict[str, str], which: str) -> Iterator[tuple[list[str], Tensor]]:
        """Read visual tokens in blocks, (v, K, S, D), with their videos."""
        own: list[str] = []
        block: list[Tensor] = []
        width = self.predictor.model.encoder.word_embeddings.shape[1]
        for path in paths:
            try:
                tokens = self.gallery.tokens(path, which)
                if tokens.shape[-1] != width:
                    raise VideoIndexError(f"expected visual tokens of width {width}, got {tuple(tokens.shape)}")
            except VideoIndexError as error:
                left_out[path] = str(error)
                continue
            if block and (len(block) * len(tokens) >= CLIPS_AT_ONCE or tokens.shape != block[0].shape):
                yield own, torch.stack(block)
                own, block = [], []
            own.append(path)
            block.append(tokens)
        if block:
            yield own, torch.stack(block)


def _hit(entry: Entry, score: float, clips: np.ndarray) -> Hit:
    moments = moments_of(entry.clip_times, clips)
    return Hit(entry.path, score, probability(score), best_of(moments), moments)


def remove(gallery: VideoIndex, places: Places) -> list[str]:
    """Take videos, or all that lie below folders, out of a gallery; the files stay where they are.

    Returns:
        The videos that were taken out.

    Raises:
        BusyFolderError: If another process is changing the gallery.
        VideoIndexError: If there is no such video, nor any below such a folder, in the gallery; nothing is taken out then.
    """
    places = [places] if isinstance(places, (str, os.PathLike)) else places
    removed: list[str] = []
    if not gallery.exists:
        raise VideoIndexError(f"There is no gallery {gallery.folder}.")
    with gallery.locked():
        listed = [*gallery.entries, *gallery.missing, *gallery.unreadable]
        for place in map(os.path.abspath, places):
            below = [path for path in listed if path == place or path.startswith(os.path.join(place, ""))]
            if not below:
                raise VideoIndexError(
                    f"{printable(place)} is not in the gallery {gallery.folder}, nor is anything below it; clipbert info lists "
                    "what is."
                )
            removed += below
        gallery.remove(removed)
        gallery.save()
    return list(dict.fromkeys(removed))
