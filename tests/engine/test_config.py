"""Options from the command line: laid over the config, or refused with what was meant."""

from pathlib import Path

import pytest
from mmengine.config import Config

from clipbert_mm.engine.config import load_config
from clipbert_mm.errors import OptionError

TEXT = """
max_epochs = 3
model = dict(type="ClipBert", aggregator=dict(type="MeanAggregator"), norm=dict(eps=1e-5))
train_dataloader = dict(
    batch_size=4,
    dataset=dict(type="RetrievalDataset", pipeline=[dict(type="OpenVideo"), dict(type="ResizePad", size=64)]),
)
train_cfg = dict(type="ResumableEpochTrainLoop", max_epochs=max_epochs)
"""


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A config file."""
    (tmp_path / "base.py").write_text(TEXT)
    (tmp_path / "a.py").write_text('_base_ = ["base.py"]\nmodel = dict(norm=dict(eps=1e-6))\n')
    return str(tmp_path / "a.py")


def get(config: Config, key: str):
    """A setting by its dotted key."""
    node = config
    for part in key.split("."):
        node = node[int(part)] if part.isdigit() else node[part]
    return node


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model.aggregator.type", "MaxAggregator"),
        ("model.aggregator.new", 1),  # the class refuses it where it is built
        ("model.norm.eps", 0.5),
        ("train_dataloader.dataset.pipeline.1.size", 32),
        ("train_dataloader.batch_size", 8),
        ("train_dataloader.num_workers", 2),  # torch's DataLoader knows it
        ("load_from", "a.pth"),  # MMEngine's Runner knows it
        ("train_cfg.max_epochs", 1),
    ],
)
def test_options_are_laid_over_the_config(path: str, key: str, value):
    config = load_config(path, {key: value})
    assert get(config, key) == value
    # All else stays as it is.
    before = load_config(path)
    if key != "model.norm.eps":
        assert config.model.norm.eps == before.model.norm.eps == 1e-6
    assert config.train_dataloader.dataset.pipeline[0] == dict(type="OpenVideo")


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (
            "modle.aggregator.type",
            r"--cfg-options modle\.aggregator\.type: the config has no 'modle'\. Did you mean model\?",
        ),
        ("model.agregator.type", ""),  # goes into a dict with a type, which refuses it where it is built
        ("model.norm.epsilon", r"the config has no 'epsilon' in model\.norm\.( Did you mean eps\?| There are: eps\.)"),
        ("train_dataloader.batchsize", r"no 'batchsize' in train_dataloader\. Did you mean .*batch_size"),
        ("train_dataloader.dataset.pipeline.2.size", r"'2' is no index of a list of 2"),
        ("train_dataloader.dataset.pipeline.ResizePad.size", r"'ResizePad' is no index of a list of 2"),
        ("train_dataloader.batch_size.x", r"train_dataloader\.batch_size is 4, which has no 'x'"),
        ("loadfrom", r"the config has no 'loadfrom'\. Did you mean load_from\?"),
        (
            "max_epochs",
            r"'max_epochs' is a variable of the config file; settings computed from it do not follow a change",
        ),
    ],
)
def test_options_that_would_set_nothing_are_refused(path: str, key: str, message: str):
    if not message:
        assert load_config(path, {key: 1}).model.agregator.type == 1
        return
    with pytest.raises(OptionError, match=message):
        load_config(path, {key: 1})


def test_a_missing_config_is_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=rf"There is no config {tmp_path}/none\.py\."):
        load_config(str(tmp_path / "none.py"))


def test_a_config_that_misspells_what_a_run_reads_is_refused(tmp_path: Path):
    (tmp_path / "a.py").write_text("model = dict(type='X')\noptim_wraper = dict(type='OptimWrapper')\n")
    with pytest.raises(OptionError, match=r"'optim_wraper' is not used by anything\. Did you mean optim_wrapper\?"):
        load_config(str(tmp_path / "a.py"))


def test_a_config_without_what_is_needed_is_refused(tmp_path: Path):
    (tmp_path / "a.py").write_text("model = dict(type='X')\n")
    with pytest.raises(OptionError, match=r"needs test_dataloader for this\. It has: model\."):
        load_config(str(tmp_path / "a.py"), needs=("model", "test_dataloader"))


def test_options_stay_as_they_are():
    def read() -> Config:
        return load_config(Config(dict(model=dict(type="A", depth=18))), options)

    options = {"model": dict(_delete_=True, type="B")}
    assert read().model == read().model == dict(type="B")
