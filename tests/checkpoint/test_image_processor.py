"""Image processors by their files: the pixels that the library's own make of the same file, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from image_processors import FOLDERS, generated_frame, processors_of
from transformers import AutoImageProcessor

from clipbert_mm.checkpoint import CheckpointError
from clipbert_mm.checkpoint.image_processor import image_transforms, read_image_transforms
from clipbert_mm.models.data_preprocessors import VideoTextPreprocessor
from clipbert_mm.registry import TRANSFORMS

CLIP_MEAN, CLIP_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
HALF = [0.5, 0.5, 0.5]
PUBLISHED = {
    "blip": dict(
        do_normalize=True,
        do_pad=True,
        do_rescale=True,
        do_resize=True,
        image_mean=CLIP_MEAN,
        image_processor_type="BlipImageProcessor",
        image_std=CLIP_STD,
        processor_class="BlipProcessor",
        resample=3,
        rescale_factor=0.00392156862745098,
        size=dict(height=96, width=64),
        size_divisor=32,
    ),
    "blip, one number": dict(image_processor_type="BlipImageProcessorFast", size=96),
    "clip, old": dict(
        crop_size=96,
        do_center_crop=True,
        do_normalize=True,
        do_resize=True,
        feature_extractor_type="CLIPFeatureExtractor",
        image_mean=CLIP_MEAN,
        image_std=CLIP_STD,
        resample=3,
        size=96,
    ),
    "clip": dict(
        image_processor_type="CLIPImageProcessor",
        size=dict(shortest_edge=100),
        crop_size=dict(height=96, width=96),
        do_convert_rgb=True,
    ),
    "clip, squashed": dict(
        image_processor_type="CLIPImageProcessor", size=dict(height=64, width=64), crop_size=64, do_normalize=False
    ),
    "clip, uncropped": dict(
        image_processor_type="CLIPImageProcessor", size=dict(height=64, width=48), do_center_crop=False
    ),
    "vilt, old": dict(
        do_normalize=True,
        do_resize=True,
        feature_extractor_type="ViltFeatureExtractor",
        image_mean=HALF,
        image_std=HALF,
        resample=3,
        size=128,
        size_divisor=32,
    ),
    "siglip": dict(
        do_convert_rgb=None,
        do_normalize=True,
        do_rescale=True,
        do_resize=True,
        image_mean=HALF,
        image_processor_type="SiglipImageProcessor",
        image_std=HALF,
        processor_class="SiglipProcessor",
        resample=2,
        rescale_factor=0.00392156862745098,
        size=dict(height=96, width=96),
    ),
}
"""Files as the published models have them, with smaller sizes."""


def ours(folder: Path, frame: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the normalized pixels (3, H, W) of a frame without padding, by the file of a folder; and the std, (3, 1, 1)."""
    (step,), spec = read_image_transforms(str(folder))
    results = TRANSFORMS.build(step).transform(dict(frames=frame[None, None]))
    normalizer = VideoTextPreprocessor(mean=spec.mean, std=spec.std, vocab_size=2)
    height, width = results["content_shape"]
    pixels = normalizer.normalize(torch.from_numpy(results["frames"][None]))[0, 0, 0]
    return pixels[:, :height, :width], normalizer.std[:, None, None]


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_files_give_the_pixels_of_the_library(tmp_path: Path, name: str):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PUBLISHED[name]))
    family = next(each for each in FOLDERS if name.startswith(FOLDERS[each]))
    for shape in ((150, 210), (200, 130)):
        frame = generated_frame(*shape)
        for kind in processors_of(family).values():
            theirs = kind.from_pretrained(tmp_path)(frame, return_tensors="pt", input_data_format="channels_last")
            pixels, std = ours(tmp_path, frame)
            assert pixels.shape == theirs["pixel_values"][0].shape
            assert ((pixels - theirs["pixel_values"][0]) * std).abs().max() <= 1.001  # grey levels


@pytest.mark.parametrize("family", FOLDERS)
@pytest.mark.parametrize("backend", ["torchvision", "pil"])
def test_what_the_library_saves_is_read_back(tmp_path: Path, family: str, backend: str):
    processors_of(family)[backend]().save_pretrained(tmp_path)
    frame = generated_frame(180, 240)
    theirs = processors_of(family)["torchvision"]()(frame, return_tensors="pt", input_data_format="channels_last")
    pixels, std = ours(tmp_path, frame)
    assert ((pixels - theirs["pixel_values"][0]) * std).abs().max() <= 1.001
    nested = json.loads((tmp_path / "preprocessor_config.json").read_text())
    (tmp_path / "preprocessor_config.json").unlink()
    (tmp_path / "processor_config.json").write_text(json.dumps(dict(image_processor=nested, processor_class="X")))
    assert torch.equal(ours(tmp_path, frame)[0], pixels)  # as transformers 5 saves a whole processor
    assert AutoImageProcessor.from_pretrained(tmp_path).size is not None


def test_an_old_processor_config_stands_beside_the_file_that_counts(tmp_path: Path):
    (tmp_path / "processor_config.json").write_text('{"processor_class": "BlipProcessor"}')
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PUBLISHED["blip"]))
    (step,), spec = read_image_transforms(str(tmp_path))
    assert step == dict(type="ResizeTo", size=[96, 64], interpolation="bicubic")
    assert spec.mean == pytest.approx([122.7709, 116.7460, 104.0937], abs=1e-3)
    assert spec.std == pytest.approx([68.5005, 66.6322, 70.3232], abs=1e-3)


def test_a_file_that_names_no_processor_is_its_model_s():
    steps, spec = image_transforms({}, "a.json", model_type="vilt")
    assert steps == [dict(type="ResizeTo", shorter=384, longest=639, multiple=32, interpolation="bicubic")]
    assert (spec.mean, spec.std) == ((127.5,) * 3, (127.5,) * 3)
    assert image_transforms({}, "a.json", model_type="clip")[0][0]["crop"] == 224
    with pytest.raises(
        CheckpointError, match=r"a\.json is refused: its 'feature_extractor_type' is None; expected one of Blip"
    ):
        image_transforms({}, "a.json", model_type="llama")


def test_without_normalization_pixels_are_shares_of_white():
    _, spec = image_transforms(PUBLISHED["clip, squashed"], "a.json")
    assert (spec.mean, spec.std) == ((0.0,) * 3, (255.0,) * 3)


def test_a_folder_without_the_file_is_refused(tmp_path: Path):
    match = rf"The folder {tmp_path} has no processor_config\.json or preprocessor_config\.json"
    with pytest.raises(CheckpointError, match=match):
        read_image_transforms(str(tmp_path))
    (tmp_path / "processor_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=rf"The folder {tmp_path} has no preprocessor_config\.json"):
        read_image_transforms(str(tmp_path))
    (tmp_path / "preprocessor_config.json").write_text("[1]")
    with pytest.raises(CheckpointError, match=r"preprocessor_config\.json is damaged: expected a JSON object"):
        read_image_transforms(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        ("blip", dict(do_rescale=False), "'do_rescale' is False; expected true"),
        ("blip", dict(do_resize=False), "'do_resize' is False; expected true"),
        (
            "blip",
            dict(rescale_factor=1 / 127.5),
            r"'rescale_factor' is 0\.0078\d+; expected 1/255 \(0\.00392156862745098\)",
        ),
        ("blip", dict(rescale_factor=True), "'rescale_factor' is True; expected 1/255"),
        ("blip", dict(do_normalize=1), "'do_normalize' is 1; expected true or false"),
        ("blip", dict(resample=1), r"'resample' is 1; expected 2 \(bilinear\) or 3 \(bicubic\)"),
        ("blip", dict(resample="bicubic"), "'resample' is 'bicubic'; expected 2"),
        (
            "blip",
            dict(do_center_crop=True),
            "'do_center_crop' is True; expected no such setting, which may change pixels",
        ),
        ("blip", dict(pad_size=dict(height=9, width=9)), "'pad_size' is .*; expected no such setting"),
        ("blip", dict(image_mean=[0.5]), r"'image_mean' is \[0\.5\]; expected three numbers"),
        ("blip", dict(image_mean=[0.5, 0.5, float("nan")]), "'image_mean' is .*; expected three numbers"),
        ("blip", dict(image_std=[0.5, 0.5, 0]), "'image_std' is .*; expected three numbers above 0"),
        (
            "blip",
            dict(size=dict(height=9)),
            "'size' is {'height': 9}; expected a number of pixels, a height and a width",
        ),
        ("blip", dict(size=dict(height=9, width=0)), "'size' is .*; expected a number of pixels"),
        ("blip", dict(size=dict(height=9, width=9, longest_edge=9)), "'size' is .*; expected a number of pixels"),
        ("blip", dict(size=dict(shortest_edge=9)), "'size' is .*; expected a height and a width, or a center crop"),
        ("blip", dict(size=96, default_to_square=False), "'default_to_square' is False; expected true"),
        ("blip", dict(size=90_000), "it asks for 24,300,000,000 bytes of frames"),
        ("blip", dict(auto_map={}), r"it names code of its own \(auto_map\), which is never run"),
        ("siglip", dict(size=224), "'size' is 224; expected a height and a width, or a center crop"),
        (
            "siglip",
            dict(image_processor_type="Siglip2ImageProcessor"),
            "NaFlex models take images of any shape; take a model",
        ),
        ("siglip", dict(image_processor_type=3), "'image_processor_type' is 3; expected one of Blip"),
        (
            "siglip",
            dict(image_processor_type="ViTImageProcessor"),
            "'image_processor_type' is 'ViTImageProcessor'; expected",
        ),
        ("clip", dict(do_center_crop=False), "'size' is .*; expected a height and a width, or a center crop"),
        ("clip", dict(do_center_crop="yes"), "'do_center_crop' is 'yes'; expected true or false"),
        ("clip", dict(crop_size=101), "'crop_size' is 101; expected a square of at most 100 pixels"),
        ("clip", dict(crop_size=dict(height=9, width=8)), "'crop_size' is .*; expected a square"),
        ("clip", dict(crop_size=dict(shortest_edge=9)), "'crop_size' is .*; expected a square"),
        ("clip, squashed", dict(crop_size=60), "'crop_size' is 60; expected the height and width of size"),
        ("clip", dict(use_square_size=True), "'use_square_size' is True; expected no such setting"),
        ("vilt, old", dict(size=dict(height=9, width=9)), "'size' is .*; expected a shortest_edge"),
        ("vilt, old", dict(size_divisor=129), "'size_divisor' is 129; expected a number from 1 to 128"),
    ],
)
def test_what_would_change_pixels_otherwise_is_refused(name: str, change: dict[str, Any], sentence: str):
    with pytest.raises(CheckpointError, match=rf"^models/a\.json is refused: .*{sentence}"):
        image_transforms(PUBLISHED[name] | change, "models/a.json")


def test_settings_without_effect_are_let_be():
    kept = dict(
        default_to_square=False,
        do_pad=False,
        do_center_crop=False,
        crop_size=None,
        patch_size=None,
        _valid_processor_keys=["images"],
    )
    assert image_transforms(PUBLISHED["blip"] | kept, "a.json") == image_transforms(PUBLISHED["blip"], "a.json")
