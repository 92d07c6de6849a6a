"""Search a user's own videos by a text, and rank texts for a video."""

import os
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from clipbert_mm.apis.explanation import Explanation, explain_match
from clipbert_mm.apis.gallery import VideoGallery
from clipbert_mm.apis.indexing import Progress, index
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
from clipbert_mm.errors import GalleryError, OptionError

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
        GalleryError: If the folder is no gallery, or another model's.
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
        self.gallery = VideoGallery(gallery)
        if self.gallery.exists:
            self.gallery.check_identity(self.predictor.identity, self.predictor.source)

    def index(
        self,
        places: str | os.PathLike | Sequence[str | os.PathLike],
        *,
        workers: int = 2,
        batch_size: int = 4,
        progress: Progress | None = None,
    ) -> IndexReport:
        """Encode the videos of folders and files into the gallery; see :func:`~clipbert_mm.apis.indexing.index`."""
        return index(self.predictor, self.gallery, places, workers=workers, batch_size=batch_size, progress=progress)

    def remove(self, paths: str | os.PathLike | Sequence[str | os.PathLike]) -> None:
        """Take videos out of the gallery; the files stay where they are.

        Raises:
            GalleryError: If a video is not in the gallery.
        """
        remove(self.gallery, paths)

    def search(self, text: str, topk: int = 10, *, shortlist: int | None = None) -> SearchResult:
        """Find the videos of the gallery that match a text best; nothing is decoded.

        Args:
            text: What is to be seen.
            topk: Number of hits.
            shortlist: Videos that are scored by all their clips, after an overview of each chose them; 0 for all. None is
                for a tenth of a gallery of more than 1,000 videos, and for all of a smaller one.

        Raises:
            GalleryError: If the gallery is empty, or some of it is damaged.
            OptionError: If the text is empty or too long, or ``topk`` is below 1.
        """
        if topk < 1 or (shortlist is not None and shortlist != 0 and shortlist < topk):
            raise OptionError(f"search expects topk >= 1 and shortlist 0 or >= topk, got {topk} and {shortlist}.")
        pieces = self.predictor.word_pieces([text])
        paths = list(self.gallery.entries)
        if not paths:
            raise GalleryError(
                f"There is nothing in the gallery {self.gallery.folder}. Index videos first: clipbert index FOLDER."
            )
        searched = len(paths)
        if shortlist is None:
            shortlist = max(topk, searched // 10) if searched > SHORTLIST_FROM else 0
        if 0 < shortlist < searched:
            first, _ = self._score(paths, pieces, "overview")
            paths = [paths[i] for i in np.argsort(-first[0], kind="stable")[:shortlist]]
        scores, clips = self._score(paths, pieces)
        order = np.argsort(-scores[0], kind="stable")[:topk]
        hits = [self._hit(paths[i], float(scores[0, i]), clips[i][0]) for i in order]
        return SearchResult(text, searched, tuple(hits))

    def rank(self, video: str | os.PathLike, texts: Sequence[str]) -> Ranking:
        """Put texts into the order in which they match a video, which need not be in the gallery.

        Raises:
            BrokenMediaError: If the video cannot be read.
            OptionError: If there is no text, or one is empty or too long.
        """
        if isinstance(texts, str) or not texts:
            raise OptionError(f"rank expects a list of one text or more, got {texts!r}.")
        pieces = self.predictor.word_pieces(texts)
        media = self.predictor.read(os.fspath(video))
        logits = self.predictor.clip_logits(self.predictor.encode([media.frames]), pieces)  # (M, 1, K, C)
        scores, clips = self.predictor.pooled_scores(logits)[:, 0], self.predictor.clip_scores(logits)[:, 0]
        ranked = []
        for i in np.argsort(-scores.numpy(), kind="stable"):
            moments = moments_of(media.clip_times, clips[i].numpy())
            score = float(scores[i])
            ranked.append(RankedText(texts[i], score, probability(score), best_of(moments), moments))
        return Ranking(os.fspath(video), tuple(ranked))

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
        self, paths: Sequence[str], pieces: Sequence[np.ndarray], which: str = "clips"
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        """Score texts beside videos of the gallery: (M, V), and for each video its clips alone, (M, K)."""
        scores: list[np.ndarray] = []
        clips: list[np.ndarray] = []
        for block in self._blocks(paths, which):
            logits = self.predictor.clip_logits(block, pieces)  # (M, v, K, C)
            scores.append(self.predictor.pooled_scores(logits).numpy())
            clips.extend(self.predictor.clip_scores(logits).numpy().swapaxes(0, 1))
        return np.concatenate(scores, axis=1), clips

    def _blocks(self, paths: Sequence[str], which: str) -> Iterator[Tensor]:
        """Read visual tokens in blocks (v, K, S, D)."""
        block: list[Tensor] = []
        for path in paths:
            tokens = self.gallery.tokens(path, which)
            block.append(tokens)
            if len(block) * len(tokens) >= CLIPS_AT_ONCE:
                yield torch.stack(block)
                block = []
        if block:
            yield torch.stack(block)

    def _hit(self, path: str, score: float, clips: np.ndarray) -> Hit:
        moments = moments_of(self.gallery.entries[path].clip_times, clips)
        return Hit(path, score, probability(score), best_of(moments), moments)


def remove(gallery: VideoGallery, paths: str | os.PathLike | Sequence[str | os.PathLike]) -> None:
    """Take videos out of a gallery; the files stay where they are.

    Raises:
        GalleryError: If a video is not in the gallery, or another process is changing it.
    """
    paths = [paths] if isinstance(paths, (str, os.PathLike)) else paths
    wanted = [os.path.abspath(path) for path in paths]
    with gallery.locked():
        for path in wanted:
            if path not in gallery.entries:
                raise GalleryError(f"{path} is not in the gallery {gallery.folder}; clipbert info lists what is.")
        gallery.remove(wanted)
        gallery.save()
