"""The check of a public model's first opening: our scores against the library's own model with the same weights."""

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import transformers
from torch import Tensor

from clipbert_mm.checkpoint.building import WithoutInitialization
from clipbert_mm.checkpoint.families import Family
from clipbert_mm.errors import CheckpointError, printable
from clipbert_mm.fileio import atomic_write, cache_folder
from clipbert_mm.version import __version__

if TYPE_CHECKING:
    from clipbert_mm.checkpoint.public import PublicModel
    from clipbert_mm.models import ClipBert

TOLERANCE = 1e-3
"""Largest difference of a logit or a similarity."""
VIDEOS = 2
"""Frames that are compared, each with each text."""


def check_equality(
    model: "ClipBert", public: "PublicModel", token_ids: Sequence[np.ndarray], shape: tuple[int, int], identity: str
) -> None:
    """Compare clip logits of a model with those of the library's own; a model that agreed once is not compared again.

    Args:
        model: The model on a CPU, with the weights of ``public``.
        public: What it was built from.
        token_ids: Texts to compare, int64 (L,) each.
        shape: Height and width of frames, in pixels.
        identity: Digest of weights and settings.

    Raises:
        CheckpointError: If they differ by more than :data:`TOLERANCE`.
    """
    versions = f"{identity} {public.family.library_class} {public.family.library_version} {__version__}"
    note = cache_folder() / "equal" / f"{hashlib.sha256(versions.encode()).hexdigest()[:32]}.json"
    if note.is_file():
        return
    frames = torch.randn(VIDEOS, 3, *shape, generator=torch.Generator().manual_seed(0))
    difference = largest_difference(model, public.family, public.settings, token_ids, frames)
    if not difference <= TOLERANCE:  # which NaN is not
        raise CheckpointError(
            f"{printable(public.source)} is refused: its scores differ from those of {public.family.library_class} of "
            f"{public.family.library_version} by {difference:.2g}, and at most {TOLERANCE:g} is rounding. Use another "
            f"release of {public.family.library}, and report it with both versions."
        )
    with suppress(OSError), atomic_write(note) as file:  # a cache that cannot be written is none
        json.dump(dict(source=public.source, difference=difference, versions=versions), file)


@torch.no_grad()
def largest_difference(
    model: "ClipBert",
    family: Family,
    settings: dict[str, Any],
    token_ids: Sequence[np.ndarray],
    frames: Tensor,
) -> float:
    """Return the largest difference between clip logits of a model and the library's, of texts with frames (V, 3, H, W)."""
    from clipbert_mm.models import AnswerEncoder

    library = library_model(family, settings, model.state_dict())
    tokens = model.encode_video(frames[:, None, None])  # (V, 1, S, D)
    pairs = model.pair_encoder()
    by_length: dict[int, list[np.ndarray]] = {}
    for ids in token_ids:
        by_length.setdefault(len(ids), []).append(ids)
    differences = []
    for texts in by_length.values():  # together, since the library encodes the frames anew in each call
        if isinstance(model.encoder, AnswerEncoder):
            model.encoder.set_answers(texts)
        indices = torch.arange(len(texts)).repeat_interleave(len(frames)), torch.arange(len(frames)).repeat(len(texts))
        ours = model.score_pairs(pairs, pairs.encode_texts(texts), tokens, *indices)[:, 0]  # (M·V, C)
        theirs = family.library_logits(library, torch.as_tensor(np.stack(texts)), frames)  # (M, V, C)
        differences.append((ours - theirs.flatten(0, 1)).abs().max())
    return float(torch.stack(differences).max())


def library_model(family: Family, settings: dict[str, Any], tensors: dict[str, Tensor]) -> Any:  # noqa: ANN401
    """Build the library's own model around the tensors of a ClipBert, without a copy of them."""
    if family.build_library is not None:
        with WithoutInitialization():
            built = family.build_library(settings)
        built.load_state_dict(family.library_names(tensors), assign=True)
        return built.eval()
    kind = getattr(transformers, family.library_class)
    with torch.device("meta"):
        library = kind(kind.config_class.from_dict({**settings, "attn_implementation": "eager"}))
    library.load_state_dict(family.library_names(tensors), strict=False, assign=True)
    library.tie_weights()
    for module in library.modules():  # position ids, and token types of 0, are all that weights do not have
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.is_meta:
                values = torch.arange(buffer.shape[-1]) * (name != "token_type_ids")
                module.register_buffer(name, values.expand(buffer.shape), persistent=False)
    return library.eval()
