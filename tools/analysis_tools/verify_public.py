#!/usr/bin/env python
"""Compare a public image-text model with the library's own: python tools/analysis_tools/verify_public.py NAME [DATA]."""

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import torch
import transformers
from PIL import Image
from torch import Tensor

from clipbert_mm.apis.equality import largest_difference
from clipbert_mm.apis.indexing import find_videos
from clipbert_mm.apis.opening import open_public
from clipbert_mm.apis.predictor import Predictor
from clipbert_mm.checkpoint.public import PublicModel, is_public
from clipbert_mm.datasets.transforms import ResizeFrames
from clipbert_mm.engine.config import load_config
from clipbert_mm.engine.launch import build_runner
from clipbert_mm.engine.run_tool import run_tool
from clipbert_mm.errors import CheckpointError, OptionError, printable, quoted

TEXTS = ("a dog runs", "two people talk", "a man is on a blue square in the", "the red circle moves")
SIZES = ((360, 640), (480, 270), (97, 64))
"""Heights and widths of the frames that are generated."""


@dataclass(frozen=True)
class Published:
    """What the authors of a model published for a zero-shot test.

    Args:
        source: Where they published it.
        metrics: Their figures, by our names of the metrics.
    """

    source: str
    metrics: Mapping[str, float]


PUBLISHED = {
    "blip_base_8x1_msrvtt": Published(
        "Li et al., ICML 2022, Table 10; fine-tuned on COCO",
        {"t2v/R@1": 43.3, "t2v/R@5": 65.6, "t2v/R@10": 74.7, "t2v/MdR": 2.0},
    ),
    "clip_vit-b32_12x1_msrvtt": Published(
        "Luo et al., 2021; the mean of frames", {"t2v/R@1": 31.2, "t2v/R@5": 53.7, "t2v/R@10": 64.2}
    ),
}
"""The authors' figures, never ours, by the name of the config."""
CONFIGS = {"BLIP": "blip_base_8x1_msrvtt", "CLIP": "clip_vit-b32_12x1_msrvtt", "SigLIP": "siglip2_base_12x1_msrvtt"}
"""The config of the zero-shot test on MSRVTT 1K-A, by family."""
FOLDER = Path(__file__).parents[2] / "configs" / "public"


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Compare a public image-text model with the library's own")
    parser.add_argument("model", help="Hugging Face folder or name[@revision]")
    parser.add_argument("data", nargs="?", help="folder of MSRVTT, or of --config's data; also tests zero-shot on it")
    parser.add_argument("--config", help="config of the test (default: that of MSRVTT 1K-A in configs/public)")
    parser.add_argument("--frames", type=int, default=4, help="frames that are compared (default: 4)")
    parser.add_argument("--no-test", action="store_true", help="compare frames of the data, and do not test on it")
    parser.add_argument("--work-dir", default="work_dirs/verify_public", help="folder for the logs of the test")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Compare, test, print."""
    args = parse_args(argv)
    if not is_public(args.model):
        raise OptionError(
            f"{quoted(args.model)} is no public model. Expected a folder with a config.json, or a name on the Hugging Face hub."
        )
    if args.frames < 1:
        raise OptionError(f"--frames expects 1 or more, got {args.frames}.")
    predictor, public = Predictor(args.model, device="cpu", precision="fp32"), open_public(args.model)
    config = None if args.data is None or args.no_test else find_config(args.config, public)
    frames = generated_frames(args.frames) if args.data is None else data_frames(predictor, args.data, args.frames)
    pixels = [own_pixels(predictor, frame) for frame in frames]
    processor = image_processor(public)
    spread = predictor.model.data_preprocessor.std.flatten().max().item()
    grey = max(largest_pixel(processor, frame, own) * spread for frame, own in zip(frames, pixels, strict=True))
    token_ids = predictor.token_ids(TEXTS)
    differences = [
        largest_difference(predictor.model, public.family, public.settings, token_ids, own[None]) for own in pixels
    ]
    print(f"{public.source}: {public.family.library_class} of {public.family.library_version}")
    print(f"pixels: at most {grey:.2f} grey levels from {type(processor).__name__}, {len(frames)} frames")
    print(
        f"logits and similarities: at most {max(differences):.1e} from the library's, {len(frames)} frames, "
        f"{len(TEXTS)} texts"
    )
    if config is not None:
        print_test(config, run_test(config, args))


def own_pixels(predictor: Predictor, frame: np.ndarray) -> Tensor:
    """Return a frame, uint8 (H, W, 3), as the model takes it, (3, H', W')."""
    results: dict[str, Any] = dict(frames=frame[None, None])
    first = next(i for i, step in enumerate(predictor.media_steps) if isinstance(step, ResizeFrames))
    for step in predictor.media_steps[first:]:
        results = step(results)
    return predictor.model.data_preprocessor.normalize(torch.from_numpy(results["frames"])[None])[0, 0, 0]


class OpenClipProcessor:
    """open_clip's own transforms for evaluation, called as the image processors of transformers are.

    Args:
        settings: Contents of an ``open_clip_config.json``.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        import open_clip

        side = settings["model_cfg"]["vision_cfg"]["image_size"]
        self.transform = open_clip.image_transform(side, is_train=False, **settings.get("preprocess_cfg", {}))

    def __call__(self, frame: np.ndarray, return_tensors: str) -> SimpleNamespace:
        """Transform a frame, uint8 (H, W, 3), to ``pixel_values``, (1, 3, H', W')."""
        return SimpleNamespace(pixel_values=self.transform(Image.fromarray(frame))[None])


def image_processor(public: PublicModel) -> Any:
    """Return the library's own image processor.

    Raises:
        CheckpointError: If the library cannot read it.
    """
    if public.family.library != "transformers":
        return OpenClipProcessor(public.settings)
    name, _, revision = (public.source, "", "") if os.path.isdir(public.source) else public.source.partition("@")
    try:
        return transformers.AutoImageProcessor.from_pretrained(name, revision=revision or None)
    except (ImportError, OSError, ValueError) as error:
        raise CheckpointError(
            f"transformers {transformers.__version__} cannot read the image processor of {printable(public.source)}: "
            f"{quoted(str(error))}."
        ) from error


def largest_pixel(processor: Any, frame: np.ndarray, own: Tensor) -> float:
    """Return the largest difference of a normalized value from the library's.

    Raises:
        CheckpointError: If the library makes another shape of it.
    """
    theirs = processor(frame, return_tensors="pt").pixel_values[0]
    if theirs.shape != own.shape:
        raise CheckpointError(
            f"A frame of {frame.shape[0]} x {frame.shape[1]} pixels becomes {tuple(own.shape)}, and by "
            f"{type(processor).__name__} {tuple(theirs.shape)}. Report it with the release of transformers."
        )
    return float((theirs - own).abs().max())


def generated_frames(count: int) -> list[np.ndarray]:
    """Return smooth random frames of several shapes, uint8 (H, W, 3)."""
    frames = []
    for i in range(count):
        height, width = SIZES[i % len(SIZES)]
        coarse = np.random.default_rng(i).integers(0, 256, (9, 16, 3), np.uint8)
        frames.append(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC))
    return frames


def data_frames(predictor: Predictor, folder: str, count: int) -> list[np.ndarray]:
    """Return the middle frames of the first videos below a folder, or its first images, uint8 (H, W, 3)."""
    try:
        paths = find_videos([folder])[:count]
    except OptionError:
        images = find_videos([folder], images=True)[:count]
        return [cv2.cvtColor(cv2.imread(path), cv2.COLOR_BGR2RGB) for path in images]
    first = next(i for i, step in enumerate(predictor.media_steps) if isinstance(step, ResizeFrames))
    frames = []
    for path in paths:
        results: dict[str, Any] = dict(path=path)
        for step in predictor.media_steps[:first]:
            results = step(results)
        clips = np.asarray(results["frames"])  # (K, T, H, W, 3)
        frames.append(clips[len(clips) // 2, 0])
    return frames


def find_config(path: str | None, public: PublicModel) -> str:
    """Return the config of the zero-shot test.

    Raises:
        OptionError: If there is none for this family.
    """
    if path is not None:
        return path
    name = CONFIGS.get(public.family.name)
    if name is None:
        raise OptionError(
            f"There is no zero-shot test of {public.family.name} in configs/public. Give --config CONFIG, or --no-test."
        )
    return str(FOLDER / f"{name}.py")


def run_test(path: str, args: argparse.Namespace) -> dict[str, float]:
    """Test the model by a config, on the data of the command line; returns the metrics."""
    config = load_config(path, needs=("model", "test_cfg", "test_dataloader"))
    config.test_dataloader.dataset.data_root = args.data
    config.work_dir, config.load_from, config.resume = args.work_dir, args.model, False
    return build_runner(config).test()


def print_test(path: str, metrics: Mapping[str, float]) -> None:
    """Print the metrics of text-to-video retrieval beside what the authors published."""
    published = PUBLISHED.get(Path(path).stem)
    theirs = {} if published is None else published.metrics
    source = "none that is known" if published is None else published.source
    print(f"{Path(path).stem}; the authors' figures: {source}")
    for name, value in metrics.items():
        if name.startswith("t2v/") or name in theirs:
            print(f"  {name:10} {value:8.1f}   authors' {theirs.get(name, '-')}")


if __name__ == "__main__":
    run_tool(main)
