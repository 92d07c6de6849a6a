"""Search your own videos by text, and rank texts for a video."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from clipbert_mm.apis.predictor import ModelSource, Predictor
from clipbert_mm.apis.ranking import rank
from clipbert_mm.apis.search_options import Found, SearchOptions
from clipbert_mm.apis.search_results import GOOD_MATCH, Ranking, SearchResult, is_good_match
from clipbert_mm.apis.two_stages import TwoStages
from clipbert_mm.deprecation import renamed_arguments, warn_renamed
from clipbert_mm.errors import OptionError, VideoIndexError, printable, quoted
from clipbert_mm.index import Filter, VideoIndex, default_folder, name_below
from clipbert_mm.index.engines import open_index
from clipbert_mm.structures import COSINE

if TYPE_CHECKING:  # imported when they are used, since a search needs none of them
    from clipbert_mm.apis.calibration import CalibrationReport, LabelledPair
    from clipbert_mm.apis.duplicates import DuplicateReport
    from clipbert_mm.apis.explanation import Explanation
    from clipbert_mm.apis.index_run import Progress
    from clipbert_mm.apis.results import IndexReport
    from clipbert_mm.apis.similar import SimilarVideos

Paths = str | os.PathLike | Sequence[str | os.PathLike]
"""A file or folder, or several."""
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
        self.video_index = open_index(default_folder() if index is None else index)
        self._stages: TwoStages | None = None
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
        keep_tokens: bool | None = None,
        together: bool = False,
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
            keep_tokens=keep_tokens,
            together=together,
            progress=progress,
        )

    @renamed_arguments(places="paths")
    def remove(self, paths: Paths) -> list[str]:
        """Remove videos, or all videos below folders, from the index; see :func:`remove`."""
        return remove(self.video_index, paths)

    def search(
        self,
        text: str,
        topk: int = 10,
        *,
        shortlist: int | None = None,
        where: Filter | None = None,
        vector_pooling: str | None = None,
        vectors_only: bool = False,
        threshold: float | None = None,
        clips: bool = False,
    ) -> SearchResult:
        """Find the videos of the index that match a text best: by their vectors, then the shortlist by the model.

        The videos of the shortlist are decoded again, unless the index keeps visual tokens or the model compares vectors alone.

        Args:
            text: What the video shows.
            topk: Number of hits.
            shortlist: As of :class:`~clipbert_mm.apis.search_options.SearchOptions`, and so are the others.
            where: Conditions that the videos meet.
            vector_pooling: How the similarities of a video's clips become one in the first stage.
            vectors_only: Whether to rank by the vectors alone.
            threshold: Least probability of a hit, 0 to 1; others are left out.
            clips: Whether to find the best clips of all videos, and not the best videos.

        Raises:
            VideoIndexError: If the index is empty, or none of its videos can be searched.
            OptionError: If the text is empty or too long, or an option cannot be used.
        """
        options = SearchOptions(topk, shortlist, where, vector_pooling, vectors_only, threshold, clips)
        return self._search([text], options)[0]

    def search_many(
        self,
        texts: Sequence[str],
        topk: int = 10,
        *,
        shortlist: int | None = None,
        where: Filter | None = None,
        vector_pooling: str | None = None,
        vectors_only: bool = False,
        threshold: float | None = None,
        clips: bool = False,
    ) -> list[SearchResult]:
        """Search for many texts at once, which reads the vectors once, and decodes a video of several shortlists once.

        Args:
            texts: One or more texts.
            topk: Number of hits for each; this and the others are those of :meth:`search`.
            shortlist: As of :meth:`search`.
            where: As of :meth:`search`.
            vector_pooling: As of :meth:`search`.
            vectors_only: As of :meth:`search`.
            threshold: As of :meth:`search`.
            clips: As of :meth:`search`.

        Returns:
            What :meth:`search` returns for each text.

        Raises:
            VideoIndexError: As of :meth:`search`.
            OptionError: As of :meth:`search`, and if there is no text.
        """
        if isinstance(texts, str) or not texts:
            raise OptionError(f"search_many expects a list of one or more texts, got {quoted(texts)}.")
        options = SearchOptions(topk, shortlist, where, vector_pooling, vectors_only, threshold, clips)
        return self._search(list(texts), options)

    def _search(self, texts: list[str], options: SearchOptions) -> list[SearchResult]:
        token_ids = self.predictor.token_ids(texts)
        self._check_not_empty()
        return [
            self._result(text, found, options)
            for text, found in zip(texts, self.stages.find(token_ids, options), strict=True)
        ]

    def _check_not_empty(self) -> None:
        """Check that there is something to search.

        Raises:
            VideoIndexError: If there is not.
        """
        if not self.video_index.count():
            raise VideoIndexError(
                f"The index {self.video_index.name} is empty. Index videos first: clipbert index FOLDER."
            )

    def _result(self, text: str, found: Found, options: SearchOptions) -> SearchResult:
        """Return what was found for a text.

        Raises:
            VideoIndexError: If no video could be searched.
        """
        if not found.searched and found.left_out:
            raise VideoIndexError(
                f"No video of the index {self.video_index.name} can be searched: {next(iter(found.left_out.values()))}"
            )
        unknown = self.predictor.unknown_words([text])
        threshold = GOOD_MATCH if options.threshold is None else options.threshold
        return SearchResult(
            text,
            found.searched,
            found.hits,
            found.left_out,
            unknown,
            is_good_match(found.best_probability, [text], unknown, threshold),
            score_kind=COSINE if options.vectors_only else self.predictor.score_kind,
            model=self.predictor.name,
            threshold=options.threshold,
            best_probability=found.best_probability,
            calibrated=found.calibrated,
            clips=options.clips,
            by_vectors=found.by_vectors,
            by_model=found.by_model,
            recall=self.video_index.recall if found.by_vectors and options.where is None else None,
        )

    def calibrate(self, pairs: "Sequence[LabelledPair]") -> "CalibrationReport":
        """Fit probabilities on labelled pairs and keep them with the index.

        See :func:`~clipbert_mm.apis.calibrating.calibrate`.
        """
        from clipbert_mm.apis.calibrating import calibrate

        return calibrate(self.stages, pairs)

    def similar(self, path: str | os.PathLike, topk: int = 10, *, where: Filter | None = None) -> "SimilarVideos":
        """Find the videos that are most similar to a video or an image; see :func:`~clipbert_mm.apis.similar.similar`."""
        from clipbert_mm.apis.similar import similar

        return similar(self.video_index, path, topk, where=where, predictor=self.predictor)

    def duplicates(self, threshold: float | None = None, *, where: Filter | None = None) -> "DuplicateReport":
        """Find copies and near duplicates in the index; see :func:`~clipbert_mm.apis.duplicates.duplicates`."""
        from clipbert_mm.apis.duplicates import THRESHOLD, duplicates

        return duplicates(self.video_index, THRESHOLD if threshold is None else threshold, where=where)

    @property
    def stages(self) -> TwoStages:
        """The two stages of a search in the index."""
        if self._stages is None or self._stages.video_index is not self.video_index:
            self._stages = TwoStages(self.predictor, self.video_index)
        return self._stages

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
        raise VideoIndexError(f"There is no index {video_index.name}.")
    with video_index.locked():
        for path in map(os.path.abspath, paths):
            below = video_index.paths_below(path)
            if not below:
                raise VideoIndexError(
                    f"{printable(path)} is not in the index {video_index.name}, nor is anything below it. List its videos "
                    "with clipbert info."
                )
            removed += below
        video_index.remove(removed)
        video_index.compact()
    return list(dict.fromkeys(removed))
