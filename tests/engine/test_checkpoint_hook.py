"""When checkpoints are written, which are kept, and how a training answers a signal to stop."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from faulty_runs import assert_same_training
from hook_runs import Saved, begin, load, names, with_validation
from mmengine.config import Config
from mmengine.hooks import Hook

from clipbert_mm.checkpoint import CheckpointError, find_latest
from clipbert_mm.checkpoint.archives import load_torch
from clipbert_mm.engine import StoppedBySignal
from clipbert_mm.errors import ClipBertError
from clipbert_mm.registry import HOOKS


class At(Hook):
    """Does something after an iteration of training, before anything is saved."""

    def __init__(self, iteration: int, act: Any) -> None:
        self.iteration, self.act = iteration, act

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        if runner.iter + 1 == self.iteration:
            self.act(runner)


class Forbidden(Hook):
    """Fails if anything is trained or validated."""

    def before_train(self, runner) -> None:
        raise AssertionError("it trains")

    def before_val(self, runner) -> None:
        raise AssertionError("it validates")


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Let Ctrl-C interrupt as in the foreground of a shell, wherever the tests run."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_regular_ones_are_kept_and_older_removed(config: Config):
    saved = Saved()
    begin(config, saved, interval=1, max_keep_ckpts=2).train()
    ends = [saved.files[i] for i in (5, 6, 12, 13, 19, 20)]  # the last iteration of each epoch, and its end
    assert ends == [
        set(),
        {"epoch_1"},
        {"epoch_1"},
        {"epoch_1", "epoch_2"},
        {"epoch_1", "epoch_2"},
        {"epoch_2", "epoch_3"},
    ]
    assert names(config) == ["epoch_2.pth", "epoch_3.pth", "last_checkpoint"]
    assert Path(config.work_dir, "last_checkpoint").read_text() == "epoch_3.pth"


def test_checkpoints_in_another_folder_are_gone_on_from(config: Config, tmp_path: Path):
    settings = dict(interval=1, out_dir=str(tmp_path / "big"))
    begin(config, **settings).train()
    assert names(config) == ["last_checkpoint"]
    config.resume = True
    config.train_cfg.max_epochs = 4
    assert begin(config, **settings).train() is not None
    assert (tmp_path / "big" / "work" / "epoch_4.pth").is_file()
    assert not (tmp_path / "big" / "work" / "epoch_5.pth").exists()


def test_s6_the_names_of_a_checkpoint_delete_nothing_but_checkpoints_of_the_work_folder(config: Config, tmp_path: Path):
    begin(config, interval=1).train()
    victims = [tmp_path / "victim.pth", tmp_path / "work" / "victim.txt", tmp_path / "best.pth"]
    for victim in victims:
        victim.write_text("keep")
    path = Path(config.work_dir) / "epoch_1.pth"
    content = load_torch(path, mmap=False)
    hub = content["message_hub"]
    wrong = [str(victims[0]), "../victim.pth", str(victims[1]), "victim.txt", "..", "", "/", 3, None, "iter_1.pth\0"]
    for key, value in {"passing_checkpoints": [*wrong, "a.pth", "b.pth"], "best_ckpt": str(victims[2])}.items():
        hub["runtime_info"][key], hub["resumed_keys"][key] = value, True
    hub["runtime_info"]["regular_checkpoints"] = 5
    torch.save(content, path)
    with_validation(config)
    config.update(resume=str(path))
    begin(config, interval=1, save_best="t2v/MnR").train()
    assert [victim.read_text() for victim in victims] == ["keep"] * 3
    assert "best_ckpt" in load(config, "epoch_3")["message_hub"]["runtime_info"]


def test_s6_a_copied_work_folder_goes_on_without_touching_the_first(config: Config):
    with_validation(config)
    del config.default_hooks["early_stopping"]
    config.train_cfg.max_epochs = 2
    scores = iter([4.0, 3.0, 3.0, 2.0])  # the last validation of a run is done again
    settings = dict(interval=1, save_best="t2v/MnR", max_keep_ckpts=1)

    def train() -> None:
        runner = begin(config, **settings)
        runner.val_evaluator.evaluate = lambda size: {"t2v/MnR": next(scores)}
        runner.train()

    train()
    first = Path(config.work_dir)
    # As releases before wrote them: with the folder of the machine that they ran on.
    content = load(config, "epoch_2")
    info = content["message_hub"]["runtime_info"]
    assert (info["last_ckpt"], info["best_ckpt"]) == ("epoch_2.pth", "best_t2v_MnR_epoch_1.pth")
    info.update({key: str(first / info[key]) for key in ("best_ckpt", "last_ckpt")})
    torch.save(content, first / "epoch_2.pth")
    (first / "last_checkpoint").write_text(str(first / "epoch_2.pth"))
    shutil.copy(first / "best_t2v_MnR_epoch_2.pth", first / "best_t2v_MnR_epoch_1.pth")
    before = {path: path.stat().st_mtime_ns for path in first.rglob("*") if path.is_file()}
    config.work_dir += "-copy"
    shutil.copytree(first, config.work_dir)
    config.resume, config.train_cfg.max_epochs = True, 3
    train()
    assert {path: path.stat().st_mtime_ns for path in first.rglob("*") if path.is_file()} == before
    assert names(config) == ["best_t2v_MnR_epoch_3.pth", "epoch_3.pth", "last_checkpoint"]


def test_by_the_clock_the_two_newest_are_kept_until_the_end(config: Config):
    saved = Saved()
    begin(config, saved, interval=2, minutes=1e-9, max_keep_ckpts=1).train()
    between = [sorted(files, key=lambda name: int(name.partition("_")[2])) for files in saved.files]
    assert between[:6] == [
        ["iter_1"],
        ["iter_1", "iter_2"],
        ["iter_2", "iter_3"],
        ["iter_3", "iter_4"],
        ["iter_4", "iter_5"],
        ["iter_4", "iter_5"],  # the last iteration is left to the epoch's end
    ]
    assert between[6] == ["iter_5", "iter_6"]
    assert set(between[13]) == {"iter_10", "iter_11", "epoch_2"}
    assert names(config) == ["epoch_3.pth", "last_checkpoint"]


def test_interim_checkpoints_of_the_last_release_are_removed_too(config: Config):
    settings = dict(interval=3, minutes=1e-9)
    with pytest.raises(StoppedBySignal):
        begin(config, At(5, lambda runner: os.kill(os.getpid(), signal.SIGTERM)), **settings).train()
    assert names(config) == ["iter_4.pth", "iter_5.pth", "last_checkpoint"]
    content = load(config, "iter_5")
    for part in ("runtime_info", "resumed_keys"):
        entries = content["message_hub"][part]
        entries["passing_checkpoints"] = entries.pop("interim_checkpoints")
    torch.save(content, Path(config.work_dir) / "iter_5.pth")
    config.resume = True
    begin(config, **settings).train()
    assert names(config) == ["epoch_3.pth", "last_checkpoint"]


def test_by_steps_of_the_optimizer(config: Config):
    config.optim_wrapper.accumulative_counts = 2  # three steps an epoch
    begin(config, interval=2, by_epoch=False).train()
    assert names(config) == [*(f"iter_{step}.pth" for step in (2, 4, 6, 8, 9)), "last_checkpoint"]
    assert [load(config, f"iter_{step}")["meta"]["epoch"] for step in (2, 4, 6, 9)] == [0, 1, 2, 3]


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize(
    ("notice", "at"), [(signal.SIGTERM, 3), (signal.SIGTERM, 4), (signal.SIGUSR1, 3), (signal.SIGINT, 4)]
)
def test_a_signal_saves_at_the_next_step_and_the_run_goes_on_exactly(config: Config, notice: signal.Signals, at: int):
    config.optim_wrapper.accumulative_counts = 4  # two steps an epoch, of four batches and of two
    begin(config, interval=3).train()
    whole = load(config, "epoch_3")
    config.work_dir += "-cut"
    before = signal.getsignal(notice)
    with pytest.raises(StoppedBySignal) as caught:
        begin(config, At(at, lambda runner: os.kill(os.getpid(), notice)), interval=3).train()
    assert caught.value.code == (130 if notice == signal.SIGINT else 75)
    assert signal.getsignal(notice) == before
    assert names(config) == [f"iter_{at}.pth", "last_checkpoint"]
    meta = load(config, f"iter_{at}")["meta"]
    assert (meta["epoch"], meta["iter"]) == (at // 2, at)
    config.resume = True
    begin(config, interval=3).train()
    assert_same_training(load(config, "epoch_3"), whole)
    assert names(config) == ["epoch_3.pth", "last_checkpoint"]


@pytest.mark.usefixtures("ctrl_c")
def test_a_second_ctrl_c_stops_at_once(config: Config, capfd: pytest.CaptureFixture):
    def press(runner: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        assert capfd.readouterr().err == (
            "\nCtrl-C: saving after this step; Ctrl-C again stops at once, without saving.\n"
        )
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("the second one is not taken")

    with pytest.raises(KeyboardInterrupt):
        begin(config, At(3, press), interval=3).train()
    assert names(config) == []
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_that_a_shell_ignores_is_ignored(config: Config):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    config.train_cfg.max_epochs = 1
    begin(config, At(3, lambda runner: os.kill(os.getpid(), signal.SIGINT)), interval=1).train()
    assert names(config) == ["epoch_1.pth", "last_checkpoint"]


@pytest.mark.parametrize("validates", [False, True])
def test_a_finished_run_is_not_resumed(config: Config, validates: bool, caplog: pytest.LogCaptureFixture):
    config.log_level = "INFO"
    if validates:
        with_validation(config)
        del config.default_hooks["early_stopping"]
    config.train_cfg.max_epochs = 1
    begin(config, interval=1).train()
    files = {path: path.stat().st_mtime_ns for path in Path(config.work_dir).glob("*.pth")}

    def resume(*hooks: Hook) -> list[str]:
        caplog.clear()
        config.update(resume=True, load_from=None)
        runner = begin(config, *hooks, interval=1)
        runner.logger.addHandler(caplog.handler)
        runner.train()
        return [record.getMessage() for record in caplog.records]

    lines = resume(Forbidden())
    path = f"{config.work_dir}/epoch_1.pth"
    finished = (
        f"Finished already: {path} has all 1 epochs. Test it with tools/test.py, or raise max_epochs of train_cfg to "
    )
    finished += "train on."
    assert lines[-1] == finished
    assert {path: path.stat().st_mtime_ns for path in Path(config.work_dir).glob("*.pth")} == files
    if validates:  # a run that was killed in its last validation does it again, once
        (Path(config.work_dir) / "finished").unlink()
        lines = resume()
        assert f"{path} has all 1 epochs; its last validation may be missing." in lines
        assert any("t2v/R@1" in line for line in lines)
        assert resume(Forbidden())[-1] == finished
    config.train_cfg.max_epochs = 2
    resume()
    assert "epoch_2.pth" in names(config)


class Killed(BaseException):
    """A kill that leaves no time for anything."""


class KillValidation(Hook):
    """Ends a run as it validates an epoch."""

    def before_val_epoch(self, runner) -> None:
        if runner.epoch == 2:
            raise Killed


def test_a_validation_that_was_cut_is_done_again(config: Config):
    with_validation(config)
    config.train_cfg.max_epochs = 4
    begin(config, interval=1, max_keep_ckpts=1, save_best="t2v/MnR").train()
    assert load(config, "epoch_3")["message_hub"]["runtime_info"]["epoch"] == 2, "early stopping ends it after three"
    whole = load(config, "epoch_3")
    best = next(name for name in names(config) if name.startswith("best_"))
    config.work_dir += "-cut"
    with pytest.raises(Killed):
        begin(config, KillValidation(), interval=1, max_keep_ckpts=1, save_best="t2v/MnR").train()
    config.resume = True
    begin(config, interval=1, max_keep_ckpts=1, save_best="t2v/MnR").train()
    assert_same_training(load(config, "epoch_3"), whole)
    assert names(config) == [best, "epoch_3.pth", "last_checkpoint"]


@pytest.mark.parametrize("wrong", ["intervall", "file_client_arg", "max_keep"])
def test_a_misspelt_setting_is_refused_at_the_start(config: Config, wrong: str):
    with pytest.raises(TypeError, match=rf"unexpected keyword argument '{wrong}'"):
        HOOKS.build(dict(type="FaultTolerantCheckpointHook", interval=1, **{wrong: 1}))


def test_minutes_are_positive():
    with pytest.raises(ValueError, match="expects minutes > 0, got 0"):
        HOOKS.build(dict(type="FaultTolerantCheckpointHook", minutes=0))


def test_weights_that_are_no_numbers_do_not_take_the_place_of_good_ones(config: Config):
    def ruin(runner: Any) -> None:
        runner.model.head.classifier[0].weight.data[0, 0] = float("nan")

    with pytest.raises(
        CheckpointError, match=r"iter_12\.pth is not written: 1 of the \d+ tensors .*head\.classifier\.0\.weight"
    ):
        begin(config, At(12, ruin), interval=6, by_epoch=False).train()
    assert names(config) == ["iter_6.pth", "last_checkpoint"]


def test_a_loss_that_is_no_number_ends_the_training(config: Config, world: Path):
    def ruin(runner: Any) -> None:
        runner.model.head.classifier[0].weight.data[0, 0] = float("nan")

    config.default_hooks.finite_loss = dict(type="FiniteLossHook")
    with pytest.raises(FloatingPointError) as caught:
        begin(config, At(9, ruin), interval=1).train()
    message = str(caught.value)
    assert message.startswith(
        "The loss is not finite at step 10 (epoch 2, batch 4), process 0: loss nan, loss_match nan. The last good checkpoint "
        f"is {config.work_dir}/epoch_1.pth. Lower the learning rate"
    )
    listed = message.splitlines()[1:]
    assert len(listed) == 4
    assert all(line.startswith(f"  {world}/videos/train_0000") for line in listed)
    assert names(config) == ["epoch_1.pth", "last_checkpoint"]


def test_a_run_goes_on_only_with_the_same_batches(config: Config):
    with pytest.raises(StoppedBySignal):
        begin(config, At(8, lambda runner: os.kill(os.getpid(), signal.SIGTERM)), interval=1).train()
    config.resume = True
    config.train_dataloader.batch_size = 3
    with pytest.raises(
        CheckpointError, match="cut after step 2 of 6 of an epoch with 4 items per step over all processes; now an "
    ):
        begin(config, interval=1).train()
    assert find_latest(config.work_dir)[0].endswith("iter_8.pth")


def test_a_seed_that_was_drawn_is_that_of_the_resumed_run_too(config: Config):
    config.randomness.seed = None
    begin(config, interval=1).train()
    whole = load(config, "epoch_3")
    config.resume = str(Path(config.work_dir) / "epoch_1.pth")
    begin(config, interval=1).train()
    assert_same_training(load(config, "epoch_3"), whole)


def test_broken_files_are_counted_on(config: Config, own_world: Path, break_file):
    break_file(own_world / "videos" / "train_00003.mp4", "empty")
    config.train_dataloader.dataset.data_root = str(own_world)
    config.default_hooks.broken_media.max_share = 0.5
    with pytest.raises(StoppedBySignal):
        begin(config, At(5, lambda runner: os.kill(os.getpid(), signal.SIGTERM)), interval=1).train()
    counted = load(config, "iter_5")["ranks"][0]["hooks"]["BrokenMediaHook"]
    assert counted["replaced"] > 0
    config.resume, config.default_hooks.broken_media.max_share = True, 0.12
    with pytest.raises(ClipBertError, match="3 of 24 items were replaced in this epoch; 1 files"):
        begin(config, interval=1).train()
