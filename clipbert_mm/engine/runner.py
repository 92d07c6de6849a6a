"""MMEngine's Runner that loads checkpoints of every known format, and whose own checkpoints resume a run exactly."""

import functools
import logging
import os
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import all_gather_object, barrier
from mmengine.logging import MMLogger
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from torch import nn
from torch.utils.data import DataLoader

from clipbert_mm import compat
from clipbert_mm.checkpoint import load_weights, read_source, write_checkpoint
from clipbert_mm.checkpoint.archives import first_line
from clipbert_mm.checkpoint.arrays import STAND_INS
from clipbert_mm.checkpoint.formats import without_replaced_backbones
from clipbert_mm.checkpoint.training_state import training_state
from clipbert_mm.engine.bare_model import bare_model
from clipbert_mm.engine.config import text_without_folders
from clipbert_mm.engine.hooks.checkpoint_hook import checkpoint_folders
from clipbert_mm.engine.launch import prepare
from clipbert_mm.engine.mmengine_habits import (
    build_loader,
    check_evaluation_loop,
    check_train_loop,
    count_by_iteration,
    name_evaluation_loop,
    resumable_loop,
    schedules_by_iteration,
)
from clipbert_mm.engine.optimizer import scale_learning_rate
from clipbert_mm.engine.out_of_memory import explaining_out_of_memory
from clipbert_mm.engine.rank_sync import broadcast_from_first, lock_folders, raise_on_all_ranks
from clipbert_mm.engine.resuming import set_start
from clipbert_mm.engine.run_checks import check_parts, check_selection
from clipbert_mm.engine.run_state import (
    check_finite,
    checkpoint_content,
    rank_state,
    restore_paths,
    restore_rank,
)
from clipbert_mm.engine.train_loop import StepTrainLoop, steps_done
from clipbert_mm.engine.watched_loader import WatchedLoader
from clipbert_mm.errors import CheckpointError, ClipBertError, OptionError, printable
from clipbert_mm.log import is_for_console, logger, show_in_run_log
from clipbert_mm.registry import RUNNERS


@RUNNERS.register_module()
class ClipBertRunner(Runner):
    """Runner whose ``load_from`` takes a checkpoint of any known format, or a list of several.

    Formats are detected by content, and no code of a file is run; see :mod:`clipbert_mm.checkpoint`.
    :class:`~clipbert_mm.engine.CheckpointCompatibilityHook` checks that they fit. An out-of-memory error says what would fit.

    Its own checkpoints also have the state of each process: its random generators and its hooks, if they have ``state_dict``
    and ``load_state_dict``.
    """

    _resume: bool | str
    _load_from: str | None
    _has_loaded: bool
    _unresumed = False
    resumed: dict[str, Any] | None = None
    """``meta`` and, by process, ``ranks`` of the checkpoint that the run was resumed from; None if it was not resumed."""
    while_training: ExitStack
    """Contexts that hooks enter before training, such as watching for signals; they exit when training ends or fails."""
    current_batch: tuple[str, dict[str, Any]] | None = None
    """The stage ("train", "val" or "test") and the batch that is processed; None between batches."""

    @classmethod
    def from_cfg(cls, cfg: Config, *, micro_batch: int | None = None) -> "ClipBertRunner":
        """Build the runner of a config, as :func:`~clipbert_mm.engine.launch.build_runner` does.

        So MMEngine's ``RUNNERS.build(config)``, by which the tools of its libraries build runners, does the same as ours.
        """
        prepared = prepare(cfg, micro_batch)
        runner = super().from_cfg(cfg)
        prepared.report(runner)
        return runner

    @staticmethod
    def build_dataloader(
        dataloader: DataLoader | dict[str, Any], seed: int | None = None, diff_rank_seed: bool = False
    ) -> WatchedLoader:
        """Build a dataloader by :func:`~clipbert_mm.engine.mmengine_habits.build_loader`, and watch its workers.

        Raises:
            OptionError: If MMEngine's functions would collate items of ours.
        """
        built = build_loader(dataloader, seed=seed, diff_rank_seed=diff_rank_seed)
        return built if isinstance(built, WatchedLoader) else WatchedLoader(built, warn=logger.warning)

    def build_logger(self, *arguments: Any, **options: Any) -> MMLogger:  # noqa: ANN401
        """Build the log of the run, which also shows messages of the package; see MMEngine's Runner.

        Environment, config and hooks, some hundred lines, are in its file alone: on a console they hide what matters.
        """
        show_in_run_log()
        built = super().build_logger(*arguments, **options)
        for handler in built.handlers:
            if not isinstance(handler, logging.FileHandler):
                handler.addFilter(is_for_console)
        built.info(f"The log with the environment and the config of this run: {built.log_file}")
        return built

    def train(self) -> nn.Module:
        """Train, as the only run in its folders; returns the model.

        Raises:
            BusyFolderError: If another training writes to the work folder.
            OptionError: If the best checkpoint is to be selected without validation.
            OutOfMemoryError: If a batch does not fit into memory.
            WorkerError: If a worker of a dataloader hung or died.
        """
        check_selection(self)
        self.while_training = ExitStack()
        folders = checkpoint_folders(self.work_dir, self.cfg)
        with lock_folders(*folders), explaining_out_of_memory(self), self.while_training:
            self.while_training.enter_context(compat.refusing_code_in_weights())
            super().dump_config()
            return super().train()

    def val(self) -> dict[str, float]:
        """Validate; see MMEngine's Runner."""
        with explaining_out_of_memory(self):
            return super().val()

    def test(self) -> dict[str, float]:
        """Test; see MMEngine's Runner. In the folder of a training its config stays."""
        if not os.path.isfile(os.path.join(self.work_dir, "last_checkpoint")):
            super().dump_config()
        with explaining_out_of_memory(self):
            return super().test()

    def dump_config(self) -> None:
        """Do not write the config to the work folder yet; training and testing do it, as soon as they hold the folder."""

    def register_default_hooks(self, hooks: dict[str, Any] | None = None) -> None:
        """Register the default hooks, with ours for logs and checkpoints where the config names none."""
        ours: dict[str, Any] = dict(
            logger=dict(type="MainProcessLoggerHook"), checkpoint=dict(type="FaultTolerantCheckpointHook", interval=1)
        )
        named = {**ours, **(hooks or {})}
        theirs = ("runtime_info", "timer", "sampler_seed", "param_scheduler", *ours)  # which None removes in MMEngine
        super().register_default_hooks(
            {name: hook for name, hook in named.items() if hook is not None or name in theirs}
        )

    def build_train_loop(self, loop: BaseLoop | dict[str, Any]) -> BaseLoop:
        """Build the training loop; MMEngine's short form ``by_epoch`` gives the resumable one.

        Raises:
            OptionError: If a training has both a number of epochs and a number of iterations, or see :func:`check_train_loop`.
        """
        if isinstance(loop, dict):
            loop = resumable_loop(loop)
        built = super().build_train_loop(loop)
        check_train_loop(built)
        return built

    def build_val_loop(self, loop: BaseLoop | dict[str, Any]) -> BaseLoop:
        """Build the validation loop; without a type, the one that the metrics need.

        Raises:
            OptionError: If a metric needs another loop.
        """
        built = super().build_val_loop(name_evaluation_loop(self, loop, self._val_evaluator, "RetrievalValLoop"))
        check_evaluation_loop(built, "val")
        return built

    def build_test_loop(self, loop: BaseLoop | dict[str, Any]) -> BaseLoop:
        """Build the test loop; without a type, the one that the metrics need.

        Raises:
            OptionError: If a metric needs another loop.
        """
        built = super().build_test_loop(name_evaluation_loop(self, loop, self._test_evaluator, "RetrievalTestLoop"))
        check_evaluation_loop(built, "test")
        return built

    def build_param_scheduler(self, scheduler: Any) -> Any:  # noqa: ANN401
        """Build the schedules; in a training by iterations, those without an end are as long as it is.

        Raises:
            OptionError: If a schedule counts epochs in a training by iterations, which has none.
        """
        if isinstance(self._train_loop, IterBasedTrainLoop):
            scheduler = schedules_by_iteration(scheduler)
        return super().build_param_scheduler(scheduler)

    def build_optim_wrapper(self, optim_wrapper: OptimWrapper | dict[str, Any]) -> OptimWrapper:
        """Build the optimizer wrapper, an AccumulatingOptimWrapper where the config names none.

        Raises:
            OptionError: If it is MMEngine's AmpOptimWrapper and there is no GPU.
        """
        if isinstance(optim_wrapper, dict) and "optimizer" in optim_wrapper:
            optim_wrapper = {"type": "AccumulatingOptimWrapper", **optim_wrapper}
            if optim_wrapper["type"] in (AmpOptimWrapper, "mmengine.AmpOptimWrapper") and not torch.cuda.is_available():
                raise OptionError(
                    "mmengine.AmpOptimWrapper needs a GPU, and there is none. Set optim_wrapper.type to "
                    "AmpAccumulatingOptimWrapper, which computes in bfloat16 on a CPU."
                )
        return super().build_optim_wrapper(optim_wrapper)

    @property
    def accumulation(self) -> int:
        """Number of batches of which a step of the optimizer accumulates the gradients."""
        wrapper = self.optim_wrapper  # a config until training begins
        if isinstance(wrapper, dict):
            return wrapper.get("accumulative_counts", 1)
        return getattr(wrapper, "_accumulative_counts", 1)

    @property
    def items_per_step(self) -> int:
        """Number of items of a step of the optimizer over all processes (the global batch)."""
        return self.world_size * self.train_dataloader.batch_sampler.batch_size * self.accumulation

    def call_hook(self, fn_name: str, **kwargs: Any) -> None:  # noqa: ANN401
        """Call the hooks, and note which batch is processed."""
        when, stage, *what = fn_name.split("_")
        if what == ["iter"]:
            self.current_batch = (stage, kwargs["data_batch"]) if when == "before" else None
        if fn_name == "before_train_iter":
            self._continue_exactly()
        # Where MMEngine's CheckpointHook opens checkpoints, to publish them.
        opening = compat.allowing_mmengine_checkpoints(STAND_INS) if fn_name == "after_train" else nullcontext()
        with opening:
            super().call_hook(fn_name, **kwargs)
        if fn_name == "before_train":
            count_by_iteration(self)
        elif fn_name == "before_train_epoch":
            self._skip_what_was_trained()

    def _skip_what_was_trained(self) -> None:
        """Let MMEngine's EpochBasedTrainLoop skip the steps of the resumed epoch that the run before had made."""
        if self._unresumed and isinstance(self.train_loop, EpochBasedTrainLoop):
            self.train_dataloader.skip(steps_done(self))

    def _continue_exactly(self) -> None:
        """Restore the random generators and hooks before the first step of a resumed loop of MMEngine's."""
        if self._unresumed:
            self._unresumed = False
            restore_rank(self)

    def scale_lr(self, optim_wrapper: OptimWrapper, auto_scale_lr: dict[str, Any] | None = None) -> None:
        """Scale the learning rate with the global batch; see :func:`~clipbert_mm.engine.optimizer.scale_learning_rate`."""
        scale_learning_rate(self, optim_wrapper, auto_scale_lr)

    def load_or_resume(self) -> None:
        """Load weights, or resume a training, from the checkpoint that :func:`~clipbert_mm.engine.resuming.find_resumed` finds.

        Raises:
            CheckpointError: If the work folder has checkpoints but none is intact, or processes would resume from different
                ones.
            OptionError: If parts of the run do not fit together.
        """
        check_parts(self)
        if self._resume and not self._has_loaded:
            set_start(self)
        name = os.path.basename(str(self._load_from)) if self._resume else "no checkpoint"
        first = broadcast_from_first(name)
        error = CheckpointError(
            f"Process {self.rank} would resume from {name}, process 0 from {first}. Copy the checkpoint of machine 0 to the "
            "work folder of each machine."
        )
        raise_on_all_ranks(error if name != first else None)
        super().load_or_resume()

    def resume(self, filename: str, *arguments: Any, **options: Any) -> None:  # noqa: ANN401
        """Resume from a checkpoint; arguments are those of MMEngine's Runner.

        Raises:
            CheckpointError: If it cannot be read or does not fit, or its training state is damaged.
        """
        try:
            super().resume(filename, *arguments, **options)
        except (AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            if isinstance(error, (ClipBertError, torch.OutOfMemoryError)):
                raise
            raise CheckpointError(
                f"{printable(filename)} cannot be resumed: its training state is damaged or of another config "
                f"({type(error).__name__}: {first_line(error)}). Use the config that it was trained with, another copy, or "
                "train from its weights with load_from and without resume=True, which resumes load_from itself; --resume "
                "resumes the work folder."
            ) from error
        restore_paths(self)
        sampler = self.train_dataloader.sampler
        if getattr(sampler, "seed", None) is not None and not self._randomness_cfg.get("diff_rank_seed"):
            sampler.seed = self.seed  # it was built before the seed of the resumed run was known
        self._unresumed = not isinstance(self.train_loop, StepTrainLoop)  # which do it themselves

    def load_checkpoint(
        self,
        filename: str | Sequence[str],
        map_location: Any = "cpu",  # noqa: ANN401
        strict: bool = False,
        revise_keys: Sequence[tuple[str, str]] = (),
    ) -> dict[str, Any]:
        """Load weights into the model.

        Args:
            filename: File, folder or name of a checkpoint, or several; where they overlap, the last one counts.
            map_location: Device for the tensors of torch's files.
            strict: Whether the checkpoints must have exactly the names of the model.
            revise_keys: Must be empty; names are converted according to the format of the checkpoint.

        Returns:
            The checkpoint, with all that the last file holds besides weights.

        Raises:
            CheckpointError: If one cannot be read, is of no known format, or does not fit.
        """
        assert not revise_keys, "names are converted according to the format of the checkpoint"
        paths = [filename] if isinstance(filename, str) else list(filename)
        # A resumed state stays in use, and its file may be overwritten meanwhile; weights are copied at once.
        names = bare_model(self.model).state_dict().keys()
        sources = [read_source(path, map_location, mmap=not self._resume).named_as(names) for path in paths]
        sources = without_replaced_backbones(sources, names)
        rest = training_state(sources[-1].rest, paths[-1]) if self._resume else sources[-1].rest
        tensors = {name: tensor for source in sources for name, tensor in source.tensors.items()}
        checkpoint = {**rest, "state_dict": tensors, "sources": sources}
        self.call_hook("after_load_checkpoint", checkpoint=checkpoint)
        model = bare_model(self.model)
        load_weights(model, checkpoint["state_dict"], ", ".join(paths), strict=strict)
        if self._resume:
            self.resumed = dict(meta=rest["meta"], ranks=rest["ranks"])
        self._has_loaded = True
        return checkpoint

    def save_checkpoint(
        self,
        out_dir: str,
        filename: str,
        file_client_args: dict[str, Any] | None = None,
        save_optimizer: bool = True,
        save_param_scheduler: bool = True,
        meta: dict[str, Any] | None = None,
        by_epoch: bool = True,
        backend_args: dict[str, Any] | None = None,
    ) -> None:
        """Write a checkpoint; every process must call it, and the first one writes.

        Args:
            out_dir: Folder.
            filename: Name of the file.
            file_client_args: Must be None.
            save_optimizer: Whether a training can be resumed from it.
            save_param_scheduler: Whether it has the state of the schedule.
            meta: ``epoch`` (epochs done), ``iter`` (iterations done), and other entries to save.
            by_epoch: Whether it is called at the end of an epoch or after an iteration, if ``meta`` does not say.
            backend_args: Must be None.

        Raises:
            CheckpointError: If it cannot be written, or weights are not finite. Older checkpoints stay.
            OptionError: If it is to be written to something else than a file system.
        """
        if file_client_args or backend_args or "://" in out_dir:
            raise OptionError(
                f"Checkpoints are written to a folder of a file system, got {out_dir} with {file_client_args or backend_args}. "
                "Mount the storage, and leave file_client_args and backend_args out."
            )
        done = dict(epoch=self.epoch + 1, iter=self.iter) if by_epoch else dict(epoch=self.epoch, iter=self.iter + 1)
        ranks = all_gather_object(rank_state(self))
        if self.rank == 0:
            parts = dict(save_optimizer=save_optimizer, save_param_scheduler=save_param_scheduler)
            checkpoint = checkpoint_content(self, {**done, **(meta or {})}, **parts)
            checkpoint["ranks"] = ranks
            self.call_hook("before_save_checkpoint", checkpoint=checkpoint)
            check_finite(checkpoint["state_dict"], filename)
            write_checkpoint(checkpoint, f"{out_dir}/{filename}")
        barrier()  # no process ends before the file is complete

    @functools.cached_property
    def config_text(self) -> str:
        """The config's text for checkpoints; formatting it takes longer than writing a small model."""
        return text_without_folders(self.cfg)

    def epoch_shape(self) -> dict[str, int]:
        """Return how many iterations an epoch has, and how many items an iteration has over all processes.

        An iteration is a step of the optimizer in our loop, a batch in MMEngine's.
        """
        batches = getattr(self.train_loop, "accumulation", 1)
        items = self.items_per_step // self.accumulation * batches
        return dict(steps_per_epoch=len(self.train_dataloader), items_per_step=items)
