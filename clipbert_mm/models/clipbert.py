"""CLIPBERT (Lei et al., CVPR 2021): the only file that knows the order of the steps.

Shapes: B videos, K clips of each, T frames of each, M texts of L tokens, S visual tokens of a clip, D width, C classes.
"""

from collections.abc import Sequence
from functools import partial
from operator import itemgetter

import torch
from torch import Tensor

from clipbert_mm.errors import OptionError
from clipbert_mm.models.backbones import build_backbone, encode_clips, store_channels_last
from clipbert_mm.models.encoders import BasePairEncoder, EncodedTexts, without_padding
from clipbert_mm.models.freezing import FreezableModel, freeze
from clipbert_mm.models.memory_saving import clipwise_forward, save_memory
from clipbert_mm.models.necks import build_neck
from clipbert_mm.models.objectives import build_objectives
from clipbert_mm.registry import MODELS
from clipbert_mm.structures import VideoTextSample

TEXTS = itemgetter("text_ids", "text_mask", "video_index")


@MODELS.register_module()
class ClipBert(FreezableModel):
    """Sparse clips and text, end to end: each clip is predicted on its own, the predictions are pooled (Eq. 3 and 4).

    The model is split where results can be reused: :meth:`encode_video` runs once per video, :meth:`score` once per pair.

    Args:
        backbone: Config of a 2D backbone, which sees each frame on its own, or of a ClipEncoder.
        projection: Config of the neck from backbone maps to grid features of width D; None if the backbone gives these.
        temporal_fusion: Config of the neck from frames to clips.
        encoder: Config of the joint encoder.
        head: Config of the task head, from pooled [CLS] states to clip logits.
        aggregator: Config of the pooling over clips.
        mlm_head: Config of the masked-language head; in pre-training only.
        clip_fusion: Config of the neck that joins the clips of a video before it is scored; None scores each on its own.
        hard_negatives: Config of the HardNegatives, for training on negatives in the batch; None for the dataset's.
        distillation: Config of the VectorDistillation, which trains the encoder's vectors alone; None trains the model.
        data_preprocessor: Config of the data preprocessor.
        frozen: Parts of :data:`~clipbert_mm.models.freezing.PARTS` that keep their initial weights, in eval mode (Table 6).
        clip_sequential: Whether training computes one clip at a time, so that memory hardly grows with K.
        checkpointed: Modules, or lists of them, that recompute activations instead of keeping them: "backbone.layer3".
        compiled: Modules that torch compiles, such as "backbone" and "encoder.bert.encoder".
        pack_pairs: Whether training computes pairs without padding, as testing does; not with dropout in the encoder.
        channels_last: Whether the weights of the convolutions are stored channels-last, as the frames are.
        init_cfg: MMEngine's initialization config.

    Raises:
        OptionError: If ``frozen``, ``checkpointed`` or ``compiled`` names something else, or the model cannot pack pairs.
    """

    def __init__(
        self,
        *,
        backbone: dict,
        projection: dict | None = None,
        temporal_fusion: dict,
        encoder: dict,
        head: dict,
        aggregator: dict,
        data_preprocessor: dict,
        mlm_head: dict | None = None,
        clip_fusion: dict | None = None,
        hard_negatives: dict | None = None,
        distillation: dict | None = None,
        frozen: Sequence[str] = (),
        clip_sequential: bool = False,
        checkpointed: Sequence[str] = (),
        compiled: Sequence[str] = (),
        pack_pairs: bool = False,
        channels_last: bool = True,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.backbone = build_backbone(backbone)
        self.projection = build_neck(projection)
        self.temporal_fusion = MODELS.build(temporal_fusion)
        self.clip_fusion, self.joins_clips = build_neck(clip_fusion), clip_fusion is not None
        self.encoder = MODELS.build(encoder)
        self.head = MODELS.build(head)
        self.mlm_head = None if mlm_head is None else MODELS.build(mlm_head)
        self.aggregator = MODELS.build(aggregator)
        self.frozen, self.clip_sequential, self.pack_pairs = frozen, clip_sequential, pack_pairs
        self.hard_negatives, self.distillation = build_objectives(self, hard_negatives, distillation)
        freeze(self, frozen)
        if channels_last:
            store_channels_last(self.backbone, self.projection)
        save_memory(self, checkpointed, compiled)

    def encode_video(self, frames: Tensor) -> Tensor:
        """Encode the clips of videos, normalized frames (B, K, T, 3, H, W), as visual tokens (B, K, S, D); once per video."""
        return self.fuse_frames(self.encode_frames(frames))

    def encode_frames(self, frames: Tensor) -> Tensor:
        """Encode frames, (B, K, T, 3, H, W), as grid features, (B, K, t, D, h, w); by a 2D backbone each on its own: t = T."""
        maps = encode_clips(self.backbone, frames.flatten(0, 1))  # (B·K, T, 3, H, W) -> (B·K·t, C', H', W')
        return self.projection(maps).unflatten(0, (*frames.shape[:2], -1))  # (B, K, t, D, h, w)

    def fuse_frames(self, grid: Tensor) -> Tensor:
        """Fuse the grid features of clips over time, (B, K, t, D, h, w), into visual tokens, (B, K, S, D)."""
        return self.encoder.embed_clips(self.temporal_fusion(grid))  # (B, K, D, h, w) -> (B, K, S, D)

    def encode_with_coarse_tokens(self, frames: Tensor) -> dict[str, Tensor]:
        """Encode videos as ``clips`` (B, K, S, D), and as ``coarse`` to shortlist by: a vector, or one clip of all frames."""
        clips = self.fuse_frames(grid := self.encode_frames(frames))  # (B, K, S, D) of (B, K, t, D, h, w)
        if self.encoder.has_vectors:
            return dict(clips=clips, coarse=self.encoder.clip_vectors(clips.flatten(1, 2))[:, None, None])
        return dict(clips=clips, coarse=self.fuse_frames(grid.flatten(1, 2)[:, None]))

    def fuse(self, visual_tokens: Tensor, text_ids: Tensor, text_mask: Tensor, video_index: Tensor) -> Tensor:
        """Run the joint encoder over each text and each clip of its video: last states of the text tokens, (M, K, L, D).

        Args:
            visual_tokens: Visual tokens, (B, K, S, D).
            text_ids: Token ids, (M, L).
            text_mask: 1 for tokens, 0 for padding, (M, L).
            video_index: Index of the video of each text among the B videos, (M,).
        """
        if self.pack_pairs and self.training:
            return self.pair_encoder().text_states(text_ids, text_mask, visual_tokens, video_index)
        return self.encoder(text_ids, text_mask, visual_tokens[video_index])

    def score(self, visual_tokens: Tensor, text_ids: Tensor, text_mask: Tensor, video_index: Tensor) -> Tensor:
        """Predict each text with each clip of its video: clip logits (M, K, C); arguments as for :meth:`fuse`."""
        visual_tokens = self.clip_fusion(visual_tokens)
        if not (self.pack_pairs if self.training else not torch.is_grad_enabled()):
            return self.head(self.encoder.pool(self.fuse(visual_tokens, text_ids, text_mask, video_index)))
        pairs = self.pair_encoder()
        texts = pairs.encode_texts(without_padding(text_ids, text_mask))
        return self.head(pairs(texts, visual_tokens, torch.arange(len(text_ids)), video_index.cpu()))

    def pair_encoder(self, *, precision: str = "fp32", tokens_per_pass: int | None = None) -> BasePairEncoder:
        """Return the encoder for many pairs at once, for :meth:`score_pairs`; without dropout only."""
        return self.encoder.pair_encoder(precision=precision, tokens_per_pass=tokens_per_pass)

    @torch.no_grad()
    def score_pairs(self, pairs: BasePairEncoder, texts: EncodedTexts, tokens: Tensor, *indices: Tensor) -> Tensor:
        """Predict any pairs of texts and videos clip by clip: (P, K, C); arguments as for a call of the pair encoder."""
        return self.head(pairs(texts, tokens, *indices))

    def pool_scores(self, clip_logits: Tensor) -> Tensor:
        """Pool clip logits (M, K, C) over the clips and return the head's scores: (M,), or (M, C) for answers."""
        return self.head.scores(self.aggregator(clip_logits))

    def predict_clips(self, frames: Tensor, *texts: Tensor) -> tuple[Tensor, ...]:
        """Return clip logits (M, K, C), after states of the text tokens (M, K, L, D) for an ``mlm_head``; see :meth:`fuse`."""
        tokens = self.encode_video(frames)
        if self.mlm_head is None:
            return (self.score(tokens, *texts),)
        states = self.fuse(tokens, *texts)
        return states, self.head(self.encoder.pool(states))

    def forward(
        self, inputs: dict[str, Tensor], data_samples: list[VideoTextSample] | None = None, mode: str = "tensor"
    ) -> dict[str, Tensor] | list[VideoTextSample] | Tensor:
        """Compute losses, predictions or clip logits of a preprocessed batch.

        Args:
            inputs: ``frames``, ``text_ids``, ``text_mask``, ``video_index`` and, in pre-training, ``mlm_labels``.
            data_samples: The items, with labels for a loss.
            mode: "loss" for losses, "predict" for samples with scores, "tensor" for clip logits (M, K, C).
        """
        if mode == "loss":
            return self.loss(inputs, data_samples or [])
        if mode == "predict":
            return self.predict(inputs, data_samples or [])
        if mode == "tensor":
            return self.score(self.encode_video(inputs["frames"]), *TEXTS(inputs))
        raise OptionError(f"ClipBert.forward expects mode 'loss', 'predict' or 'tensor', got {mode!r}.")

    def loss(self, inputs: dict[str, Tensor], data_samples: list[VideoTextSample]) -> dict[str, Tensor]:
        """Compute the losses of a batch (Eq. 4): clips are pooled before the loss is taken."""
        objective = self.hard_negatives or self.distillation
        if objective is not None:
            return objective.loss(self, inputs, data_samples)
        predict = partial(clipwise_forward, self, self.predict_clips) if self.clip_sequential else self.predict_clips
        *states, clip_logits = predict(inputs["frames"], *TEXTS(inputs))  # (M, K, L, D) and (M, K, C)
        losses = self.head.loss(self.aggregator(clip_logits), data_samples)
        if self.mlm_head is not None:
            losses |= self.mlm_head.loss(*states, self.encoder.word_embeddings, inputs["mlm_labels"])
        return losses

    def predict(self, inputs: dict[str, Tensor], data_samples: list[VideoTextSample]) -> list[VideoTextSample]:
        """Set ``clip_logits`` and ``scores`` on the samples, except on those whose file is broken."""
        if not inputs:
            return data_samples
        *states, clip_logits = self.predict_clips(inputs["frames"], *TEXTS(inputs))  # (M, K, L, D) and (M, K, C)
        scores = self.pool_scores(clip_logits)  # (M,), or (M, C) for answers
        for i, sample in enumerate(sample for sample in data_samples if sample.get("broken") is None):
            rows = inputs["video_index"] == i  # the texts of this item
            sample.clip_logits, sample.scores = clip_logits[rows], scores[rows]
            if self.mlm_head is not None and "mlm_labels" in inputs:
                masked = states[0][rows], self.encoder.word_embeddings, inputs["mlm_labels"][rows]
                sample.mlm_correct = self.mlm_head.is_correct(*masked)
        return data_samples
