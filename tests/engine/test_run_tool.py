"""What a user can mend is said in one message; a defect still shows where it happened."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from clipbert_mm import registry
from clipbert_mm.datasets import RetrievalDataset
from clipbert_mm.datasets.transforms import SampleClips
from clipbert_mm.engine.run_tool import explain_arguments, format_error, run_tool
from clipbert_mm.errors import AnnotationError


def said(function: Callable, *args, **kwargs) -> str:
    """What a tool says of the error of a call."""
    try:
        function(*args, **kwargs)
    except Exception as error:
        message = format_error(error)
        if message is None:
            raise
        return message
    raise AssertionError("nothing was raised")


def test_our_errors_are_said_without_a_traceback(tmp_path: Path):
    message = said(RetrievalDataset, ann_file=str(tmp_path / "none.jsonl"), pipeline=[])
    assert message.startswith(f"error: There is no annotation file {tmp_path}/none.jsonl.")
    assert "\n" not in message
    message = said(SampleClips, num_clips=0, num_frames=1)
    assert message.startswith("error: SampleClips expects num_clips >= 1")
    assert said(open, tmp_path / "none") == f"error: [Errno 2] No such file or directory: '{tmp_path}/none'"


def test_ctrl_c_ends_a_tool_with_one_line(capsys: pytest.CaptureFixture):
    def pressed() -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as left:
        run_tool(pressed)
    assert (left.value.code, capsys.readouterr().err) == (130, "\nstopped by Ctrl-C\n")


def test_a_name_that_is_not_registered_is_said_without_quotes_around():
    assert said(registry.MODELS.build, dict(type="MeanFuson")).startswith(
        "error: 'MeanFuson' is not in the model registry."
    )


@pytest.mark.parametrize(
    ("group", "config", "wrong", "right"),
    [
        ("MODELS", dict(type="MatchingHead", in_channels=4), "hidden_chanels", "hidden_channels"),
        ("DATASETS", dict(type="RetrievalDataset", ann_file="a", pipeline=[]), "media_foldr", "media_folder"),
        ("DATASETS", dict(type="RetrievalDataset", ann_file="a", pipeline=[]), "num_negative", "num_negatives"),
        ("HOOKS", dict(type="MainProcessLoggerHook"), "intervall", "interval"),
        ("OPTIMIZERS", dict(type="AdamW", params=[torch.nn.Parameter(torch.zeros(1))]), "weight_decy", "weight_decay"),
    ],
    ids=["head", "inherited", "of the class that inherits", "mmengine", "torch"],
)
def test_a_misspelt_option_is_answered_with_the_right_one(group: str, config: dict, wrong: str, right: str):
    message = said(getattr(registry, group).build, config | {wrong: 1})
    assert f" has no option '{wrong}'. Did you mean {right}" in message
    assert right in message.partition("There are: ")[2]


@pytest.mark.parametrize(
    ("group", "config", "message"),
    [
        (
            "DATASETS",
            dict(type="RetrievalDataset", ann_file="a"),
            "MediaDataset needs 'pipeline', which the config",
        ),
        ("DATASETS", dict(type="RetrievalDataset"), "MediaDataset needs 'ann_file' and 'pipeline', which"),
        (
            "MODELS",
            dict(type="MatchingHead"),
            "MatchingHead needs 'in_channels' and 'hidden_channels', which the config does not set.",
        ),
    ],
)
def test_an_option_that_is_missing_is_named(group: str, config: dict, message: str):
    assert said(getattr(registry, group).build, config).startswith(f"error: {message}")


def test_an_option_of_an_unknown_class_keeps_python_s_word():
    assert explain_arguments("Unknown.__init__() got an unexpected keyword argument 'a'") is None
    assert explain_arguments("missing 1 required positional argument: 'a'") is None


class Failing(torch.utils.data.Dataset):
    """Fails as a dataset of ours does."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __len__(self) -> int:
        return 1

    def __getitem__(self, idx: int) -> None:
        raise self.error


def test_an_error_of_a_worker_is_said_without_its_traceback():
    loader = DataLoader(Failing(AnnotationError("a.jsonl, line 3: expected text")), num_workers=1)
    assert said(list, loader) == "error: a.jsonl, line 3: expected text"


@pytest.mark.parametrize("error", [ValueError("of torch"), KeyError("x"), RuntimeError("of torch")])
def test_errors_of_others_are_raised_again(error: Exception):
    with pytest.raises(type(error)) as caught:
        said(DataLoader(Failing(error)).__iter__().__next__)
    assert caught.value is error
