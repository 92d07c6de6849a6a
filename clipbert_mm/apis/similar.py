"""Videos that are similar to a video or an image, by the vectors of their clips."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from clipbert_mm.apis.results import Record, best_of, format_span, moments_of
from clipbert_mm.apis.search_options import VECTORS
from clipbert_mm.apis.search_results import Hit
from clipbert_mm.errors import OptionError, VideoIndexError, is_count, printable, quoted
from clipbert_mm.index import Filter, VideoIndex

if TYPE_CHECKING:
    from clipbert_mm.apis.predictor import Predictor


@dataclass(frozen=True)
class SimilarVideos(Record):
    """The videos that are most similar to another one, the most similar first.

    Args:
        path: The video or image that was compared.
        searched: Number of videos that were searched.
        hits: The most similar videos, without the one that was compared. Their score is the cosine similarity of the mean
            vectors, and that of each clip the one of its vector and the mean vector that was compared.
        left_out: Videos that could not be searched, with the reason.
    """

    path: str
    searched: int
    hits: tuple[Hit, ...]
    left_out: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """Format one hit per line."""
        lines = [f"similar to {printable(self.path)} in {self.searched} videos, scored by cosine"]
        for rank, hit in enumerate(self.hits, start=1):
            lines.append(f"{rank:3}. {hit.score:7.3f}  {format_span(hit.moment):<13} {printable(hit.path)}")
        if self.left_out:
            lines.append(f"left out: {len(self.left_out)} videos")
        return "\n".join(lines)


def similar(
    index: VideoIndex,
    path: str | os.PathLike,
    topk: int = 10,
    *,
    where: Filter | None = None,
    predictor: "Predictor | None" = None,
) -> SimilarVideos:
    """Find the videos of an index that are most similar to a video or an image, which need not be in it.

    Each video is compared as a whole, by the mean of its clips' vectors as a unit vector: a copy has the similarity 1, however
    much its own clips differ. (The largest similarity of two clips would find videos that share a title screen.)

    Args:
        index: The index.
        path: The video or image.
        topk: Number of hits.
        where: Conditions that the hits meet.
        predictor: The model that made the index, for a video that is not in it.

    Raises:
        OptionError: If the index has no vectors, the video is not in it and there is no model, or ``topk`` is too small.
        VideoIndexError: If the index is empty or cannot be read.
        BrokenMediaError: If the video cannot be read.
    """
    if not is_count(topk):
        raise OptionError(f"similar expects topk >= 1, got {quoted(topk)}.")
    if not index.count():
        raise VideoIndexError(f"The index {index.name} is empty. Index videos first: clipbert index FOLDER.")
    if index.vector_size is None:
        raise OptionError(
            f"The index {index.name} has no vectors, which similar videos are found by. Use a model that has, such as BLIP, "
            "CLIP or SigLIP."
        )
    own = os.path.abspath(path)
    mean = _unit_mean(_vectors(index, own, predictor))
    nearest = index.nearest_means(mean, topk + 1, where=where)
    found = {other: cosine for other, cosine in nearest.similarities.items() if other != own}
    entries = index.found(list(found)[:topk])
    hits = []
    for other, entry in entries.items():
        moments = moments_of(entry.clip_times, (index.vectors(other) @ mean).tolist())
        hits.append(Hit(other, found[other], None, best_of(moments), moments, VECTORS))
    return SimilarVideos(own, nearest.searched, tuple(hits), dict(nearest.left_out))


def in_index(index: VideoIndex, path: str | os.PathLike) -> bool:
    """Whether a file is a video of an index, unchanged since it was indexed, so that :func:`similar` needs no model."""
    found: Sequence = list(index.found([os.path.abspath(path)]).values())
    return bool(found) and found[0].is_current()


def _vectors(index: VideoIndex, path: str, predictor: "Predictor | None") -> Tensor:
    """Return the vectors of a video's clips, float32 (K, P), from the index, or by the model.

    Raises:
        OptionError: If it is not in the index, and there is no model.
        BrokenMediaError: If it cannot be read.
    """
    if in_index(index, path):
        return index.vectors(path)
    if predictor is None:
        raise OptionError(
            f"{printable(path)} is not in the index {index.name}, or has changed. Give the model as well."
        )
    media = predictor.read(path)
    return predictor.encode_for_index([media.frames], [media.content_shape])["vectors"][0].float().cpu()


def _unit_mean(vectors: Tensor) -> Tensor:
    """Return the mean of vectors, (K, P), as a unit vector, (P,)."""
    return torch.nn.functional.normalize(vectors.mean(dim=0), dim=0)
