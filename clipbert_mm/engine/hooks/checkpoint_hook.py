"""When a training writes checkpoints, which of them are kept, and how it stops on a signal."""

import os
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import mmengine.hooks
from mmengine.config import Config
from mmengine.runner import EpochBasedTrainLoop, Runner

from clipbert_mm.checkpoint.writing import note_finished, note_last, prepare_folder
from clipbert_mm.compat.optim import GREATER_METRICS, LESS_METRICS
from clipbert_mm.engine.bare_model import expect_clipbert_runner
from clipbert_mm.engine.signals import EXIT_AGAIN, RankMax, StoppedBySignal, StopSignal
from clipbert_mm.errors import OptionError, quoted
from clipbert_mm.processes import EXIT_INTERRUPTED
from clipbert_mm.registry import HOOKS

NOTHING, SAVE, STOP, INTERRUPT = range(4)
INTERIM_KEPT = 2
"""How many of the interim checkpoints, between the regular ones, are kept."""


def checkpoint_folders(work_dir: str, config: Config) -> list[str]:
    """Return the folders that a training resumes from: the work folder and, if ``out_dir`` is set, that of its checkpoints."""
    hooks = config.get("default_hooks") or {}
    return _folders(work_dir, (hooks.get("checkpoint") or {}).get("out_dir"))


def _folders(work_dir: str, out_dir: str | None) -> list[str]:
    if out_dir is None:
        return [work_dir]
    return [work_dir, os.path.join(out_dir, os.path.basename(os.path.abspath(work_dir)))]


def resume_command(arguments: Sequence[str]) -> str:
    """Return the command that resumes a training.

    Args:
        arguments: The command line of tools/train.py, its own path first.

    >>> resume_command(["tools/train.py", "a.py", "--resume", "old.pth", "--amp"])
    'python tools/train.py a.py --amp --resume'
    """
    kept: list[str] = []
    for before, argument in zip(["", *arguments], arguments, strict=False):
        is_value = before == "--resume" and not argument.startswith("-")
        if not is_value and argument.partition("=")[0] != "--resume":
            kept.append(argument)
    return shlex.join(["python", *kept, "--resume"])


def file_names(values: object) -> list[str]:
    """Return paths of a checkpoint's message hub as file names; what is no path of a checkpoint is left out."""
    named = [os.path.basename(value) for value in values if isinstance(value, str)] if isinstance(values, list) else []
    return [name for name in named if name.endswith(".pth") and name.isprintable()]


@HOOKS.register_module()
class FaultTolerantCheckpointHook(mmengine.hooks.CheckpointHook):
    """MMEngine's CheckpointHook that also saves by the clock and on a signal to stop, so that a kill costs minutes.

    Old checkpoints are removed once the new one is complete. On SIGTERM, SIGUSR1 or Ctrl-C the training saves after the current
    step of the optimizer, and all its processes end with exit status 75, or 130 after Ctrl-C.

    Args:
        interval: Epochs between regular checkpoints, or steps of the optimizer if not ``by_epoch``; -1 for none.
        by_epoch: Whether ``interval`` counts epochs.
        minutes: Minutes after which an interim checkpoint is written, ``iter_N.pth`` after N iterations; the two newest are
            kept until training ends. None for none.
        save_begin: Epochs (steps) before the first regular checkpoint.
        save_last: Whether a regular checkpoint is written at the end of training in any case.
        max_keep_ckpts: Most regular checkpoints; -1 keeps all.
        save_best: Metrics by which the best weights are kept, ``best_METRIC_epoch_N.pth``; "auto" takes the first.
        rule: "greater" or "less" for each metric; None decides by the metric's name.
        greater_keys: Parts of the names of metrics that are better when greater; None for the usual.
        less_keys: Parts of the names of metrics that are better when less; None for the usual.
        out_dir: Folder for checkpoints other than the work folder; a folder of the work folder's name is made in it.
        filename_tmpl: File name of a regular checkpoint, with "{}" for the epoch or iteration.
        save_optimizer: Whether regular checkpoints can be resumed from.
        save_param_scheduler: Whether regular checkpoints have the state of the schedule.
        published_keys: Entries, such as ``["state_dict", "meta"]``, that the last and the best checkpoint are published with at
            the end, in files whose names end with a part of their SHA-256. None publishes none.
        file_client_args: As in MMEngine; must be None, since checkpoints are written to a file system.
        backend_args: The same.

    In a training by iterations an epoch of these settings is a pass over the dataset.

    Raises:
        OptionError: If ``minutes`` is not positive, or checkpoints are to go to something else than a file system.
    """

    interval: int
    save_begin: int
    filename_tmpl: str
    out_dir: Any
    save_best: Any
    _default_greater_keys: ClassVar = [*mmengine.hooks.CheckpointHook._default_greater_keys, *GREATER_METRICS]
    _default_less_keys: ClassVar = [*mmengine.hooks.CheckpointHook._default_less_keys, *LESS_METRICS]

    def __init__(
        self,
        *,
        interval: int = -1,
        by_epoch: bool = True,
        minutes: float | None = None,
        save_begin: int = 0,
        save_last: bool = True,
        max_keep_ckpts: int = -1,
        save_best: str | list[str] | None = None,
        rule: str | list[str] | None = None,
        greater_keys: Sequence[str] | None = None,
        less_keys: Sequence[str] | None = None,
        out_dir: str | None = None,
        filename_tmpl: str | None = None,
        save_optimizer: bool = True,
        save_param_scheduler: bool = True,
        published_keys: str | list[str] | None = None,
        file_client_args: dict | None = None,
        backend_args: dict | None = None,
    ) -> None:
        if file_client_args or backend_args:
            raise OptionError(
                "FaultTolerantCheckpointHook writes to a file system, got "
                f"{quoted(file_client_args or backend_args)}. Mount the storage, set out_dir, and leave file_client_args and "
                "backend_args out."
            )
        if minutes is not None and minutes <= 0:
            raise OptionError(
                f"FaultTolerantCheckpointHook expects minutes > 0, got {minutes}. Leave minutes out to save none by the clock."
            )
        super().__init__(
            interval=interval,
            by_epoch=by_epoch,
            save_begin=save_begin,
            save_last=save_last,
            max_keep_ckpts=max_keep_ckpts,
            save_best=save_best,
            rule=rule,
            greater_keys=greater_keys,
            less_keys=less_keys,
            out_dir=out_dir,
            filename_tmpl=filename_tmpl,
            save_optimizer=save_optimizer,
            save_param_scheduler=save_param_scheduler,
            published_keys=published_keys,
        )
        self.minutes = minutes
        self.kept: dict[str, list[str]] = {}

    def before_train(self, runner: Runner) -> None:
        """Watch for signals, check that checkpoints can be written, and take over those of the resumed run.

        Raises:
            CheckpointError: If the folder cannot be made or written to.
        """
        if not self._has_epochs(runner) and self.by_epoch:
            self._count_passes(runner)
        self.stop_signal = runner.while_training.enter_context(StopSignal().watching())
        folders = _folders(runner.work_dir, self.out_dir)
        self.out_dir = folders[-1]
        if runner.rank == 0:
            for folder in folders:
                prepare_folder(folder)
            note_finished(runner.work_dir, None)
        runner.logger.info(f"Checkpoints will be saved to {self.out_dir}.")
        self.rank_max = RankMax()
        hub = runner.message_hub
        older = hub.get_info("passing_checkpoints")  # the name in older checkpoints
        interim = hub.get_info("interim_checkpoints", older)
        self.kept = {"regular": file_names(hub.get_info("regular_checkpoints")), "interim": file_names(interim)}
        self.saved_iter = runner.iter if runner.resumed is not None else -1
        self.saved_time = time.monotonic()
        self._remove_outdated(runner)

    def before_run(self, runner: Runner) -> None:
        """Check that the runner writes checkpoints as this hook needs them.

        Raises:
            OptionError: If it does not.
        """
        expect_clipbert_runner(runner, type(self).__name__)

    @staticmethod
    def _has_epochs(runner: Runner) -> bool:
        return isinstance(runner.train_loop, EpochBasedTrainLoop)

    def _count_passes(self, runner: Runner) -> None:
        """Count iterations, of which a pass over the dataset has as many as an epoch."""
        steps = len(runner.train_dataloader)
        self.by_epoch = False
        self.interval, self.save_begin = max(-1, self.interval * steps), self.save_begin * steps
        if self.filename_tmpl == "epoch_{}.pth":
            self.filename_tmpl = "iter_{}.pth"
        every = f"every {self.interval} iterations, " if self.interval > 0 else ""
        runner.logger.info(
            f"Regular checkpoints: {every}counted in passes of {steps} iterations over the dataset, since the training has no "
            "epochs. Set by_epoch=False of the checkpoint hook to count iterations."
        )

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:  # noqa: ANN401
        """Save what is due after a step; after the last step of an epoch, :meth:`after_train_epoch` does it."""
        if batch_idx + 1 < len(runner.train_dataloader) or not self._has_epochs(runner):
            self._after_step(runner, epoch=runner.epoch, done=runner.iter + 1)

    def after_train_epoch(self, runner: Runner) -> None:
        """Save what is due at the end of an epoch."""
        if not self._has_epochs(runner):
            return
        last = self.save_last and runner.epoch + 1 == runner.max_epochs
        if self.by_epoch and (last or self.every_n_epochs(runner, self.interval, self.save_begin)):
            name = self.filename_tmpl.format(runner.epoch + 1)
            self._save(runner, name, "regular", epoch=runner.epoch + 1, done=runner.iter)
        self._after_step(runner, epoch=runner.epoch + 1, done=runner.iter)

    def after_train(self, runner: Runner) -> None:
        """Remove the interim checkpoints if the end of training has a regular one; note that it is finished; publish."""
        if self.kept["regular"] and self.save_last:
            for name in self.kept["interim"]:
                self._remove(runner, name)
            if runner.rank == 0:
                note_finished(runner.work_dir, self.kept["regular"][-1])
        if self.published_keys is not None:
            best = [value for key, value in runner.message_hub.runtime_info.items() if key.startswith("best_ckpt")]
            for name in file_names([*self.kept["regular"][-1:], *best]):
                self._publish_model(runner, os.path.join(self.out_dir, name))

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Keep the best weights.

        Raises:
            OptionError: If a metric of ``save_best`` is not among the metrics.
        """
        if not self.save_best or not metrics or not self.kept:  # without `kept`, validation runs outside of a training
            return
        if "auto" in self.key_indicators:
            first = next(iter(metrics))
            try:
                self._init_rule(self.rules, [first])
            except ValueError:
                runner.logger.warning(
                    f"No best checkpoint is kept: save_best='auto' cannot tell whether {first} is better when greater or when "
                    "less. Set save_best and rule of the checkpoint hook."
                )
                self.save_best = None
                return
        for name, rule in zip(self.key_indicators, self.rules, strict=True):
            if name not in metrics:
                raise OptionError(
                    f"save_best of FaultTolerantCheckpointHook names {name!r}; the metrics are {', '.join(metrics)}."
                )
            suffix = "" if len(self.key_indicators) == 1 else f"_{name}"
            best = runner.message_hub.get_info(f"best_score{suffix}", self.init_value_map[rule])
            if not self.is_better_than[name](metrics[name], best):
                continue
            number = runner.epoch if self.by_epoch else runner.iter
            file = f"best_{name}_{self.filename_tmpl.format(number)}".replace("/", "_")
            old = file_names([runner.message_hub.get_info(f"best_ckpt{suffix}")])
            runner.message_hub.update_info(f"best_score{suffix}", metrics[name])
            runner.message_hub.update_info(f"best_ckpt{suffix}", file)
            meta = dict(epoch=runner.epoch, iter=runner.iter)
            runner.save_checkpoint(self.out_dir, file, save_optimizer=False, save_param_scheduler=False, meta=meta)
            runner.logger.info(f"{file} has the best {name} so far, {metrics[name]:.4f}.")
            if old and old != [file]:
                self._remove(runner, old[0])

    def _after_step(self, runner: Runner, epoch: int, done: int) -> None:
        """Save what is due after a step of the optimizer, ``done`` iterations into the training."""
        action = NOTHING
        if self.stop_signal.received is not None:
            action = INTERRUPT if self.stop_signal.received == signal.SIGINT else STOP
        elif runner.rank == 0 and self.minutes and time.monotonic() - self.saved_time > 60 * self.minutes:
            action = SAVE
        action = self.rank_max.largest(action)
        if not self.by_epoch and self._step_is_due(runner, done):
            self._save(runner, self.filename_tmpl.format(done), "regular", epoch, done)
        if action != NOTHING and self.saved_iter != done:
            self._save(runner, f"iter_{done}.pth", "interim", epoch, done)
        if action in (STOP, INTERRUPT):
            received = self.stop_signal.received
            cause = "another process got a signal to stop" if received is None else f"this process got {received.name}"
            is_tool = os.path.basename(sys.argv[0]) == "train.py" and not runner.distributed
            again = resume_command(sys.argv) if is_tool else "--resume."
            status = EXIT_INTERRUPTED if action == INTERRUPT else EXIT_AGAIN
            runner.logger.warning(
                f"Training stops after iteration {done} with exit status {status}, since {cause}. Its state is saved: "
                f"resume it with {again}"
            )
            raise StoppedBySignal(status)

    def _step_is_due(self, runner: Runner, done: int) -> bool:
        regular = self.interval > 0 and done >= self.save_begin and (done - self.save_begin) % self.interval == 0
        return regular or (self.save_last and done == runner.max_iters)

    def _save(self, runner: Runner, name: str, group: str, epoch: int, done: int) -> None:
        """Write a checkpoint, note it as the last, and remove the outdated ones."""
        began = time.monotonic()
        path = os.path.join(self.out_dir, name)
        self.kept[group] = [*(other for other in self.kept[group] if other != name), name]
        runner.message_hub.update_info(f"{group}_checkpoints", list(self.kept[group]))
        runner.message_hub.update_info("last_ckpt", name)
        runner.save_checkpoint(
            self.out_dir,
            name,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=dict(epoch=epoch, iter=done),
        )
        if runner.rank == 0:
            note_last(runner.work_dir, name)
        self.saved_iter, self.saved_time = done, time.monotonic()
        self._remove_outdated(runner)
        runner.logger.info(f"Saved {path} after iteration {done} in {time.monotonic() - began:.2f} s.")

    def _remove_outdated(self, runner: Runner) -> None:
        for group, most in (("regular", self.max_keep_ckpts), ("interim", INTERIM_KEPT)):
            if most > 0:
                for name in self.kept[group][:-most]:
                    self._remove(runner, name)
                self.kept[group] = self.kept[group][-most:]

    def _remove(self, runner: Runner, name: str) -> None:
        if runner.rank == 0:
            (Path(self.out_dir) / name).unlink(missing_ok=True)
