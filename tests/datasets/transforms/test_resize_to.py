"""ResizeTo: the grey levels of Hugging Face's image processors, in all three ways; and what it refuses."""

from pathlib import Path

import numpy as np
import pytest
from image_processors import generated_frame, pixels_of, processors_of, real_frames
from mmcv.transforms import Compose
from PIL import Image

from clipbert_mm.datasets.transforms import DecodeClips, LoadImage, OpenVideo, ResizeTo, SampleClips
from clipbert_mm.errors import BrokenMediaError, OptionError

WAYS = {
    "blip": ("Blip", {}, dict(size=(384, 384))),
    "siglip": ("Siglip", dict(size=dict(height=224, width=224)), dict(size=(224, 224))),
    "siglip2": (
        "Siglip",
        dict(size=dict(height=256, width=256), resample=2),
        dict(size=(256, 256), interpolation="bilinear"),
    ),
    "clip": ("CLIP", {}, dict(shorter=224, crop=224)),
    "clip-336": (
        "CLIP",
        dict(size=dict(shortest_edge=336), crop_size=dict(height=336, width=336)),
        dict(shorter=336, crop=336),
    ),
    "vilt": ("Vilt", {}, dict(shorter=384, longest=639, multiple=32)),
}
"""The family of each processor, its settings, and the same for ResizeTo."""
SHAPES = [(3, 5), (5, 3), (333, 777), (777, 333), (64, 64), (225, 224), (384, 384), (720, 1280), (1, 1), (7, 100)]
"""Odd sizes, and usual ones."""


def resized(frame: np.ndarray, **options) -> np.ndarray:
    """Return what ResizeTo makes of a frame."""
    results = ResizeTo(**options).transform(dict(frames=frame[None, None]))
    assert results["frames"].shape[2:4] == results["content_shape"]
    return results["frames"][0, 0].astype(np.int64)


def compare(frames: list[np.ndarray], way: str, backend: str) -> tuple[int, float, float]:
    """Return the largest difference of grey levels, and the shares of those that differ, and by more than one."""
    family, settings, options = WAYS[way]
    processor = processors_of(family)[backend](**settings)
    differences = [np.abs(resized(frame, **options) - pixels_of(processor, frame)).ravel() for frame in frames]
    joined = np.concatenate(differences)
    return int(joined.max()), float((joined > 0).mean()), float((joined > 1).mean())


@pytest.fixture(scope="module")
def frames() -> list[np.ndarray]:
    generated = [generated_frame(*shape, seed) for seed, shape in enumerate(SHAPES)]
    return [*real_frames(), *generated]


@pytest.mark.parametrize("way", WAYS)
def test_equals_the_processors_that_compute_by_torchvision(frames: list[np.ndarray], way: str):
    largest, share, _ = compare(frames, way, "torchvision")
    assert largest <= 1
    assert share < 0.001


@pytest.mark.parametrize("way", WAYS)
def test_is_as_near_to_pillow_as_torchvision_is(frames: list[np.ndarray], way: str):
    # Both round each of the two passes to whole grey levels, with other weights in fixed point: 2 is as near as they are.
    largest, share, above = compare(frames, way, "pil")
    assert largest <= 2
    assert share < 0.01
    assert above < 1e-4


def test_crops_the_center_of_the_wider_side():
    frame = np.tile(np.arange(100, dtype=np.uint8)[None, :, None], (50, 1, 3))
    pixels = resized(frame, shorter=50, crop=50)
    assert pixels.shape == (50, 50, 3)
    assert np.array_equal(pixels[0, :, 0], np.arange(25, 75))


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((480, 640), (384, 512)),
        ((1080, 1920), (352, 608)),  # 359 and 639 are no multiples of 32
        ((1920, 1080), (608, 352)),
        ((500, 500), (384, 384)),
        ((10, 190), (32, 608)),
    ],
)
def test_keeps_the_aspect_in_multiples(shape: tuple[int, int], expected: tuple[int, int]):
    assert resized(generated_frame(*shape), shorter=384, longest=639, multiple=32).shape[:2] == expected
    assert ResizeTo(shorter=384, longest=639, multiple=32).frame_shape == (608, 608)


def test_a_streamed_video_is_resized_as_a_decoded_one(world: Path):
    path = str(next(world.glob("**/*.mp4")))
    steps = [OpenVideo(), SampleClips(num_clips=2, num_frames=2, mode="uniform"), DecodeClips()]
    streamed = Compose([*steps, ResizeTo(shorter=64, crop=48)])(dict(path=path))
    whole = Compose(steps)(dict(path=path))
    decoded = dict(frames=whole["frames"])
    assert np.array_equal(ResizeTo(shorter=64, crop=48).transform(decoded)["frames"], streamed["frames"])
    assert streamed["content_shape"] == (48, 48)
    assert streamed["frames"].shape == (2, 2, 48, 48, 3)


@pytest.mark.parametrize("shape", [(1, 4000), (4000, 1)])
@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (dict(shorter=384, longest=639, multiple=32), "a longer side of 639 pixels.* has less than 32"),
        (dict(shorter=224, crop=224), "a shorter side of 224 pixels.* has 200,704,000 pixels, and at most 33,554,432"),
    ],
)
def test_an_image_of_one_row_is_refused_by_name(tmp_path: Path, shape: tuple[int, int], options: dict, reason: str):
    path = str(tmp_path / "line.png")
    Image.fromarray(generated_frame(*shape)).save(path)
    with pytest.raises(BrokenMediaError, match=rf"cannot read .*line\.png: its sides are too different.*{reason}"):
        Compose([LoadImage(), ResizeTo(**options)])(dict(path=path))
    squashed = resized(generated_frame(*shape), size=(32, 32))
    assert squashed.shape == (32, 32, 3)


def test_frames_that_cannot_be_written_to_or_are_mirrored_are_read():
    frame = generated_frame(20, 30)
    mirrored = frame[:, ::-1]
    expected = resized(np.ascontiguousarray(mirrored), size=(16, 16))
    frame.flags.writeable = False
    assert np.array_equal(resized(mirrored, size=(16, 16)), expected)


@pytest.mark.parametrize(
    "options",
    [
        {},
        dict(size=384),
        dict(size=(384, 0)),
        dict(size=(8, 8), shorter=8),
        dict(size=(8, 8), multiple=4),
        dict(shorter=8),
        dict(crop=8),
        dict(shorter=8, crop=9),
        dict(shorter=8, crop=8, longest=8),
        dict(shorter=8, crop=8, multiple=2),
        dict(shorter=8, longest=7),
        dict(shorter=8, longest=9, multiple=9),
        dict(shorter="8", longest=9),
    ],
)
def test_options_that_describe_no_way_are_refused(options: dict):
    with pytest.raises(OptionError, match=r"ResizeTo expects size=\(height, width\), or shorter with a crop"):
        ResizeTo(**options)


def test_other_interpolations_are_refused():
    with pytest.raises(OptionError, match="expects interpolation bilinear or bicubic, got 'lanczos'"):
        ResizeTo(size=(8, 8), interpolation="lanczos")
