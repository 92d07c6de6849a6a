"""Explanations of a score: the score of each clip alone, and a heat map of the best one."""

import math
import os
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from clipbert_mm.apis.predictor import Predictor
from clipbert_mm.apis.results import Moment, Record, clock, format_score, moments_of
from clipbert_mm.deprecation import renamed_arguments
from clipbert_mm.media.media_file import Media


@dataclass(frozen=True)
class Explanation(Record):
    """Explanation of one score of a video.

    Args:
        path: The video or image.
        text: The text, or the question.
        answer: The explained answer; None for a match.
        score: Score of the whole video.
        moments: Each clip with its score alone; empty for images.
        best: Index of the best clip.
        frames: Frames of the best clip without padding, uint8 RGB, (T, H, W, 3).
        heat: Contribution of each pixel to the best clip's score, 0 to 1, (H, W).
        score_kind: What the scores are, such as "log-odds" of a match or "log-probability" of an answer.
    """

    path: str
    text: str
    answer: str | None
    score: float
    moments: tuple[Moment, ...]
    best: int
    frames: np.ndarray = field(repr=False)
    heat: np.ndarray = field(repr=False)
    score_kind: str

    def to_dict(self) -> dict:
        """Return plain values, for JSON; without frames and heat."""
        values = {key: value for key, value in self.__dict__.items() if key not in ("frames", "heat")}
        return values | dict(moments=[moment.to_dict() for moment in self.moments])

    @renamed_arguments(picture="out_file")
    def draw(self, out_file: str | os.PathLike, name: str | None = None) -> None:
        """Draw the scores of the clips over time, and the best clip with its heat map, to a PNG file.

        Args:
            out_file: The file.
            name: Name of the video in the picture; None for its file name.
        """
        from clipbert_mm.visualization import draw_explanation

        title = self.text if self.answer is None else f"{self.text}  {self.answer}"
        spans = [(moment.start, moment.end, moment.score) for moment in self.moments]
        name = name or os.path.basename(self.path)
        draw_explanation(title, name, spans, self.best, self.frames, self.heat, out_file, self.score_kind)

    def __str__(self) -> str:
        """Format one clip per line."""
        lines = [f"{self.text}  ({self.path}): {self.score_kind} {format_score(self.score, self.score_kind)}"]
        for i, moment in enumerate(self.moments):
            mark = "  <- best" if i == self.best else ""
            span, score = (
                f"{clock(moment.start)}–{clock(math.ceil(moment.end))}",
                format_score(moment.score, self.score_kind),
            )
            lines.append(f"  {span}  {score:>7}{mark}")
        return "\n".join(lines)


def explain_match(predictor: Predictor, path: str, text: str) -> Explanation:
    """Explain the score of a text and a video.

    Raises:
        BrokenMediaError: If the video cannot be read.
        OptionError: If the text is empty or too long.
    """
    (token_ids,) = predictor.token_ids([text])
    return explain(predictor, path, text, token_ids, answer=None, output=None)


def explain(
    predictor: Predictor, path: str, text: str, token_ids: np.ndarray, *, answer: str | None, output: int | None
) -> Explanation:
    """Explain one score of a model.

    The heat is the gradient of the best clip's score with respect to its visual tokens, times the tokens, summed over the
    width D: to first order, the contribution of each grid cell to the score. Negative contributions count as zero.

    Args:
        predictor: The model.
        path: The video or image.
        text: The text to show.
        token_ids: Token ids of the text that the model reads, (L,).
        answer: The answer that ``output`` stands for.
        output: Index of the head's score to explain; None for heads with one score per text.
    """
    media = predictor.read(path)
    tokens = predictor.encode([media.frames], [media.content_shape])  # (1, K, S, D)
    logits, clip_logits = predictor.logits_of_both(tokens, [token_ids])  # (1, 1, K, C)
    scores, clips = (
        predictor.pooled_scores(logits)[0, 0],
        predictor.clip_scores(clip_logits)[0, 0],
    )  # () and (K,), or with C
    score, alone = (scores, clips) if output is None else (scores[output], clips[:, output])
    best = int(alone.argmax())
    heat = _heat(predictor, tokens[:, best : best + 1], token_ids, output)
    height, width = media.content_shape
    grid = predictor.model.encoder.grid(heat, media.frames.shape[2:4])
    return Explanation(
        path=path,
        text=text,
        answer=answer,
        score=float(score),
        moments=moments_of(media.clip_times, alone.numpy()),
        best=best,
        frames=media.frames[best, :, :height, :width],
        heat=_on_frame(grid, media),
        score_kind=predictor.score_kind,
    )


def _heat(predictor: Predictor, tokens: Tensor, token_ids: np.ndarray, output: int | None) -> Tensor:
    """Return the contribution of each visual token of one clip, (1, 1, S, D), to its score, (S,)."""
    tokens = tokens.detach().clone().requires_grad_()
    score = predictor.pooled_scores(predictor.score(tokens, [token_ids]))[0, 0]
    (gradient,) = torch.autograd.grad(score if output is None else score[output], tokens)
    return (gradient * tokens).sum(dim=-1).detach().clamp(min=0)[0, 0]


def _on_frame(grid: Tensor, media: Media) -> np.ndarray:
    """Resize the heat of a grid of cells, (h, w), to the frame and crop the padding: 0 to 1, (H, W)."""
    shape = media.frames.shape[2:4]
    large = torch.nn.functional.interpolate(grid[None, None], shape, mode="bilinear", align_corners=False)[0, 0]
    height, width = media.content_shape
    cropped = large[:height, :width]
    return (cropped / cropped.max().clamp(min=1e-12)).cpu().numpy()
