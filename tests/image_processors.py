"""The image processors of transformers, by what computes their pixels, in 4.57 and 5; and frames to compare on."""

import importlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np

SAMPLES = Path(os.environ.get("CLIPBERT_SAMPLES", Path(__file__).resolve().parents[2] / "shared/samples")) / "videos"
"""Real clips, where this machine has them."""
FOLDERS = {"Blip": "blip", "CLIP": "clip", "Vilt": "vilt", "Siglip": "siglip"}
"""Folder of each family in transformers."""


def processors_of(family: str) -> dict[str, type]:
    """Return a family's image processors that compute by "torchvision" and by "pil"."""
    folder = f"transformers.models.{FOLDERS[family]}"
    try:
        pil = importlib.import_module(f"{folder}.image_processing_pil_{FOLDERS[family]}")
    except ModuleNotFoundError:  # transformers 4
        fast = importlib.import_module(f"{folder}.image_processing_{FOLDERS[family]}_fast")
        slow = importlib.import_module(f"{folder}.image_processing_{FOLDERS[family]}")
        return dict(
            torchvision=getattr(fast, f"{family}ImageProcessorFast"), pil=getattr(slow, f"{family}ImageProcessor")
        )
    usual = importlib.import_module(f"{folder}.image_processing_{FOLDERS[family]}")
    return dict(torchvision=getattr(usual, f"{family}ImageProcessor"), pil=getattr(pil, f"{family}ImageProcessorPil"))


def pixels_of(processor: Any, frame: np.ndarray) -> np.ndarray:
    """Return the grey levels that a processor makes of a frame before it normalizes them, (H', W', 3)."""
    made = processor(
        frame, do_rescale=False, do_normalize=False, input_data_format="channels_last", return_tensors="pt"
    )
    return made["pixel_values"][0].permute(1, 2, 0).numpy().astype(np.int64)


def real_frames() -> Iterator[np.ndarray]:
    """Yield two frames of each real clip; none on a machine without them."""
    for path in sorted(SAMPLES.glob("*")) if SAMPLES.is_dir() else ():
        with av.open(str(path)) as container:
            for i, frame in enumerate(container.decode(video=0)):
                if i in (0, 20):
                    yield frame.to_ndarray(format="rgb24")
                elif i > 20:
                    break


def generated_frame(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Return a smooth picture with edges and noise, as a video's frame has them, (H, W, 3)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / max(height, width)
    waves = [np.sin(20 * rng.random() * x + 20 * rng.random() * y) for _ in range(3)]
    frame = 110 * np.stack(waves, axis=-1) + 128 + rng.normal(0, 4, (height, width, 3))
    frame[height // 4 : height // 2, width // 4 : width // 2] = rng.integers(0, 256, 3)
    return frame.clip(0, 255).astype(np.uint8)
