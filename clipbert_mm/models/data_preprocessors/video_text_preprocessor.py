"""Moving a batch to the device, normalizing frames, padding texts, and indexing the video of each text."""

from collections.abc import Sequence

import numpy as np
import torch
from mmengine.model import BaseDataPreprocessor
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from clipbert_mm.errors import OptionError
from clipbert_mm.registry import MODELS
from clipbert_mm.structures import IGNORED


@MODELS.register_module()
class VideoTextPreprocessor(BaseDataPreprocessor):
    """Stack, move, normalize and pad a batch. Frames stay uint8 until they are on the device.

    Args:
        mean: Mean of each channel in RGB order, in 0 to 255.
        std: Standard deviation of each channel in RGB order.
        to_bgr: Whether the backbone expects channels in BGR order.
        vocab_size: Number of tokens in the vocabulary of the encoder.
        mask_padding: Whether the padding of frames is zero after they are normalized, which ViLT leaves out, instead of black.
        non_blocking: Whether copies to the device may overlap with computation.
    """

    def __init__(
        self,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        vocab_size: int,
        to_bgr: bool = False,
        mask_padding: bool = False,
        non_blocking: bool = True,
    ) -> None:
        super().__init__(non_blocking=non_blocking)
        self.mask_padding = mask_padding
        self.vocab_size = vocab_size
        self.to_bgr = to_bgr
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(3), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(3), persistent=False)

    def forward(self, data: dict, training: bool = False) -> dict:
        """Prepare a batch.

        Args:
            data: ``inputs`` with ``frames``, uint8 RGB (B, K, T, H, W, 3), and, as lists with one entry per item,
                ``text_ids`` and in pre-training ``mlm_labels``, each a list of ``m`` int64 arrays, and ``content_shape``, the
                height and width of a frame without padding, if padding is masked; and ``data_samples``.
            training: Unused; part of the interface of MMEngine.

        Returns:
            ``inputs`` with ``frames`` (B, K, T, 3, H, W), ``text_ids`` and ``text_mask`` (M, L), ``video_index`` (M,),
            where L is the longest text of the batch, and ``mlm_labels`` (M, L) in pre-training; ``inputs`` is empty if no item
            could be read; and ``data_samples``.

        Raises:
            OptionError: If a token id is not in the vocabulary of the encoder, or the batch was collated by MMEngine.
        """
        if not data["inputs"]:
            return data
        inputs, items = data["inputs"], data["inputs"]["text_ids"]
        if not isinstance(inputs["frames"], Tensor):
            raise OptionError(
                "VideoTextPreprocessor expects frames as one tensor (B, K, T, H, W, 3), got a "
                f"{type(inputs['frames']).__name__}, as of MMEngine's pseudo_collate, which also exchanges the texts of items. "
                "Set collate_fn=dict(type='clipbert_mm.collate_items'), or in Python call "
                "clipbert_mm.datasets.transforms.collate_items(items)."
            )
        counts = torch.tensor([len(texts) for texts in items])
        batch = {
            "frames": inputs["frames"],
            "video_index": torch.repeat_interleave(torch.arange(len(items)), counts),
            **self.pad_texts([text for texts in items for text in texts]),
        }
        if "mlm_labels" in inputs:
            labels = [torch.from_numpy(label) for item in inputs["mlm_labels"] for label in item]
            batch["mlm_labels"] = pad_sequence(labels, batch_first=True, padding_value=IGNORED)
        batch = self.cast_data(batch)
        batch["frames"] = self.normalize(batch["frames"], inputs.get("content_shape"))
        return {"inputs": batch, "data_samples": data.get("data_samples")}

    def pad_texts(self, texts: Sequence[np.ndarray]) -> dict[str, Tensor]:
        """Pad texts to the longest of them; returns ``text_ids`` and ``text_mask``, each (M, L), on the CPU.

        Raises:
            OptionError: If a token id is not in the vocabulary of the encoder.
        """
        self.check_token_ids(texts)
        text_ids = pad_sequence([torch.from_numpy(text) for text in texts], batch_first=True)
        lengths = torch.tensor([len(text) for text in texts])
        return {"text_ids": text_ids, "text_mask": (torch.arange(text_ids.shape[1]) < lengths[:, None]).long()}

    def check_token_ids(self, texts: Sequence[np.ndarray]) -> None:
        """Check that the token ids of texts, each (L,), are in the vocabulary of the encoder.

        Raises:
            OptionError: If a token id is not in the vocabulary of the encoder.
        """
        largest = max(int(text.max()) for text in texts)
        if largest >= self.vocab_size:
            raise OptionError(
                f"The tokenizer gave token id {largest}, but the model has {self.vocab_size} tokens (0 to "
                f"{self.vocab_size - 1}). Set vocab_size of the model to that of the tokenizer, or use the "
                "tokenizer that the model was trained with."
            )

    def normalize(self, frames: Tensor, content_shapes: Sequence[tuple[int, int]] | None = None) -> Tensor:
        """Turn uint8 RGB frames (B, K, T, H, W, 3) into normalized ones (B, K, T, 3, H, W), channels-last in memory.

        Args:
            frames: The frames.
            content_shapes: Height and width of the frames of each video without their padding, which is on the right and below;
                used if padding is masked. None for frames without padding.
        """
        if self.to_bgr:
            frames = frames.flip(-1)
        # Whole rows at a time: one pass over contiguous memory, one floating-point copy.
        mean, std = (self._row(value, frames.shape[-2]) for value in (self.mean, self.std))
        rows = frames.flatten(-2).to(self.mean.dtype).sub_(mean).div_(std)  # (B, K, T, H, W·3)
        pixels = rows.unflatten(-1, (-1, 3))  # (B, K, T, H, W, 3)
        if self.mask_padding and content_shapes is not None:
            for video, (height, width) in zip(pixels, content_shapes, strict=True):
                video[:, :, height:] = 0
                video[:, :, :, width:] = 0
        return pixels.movedim(-1, 3)  # (B, K, T, 3, H, W)

    def _row(self, value: Tensor, width: int) -> Tensor:
        """Repeat the value of each channel along a row of pixels, in the channel order of the frames, (W·3,)."""
        return (value.flip(0) if self.to_bgr else value).repeat(width)
