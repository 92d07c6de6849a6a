"""Public image-text models: pairs of texts and videos against the library's own loop, and indexing against its parts."""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from mmengine.config import Config
from torch import Tensor

from benchmarks.public_vectors import measure_vectors
from benchmarks.timing import environment, matrix_rate, time_in_turn
from benchmarks.video_set import write_videos
from benchmarks.workload import choose_clock
from clipbert_mm.apis.equality import library_model
from clipbert_mm.apis.indexing import index
from clipbert_mm.apis.opening import open_public
from clipbert_mm.apis.predictor import Predictor
from clipbert_mm.checkpoint.families.blip import MATCHING
from clipbert_mm.checkpoint.public import PublicModel
from clipbert_mm.errors import ClipBertError
from clipbert_mm.index import VideoIndex
from clipbert_mm.models.encoders import DualEncoder
from clipbert_mm.models.encoders.attention import absorbed
from clipbert_mm.models.encoders.cross_pair_encoder import is_cheaper_absorbed
from clipbert_mm.visualization.figures import save_figure

SHAPES = {"one text, many videos": (1, 8, 1), "many texts, few videos": (8, 2, 1), "8 frames concatenated": (2, 2, 8)}
"""Texts, videos, and frames of a clip, by what they stand for: a search, ranking texts, and BLIP's protocol for videos."""
TEXTS_OF_A_CLIP = (1, 2, 4, 8, 16, 32)
"""Numbers of texts for which keys and values are absorbed or kept."""
TOLERANCE = 1e-4
"""Largest difference of a logit from the library's."""
KEYFRAMES = 250


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what can be chosen."""
    parser.add_argument("--length", type=int, default=12, help="tokens of a text (default: 12)")
    parser.add_argument("--videos", type=int, default=2, help="generated videos to index; 0 for none (default: 2)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--threads", type=int, default=1, help="threads on a CPU (default: 1)")
    parser.add_argument("--repeats", type=int, default=5, help="timed repeats (default: 5)")
    parser.add_argument(
        "--cpu-time", action="store_true", help="count the time on the processor alone: for a CPU with other work to do"
    )


def measure(config: Config, args: argparse.Namespace) -> dict[str, Any]:
    """Score pairs in both ways, and index videos that are generated.

    Returns:
        A report of ``pairs``, or of ``vectors`` of a model that has them alone; of ``attention`` of a model with
        cross-attention; and of ``index``.

    Raises:
        ClipBertError: If logits or vectors differ from the library's.
    """
    torch.set_num_threads(args.threads)
    clock = choose_clock(args)
    started = time.perf_counter()
    predictor = Predictor(args.config, device=args.device, precision="fp32")
    opening = time.perf_counter() - started
    public = open_public(args.config)
    report: dict[str, Any] = dict(
        environment=environment(args.device),
        source=public.source,
        family=public.family.name,
        opening_s=opening,
        clock="time on the processor" if args.cpu_time else "wall clock",
        length=args.length,
        matrix_gflops=matrix_rate(args.device, clock=clock) / 1e9,
    )
    if isinstance(predictor.model.encoder, DualEncoder):
        report["vectors"] = measure_vectors(predictor, public, args, clock)
    else:
        report["pairs"] = measure_pairs(predictor, public, args, clock)
    if public.family.library_class == MATCHING:
        report["attention"] = measure_attention(predictor, args, clock)
    if args.videos:
        report["index"] = measure_index(predictor, args, clock)
    return report


def measure_pairs(
    predictor: Predictor, public: PublicModel, args: argparse.Namespace, clock: Callable[[], float]
) -> dict[str, Any]:
    """Time scoring pairs by the library one at a time, by the library in a batch, and by the pair encoder."""
    model = predictor.model
    library = library_model(public.family, public.settings, model.state_dict())
    scored = library_blip if public.family.library_class == MATCHING else library_whole
    generator = torch.Generator().manual_seed(0)
    found = {}
    for name, (texts, videos, frames) in SHAPES.items():
        if frames > 1 and public.family.library_class != MATCHING:
            continue
        pixels = torch.randn(videos, frames, 3, *predictor.frame_shape, generator=generator).to(predictor.device)
        words = torch.randint(1, public.family.vocab_size - 2, (texts, args.length), generator=generator)
        with torch.no_grad():
            tokens = model.encode_video(pixels[:, :, None])  # (V, T, S, D)
            joined = tokens.flatten(1, 2)[:, None] if frames > 1 else tokens
        of_text, of_video = torch.arange(texts).repeat_interleave(videos), torch.arange(videos).repeat(texts)
        logits: dict[str, Tensor] = {}

        def run(way: str, by: Callable[[], Tensor], into: dict[str, Tensor] = logits) -> Callable[[], None]:
            def timed() -> None:
                with torch.no_grad():
                    into[way] = by()

            return timed

        timings = time_in_turn(
            {
                "one by one": run("one by one", scored(model, library, public, words, pixels, joined, 1)),
                "batched": run("batched", scored(model, library, public, words, pixels, joined, 16)),
                "ours": run("ours", ours(predictor, words, joined, of_text, of_video)),
            },
            repeats=args.repeats,
            device=args.device,
            clock=clock,
        )
        differences = [largest(logits[way], logits["ours"]) for way in ("one by one", "batched")]
        if max(differences) > TOLERANCE:
            raise ClipBertError(f"{name}: logits differ from the library's by {max(differences):.2g}.")
        baseline = min("one by one", "batched", key=lambda way: timings[way].median)
        speedups = [a / b for a, b in zip(timings[baseline].seconds, timings["ours"].seconds, strict=True)]
        found[name] = dict(
            texts=texts,
            videos=videos,
            frames=frames,
            largest_difference=max(differences),
            baseline=baseline,
            speedup=statistics.median(speedups),
            speedups=speedups,
            pairs_per_second={way: texts * videos / timing.median for way, timing in timings.items()},
            **{way: timing.to_dict() for way, timing in timings.items()},
        )
        if public.family.library_class == MATCHING:
            found[name] |= blip_gflop(model, args.length, joined.shape[2])
    return found


def ours(predictor: Predictor, words: Tensor, tokens: Tensor, *indices: Tensor) -> Callable[[], Tensor]:
    """Return what scores pairs with the pair encoder, (P, C); texts are read anew each time."""

    def score() -> Tensor:
        texts = predictor.pairs.encode_texts(list(words))
        return predictor.model.score_pairs(predictor.pairs, texts, tokens, *indices)[:, 0]

    return score


def library_blip(
    model: Any,
    library: Any,
    public: PublicModel,
    words: Tensor,
    pixels: Tensor,
    tokens: Tensor,
    batch: int,
) -> Callable[[], Tensor]:
    """Return what scores pairs with the library's text encoder, on visual tokens that were computed before, (P, 3).

    Both logits of each pair, and the similarity: each text is read once more for its vector, as ours does.
    """
    words = words.to(tokens.device)
    joint = model.encoder.joint_ids(words)
    ids = joint.repeat_interleave(len(tokens), dim=0)
    images = tokens[:, 0]  # (V, S, D)
    of_video = torch.arange(len(tokens)).repeat(len(words))

    def score() -> Tensor:
        rows = []
        for some, of in zip(ids.split(batch), of_video.split(batch), strict=True):
            states = library.text_encoder(input_ids=some, encoder_hidden_states=images[of]).last_hidden_state
            rows.append(library.itm_head(states[:, 0]))
        texts = F.normalize(library.text_proj(library.text_encoder(input_ids=words).last_hidden_state[:, 0]), dim=1)
        frames = library.vision_proj(images[:, :: model.encoder.frame_tokens]).mean(dim=1)  # of their class tokens
        similarity = texts @ F.normalize(frames, dim=1).T  # (M, V)
        return torch.cat([torch.cat(rows), similarity.flatten()[:, None]], dim=1)

    return score


def library_whole(
    model: Any,
    library: Any,
    public: PublicModel,
    words: Tensor,
    pixels: Tensor,
    tokens: Tensor,
    batch: int,
) -> Callable[[], Tensor]:
    """Return what scores pairs with the library's whole model, (P, C), a text with ``batch`` frames at a time."""

    def score() -> Tensor:
        rows = [
            torch.cat([public.family.library_logits(library, ids[None], part)[0] for part in pixels[:, 0].split(batch)])
            for ids in words.to(pixels.device)
        ]
        return torch.cat(rows)

    return score


def largest(theirs: Tensor, own: Tensor) -> float:
    """Return the largest difference of logits and similarities."""
    return float((theirs - own).abs().max())


def blip_gflop(model: Any, length: int, cells: int) -> dict[str, float]:
    """Return the GFLOP of a pair of a text and a clip of ``cells`` tokens: by the library, absorbed, and with kept keys."""
    text = model.encoder.text_config
    width, visual, layers = text.hidden_size, text.encoder_hidden_size, text.num_hidden_layers
    own = (
        2 * length * (6 * width**2 + 2 * width * text.intermediate_size + 2 * length * width)
    )  # a layer without images
    attention = 4 * length * cells * width
    projected = 4 * cells * visual * width
    taken_in = 4 * length * visual * width + 4 * length * text.num_attention_heads * cells * visual
    sums = dict(plain=own + attention + projected, absorbed=own + taken_in, kept=own + attention)
    return {f"gflop_{name}": layers * value / 1e9 for name, value in sums.items()}


def measure_attention(
    predictor: Predictor, args: argparse.Namespace, clock: Callable[[], float]
) -> list[dict[str, Any]]:
    """Time the cross-attention of one layer with keys and values absorbed and kept, for several texts of a clip."""
    encoder = predictor.model.encoder
    attention = encoder.text.encoder.layer[0].crossattention.self
    heads = (attention.num_attention_heads, attention.attention_head_size)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(1, encoder.frame_tokens, encoder.visual_size, generator=generator).to(predictor.device)
    rows = []
    for texts in TEXTS_OF_A_CLIP:
        query = torch.randn(1, texts * args.length, *heads, generator=generator).to(predictor.device)
        timings = time_in_turn(
            {
                "absorbed": _inference(absorbed, attention, query, tokens),
                "kept": _inference(kept, attention, query, tokens),
            },
            repeats=args.repeats,
            device=args.device,
            clock=clock,
        )
        chosen = is_cheaper_absorbed(texts * args.length, encoder.frame_tokens, *heads, encoder.visual_size)
        name = "absorbed" if chosen else "kept"
        other = "kept" if chosen else "absorbed"
        rows.append(
            dict(
                texts=texts,
                chosen=name,
                ratio=timings[other].median / timings[name].median,
                **{way: timing.to_dict() for way, timing in timings.items()},
            )
        )
    return rows


def kept(attention: Any, query: Tensor, tokens: Tensor) -> Tensor:
    """Attend with keys and values of all tokens; as the pair encoder does for many texts of a clip."""
    heads = query.shape[2:]
    key, value = (part(tokens).unflatten(2, heads).transpose(1, 2) for part in (attention.key, attention.value))
    context = F.scaled_dot_product_attention(query.transpose(1, 2), key, value)
    return context.transpose(1, 2).flatten(2)


def _inference(function: Callable[..., Tensor], *given: Any) -> Callable[[], None]:
    def run() -> None:
        with torch.no_grad():
            function(*given)

    return run


def measure_index(predictor: Predictor, args: argparse.Namespace, clock: Callable[[], float]) -> dict[str, Any]:
    """Time indexing in one process, and decoding and the visual tower alone, on the same generated videos."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = [str(path) for path in write_videos(folder / "videos", args.videos, KEYFRAMES)]
        media = [predictor.read(path).frames for path in paths]
        count = 0

        def whole() -> None:
            nonlocal count
            count += 1
            index(predictor, VideoIndex(folder / f"index{count}"), paths, workers=0, batch_size=1)

        timings = time_in_turn(
            {
                "indexing": whole,
                "decoding": lambda: [predictor.read(path) for path in paths],
                "visual tower": lambda: [predictor.encode([frames]) for frames in media],
            },
            repeats=args.repeats,
            warmup=0,
            device=args.device,
            clock=clock,
        )
    ratios = [
        parts[0] / (parts[1] + parts[2]) for parts in zip(*(each.seconds for each in timings.values()), strict=True)
    ]
    return dict(videos=args.videos, ratio=statistics.median(ratios), ratios=ratios) | {
        name: timing.to_dict() for name, timing in timings.items()
    }


def draw(report: dict[str, Any], out_file: str | Path) -> None:
    """Draw pairs per second by each way of scoring, or texts and frames per second by each side's towers."""
    figure = Figure(figsize=(8, 3), layout="constrained")
    axes = figure.subplots()
    if "pairs" in report:
        ways, what = ("one by one", "batched", "ours"), "pairs of a text and a video"
        cases = {name: case["pairs_per_second"] for name, case in report["pairs"].items()}
    else:
        ways, what = ("library", "ours"), "texts or frames"
        cases = {name: case["per_second"] for name, case in report["vectors"].items() if "per_second" in case}
    positions = np.arange(len(cases))
    for i, way in enumerate(ways):
        rates = [case[way] for case in cases.values()]
        bars = axes.barh(positions + 0.27 * (1 - i), rates, height=0.25, label=way)
        axes.bar_label(bars, fmt="%.3g", padding=3)
    axes.set_yticks(positions, list(cases))
    axes.set_xlabel(f"{what} per second")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    axes.margins(x=0.15)
    title = f"{report['family']}, {report['length']} tokens; {report['environment']['device']}"
    axes.set_title(title, fontsize=9, loc="left")
    save_figure(figure, out_file)
