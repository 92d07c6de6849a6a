"""The comparison of a public model with the library's own, on one of a few thousand weights."""

import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from public_models import write_blip, write_pe, write_siglip

from clipbert_mm.errors import CheckpointError, OptionError


@pytest.fixture
def verify(tool: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    write_blip(tmp_path / "blip")
    return tool("analysis_tools/verify_public.py")


def test_what_is_equal_is_said_to_be(verify: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    verify.main(["blip", "--frames", "3"])
    printed = capsys.readouterr().out
    grey = float(re.search(r"pixels: at most ([\d.]+) grey levels from BlipImageProcessor", printed).group(1))
    difference = float(re.search(r"similarities: at most (\S+) from the library's, 3 frames", printed).group(1))
    assert grey <= 1.01
    assert difference < 1e-4


@pytest.mark.parametrize("family", ["SigLIP", "PE-Core"])
def test_towers_are_compared_as_their_authors_pad_and_resize(
    family: str, verify: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    if family == "PE-Core":
        pytest.importorskip("open_clip", reason="PE-Core comes through open_clip: pip install 'clipbert_mm[open-clip]'")
    {"SigLIP": write_siglip, "PE-Core": write_pe}[family](tmp_path / family)
    monkeypatch.setattr(verify, "TEXTS", ("a dog", "two men"))  # SigLIP's tokens are letters here
    verify.main([family, "--frames", "2"])
    printed = capsys.readouterr().out
    library, kind = dict(SigLIP=("transformers", "SiglipModel")).get(family, ("open_clip_torch", "CustomTextCLIP"))
    assert f"{kind} of {library} " in printed
    assert float(re.search(r"pixels: at most ([\d.]+) grey", printed).group(1)) <= 2.01
    assert float(re.search(r"similarities: at most (\S+) from the library's, 2 frames", printed).group(1)) < 1e-4


def test_frames_of_data_are_compared(
    verify: ModuleType, world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    verify.main(["blip", str(world), "--frames", "2", "--no-test"])
    assert "2 frames" in capsys.readouterr().out
    (tmp_path / "images").mkdir()
    image = np.random.default_rng(0).integers(0, 256, (48, 40, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "images" / "a.png"), image)
    predictor = verify.Predictor("blip")
    (found,) = verify.data_frames(predictor, str(tmp_path / "images"), 2)
    assert np.array_equal(found, image[..., ::-1])


def test_a_zero_shot_test_stands_beside_the_authors_figures(
    verify: ModuleType, monkeypatch: pytest.MonkeyPatch, world: Path, capsys: pytest.CaptureFixture[str]
):
    built: list[Config] = []

    class Runner:
        def test(self) -> dict[str, float]:
            return {"t2v/R@1": 41.5, "t2v/MdR": 2.0, "v2t/R@1": 9.0}

    monkeypatch.setattr(verify, "build_runner", lambda config: built.append(config) or Runner())
    verify.main(["blip", str(world), "--frames", "1"])
    (config,) = built
    assert (config.load_from, config.test_dataloader.dataset.data_root) == ("blip", str(world))
    printed = capsys.readouterr().out
    assert "blip_base_8x1_msrvtt; the authors' figures: Li et al., ICML 2022, Table 10" in printed
    assert re.search(r"t2v/R@1 +41\.5 +authors' 43\.3", printed)
    assert "v2t" not in printed


def test_figures_are_those_of_configs_that_exist(verify: ModuleType):
    for name in {*verify.CONFIGS.values(), *verify.PUBLISHED}:
        assert (verify.FOLDER / f"{name}.py").is_file()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["a.pth"], "'a.pth' is no public model. Expected a folder"),
        (["blip", "--frames", "0"], "--frames expects 1 or more, got 0."),
    ],
)
def test_a_wrong_command_line_is_one_sentence(verify: ModuleType, arguments: list[str], expected: str):
    with pytest.raises(OptionError, match=re.escape(expected)):
        verify.main(arguments)


def test_an_image_processor_that_the_library_cannot_read(verify: ModuleType, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object, **__: object) -> None:
        raise ImportError("BlipImageProcessor requires the Torchvision library")

    monkeypatch.setattr(verify.transformers.AutoImageProcessor, "from_pretrained", fail)
    with pytest.raises(CheckpointError, match=r"cannot read the image processor of .*Torchvision"):
        verify.main(["blip"])
