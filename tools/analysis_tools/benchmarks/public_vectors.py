"""Models of vectors alone (CLIP, SigLIP, PE-Core): both towers against the library's, and the product of their vectors."""

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.timing import time_in_turn
from clipbert_mm.apis.equality import library_model
from clipbert_mm.apis.predictor import Predictor
from clipbert_mm.checkpoint.public import PublicModel
from clipbert_mm.errors import ClipBertError
from clipbert_mm.models.encoders import SiglipText

COUNTS = {"one text": 1, "many texts": 8, "one frame": 1, "8 frames": 8}
"""Texts or frames that are encoded at once."""
TOLERANCE = 1e-4
"""Largest difference of a number of a unit vector from the library's."""
GALLERY = (16, 100_000)
"""Texts and clips whose vectors are compared in one product."""


def measure_vectors(
    predictor: Predictor, public: PublicModel, args: argparse.Namespace, clock: Callable[[], float]
) -> dict[str, Any]:
    """Time the towers of texts and of frames by the library and by ours, and the comparison of many vectors by ours.

    Raises:
        ClipBertError: If vectors differ from the library's.
    """
    model, device = predictor.model, predictor.device
    library = library_model(public.family, public.settings, model.state_dict())
    generator = torch.Generator().manual_seed(0)
    report: dict[str, Any] = {}
    for name, count in COUNTS.items():
        if "text" in name:
            words = torch.randint(1, public.family.vocab_size - 2, (count, args.length), generator=generator)
            words[:, -1] = (
                predictor.tokenize.tokenizer.eos_token_id
            )  # by which the library finds the end of CLIP's texts
            ways = dict(
                library=library_texts(library, public, model.encoder, words.to(device)),
                ours=own_texts(predictor, words),
            )
        else:
            frames = torch.randn(count, 3, *predictor.frame_shape, generator=generator).to(device)
            ways = dict(library=library_frames(library, public, frames), ours=own_frames(model, frames))
        found: dict[str, Tensor] = {}

        def timed(way: str, by: Callable[[], Tensor], into: dict[str, Tensor] = found) -> Callable[[], None]:
            def run() -> None:
                with torch.no_grad():
                    into[way] = by()

            return run

        timings = time_in_turn(
            {way: timed(way, by) for way, by in ways.items()}, repeats=args.repeats, device=device, clock=clock
        )
        difference = float((found["library"] - found["ours"]).abs().max())
        if not difference <= TOLERANCE:
            raise ClipBertError(f"{name}: vectors differ from the library's by {difference:.2g}.")
        pairs = zip(timings["library"].seconds, timings["ours"].seconds, strict=True)
        report[name] = dict(
            count=count,
            largest_difference=difference,
            speedup=statistics.median(theirs / own for theirs, own in pairs),
            per_second={way: count / timing.median for way, timing in timings.items()},
            **{way: timing.to_dict() for way, timing in timings.items()},
        )
    return report | {"comparison": compare(predictor, args, clock)}


def compare(predictor: Predictor, args: argparse.Namespace, clock: Callable[[], float]) -> dict[str, Any]:
    """Time the product of the vectors of texts and clips that are there."""
    texts, clips = GALLERY
    width, generator = predictor.model.encoder.vector_size, torch.Generator().manual_seed(0)
    one, other = (torch.randn(count, width, generator=generator).to(predictor.device) for count in GALLERY)
    timing = time_in_turn({"ours": lambda: one @ other.T}, repeats=args.repeats, device=args.device, clock=clock)[
        "ours"
    ]
    return (
        dict(texts=texts, clips=clips, width=width, pairs_per_second=texts * clips / timing.median) | timing.to_dict()
    )


def library_texts(library: Any, public: PublicModel, encoder: Any, words: Tensor) -> Callable[[], Tensor]:
    """Return what gives unit vectors of texts by the library, padded as its tokenizer does."""
    if public.family.library != "transformers":
        padded = F.pad(words, (0, library.context_length - words.shape[1]))
        return lambda: library.encode_text(padded, normalize=True)
    if isinstance(encoder, SiglipText):  # trained on texts of the longest length
        words = F.pad(words, (0, encoder.max_text_length - words.shape[1]), value=encoder.padding_token)
    return lambda: _unit(library.get_text_features(input_ids=words))


def library_frames(library: Any, public: PublicModel, frames: Tensor) -> Callable[[], Tensor]:
    """Return what gives unit vectors of frames, (N, 3, H, W), by the library."""
    if public.family.library != "transformers":
        return lambda: library.encode_image(frames, normalize=True)
    return lambda: _unit(library.get_image_features(pixel_values=frames))


def own_texts(predictor: Predictor, words: Tensor) -> Callable[[], Tensor]:
    """Return what gives unit vectors of texts by ours."""
    return lambda: predictor.pairs.encode_texts(list(words)).vectors


def own_frames(model: Any, frames: Tensor) -> Callable[[], Tensor]:
    """Return what gives unit vectors of frames by ours."""
    return lambda: model.encoder.clip_vectors(model.encode_video(frames[:, None, None]))[:, 0]


def _unit(features: Any) -> Tensor:
    """Return unit vectors of features: a tensor in transformers 4, an output in 5."""
    return F.normalize(getattr(features, "pooler_output", features), dim=1)
