"""Converted files: whole, with all that the model needs to know, and usable where the source was."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
from mmengine.registry import MODELS

from clipbert_mm import compat
from clipbert_mm.checkpoint import CheckpointError, read_source
from clipbert_mm.checkpoint.preprocessing import PYTORCH


@pytest.fixture
def convert(tool: Callable) -> Callable[..., None]:
    return tool("model_converters/to_clipbert_mm.py").main


def test_a_converted_resnet_gives_the_maps_of_its_source(
    convert: Callable, tmp_path: Path, capsys: pytest.CaptureFixture
):
    source = torchvision.models.resnet18().eval()
    torch.save(source.state_dict(), tmp_path / "resnet18.pth")
    convert([str(tmp_path / "resnet18.pth"), str(tmp_path / "new" / "converted.pth")])
    assert "resnet18.pth is torchvision's ResNet; 102 tensors of backbone, fc are in" in capsys.readouterr().out
    converted = read_source(str(tmp_path / "new" / "converted.pth"))
    assert converted.input_spec == PYTORCH
    compat.import_mmpretrain()
    ours = MODELS.build(dict(type="mmpretrain.ResNet", depth=18))
    ours.eval()
    weights = {name.removeprefix("backbone."): value for name, value in converted.tensors.items()}
    assert not [key for key in ours.load_state_dict(weights, strict=False).missing_keys if "num_batches" not in key]
    frames = torch.randn(2, 3, 64, 64)
    maps = torch.nn.Sequential(*list(source.children())[:-2])(frames)
    torch.testing.assert_close(ours(frames)[-1], maps)
    assert os.listdir(tmp_path / "new") == ["converted.pth"]


def test_what_our_own_say_of_themselves_is_kept(convert: Callable, tmp_path: Path):
    known = {"vocabulary": "ab12", "attention_heads": 2, "convention": PYTORCH.to_dict()}
    torch.save({"state_dict": {"projection.conv.weight": torch.ones(1)}, "optimizer": {}, **known}, tmp_path / "a.pth")
    convert([str(tmp_path / "a.pth"), str(tmp_path / "b.pth")])
    kept = read_source(str(tmp_path / "b.pth"))
    assert (kept.input_spec, kept.rest["vocabulary"], kept.rest["attention_heads"]) == (PYTORCH, "ab12", 2)
    assert "optimizer" not in kept.rest


def test_nothing_is_overwritten_and_nothing_half_written_is_left(convert: Callable, tmp_path: Path):
    (tmp_path / "there.pth").write_text("kept")
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(FileExistsError, match=r"there\.pth exists\. Move it away or name another target\."):
        convert([str(tmp_path / "text.pth"), str(tmp_path / "there.pth")])
    with pytest.raises(CheckpointError, match=r"text\.pth \(10 bytes\) is not a checkpoint"):
        convert([str(tmp_path / "text.pth"), str(tmp_path / "new.pth")])
    assert (tmp_path / "there.pth").read_text() == "kept"
    assert sorted(os.listdir(tmp_path)) == ["text.pth", "there.pth"]
