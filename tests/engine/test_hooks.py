"""Hooks of training: other draws each epoch, broken files counted, checkpoints checked."""

import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook

from clipbert_mm.checkpoint import CheckpointError
from clipbert_mm.engine import BrokenMediaHook, CheckpointCompatibilityHook
from clipbert_mm.engine.launch import build_runner
from clipbert_mm.errors import ClipBertError
from clipbert_mm.structures import VideoTextSample


class CatchWeights(Hook):
    """Notes the weights that training begins with."""

    def before_train(self, runner) -> None:
        self.weights = {name: value.clone() for name, value in runner.model.state_dict().items()}


class CatchItems(Hook):
    """Notes which frames and texts each item of each epoch had."""

    def __init__(self) -> None:
        self.epochs: list[dict[int, str]] = []

    def before_train_epoch(self, runner) -> None:
        self.epochs.append({})

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        for frames, sample in zip(data_batch["inputs"]["frames"], data_batch["data_samples"], strict=True):
            self.epochs[-1][sample.sample_idx] = f"{frames.long().sum().item()} {sample.texts}"


def items_of_training(config: Config) -> list[dict[int, str]]:
    """Train and note the items."""
    notes = CatchItems()
    runner = build_runner(config)
    runner.register_hook(notes)
    runner.train()
    return notes.epochs


def test_every_epoch_draws_anew_and_the_seed_draws_the_same(runner_config: Config):
    runner_config.train_cfg.max_epochs = 2
    runner_config.train_dataloader.update(num_workers=1, persistent_workers=True)
    first, second = items_of_training(runner_config)
    assert first.keys() == second.keys() == set(range(24))
    assert not any(first[idx] == second[idx] for idx in first)
    runner_config.experiment_name += "-again"
    runner_config.train_dataloader.update(num_workers=0, persistent_workers=False)
    assert items_of_training(runner_config) == [first, second]
    runner_config.experiment_name += "-other"
    runner_config.randomness.seed = 6
    runner_config.train_cfg.max_epochs = 1
    assert items_of_training(runner_config)[0] != first


def test_replaced_files_are_reported_at_the_end_of_the_epoch(
    runner_config: Config, own_world: Path, break_file, caplog: pytest.LogCaptureFixture
):
    broken = break_file(own_world / "videos" / "train_00003.mp4", "no head")
    runner_config.train_dataloader.dataset.data_root = str(own_world)
    runner_config.default_hooks.broken_media.max_share = 0.5
    runner_config.default_hooks.checkpoint.interval = 1
    runner = build_runner(runner_config)
    runner.logger.addHandler(caplog.handler)
    runner.train()
    report = next(record for record in caplog.records if "were replaced" in record.getMessage())
    assert report.levelno == logging.WARNING
    # Its three captions are three items.
    assert report.getMessage().startswith("3 of 24 items were replaced in this epoch; 1 files cannot be read:")
    assert f"{broken}: not a video, or cut short" in report.getMessage()
    assert Path(runner_config.work_dir, "epoch_1.pth").is_file()


def test_too_many_replaced_files_end_the_run(runner_config: Config, own_world: Path, break_file):
    broken = [str(own_world / "videos" / f"train_0000{i}.mp4") for i in (1, 4)]

    class BreaksMeanwhile(Hook):
        def before_train_epoch(self, runner) -> None:
            for path in broken:
                break_file(Path(path), "empty")

    runner_config.train_dataloader.dataset.data_root = str(own_world)
    runner_config.train_dataloader.num_workers = 1
    runner = build_runner(runner_config)
    runner.register_hook(BreaksMeanwhile())
    with pytest.raises(ClipBertError) as caught:
        runner.train()
    message = str(caught.value)
    assert message.startswith("6 of 24 items were replaced in this epoch; 2 files cannot be read:")
    assert all(f"{path}: the file is empty (0 bytes)" in message for path in broken)
    assert "BrokenMediaHook allows a share of 0.05. Repair or remove the files, or raise max_share." in message


@pytest.mark.parametrize(("max_share", "fails"), [(0.1, False), (0.0999, True)])
def test_the_share_allowed_is_of_all_items(max_share: float, fails: bool, caplog: pytest.LogCaptureFixture):
    hook = BrokenMediaHook(max_share=max_share)
    logger = logging.getLogger("test_the_share_allowed")
    runner = SimpleNamespace(train_dataloader=SimpleNamespace(dataset=range(100)), logger=logger)

    def epoch(broken: int) -> None:
        hook.before_train_epoch(runner)
        for i in range(100):
            replaced = [(f"{i:03d}.mp4", "cut")] if i < broken else []
            hook.after_train_iter(runner, i, {"data_samples": [VideoTextSample(metainfo=dict(replaced=replaced))]})
        hook.after_train_epoch(runner)

    epoch(0)
    assert not caplog.records
    if fails:
        with pytest.raises(ClipBertError, match="10 of 100 items"):
            epoch(10)
    else:
        epoch(10)
        epoch(10)  # counts from nothing again
        reports = [record.getMessage() for record in caplog.records]
        assert len(reports) == 2
        assert "10 of 100 items" in reports[1]
        assert "  004.mp4: cut\n  and 5 more" in reports[1]
        assert "005.mp4" not in reports[1]


def test_training_may_begin_with_part_of_a_checkpoint_and_says_which(
    runner_config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    source = build_runner(runner_config).model.state_dict()
    part = {name: torch.full_like(value, 0.25) for name, value in source.items() if name.startswith("encoder.bert")}
    torch.save(part | {"mlm_head.bias": torch.zeros(3)}, tmp_path / "part.pth")
    runner_config.load_from = str(tmp_path / "part.pth")
    runner_config.experiment_name += "-part"
    runner_config.log_level = "INFO"
    runner = build_runner(runner_config)
    runner.logger.addHandler(caplog.handler)
    at_first = CatchWeights()
    runner.register_hook(at_first)
    runner.train()
    (found,) = (record.getMessage() for record in caplog.records if record.getMessage().startswith("weights from"))
    assert found.splitlines() == [
        f"weights from {tmp_path}/part.pth (clipbert_mm's)",
        f"  loaded: {len(part)} of the model's {len(source)} tensors: encoder.bert",
        f"  missing (new): {len(source) - len(part)}: backbone, projection, encoder.visual_embedding, head",
        "  unexpected (not used): 1: mlm_head",
        "  wrong shape: 0",
    ]
    assert all((at_first.weights[name] == 0.25).all() for name in part)


def test_a_reinitialized_head_keeps_its_first_values(runner_config: Config, tmp_path: Path):
    model = build_runner(runner_config).model.state_dict()
    saved = {name: torch.full_like(value, 0.25) for name, value in model.items()}
    torch.save(saved, tmp_path / "a.pth")
    starts = []
    for reinit, load_from in (((), None), (("head",), str(tmp_path / "a.pth"))):
        runner_config.default_hooks.checkpoint_fit.reinit, runner_config.load_from = reinit, load_from
        runner_config.experiment_name += "-next"
        runner = build_runner(runner_config)
        starts.append(CatchWeights())
        runner.register_hook(starts[-1])
        runner.train()
    for name, value in starts[1].weights.items():
        assert torch.equal(value, (starts[0].weights if name.startswith("head.") else saved)[name]), name


def test_a_reinitialized_head_lets_other_answers_be_trained_but_not_tested(runner_config: Config, tmp_path: Path):
    source = build_runner(runner_config).model.state_dict()
    other = source | {"head.classifier.2.weight": torch.ones(9, 32), "head.classifier.2.bias": torch.ones(9)}
    torch.save(other, tmp_path / "a.pth")
    runner_config.load_from = str(tmp_path / "a.pth")
    use = "answers of the head: checkpoint 9, model 2; .* Use the config"
    message = r"answers of the head: checkpoint 9, model 2; .* Set reinit=\['head'\] of CheckpointCompatibilityHook"
    for reinit, task, words in (
        ((), "train", message),
        (("head",), "train", None),
        (("head",), "test", use),
    ):
        runner_config.default_hooks.checkpoint_fit.reinit = reinit
        runner_config.experiment_name += "-next"
        run = getattr(build_runner(runner_config), task)
        if words is None:
            run()
        else:
            with pytest.raises(CheckpointError, match=words):
                run()


def test_the_share_of_weights_that_a_part_needs(runner_config: Config, tmp_path: Path):
    model = build_runner(runner_config).model.state_dict()
    names = [name for name in model if name.startswith("encoder.bert.encoder.")]
    torch.save({name: model[name] for name in names[:24]}, tmp_path / "part.pth")
    runner_config.load_from = str(tmp_path / "part.pth")
    for min_share in (0.75, 0.76):  # 24 of 32 are 0.75
        runner_config.default_hooks.checkpoint_fit.min_share = min_share
        runner_config.experiment_name += "-next"
        runner = build_runner(runner_config)
        if min_share == 0.75:
            runner.train()
            continue
        with pytest.raises(
            CheckpointError, match=r"has 24 of the 32 tensors of the model's encoder\.bert\.encoder; .* 0\.76"
        ):
            runner.train()


def test_the_old_name_of_reinit_is_taken_with_a_warning():
    with pytest.warns(FutureWarning, match=r"fresh of CheckpointCompatibilityHook is deprecated .* Use reinit\."):
        assert CheckpointCompatibilityHook(fresh=["head"]).reinit == ("head",)


@pytest.mark.parametrize(
    ("options", "got"),
    [
        (dict(min_share=1.01), r"1\.01 and \(\)"),
        (dict(min_share=-0.1), "-0.1"),
        (dict(reinit="head"), "0.95 and 'head'"),
    ],
)
def test_what_the_fit_hook_takes(options: dict, got: str):
    with pytest.raises(ValueError, match=rf"expects min_share in \[0, 1\] and reinit a list, got {got}"):
        CheckpointCompatibilityHook(**options)


@pytest.mark.parametrize("task", ["test", "resume"])
def test_testing_and_resuming_need_every_weight(runner_config: Config, tmp_path: Path, task: str):
    whole = build_runner(runner_config).model.state_dict()
    hub = dict(log_scalars={}, runtime_info={}, resumed_keys={})
    training = dict(meta=dict(epoch=0, iter=0), optimizer={}, message_hub=hub)
    part = {name: whole[name] for name in list(whole)[:5]}
    torch.save({"state_dict": part, **training}, tmp_path / "part.pth")
    runner_config.load_from, runner_config.experiment_name = str(tmp_path / "part.pth"), tmp_path.name + "-part"
    runner_config.resume = task == "resume"
    runner = build_runner(runner_config)
    message = rf"does not fit the model: it lacks {list(whole)[5]}\.(.|\n)* 5 of the model's {len(whole)} "
    with pytest.raises(CheckpointError, match=message):
        runner.test() if task == "test" else runner.train()


def test_a_checkpoint_of_another_shape_never_reaches_the_model(runner_config: Config, tmp_path: Path):
    source = build_runner(runner_config).model.state_dict()
    name = "encoder.bert.embeddings.word_embeddings.weight"
    other = {key: torch.full_like(value, 0.125) for key, value in source.items()} | {name: torch.zeros(300, 16)}
    torch.save(other, tmp_path / "other.pth")
    runner_config.load_from, runner_config.experiment_name = str(tmp_path / "other.pth"), tmp_path.name + "-other"
    runner = build_runner(runner_config)
    with pytest.raises(CheckpointError, match=r"word_embeddings\.weight: checkpoint \(300, 16\), model \(200, 16\)"):
        runner.train()
    assert not any((value == 0.125).any() for value in runner.model.state_dict().values())
