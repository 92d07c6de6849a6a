"""Videos or images with captions: the items of retrieval and of pre-training."""

import os
from typing import Any

import numpy as np
import torch
from mmengine.dataset import BaseDataset

from clipbert_mm.datasets.annotations import AnnotationError, check_files, read_records
from clipbert_mm.datasets.transforms import BrokenMediaError
from clipbert_mm.registry import DATASETS
from clipbert_mm.structures import VideoTextSample

ATTEMPTS = 20
"""How many files in a row may be unreadable before a training item gives up."""


class CaptionDataset(BaseDataset):
    """Files with their captions, grouped by file; what becomes of them is said by the classes that inherit.

    The annotation file has one JSON object a line, ``{"video": "a.mp4", "caption": "..."}``; a file with several captions
    has several lines. All that is random about an item is drawn from (seed, epoch, item), so it depends neither on the
    number of workers nor on where a run was interrupted.

    A file that cannot be read is replaced by another item in training; the item names it in ``replaced`` and
    :class:`~clipbert_mm.engine.BrokenMediaHook` counts it. In testing it is never replaced.

    Args:
        ann_file: JSON-lines file, relative to ``data_root``.
        pipeline: Configs of the transforms.
        data_root: Folder that the other paths are relative to.
        media_folder: Folder of the videos or images, relative to ``data_root``.
        captions_per_item: Captions of one file that share a visual pass in training; a file with more has several items.
        test_mode: Whether an item has all captions of its file, in order, and nothing is drawn.
        on_broken: What testing does with a file that cannot be read: "stop", or "skip" to go on and report coverage.

    Raises:
        AnnotationError: If the annotation file cannot be used, or files that it names are missing.
    """

    MEDIA_KEY: str
    """The key of the file in a record."""

    def __init__(
        self,
        *,
        ann_file: str,
        pipeline: list[dict],
        data_root: str = "",
        media_folder: str = "",
        captions_per_item: int = 1,
        test_mode: bool = False,
        on_broken: str = "stop",
    ) -> None:
        if on_broken not in ("stop", "skip"):
            raise ValueError(f"{type(self).__name__} expects on_broken 'stop' or 'skip', got {on_broken!r}.")
        self.captions_per_item = captions_per_item
        self.on_broken = on_broken
        # Seed and epoch, in shared memory, so that workers that live on see the epoch move.
        self._draw = torch.zeros(2, dtype=torch.int64).share_memory_()
        super().__init__(
            ann_file=ann_file,
            data_root=data_root,
            data_prefix=dict(media=media_folder),
            pipeline=pipeline,
            test_mode=test_mode,
        )

    @property
    def tokenizer(self) -> Any:  # noqa: ANN401
        """The tokenizer of the pipeline; None if it has none."""
        return next((step.tokenizer for step in self.pipeline.transforms if hasattr(step, "tokenizer")), None)

    def set_draw(self, seed: int, epoch: int) -> None:
        """Tell from which seed and epoch on to draw; see :class:`~clipbert_mm.engine.EpochSeedHook`."""
        self._draw.copy_(torch.tensor([seed, epoch]))

    def load_data_list(self) -> list[dict[str, Any]]:
        """Read the annotation file: one dict with ``path`` and ``captions`` an item."""
        captions: dict[str, list[str]] = {}
        for record in read_records(self.ann_file, (self.MEDIA_KEY, "caption")):
            path = os.path.join(self.data_prefix["media"], record[self.MEDIA_KEY])
            captions.setdefault(path, []).append(record["caption"])
        check_files(list(captions), self.ann_file)
        if not self.test_mode and len(captions) < 2:
            raise AnnotationError(
                f"{self.ann_file} names only {next(iter(captions))}. Training needs captions of another file as negatives: "
                "give it two files or more."
            )
        size = max(map(len, captions.values())) if self.test_mode else self.captions_per_item
        return [
            dict(path=path, captions=own[start : start + size])
            for path, own in captions.items()
            for start in range(0, len(own), size)
        ]

    def __getitem__(self, idx: int) -> dict[str, Any]:
        """Return an item as its pipeline leaves it.

        Raises:
            BrokenMediaError: In testing, if the file cannot be read and ``on_broken`` is "stop".
            RuntimeError: In training, if so many files in a row cannot be read that something else must be wrong.
        """
        if self.test_mode:
            return self._test_item(idx)
        rng = np.random.default_rng((*self._draw.tolist(), idx))
        replaced: list[tuple[str, str]] = []
        for _ in range(ATTEMPTS):
            try:
                item = self.pipeline(self.prepare(idx, rng))
            except BrokenMediaError as error:
                replaced.append((error.path, error.reason))
                idx = int(rng.integers(len(self)))
                continue
            item["data_samples"].set_metainfo(dict(replaced=replaced))
            return item
        raise RuntimeError(
            f"{ATTEMPTS} files in a row could not be read; the last was {replaced[-1][0]}: {replaced[-1][1]}. Check the "
            "decoder and the files."
        )

    def _test_item(self, idx: int) -> dict[str, Any]:
        """Return an item of all captions; ``inputs`` is None where the file cannot be read and may be left out."""
        info = self.get_data_info(idx)
        info["texts"] = info.pop("captions")
        try:
            return self.pipeline(info)
        except BrokenMediaError as error:
            if self.on_broken == "stop":
                raise BrokenMediaError(
                    error.path,
                    f"{error.reason}. Testing does not replace it; mend or remove it, or set on_broken='skip' of the "
                    "dataset to go on without it and report coverage",
                ) from error
            metainfo = dict(sample_idx=idx, path=error.path, texts=info["texts"], broken=error.reason, replaced=[])
            return {"inputs": None, "data_samples": VideoTextSample(metainfo=metainfo)}

    def prepare(self, idx: int, rng: np.random.Generator) -> dict[str, Any]:
        """Choose the texts of a training item and their labels."""
        raise NotImplementedError

    def draw_negative(self, path: str, rng: np.random.Generator) -> str:
        """Draw a caption of another file than ``path``."""
        while True:
            other = self.get_data_info(int(rng.integers(len(self))))
            if other["path"] != path:
                return str(rng.choice(other["captions"]))


@DATASETS.register_module()
class RetrievalDataset(CaptionDataset):
    """Videos with captions for text-to-video retrieval.

    A training item is a video with its captions and, for each, captions of other videos as negatives; all share the
    visual pass.

    Args:
        num_negatives: Negatives a caption; 1 in the paper.
        **options: Those of :class:`CaptionDataset`, which names what it does not know.
    """

    MEDIA_KEY = "video"

    def __init__(self, *, num_negatives: int = 1, **options: Any) -> None:  # noqa: ANN401
        self.num_negatives = num_negatives
        super().__init__(**options)

    def prepare(self, idx: int, rng: np.random.Generator) -> dict[str, Any]:
        """Return the item's own captions with label 1, then the negatives with label 0."""
        info = self.get_data_info(idx)
        own = info.pop("captions")
        negatives = [self.draw_negative(info["path"], rng) for _ in range(self.num_negatives * len(own))]
        labels = np.array([1] * len(own) + [0] * len(negatives))
        return info | dict(texts=own + negatives, match_labels=labels, rng=rng)


@DATASETS.register_module()
class PretrainingDataset(CaptionDataset):
    """Images with captions for masked language modelling and image-text matching.

    Args:
        negative_probability: How often a caption is replaced by one of another image; 0.5 in the paper (Section 3).
        **options: Those of :class:`CaptionDataset`, which names what it does not know.
    """

    MEDIA_KEY = "image"

    def __init__(self, *, negative_probability: float = 0.5, **options: Any) -> None:  # noqa: ANN401
        self.negative_probability = negative_probability
        super().__init__(**options)

    def prepare(self, idx: int, rng: np.random.Generator) -> dict[str, Any]:
        """Return the item's captions, each with label 1 or replaced with label 0."""
        info = self.get_data_info(idx)
        own = info.pop("captions")
        labels = (rng.random(len(own)) >= self.negative_probability).astype(np.int64)
        texts = [
            text if matches else self.draw_negative(info["path"], rng)
            for text, matches in zip(own, labels, strict=True)
        ]
        return info | dict(texts=texts, match_labels=labels, rng=rng)
