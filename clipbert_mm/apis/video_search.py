"""Search your own videos by text, and rank texts for a video."""

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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
    largest_probability,
    moments_of,
    probability,
)
from clipbert_mm.apis.video_index import VideoIndex, default_folder
from clipbert_mm.deprecation import renamed_arguments, warn_renamed
from clipbert_mm.errors import OptionError, VideoIndexError, is_count, printable, quoted
from clipbert_mm.retrieval.rerank import default_shortlist, score_vectors

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


class VideoSearch:
    """Search videos by text, and rank texts for a video, with a model trained for retrieval.

    Args:
        config_or_checkpoint: Checkpoint of ours; a config, as its file or as MMEngine's object; or a public model, as a Hugging
            Face folder or name.
        device: Device of the model; None for a GPU if there is one.
        index: Folder of the index that :meth:`index` fills and :meth:`search` reads; None for ``clipbert_index``.
        weights: With a config, its checkpoint.
        revision: With a name on the Hugging Face hub, its branch, tag or commit; None for the main branch.
        precision: As of :class:`~clipbert_mm.apis.predictor.Predictor`; an index does not depend on it.
        pooling: How the clips of a video become one score; as of :class:`~clipbert_mm.apis.predictor.Predictor`.

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
        precision: str | None = None,
        pooling: str | None = None,
    ) -> None:
        self.predictor = open_predictor(config_or_checkpoint, device, weights, revision, precision, pooling)
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
            shortlist: Videos that are scored with all clips, chosen by their vectors or coarse tokens; 0 for all. None is for
                128 by a joint encoder with vectors, as BLIP; else for a tenth of an index of more than 1,000 videos, and for
                all of a smaller one.

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
            shortlist = default_shortlist(self.predictor.model.encoder, topk, len(chosen))
        if 0 < shortlist < len(chosen):
            coarse = self._score_coarse(chosen, token_ids, left_out)
            chosen = sorted(coarse, key=lambda path: -coarse[path])[:shortlist]
        scored = self._score(chosen, token_ids, left_out)
        if not scored:
            raise VideoIndexError(
                f"No video of the index {self.video_index.folder} can be searched: {next(iter(left_out.values()))}"
            )
        best = sorted(scored, key=lambda path: -scored[path].score)[:topk]
        hits = [self._hit(entries[path], scored[path], token_ids) for path in best]
        searched = len(entries) - len(left_out.keys() & entries.keys())
        unknown = self.predictor.unknown_words([text])
        good = is_good_match(largest_probability(hits), [text], unknown)
        return SearchResult(
            text,
            searched,
            tuple(hits),
            left_out,
            unknown,
            good,
            score_kind=self.predictor.score_kind,
            model=self.predictor.name,
        )

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

    def _score_coarse(self, paths: Sequence[str], token_ids: np.ndarray, left_out: dict[str, str]) -> dict[str, float]:
        """Score a text with the coarse tokens, or the vectors, of videos of the index, by path; see :meth:`_score`."""
        predictor, encoder = self.predictor, self.predictor.model.encoder
        predictor.model.data_preprocessor.check_token_ids([token_ids])
        texts = predictor.pairs.encode_texts([token_ids]) if encoder.has_vectors else None
        width = encoder.visual_size if texts is None else encoder.vector_size
        coarse: dict[str, float] = {}
        for block, tokens in self._blocks(paths, left_out, "coarse", width):
            if texts is None:
                scores = predictor.pooled_scores(predictor.clip_logits(tokens, [token_ids]))
            else:
                scores = score_vectors(texts, tokens)
            coarse |= zip(block, scores[0].tolist(), strict=True)
        return _finite(coarse, left_out)

    def _score(self, paths: Sequence[str], token_ids: np.ndarray, left_out: dict[str, str]) -> dict[str, "Scored"]:
        """Score a text with videos of the index, by path.

        Videos whose visual tokens cannot be used are added to ``left_out``, with the reason.
        """
        predictor, scored = self.predictor, {}
        for block, tokens in self._blocks(paths, left_out, "clips", predictor.model.encoder.visual_size):
            logits = predictor.logits(tokens, [token_ids])  # (1, v, K, C)
            clips = None if predictor.model.joins_clips else predictor.clip_scores(logits)[0].numpy()  # (v, K)
            for i, (path, pair) in enumerate(zip(block, _pairs(predictor, logits), strict=True)):
                scored[path] = Scored(*pair, None if clips is None else clips[i])
        finite = _finite({path: each.score for path, each in scored.items()}, left_out)
        return {path: scored[path] for path in finite}

    def _hit(self, entry: Entry, scored: "Scored", token_ids: np.ndarray) -> Hit:
        clips = scored.clips
        if clips is None:  # of the videos that were found alone
            tokens = self.video_index.tokens(entry.path)[None]
            clips = self.predictor.clip_scores(self.predictor.clip_logits(tokens, [token_ids]))[0, 0].numpy()
        moments = moments_of(entry.clip_times, clips)
        return Hit(entry.path, scored.score, scored.probability, best_of(moments), moments)

    def _blocks(
        self, paths: Sequence[str], left_out: dict[str, str], which: str, width: int
    ) -> Iterator[tuple[list[str], Tensor]]:
        """Read visual tokens of a width in blocks, (v, K, S, D), each with the paths of its videos."""
        block: list[str] = []
        block_tokens: list[Tensor] = []
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
    precision: str | None = None,
    pooling: str | None = None,
) -> Predictor:
    """Open a model for search; arguments are those of :class:`VideoSearch`.

    Raises:
        CheckpointError: If the checkpoint cannot be read or does not fit.
        OptionError: If the model was trained for another task.
    """
    predictor = Predictor(
        config_or_checkpoint,
        weights=weights,
        device=device,
        revision=revision,
        precision=precision,
        pooling=pooling,
    )
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
    return request.answer(media, predictor.encode([media.frames], [media.content_shape]))


@dataclass(frozen=True)
class Scored:
    """A pair of a text and a video.

    Args:
        score: Its score.
        probability: Its probability; None if the model gives none.
        clips: Scores of the clips alone, (K,); None if they are to be computed.
    """

    score: float
    probability: float | None
    clips: np.ndarray | None


def _pairs(predictor: Predictor, logits: Tensor) -> list[tuple[float, float | None]]:
    """Return score and probability of each pair, text by text, from logits (M, V, K, C)."""
    scores, log_odds = predictor.pooled_scores(logits).flatten().tolist(), predictor.log_odds(logits)
    if log_odds is None:
        return [(score, None) for score in scores]
    return list(zip(scores, map(probability, log_odds.flatten().tolist()), strict=True))


def _finite(scores: dict[str, float], left_out: dict[str, str]) -> dict[str, float]:
    """Leave out videos whose scores are not finite, and add them to ``left_out``."""
    finite = {path: score for path, score in scores.items() if math.isfinite(score)}
    left_out |= dict.fromkeys(scores.keys() - finite.keys(), "its visual tokens are not finite; index it again")
    return finite


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
        predictor = self.predictor
        logits, clip_logits = predictor.logits_of_both(tokens, self.token_ids)  # (M, 1, K, C)
        pairs, clips = _pairs(predictor, logits), predictor.clip_scores(clip_logits)[:, 0].numpy()  # M and (M, K)
        ranked = []
        for i in sorted(range(len(pairs)), key=lambda i: -pairs[i][0]):
            moments = moments_of(media.clip_times, clips[i])
            ranked.append(RankedText(self.texts[i], *pairs[i], best_of(moments), moments))
        best = ranked[0].text  # whose words alone count
        good = is_good_match(largest_probability(ranked), [best], predictor.unknown_words([best]))
        unknown = predictor.unknown_words(self.texts)
        return Ranking(self.path, tuple(ranked), unknown, good, score_kind=predictor.score_kind, model=predictor.name)

    def explain(self, ranking: Ranking) -> "Explanation":
        """Explain why the video matches the best text of what :meth:`answer` returned."""
        from clipbert_mm.apis.explanation import explain_match

        return explain_match(self.predictor, self.path, ranking.texts[0].text)


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
