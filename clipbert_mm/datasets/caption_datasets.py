"""Datasets of videos or images with captions, for retrieval and pre-training."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from clipbert_mm.datasets.caption_numbers import CaptionNumbers, are_among
from clipbert_mm.datasets.media_dataset import MediaDataset
from clipbert_mm.datasets.text_check import check_texts
from clipbert_mm.errors import AnnotationError, quoted
from clipbert_mm.registry import DATASETS


class CaptionDataset(MediaDataset):
    """Base of the caption datasets: captions grouped by their video or image.

    The annotation file has one JSON object per line, ``{"video": "a.mp4", "caption": "..."}``; a video with several captions
    has several lines.

    Args:
        captions_per_item: Captions of a file that share a visual pass in training; a file with more of them has several items.
        **options: Options of :class:`~clipbert_mm.datasets.media_dataset.MediaDataset`.

    Raises:
        AnnotationError: If the annotation file cannot be used, files that it names are missing, or a file has no negatives.
    """

    KEYS: ClassVar = {"caption": str}
    NEGATIVES_IN_TEST = False
    HAS_SPANS = False
    """Whether a caption may have time spans."""
    caption_numbers: CaptionNumbers
    """The captions of items and files, where negatives are drawn."""

    def __init__(self, *, captions_per_item: int = 1, **options: Any) -> None:  # noqa: ANN401
        self.captions_per_item = captions_per_item
        super().__init__(**options)

    def full_init(self) -> None:
        """Read the annotation file, if that was not done yet.

        Raises:
            AnnotationError: If it cannot be used, files are missing, or a file has no negatives.
        """
        if self._fully_initialized:
            return
        super().full_init()
        if self._indices is not None:
            left: dict[str, set[str]] = {}
            for info in map(self.get_data_info, range(len(self))):
                left.setdefault(info["path"], set()).update(info["captions"])
            self._check_negatives(left, f"raise indices={self._indices!r} of {type(self).__name__}")

    def load_data_list(self) -> list[dict[str, Any]]:
        """Read the annotation file; return one dict with ``path`` and ``captions`` per item, and their ``spans`` for a test."""
        captions: dict[str, list[str]] = {}
        spans: dict[str, list[list[list[float]] | None]] = {}
        for record in self.records():
            path = self.path_of(record["media"])
            captions.setdefault(path, []).append(record["caption"])
            spans.setdefault(path, []).append(record.get("spans"))
        captions = self.usable(captions)
        self._check_negatives(captions)
        check_texts(self.ann_file, self.pipeline.transforms, list(captions.values()), list)
        size = max(map(len, captions.values())) if self.test_mode else self.captions_per_item
        items: list[dict[str, Any]] = [
            dict(path=path, captions=texts[start : start + size])
            for path, texts in captions.items()
            for start in range(0, len(texts), size)
        ]
        if self.HAS_SPANS and self.test_mode:
            for item in items:
                if any(spans[item["path"]]):
                    item["spans"] = spans[item["path"]]
        return items

    def _check_negatives(
        self, captions: Mapping[str, Iterable[str]], hint: str = "add files with other captions"
    ) -> None:
        """Check that there is a negative for each file, of its captions by path."""
        if self.test_mode and not self.NEGATIVES_IN_TEST:
            return
        distinct = {caption for texts in captions.values() for caption in texts}
        for path, texts in captions.items():
            if distinct.issubset(texts):
                raise AnnotationError(
                    f"{self.ann_file} has no caption that is a negative for {quoted(path)}. Negatives are captions of other "
                    f"files that the file does not have: {hint}."
                )

    def prepare_test(self, idx: int) -> dict[str, Any]:
        """Return an item with all captions of its file."""
        info = self.get_data_info(idx)
        info["texts"] = info.pop("captions")
        return info

    def note_items(self, items: Sequence[Mapping[str, Any]]) -> None:
        """Number the captions of the items, if negatives are drawn."""
        super().note_items(items)
        if not self.test_mode or self.NEGATIVES_IN_TEST:
            self.caption_numbers = CaptionNumbers(items)

    def own_captions(self, idx: int) -> np.ndarray:
        """Return the numbers of all captions of the file of an item, increasing, (n,)."""
        return self.caption_numbers.of_file(idx)

    def draw_negative(self, own_captions: np.ndarray, rng: np.random.Generator) -> str:
        """Draw a caption of another file that is none of ``own_captions``, those of the item's file.

        Captions are drawn until one is a negative: about 1 / s times where a share s of all captions are negatives.
        """
        while True:
            idx = int(rng.integers(len(self)))
            negative = ~are_among(self.caption_numbers.of_item(idx), own_captions)
            if negative.any() and negative[at := int(rng.choice(len(negative)))]:
                return self.get_data_info(idx)["captions"][at]


@DATASETS.register_module()
class RetrievalDataset(CaptionDataset):
    """Videos with captions for text-to-video retrieval.

    A training item is a video with its captions and, for each of them, captions of other videos as negatives. All texts of an
    item share the visual pass.

    A line may have the times at which the video shows the caption, ``"spans": [[0.0, 2.5], [4, 6]]``: start and end in seconds.
    An item of a test has the ``spans`` of each of its captions, None for a caption without, unless none of them has any; see
    :func:`~clipbert_mm.evaluation.moments.moment_figures`.

    Args:
        num_negatives: Negatives per caption; 1 in the paper.
        **options: Options of :class:`CaptionDataset`, which refuses unknown ones.
    """

    EXAMPLE = '{"video": "a.mp4", "caption": "what happens in it"}'
    HAS_SPANS = True

    def __init__(self, *, num_negatives: int = 1, **options: Any) -> None:  # noqa: ANN401
        self.num_negatives = num_negatives
        super().__init__(**options)

    def fault_of(self, record: Mapping[str, Any]) -> str:
        """Return what is wrong with the time spans."""
        spans = record.get("spans", [[0, 1]])
        if isinstance(spans, list) and spans and all(map(_is_span, spans)):
            return ""
        return (
            'expected one or more time spans under the key "spans", each a start and an end in seconds with '
            f"0 <= start < end, such as [[0.0, 2.5]], got {quoted(spans)}."
        )

    def prepare(self, idx: int, rng: np.random.Generator) -> dict[str, Any]:
        """Return the captions of the item with label 1, then the negatives with label 0."""
        info = self.get_data_info(idx)
        captions = info.pop("captions")
        own = self.own_captions(idx)
        negatives = [self.draw_negative(own, rng) for _ in range(self.num_negatives * len(captions))]
        labels = np.array([1] * len(captions) + [0] * len(negatives))
        return info | dict(texts=captions + negatives, match_labels=labels, rng=rng)


def _is_span(span: object) -> bool:
    """Whether a JSON value is a start and an end in seconds, both finite; NaN fails every comparison."""
    if not isinstance(span, list) or len(span) != 2 or any(type(end) not in (int, float) for end in span):
        return False
    return 0 <= span[0] < span[1] <= sys.float_info.max


@DATASETS.register_module()
class PretrainingDataset(CaptionDataset):
    """Images with captions for masked language modeling and image-text matching.

    Args:
        negative_probability: Probability that a caption is replaced by one of another image; 0.5 in the paper (Section 3).
        **options: Options of :class:`CaptionDataset`, which refuses unknown ones.
    """

    EXAMPLE = '{"image": "a.jpg", "caption": "what happens in it"}'
    NEGATIVES_IN_TEST = True

    def __init__(self, *, negative_probability: float = 0.5, **options: Any) -> None:  # noqa: ANN401
        self.negative_probability = negative_probability
        super().__init__(**options)

    def prepare(self, idx: int, rng: np.random.Generator) -> dict[str, Any]:
        """Return the captions of the item, each with label 1, or replaced by a negative with label 0."""
        info, own = self.get_data_info(idx), self.own_captions(idx)
        captions = info.pop("captions")
        labels = (rng.random(len(captions)) >= self.negative_probability).astype(np.int64)
        texts = [
            text if matches else self.draw_negative(own, rng) for text, matches in zip(captions, labels, strict=True)
        ]
        return info | dict(texts=texts, match_labels=labels, rng=rng)

    def prepare_test(self, idx: int) -> dict[str, Any]:
        """Return an item as in training, with draws that are the same every time."""
        return self.prepare(idx, np.random.default_rng((0, idx)))
