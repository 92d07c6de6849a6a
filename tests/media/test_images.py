"""Images: upright, in RGB, and named where they are broken."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from clipbert_mm.datasets.transforms import BrokenMediaError, LoadImage


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_an_image_is_a_video_of_one_frame_in_rgb(tmp_path: Path, name: str):
    pixels = np.zeros((32, 16, 3), np.uint8)
    pixels[..., 0], pixels[16:, :, 2] = 200, 90  # red, violet below; 16 pixels are a block of JPEG's
    cv2.imwrite(str(tmp_path / name), pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 100])
    frames = LoadImage().transform(dict(path=str(tmp_path / name)))["frames"]
    assert frames.shape == (1, 1, 32, 16, 3)
    assert np.abs(frames[0, 0].astype(int) - pixels).mean() <= (0 if name == "a.png" else 1)


@pytest.fixture
def picture() -> Image.Image:
    """A picture without symmetry, smooth enough for JPEG."""
    noise = np.random.default_rng(0).integers(0, 256, (4, 5, 3), np.uint8)
    return Image.fromarray(cv2.resize(noise, (64, 48)))


def load(path: Path) -> np.ndarray:
    return LoadImage().transform(dict(path=str(path)))["frames"][0, 0]


@pytest.mark.parametrize(
    ("mode", "name"),
    [
        ("L", "a.png"),
        ("L", "a.jpg"),
        ("1", "a.png"),
        ("LA", "a.png"),
        ("P", "a.png"),
        ("RGB", "a.png"),
        ("RGB", "a.jpg"),
        ("RGB", "a.bmp"),
        ("RGB", "a.webp"),
        ("RGBA", "a.png"),
        ("CMYK", "a.jpg"),
        ("P", "a.gif"),
        ("L", "a.gif"),
    ],
)
def test_every_kind_of_image_becomes_rgb(tmp_path: Path, picture: Image.Image, mode: str, name: str):
    picture.convert(mode).save(tmp_path / name)
    wanted = np.array(Image.open(tmp_path / name).convert("RGB"))
    assert np.abs(load(tmp_path / name).astype(int) - wanted).max() <= 1


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_turned_as_its_camera_says(tmp_path: Path, picture: Image.Image, name: str, orientation: int):
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture.save(tmp_path / name, exif=exif)
    wanted = np.array(ImageOps.exif_transpose(Image.open(tmp_path / name)))
    assert wanted.shape == ((48, 64, 3) if orientation < 5 else (64, 48, 3))
    assert np.array_equal(load(tmp_path / name), wanted)


@pytest.mark.parametrize("how", ["empty", "text", "cut", "no head"])
def test_a_broken_image_is_named_with_what_is_wrong(world: Path, tmp_path: Path, break_file, how: str):
    path = tmp_path / "a.jpg"
    path.symlink_to(world / "images" / "00000.jpg")
    break_file(path, how)
    reason = dict(empty=r"the file is empty \(0 bytes\)", cut="damaged, or cut short").get(
        how, "not an image, or damaged at"
    )
    with pytest.raises(BrokenMediaError, match=rf"^cannot read {path}: {reason}"):
        LoadImage().transform(dict(path=str(path)))
