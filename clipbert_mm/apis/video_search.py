"""Search your own videos by text, and rank texts for a video."""

import math
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from clipbert_mm.apis.index_records import Entry, name_below
from clipbert_mm.apis.predictor import ModelSource, Predictor
from clipbert_mm.apis.results import (
    Hit,
    RankedText,
    Ranking,
    SearchResult,
    best_of,
    is_good_match,
    moments_of,
    probability,
)
from clipbert_mm.apis.video_index import VideoIndex, default_folder
from clipbert_mm.deprecation import renamed_arguments, warn_renamed
from clipbert_mm.errors import OptionError, VideoIndexError, is_count, printable, quoted
from clipbert_mm.structures import LOG_ODDS

if TYPE_CHECKING:  # imported when they are used, since a search needs none of them
    from clipbert_mm.apis.explanation import Explanation
    from clipbert_mm.apis.indexing import Progress
    from clipbert_mm.apis.results import IndexReport
    from clipbert_mm.media.media_file import Media

Paths = str | os.PathLike | Sequence[str | os.PathLike]
"""A file or folder, or several."""
CLIPS_AT_ONCE = 256
"""Clips whose visual tokens are read from the index at a time."""
TASKS = ("retrieval",)
"""Tasks that a model for search may be trained for."""
SHORTLIST_FROM = 1000
"""An index of more videos is searched with a shortlist by default."""


class VideoSearch:
    """Search videos by text, and rank texts for a video, with a model trained for retrieval.

    Args:
        config_or_checkpoint: Checkpoint of ours; a config, as its file or as MMEngine's object; or a public model, as a Hugging
            Face folder or name.
        device: Device of the model; None for a GPU if there is one.
        index: Folder of the index that :meth:`index` fills and :meth:`search` reads; None for ``clipbert_index``.
        weights: With a config, its checkpoint.
        revision: With a name on the Hugging Face hub, its branch, tag or commit; None for the main branch.

    Raises:
        CheckpointError: If the checkpoint cannot be read or does not fit.
        VideoIndexError: If the folder contains a damaged index, or one of another model.
        OptionError: If the model was trained for another task.

    Example:
        >>> search = VideoSearch("epoch_4.pth", index="my_index")  # doctest: +SKIP
        >>> print(search.index("my_videos"))  # doctest: +SKIP
        >>> print(search.search("a dog catches a ball", topk=5))  # doctest: +SKIP
    """

    @renamed_arguments(gallery="index")
    def __init__(
        self,
        config_or_checkpoint: ModelSource,
        device: str | torch.device | None = None,
        *,
        index: str | os.PathLike | None = None,
        weights: str | os.PathLike | None = None,
        revision: str | None = None,
    ) -> None:
        self.predictor = open_predictor(config_or_checkpoint, device, weights, revision)
        self.video_index = VideoIndex(default_folder() if index is None else index)
        if self.video_index.exists:
            self.video_index.check_identity(self.predictor.identity, self.predictor.source)

    @property
    def gallery(self) -> VideoIndex:
        """The index; deprecated name of ``video_index``."""
        warn_renamed("VideoSearch.gallery", "VideoSearch.video_index")
        return self.video_index

    @renamed_arguments(places="paths")
    def index(
        self,
        paths: Paths,
        *,
        workers: int = 2,
        batch_size: int = 4,
        timeout: float = 120.0,
        prune: bool = False,
        retry: bool = False,
        progress: "Progress | None" = None,
    ) -> "IndexReport":
        """Encode the videos of folders and files into the index; see :func:`~clipbert_mm.apis.indexing.index`."""
        from clipbert_mm.apis.indexing import index

        return index(
            self.predictor,
            self.video_index,
            paths,
            workers=workers,
            batch_size=batch_size,
            timeout=timeout,
            prune=prune,
            retry=retry,
            progress=progress,
        )

    @renamed_arguments(places="paths")
    def remove(self, paths: Paths) -> list[str]:
        """Remove videos, or all videos below folders, from the index; see :func:`remove`."""
        return remove(self.video_index, paths)

    def search(self, text: str, topk: int = 10, *, shortlist: int | None = None) -> SearchResult:
        """Find the videos of the index that match a text best; no video is decoded.

        Args:
            text: What the video shows.
            topk: Number of hits.
            shortlist: Videos that are scored with all clips, chosen by their coarse tokens; 0 for all. None is for a tenth of
                an index of more than 1,000 videos, and for all of a smaller one.

        Raises:
            VideoIndexError: If the index is empty, or none of its videos can be searched.
            OptionError: If the text is empty or too long, or ``topk`` is below 1.
        """
        if not is_count(topk) or not (shortlist in (None, 0) or is_count(shortlist, topk)):
            raise OptionError(
                f"search expects topk >= 1 and shortlist 0 or >= topk, got {quoted(topk)} and {quoted(shortlist)}."
            )
        (token_ids,) = self.predictor.token_ids([text])
        self.video_index.refresh()
        entries = self.video_index.entries
        left_out = dict.fromkeys(self.video_index.missing, "its visual tokens are missing; index it again")
        if not entries and not left_out:
            raise VideoIndexError(
                f"The index {self.video_index.folder} is empty. Index videos first: clipbert index FOLDER."
            )
        chosen = list(entries)
        if shortlist is None:
            shortlist = max(topk, len(chosen) // 10) if len(chosen) > SHORTLIST_FROM else 0
        if 0 < shortlist < len(chosen):
            coarse = self._score(chosen, token_ids, left_out, "coarse")
            chosen = sorted(coarse, key=lambda path: -coarse[path][0])[:shortlist]
        scored = self._score(chosen, token_ids, left_out)
        if not scored:
            raise VideoIndexError(
                f"No video of the index {self.video_index.folder} can be searched: {next(iter(left_out.values()))}"
            )
        best = sorted(scored, key=lambda path: -scored[path][0])[:topk]
        hits = [_hit(entries[path], *scored[path]) for path in best]
        searched = len(entries) - len(left_out.keys() & entries.keys())
        unknown = self.predictor.unknown_words([text])
        good = _is_good_match(self.predictor, hits[0].probability, [text], unknown)
        return SearchResult(text, searched, tuple(hits), left_out, unknown, good)

    def rank(self, video: str | os.PathLike, texts: Sequence[str]) -> Ranking:
        """Rank texts by how well they match a video, which need not be in the index.

        Raises:
            BrokenMediaError: If the video cannot be read.
            OptionError: If there is no text, or one is empty or too long.
        """
        return rank(self.predictor, video, texts)

    @renamed_arguments(picture="out_file")
    def explain(self, text: str, video: str | os.PathLike, out_file: str | os.PathLike | None = None) -> "Explanation":
        """Explain why a video matches a text: the score of each clip, the best clip, and which parts of it the score is from.

        Args:
            text: The text.
            video: The video, which need not be in the index.
            out_file: PNG file to draw the explanation to; None draws nothing.

        Raises:
            BrokenMediaError: If the video cannot be read.
            OptionError: If the text is empty or too long.
        """
        from clipbert_mm.apis.explanation import explain_match

        explanation = explain_match(self.predictor, os.fspath(video), text)
        if out_file is not None:
            explanation.draw(out_file, name_below(os.path.abspath(video), self.video_index.folders))
        return explanation

    def _score(
        self, paths: Sequence[str], token_ids: np.ndarray, left_out: dict[str, str], which: str = "clips"
    ) -> dict[str, tuple[float, np.ndarray]]:
        """Score a text with videos of the index: by path the score, and the scores of the clips alone, (K,).

        Videos whose visual tokens cannot be used are added to ``left_out``, with the reason.
        """
        scored: dict[str, tuple[float, np.ndarray]] = {}
        for block, tokens in self._blocks(paths, left_out, which):
            logits = self.predictor.clip_logits(tokens, [token_ids])  # (1, v, K, C)
            scores, clips = self.predictor.pooled_scores(logits)[0], self.predictor.clip_scores(logits)[0]
            for path, score, clip_scores in zip(block, scores.tolist(), clips.numpy(), strict=True):
                if math.isfinite(score):
                    scored[path] = score, clip_scores
                else:
                    left_out[path] = "its visual tokens are not finite; index it again"
        return scored

    def _blocks(self, paths: Sequence[str], left_out: dict[str, str], which: str) -> Iterator[tuple[list[str], Tensor]]:
        """Read visual tokens in blocks, (v, K, S, D), each with the paths of its videos."""
        block: list[str] = []
        block_tokens: list[Tensor] = []
        width = self.predictor.model.encoder.visual_size
        for path in paths:
            try:
                tokens = self.video_index.tokens(path, which)
                if tokens.shape[-1] != width:
                    raise VideoIndexError(f"expected visual tokens of width {width}, got {tuple(tokens.shape)}")
            except VideoIndexError as error:
                left_out[path] = str(error)
                continue
            if block and (len(block) * len(tokens) >= CLIPS_AT_ONCE or tokens.shape != block_tokens[0].shape):
                yield block, torch.stack(block_tokens)
                block, block_tokens = [], []
            block.append(path)
            block_tokens.append(tokens)
        if block:
            yield block, torch.stack(block_tokens)


def open_predictor(
    config_or_checkpoint: ModelSource,
    device: str | torch.device | None = None,
    weights: str | os.PathLike | None = None,
    revision: str | None = None,
) -> Predictor:
    """Open a model for search; arguments are those of :class:`VideoSearch`.

    Raises:
        CheckpointError: If the checkpoint cannot be read or does not fit.
        OptionError: If the model was trained for another task.
    """
    predictor = Predictor(config_or_checkpoint, weights=weights, device=device, revision=revision)
    if predictor.task not in TASKS:
        raise OptionError(
            f"VideoSearch needs a model trained for {TASKS[0]}, and {predictor.source} was trained for "
            f"{predictor.task}. Ask questions with VideoQA (clipbert ask)."
        )
    return predictor


def rank(predictor: Predictor, video: str | os.PathLike, texts: Sequence[str]) -> Ranking:
    """Rank texts by how well they match a video; see :meth:`VideoSearch.rank`."""
    request = TextsToRank(predictor, os.fspath(video), texts)
    media = predictor.read(request.path)
    return request.answer(media, predictor.encode([media.frames]))


class TextsToRank:
    """Texts that are to be ranked for a video, checked before the video is read.

    Args:
        predictor: A model trained for retrieval.
        path: The video.
        texts: The texts.

    Raises:
        OptionError: If there is no text, or one is empty or too long.
    """

    def __init__(self, predictor: Predictor, path: str, texts: Sequence[str]) -> None:
        if not isinstance(texts, (list, tuple)) or not texts or not all(isinstance(text, str) for text in texts):
            raise OptionError(f"rank expects a list of one or more texts, got {quoted(texts)}.")
        self.predictor, self.path, self.texts = predictor, path, list(texts)
        self.token_ids = predictor.token_ids(self.texts)

    def answer(self, media: "Media", tokens: Tensor) -> Ranking:
        """Rank them for the video that was read, with its visual tokens, (1, K, S, D)."""
        logits = self.predictor.clip_logits(tokens, self.token_ids)  # (M, 1, K, C)
        scores, clips = self.predictor.pooled_scores(logits)[:, 0], self.predictor.clip_scores(logits)[:, 0]
        ranked = []
        for i in np.argsort(-scores.numpy(), kind="stable"):
            moments = moments_of(media.clip_times, clips[i].numpy())
            score = float(scores[i])
            ranked.append(RankedText(self.texts[i], score, probability(score), best_of(moments), moments))
        best = ranked[0]  # whose words alone count
        unknown = self.predictor.unknown_words([best.text])
        good = _is_good_match(self.predictor, best.probability, [best.text], unknown)
        return Ranking(self.path, tuple(ranked), self.predictor.unknown_words(self.texts), good)

    def explain(self, ranking: Ranking) -> "Explanation":
        """Explain why the video matches the best text of what :meth:`answer` returned."""
        from clipbert_mm.apis.explanation import explain_match

        return explain_match(self.predictor, self.path, ranking.texts[0].text)


def _is_good_match(predictor: Predictor, best: float, texts: Sequence[str], unknown: Sequence[str]) -> bool | None:
    """Whether the best pair is a good match; None if the head's scores are no log-odds."""
    head = predictor.model.head
    return is_good_match(best, texts, unknown) if getattr(head, "score_kind", None) == LOG_ODDS else None


def _hit(entry: Entry, score: float, clips: np.ndarray) -> Hit:
    moments = moments_of(entry.clip_times, clips)
    return Hit(entry.path, score, probability(score), best_of(moments), moments)


def remove(video_index: VideoIndex, paths: Paths) -> list[str]:
    """Remove videos, or all videos below folders, from an index; the video files stay.

    Returns:
        The videos that were removed.

    Raises:
        BusyFolderError: If another process is changing the index.
        VideoIndexError: If a path is not in the index, nor anything below it; nothing is removed then.
    """
    paths = [paths] if isinstance(paths, (str, os.PathLike)) else paths
    removed: list[str] = []
    if not video_index.exists:
        raise VideoIndexError(f"There is no index {video_index.folder}.")
    with video_index.locked():
        listed = [*video_index.entries, *video_index.missing, *video_index.unreadable]
        for path in map(os.path.abspath, paths):
            below = [other for other in listed if other == path or other.startswith(os.path.join(path, ""))]
            if not below:
                raise VideoIndexError(
                    f"{printable(path)} is not in the index {video_index.folder}, nor is anything below it. List its videos "
                    "with clipbert info."
                )
            removed += below
        video_index.remove(removed)
        video_index.save()
    return list(dict.fromkeys(removed))
