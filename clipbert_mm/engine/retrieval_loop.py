"""Every text against every video through the joint encoder, each video encoded once."""

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from mmengine.dist import all_gather_object
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner, TestLoop, ValLoop, autocast
from torch import Tensor
from torch.utils.data import DataLoader

from clipbert_mm.registry import LOOPS

if TYPE_CHECKING:
    from clipbert_mm.models import ClipBert

LOG_SECONDS = 10
"""Time between two lines of progress."""


def encode_gallery(
    runner: Runner, model: "ClipBert", dataloader: DataLoader[Any]
) -> tuple[list[Tensor], list[np.ndarray], list[dict]]:
    """Encode each video of this process once and collect the texts.

    Returns:
        The visual tokens (K, S, D) of the videos that could be read, the texts' word pieces (L,) of all processes in the
        order of their videos, and an entry without scores for each video of this process (see RetrievalMetric).
    """
    tokens: list[Tensor] = []
    entries: list[dict] = []
    pieces: dict[int, list[np.ndarray]] = {}
    started = logged = time.monotonic()
    for number, batch in enumerate(dataloader, start=1):
        readable = [sample for sample in batch["data_samples"] if sample.broken is None]
        if readable:
            pieces |= {s.sample_idx: ids for s, ids in zip(readable, batch["inputs"]["text_ids"], strict=True)}
            frames = model.data_preprocessor(batch)["inputs"]["frames"]
            tokens.extend(model.encode_video(frames))
        keys = ("sample_idx", "path", "texts", "broken")
        entries.extend({key: getattr(sample, key) for key in keys} for sample in batch["data_samples"])
        if time.monotonic() - logged > LOG_SECONDS:
            logged = time.monotonic()
            left = timedelta(seconds=round((logged - started) * (len(dataloader) / number - 1)))
            runner.logger.info(f"encoded {len(entries)} videos, {left} left")
    merged = {idx: ids for part in all_gather_object(pieces) for idx, ids in part.items()}
    return tokens, [text for idx in sorted(merged) for text in merged[idx]], entries


def score_gallery(
    runner: Runner, model: "ClipBert", tokens: list[Tensor], texts: list[np.ndarray], clips_per_tile: int
) -> np.ndarray:
    """Score every text beside every video, in tiles of texts of about one length.

    Args:
        runner: For the log.
        model: A ClipBert in eval mode.
        tokens: Visual tokens (K, S, D) of each video.
        texts: Word pieces (L,) of each text.
        clips_per_tile: Pairs of a text and a clip in one forward pass.

    Returns:
        Scores, float32 (texts, videos).
    """
    scores = np.empty((len(texts), len(tokens)), np.float32)
    if not tokens:
        return scores
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    pairs = max(1, clips_per_tile // len(tokens[0]))
    width = min(pairs, len(tokens))  # videos in a tile
    height = max(1, pairs // width)  # texts in a tile
    started = logged = time.monotonic()
    done = 0
    for left in range(0, len(tokens), width):
        block = torch.stack(tokens[left : left + width])  # (V, K, S, D)
        for top in range(0, len(texts), height):
            chosen = order[top : top + height]
            batch = model.data_preprocessor.cast_data(model.data_preprocessor.pad_texts([texts[i] for i in chosen]))
            videos = torch.arange(len(block), device=block.device).repeat(len(chosen))  # (M,)
            repeated = {key: value.repeat_interleave(len(block), dim=0) for key, value in batch.items()}
            clip_logits = model.score(block, repeated["text_ids"], repeated["text_mask"], videos)  # (M, K, C)
            tile = model.head.scores(model.aggregator(clip_logits)).view(len(chosen), len(block))
            scores[chosen, left : left + len(block)] = tile.cpu().numpy()
            done += tile.numel()
            if time.monotonic() - logged > LOG_SECONDS:
                logged = time.monotonic()
                rate = done / (logged - started)
                remaining = timedelta(seconds=round((scores.size - done) / rate))
                runner.logger.info(f"scored {done}/{scores.size} pairs, {rate:.0f} pairs/s, {remaining} left")
    return scores


class RetrievalLoop:
    """What validation and testing share; each rank scores its own videos against the texts of all."""

    STAGE: str

    runner: Runner
    dataloader: Any
    evaluator: Any
    clips_per_tile: int
    fp16: bool

    @torch.no_grad()
    def run(self) -> dict[str, float]:
        """Encode, score, evaluate; returns the metrics.

        Raises:
            ValueError: If the dataset draws negatives, which would count as captions.
        """
        if not self.dataloader.dataset.test_mode:
            raise ValueError(f"{type(self).__name__} needs a dataset with test_mode=True, got test_mode=False.")
        for event in (f"before_{self.STAGE}", f"before_{self.STAGE}_epoch"):
            self.runner.call_hook(event)
        model = self.runner.model.module if is_model_wrapper(self.runner.model) else self.runner.model
        model.eval()
        with autocast(enabled=self.fp16):
            tokens, texts, entries = encode_gallery(self.runner, model, self.dataloader)
            scores = score_gallery(self.runner, model, tokens, texts, self.clips_per_tile)
        columns = iter(scores.T)
        for entry in entries:
            entry["scores"] = next(columns) if entry["broken"] is None else None
        self.evaluator.process(data_samples=entries)
        metrics = self.evaluator.evaluate(len(self.dataloader.dataset))
        self.runner.call_hook(f"after_{self.STAGE}_epoch", metrics=metrics)
        self.runner.call_hook(f"after_{self.STAGE}")
        return metrics


@LOOPS.register_module()
class RetrievalValLoop(RetrievalLoop, ValLoop):
    """Validate retrieval over the whole gallery.

    Args:
        runner: The runner.
        dataloader: Dataloader of a RetrievalDataset in test mode, or its config.
        evaluator: Evaluator with a RetrievalMetric, or its config.
        clips_per_tile: Pairs of a text and a clip in one forward pass; bounds memory.
        fp16: Whether to compute in half precision, as in MMEngine's loops: float16 on a GPU, bfloat16 on a CPU.
    """

    STAGE = "val"

    def __init__(
        self,
        runner: Runner,
        dataloader: Any,  # noqa: ANN401
        evaluator: Any,  # noqa: ANN401
        clips_per_tile: int = 1024,
        fp16: bool = False,
    ) -> None:
        super().__init__(runner, dataloader, evaluator, fp16)
        self.clips_per_tile = clips_per_tile


@LOOPS.register_module()
class RetrievalTestLoop(RetrievalLoop, TestLoop):
    """Test retrieval over the whole gallery; arguments as of :class:`RetrievalValLoop`."""

    STAGE = "test"

    def __init__(
        self,
        runner: Runner,
        dataloader: Any,  # noqa: ANN401
        evaluator: Any,  # noqa: ANN401
        clips_per_tile: int = 1024,
        fp16: bool = False,
    ) -> None:
        super().__init__(runner, dataloader, evaluator, fp16)
        self.clips_per_tile = clips_per_tile
