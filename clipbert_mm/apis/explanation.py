"""Why a video matches a text: each clip on its own, and where in the best one the score comes from."""

import math
import os
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from clipbert_mm.apis.predictor import Media, Predictor
from clipbert_mm.apis.results import Moment, Record, clock, moments_of


@dataclass(frozen=True)
class Explanation(Record):
    """Why a model says what it says of a video.

    Args:
        path: The video or image.
        text: The text, or the question.
        answer: The answer that is explained; None for a match.
        score: What the model says of the whole video: log-odds of a match, or the logarithm of the answer's probability.
        moments: Each clip with its score alone; empty for images.
        best: Place of the best clip among the clips, from 0.
        frames: Frames of the best clip without padding, uint8 RGB, (T, H, W, 3).
        heat: Where the best clip's score comes from, 0 to 1, (H, W).
    """

    path: str
    text: str
    answer: str | None
    score: float
    moments: tuple[Moment, ...]
    best: int
    frames: np.ndarray = field(repr=False)
    heat: np.ndarray = field(repr=False)

    def to_dict(self) -> dict:
        """Return plain values, for JSON; without the pictures."""
        values = {key: value for key, value in self.__dict__.items() if key not in ("frames", "heat")}
        return values | dict(moments=[moment.to_dict() for moment in self.moments])

    def draw(self, picture: str | os.PathLike) -> None:
        """Draw the clips' scores along the video's time, and the best clip with its heat, as a PNG file."""
        from clipbert_mm.visualization import draw_explanation

        title = self.text if self.answer is None else f"{self.text}  {self.answer}"
        spans = [(moment.start, moment.end, moment.score) for moment in self.moments]
        draw_explanation(title, os.path.basename(self.path), spans, self.best, self.frames, self.heat, picture)

    def __str__(self) -> str:
        """Lay the clips out, one a line."""
        lines = [f"{self.text}  ({self.path}): {self.score:.2f}"]
        for i, moment in enumerate(self.moments):
            mark = "  <- best" if i == self.best else ""
            lines.append(f"  {clock(moment.start)}–{clock(math.ceil(moment.end))}  {moment.score:7.2f}{mark}")
        return "\n".join(lines)


def explain_match(predictor: Predictor, path: str, text: str) -> Explanation:
    """Explain the log-odds that a text matches a video.

    Raises:
        BrokenMediaError: If the video cannot be read.
        ValueError: If the text is empty or too long.
    """
    pieces = predictor.word_pieces([text])
    return explain(predictor, path, text, pieces[0], answer=None, output=None)


def explain(
    predictor: Predictor, path: str, text: str, pieces: np.ndarray, *, answer: str | None, output: int | None
) -> Explanation:
    """Explain one score of a model.

    The heat is the gradient of the best clip's score by its visual tokens times the tokens, summed over the width D: to first
    order, how much of the score each cell of the grid brings. What lowers the score counts as none.

    Args:
        predictor: The model.
        path: The video or image.
        text: What the model reads, in words.
        pieces: The same as word pieces, (L,).
        answer: What ``output`` stands for, in words.
        output: Which of the head's scores is explained; None where it has one a text.
    """
    media = predictor.read(path)
    tokens = predictor.encode([media.frames])  # (1, K, S, D)
    logits = predictor.clip_logits(tokens, [pieces])  # (1, 1, K, C)
    scores, clips = predictor.pooled_scores(logits)[0, 0], predictor.clip_scores(logits)[0, 0]  # () and (K,), or with C
    score, alone = (scores, clips) if output is None else (scores[output], clips[:, output])
    best = int(alone.argmax())
    heat = _heat(predictor, tokens[:, best : best + 1], pieces, output)
    height, width = media.content_shape
    return Explanation(
        path=path,
        text=text,
        answer=answer,
        score=float(score),
        moments=moments_of(media.clip_times, alone.numpy()),
        best=best,
        frames=media.frames[best, :, :height, :width],
        heat=_on_frame(heat, media),
    )


def _heat(predictor: Predictor, tokens: Tensor, pieces: np.ndarray, output: int | None) -> Tensor:
    """Return what each visual token of one clip, (1, 1, S, D), brings to its score, (S,)."""
    tokens = tokens.detach().clone().requires_grad_()
    score = predictor.pooled_scores(predictor.score(tokens, [pieces]))[0, 0]
    (gradient,) = torch.autograd.grad(score if output is None else score[output], tokens)
    return (gradient * tokens).sum(dim=-1).detach().clamp(min=0)[0, 0]


def _on_frame(heat: Tensor, media: Media) -> np.ndarray:
    """Lay the heat of a square grid, (S,), over the frame and cut the padding off: 0 to 1, (H, W)."""
    side, size = math.isqrt(len(heat)), media.frames.shape[2]
    grid = heat.view(1, 1, side, side)
    large = torch.nn.functional.interpolate(grid, (size, size), mode="bilinear", align_corners=False)[0, 0]
    height, width = media.content_shape
    shown = large[:height, :width]
    return (shown / shown.max().clamp(min=1e-12)).cpu().numpy()
