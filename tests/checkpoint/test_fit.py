"""Weights that do not fit are refused; what is new or left over is named."""

from pathlib import Path

import pytest
import torch
from torch import nn

from clipbert_mm.checkpoint import CheckpointError, check_file, check_fit


@pytest.fixture
def model() -> nn.Module:
    return nn.ModuleDict(dict(backbone=nn.Linear(3, 4), head=nn.Linear(4, 2)))


def test_a_whole_fit_is_said_in_one_line(model: nn.Module):
    line = "4 of the model's 4 tensors are in the checkpoint"
    assert check_fit(model, model.state_dict(), whole=True) == line
    more = model.state_dict() | {"mlm_head.bias": torch.zeros(1), "mlm_head.weight": torch.zeros(1)}
    assert check_fit(model, more, whole=True) == f"{line}; not used are mlm_head"


def test_parts_may_be_new_where_training_begins_and_not_where_it_goes_on(model: nn.Module):
    part = {name: value for name, value in model.state_dict().items() if name.startswith("backbone")}
    found = check_fit(model, part, whole=False)
    assert found == "2 of the model's 4 tensors are in the checkpoint; new are head"
    with pytest.raises(CheckpointError, match=r"2 of the model's 4 tensors .* first that is missing is head\.weight"):
        check_fit(model, part, whole=True)


@pytest.mark.parametrize("whole", [True, False])
def test_another_shape_is_refused(model: nn.Module, whole: bool):
    other = model.state_dict() | {"head.weight": torch.zeros(5, 4), "head.bias": torch.zeros(5)}
    message = (
        r"2 tensors differ in shape, the first is head\.weight: checkpoint \(5, 4\), model \(2, 4\)\. Use the config"
    )
    with pytest.raises(CheckpointError, match=message):
        check_fit(model, other, whole=whole)


def test_a_checkpoint_of_something_else_is_refused(model: nn.Module):
    with pytest.raises(
        CheckpointError, match=r"0 of the model's 4 tensors .* model does not know is encoder\.weight\."
    ):
        check_fit(model, {"encoder.weight": torch.zeros(1)}, whole=False)
    with pytest.raises(CheckpointError, match="does not know is none"):
        check_fit(model, {}, whole=False)


def test_files_that_are_no_checkpoint_are_refused(tmp_path: Path, model: nn.Module):
    path = tmp_path / "a.pth"
    with pytest.raises(CheckpointError, match=rf"There is no checkpoint {path}\."):
        check_file(str(path))
    torch.save(model.state_dict(), path)
    assert check_file(str(path)) is None
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=rf"\({len(whole) // 2} bytes\) is no checkpoint: .* cut short"):
        check_file(str(path))
    path.write_text("these are no weights")
    with pytest.raises(CheckpointError, match="is no checkpoint"):
        check_file(str(path))
    assert check_file("https://example.org/a.pth") is None, "what is elsewhere is fetched first"


def test_more_of_a_part_than_the_model_has_is_another_model(model: nn.Module):
    deeper = model.state_dict() | {"head.2.weight": torch.zeros(1)}
    with pytest.raises(CheckpointError, match=r"first that the model does not know is head\.2\.weight"):
        check_fit(model, deeper, whole=True)
