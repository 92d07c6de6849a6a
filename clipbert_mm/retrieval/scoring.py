"""Texts beside videos through the joint encoder: the core that testing over a gallery and search share."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from clipbert_mm.retrieval.feature_store import FeatureStore

if TYPE_CHECKING:
    from clipbert_mm.models import ClipBert
    from clipbert_mm.models.encoders.pair_encoder import EncodedTexts

Progress = Callable[[int], None]
"""Is told how many pairs more are scored."""


def encode_with_coarse_tokens(model: "ClipBert", frames: Tensor) -> dict[str, Tensor]:
    """Encode the clips of videos, and of each an overview: one clip of the frames of all, for no more than their fusion.

    Args:
        model: The model.
        frames: Normalized frames, (B, K, T, 3, H, W).

    Returns:
        Visual tokens, ``clips`` (B, K, S, D) and ``overview`` (B, 1, S, D).
    """
    grid = model.encode_frames(frames)  # (B, K, T, D, h, w)
    return dict(clips=model.fuse_frames(grid), overview=model.fuse_frames(grid.flatten(1, 2)[:, None]))


class PairScorer:
    """A ClipBert that scores pairs of texts and videos, without gradients.

    Args:
        model: The model; it is set to eval mode.
        precision: What the joint encoder computes in, "fp32", "bf16" or "fp16"; visual tokens are kept in it too.
        tokens_per_pass: Tokens in one forward pass of the joint encoder; None for what suits the device.
    """

    def __init__(self, model: "ClipBert", *, precision: str = "fp32", tokens_per_pass: int | None = None) -> None:
        self.model = model.eval()
        from clipbert_mm.models import PairEncoder  # takes seconds, which reading a config does without

        self.pairs = PairEncoder(model.encoder, precision=precision, tokens_per_pass=tokens_per_pass)

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.model.encoder.word_embeddings.device

    @torch.no_grad()
    def encode_video(self, frames: Tensor) -> dict[str, Tensor]:
        """Encode the clips of one video, and its overview; see :func:`encode_with_coarse_tokens`.

        A video is encoded on its own, so that what others there are in its batch never changes a bit of it.

        Args:
            frames: Normalized frames, (K, T, 3, H, W).

        Returns:
            Visual tokens on the CPU, ``clips`` (K, S, D) and ``overview`` (1, S, D).
        """
        found = encode_with_coarse_tokens(self.model, frames[None])
        return {name: tokens[0].to(self.pairs.dtype).cpu() for name, tokens in found.items()}

    @torch.no_grad()
    def encode_texts(self, pieces: Sequence[np.ndarray]) -> "EncodedTexts":
        """Embed texts, each int64 word pieces (L,).

        Raises:
            ValueError: If a word piece is none of the model's, or a text is too long.
        """
        self.model.data_preprocessor.check_pieces(pieces)
        return self.pairs.encode_texts([torch.from_numpy(text).to(self.device) for text in pieces])

    @torch.no_grad()
    def clip_logits(self, texts: "EncodedTexts", tokens: Tensor, text_index: Tensor, video_index: Tensor) -> Tensor:
        """Predict pairs.

        Args:
            texts: The M texts.
            tokens: Visual tokens of V videos, (V, K, S, D).
            text_index: Which text each pair has, (P,), on the CPU.
            video_index: Which video, (P,), on the CPU.

        Returns:
            Clip logits, (P, K, C).
        """
        return self.model.head(self.pairs(texts, tokens.to(self.device), text_index, video_index))

    @torch.no_grad()
    def scores(self, clip_logits: Tensor) -> Tensor:
        """Score pairs, (P,) or (P, C), by their clip logits (P, K, C)."""
        return self.model.head.scores(self.model.aggregator(clip_logits))

    def score_block(self, texts: "EncodedTexts", tokens: Tensor, wanted: np.ndarray | None = None) -> np.ndarray:
        """Score texts beside videos.

        Args:
            texts: The M texts.
            tokens: Visual tokens, (V, K, S, D).
            wanted: Which pairs to score, bool (M, V); None for all.

        Returns:
            Scores, float32 (M, V), NaN where none is wanted.
        """
        shape = (len(texts.lengths), len(tokens))
        wanted = np.ones(shape, bool) if wanted is None else wanted
        rows, columns = wanted.nonzero()
        scores = np.full(shape, np.nan, np.float32)
        found = self.scores(self.clip_logits(texts, tokens, torch.from_numpy(rows), torch.from_numpy(columns)))
        scores[rows, columns] = found.float().cpu().numpy()
        return scores

    def score_gallery(
        self,
        pieces: Sequence[np.ndarray],
        gallery: FeatureStore,
        names: Sequence[str],
        *,
        which: str = "clips",
        wanted: np.ndarray | None = None,
        videos_at_once: int = 16,
        progress: Progress = lambda pairs: None,
    ) -> np.ndarray:
        """Score texts beside videos of a gallery, in memory.

        Args:
            pieces: Word pieces (L,) of each of the M texts.
            gallery: The gallery.
            names: V videos of it that could be read.
            which: Which of their tokens to look at: "clips" or "overview".
            wanted: Which pairs to score, bool (M, V); None for all.
            videos_at_once: Videos that are read at a time.
            progress: Is told how many pairs more are scored.

        Returns:
            Scores, float32 (M, V), NaN where none is wanted.
        """
        texts = self.encode_texts(pieces)
        scores = np.full((len(pieces), len(names)), np.nan, np.float32)
        for start in range(0, len(names), videos_at_once):
            own = slice(start, start + videos_at_once)
            chosen = None if wanted is None else wanted[:, own]
            if chosen is None or chosen.any():
                scores[:, own] = self.score_block(texts, gallery.read(names[own], which), chosen)
            progress(scores[:, own].size if chosen is None else int(chosen.sum()))
        return scores
