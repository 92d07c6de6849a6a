"""MMEngine's Runner: it loads checkpoints of any kind, and writes its own so that a run can go on from them exactly."""

import functools
import os
import time
from collections.abc import Sequence
from typing import Any

import mmengine
import torch
from mmengine.dist import all_gather_object, barrier, get_world_size
from mmengine.logging import MMLogger
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from mmengine.runner.checkpoint import weights_to_cpu
from torch import Tensor, nn
from torch.utils.data import DataLoader

from clipbert_mm.checkpoint import find_latest, load_weights, read_source, write_checkpoint
from clipbert_mm.checkpoint.archives import first_line
from clipbert_mm.checkpoint.compatibility import not_finite
from clipbert_mm.checkpoint.training_state import training_state
from clipbert_mm.engine.hooks.checkpoint_hook import checkpoint_folders
from clipbert_mm.engine.optimizer import scale_learning_rate
from clipbert_mm.engine.out_of_memory import explaining_out_of_memory
from clipbert_mm.engine.random_state import random_state, set_random_state
from clipbert_mm.engine.rank_sync import locked_for_all, raise_together, told_by_first
from clipbert_mm.engine.watched_loader import WatchedLoader
from clipbert_mm.errors import CheckpointError, ClipBertError, printable
from clipbert_mm.log import logger, show_in_run_log
from clipbert_mm.registry import RUNNERS


@RUNNERS.register_module()
class ClipBertRunner(Runner):
    """Runner whose ``load_from`` takes checkpoints of every kind that is known, alone or several in a list.

    They are recognized by their content and opened without running code from them; see :mod:`clipbert_mm.checkpoint`.
    :class:`~clipbert_mm.engine.CheckpointCompatibilityHook` sees that they fit. Where memory ends, it says what would fit.

    Its own checkpoints have the state of each process too: its random generators and what its hooks count. A hook takes
    part that has ``state_dict`` and ``load_state_dict``.
    """

    _resume: bool
    _load_from: str | None
    _has_loaded: bool
    resumed: dict[str, Any] | None = None
    """Of a checkpoint that the run goes on from, ``meta`` and, by process, ``ranks``; None if it goes on from none."""
    batch_at_work: tuple[str, dict[str, Any]] | None = None
    """The stage ("train", "val" or "test") and the batch that is worked on; None between batches."""

    @staticmethod
    def build_dataloader(
        dataloader: DataLoader | dict[str, Any], seed: int | None = None, diff_rank_seed: bool = False
    ) -> WatchedLoader:
        """Build a dataloader, as MMEngine's Runner does, whose workers are watched."""
        built = Runner.build_dataloader(dataloader, seed=seed, diff_rank_seed=diff_rank_seed)
        return built if isinstance(built, WatchedLoader) else WatchedLoader(built, warn=logger.warning)

    def build_logger(self, *arguments: Any, **options: Any) -> MMLogger:  # noqa: ANN401
        """Build the log of the run, which also shows what the package says; see MMEngine's Runner."""
        show_in_run_log()
        return super().build_logger(*arguments, **options)

    def train(self) -> nn.Module:
        """Train, as the only run in its folders; returns the model.

        Raises:
            BusyFolderError: If another training writes to the work folder.
            WorkerError: If a worker of a dataloader hung or died: at which file it was.
        """
        with locked_for_all(*checkpoint_folders(self.work_dir, self.cfg)), explaining_out_of_memory(self):
            super().dump_config()
            return super().train()

    def val(self) -> dict[str, float]:
        """Validate; see MMEngine's Runner."""
        with explaining_out_of_memory(self):
            return super().val()

    def test(self) -> dict[str, float]:
        """Test; see MMEngine's Runner."""
        super().dump_config()
        with explaining_out_of_memory(self):
            return super().test()

    def dump_config(self) -> None:
        """Leave the config of the work folder as it is until this runner trains or tests there."""

    def call_hook(self, fn_name: str, **kwargs: Any) -> None:  # noqa: ANN401
        """Call the hooks, and note which batch is worked on."""
        when, stage, *what = fn_name.split("_")
        if what == ["iter"]:
            self.batch_at_work = (stage, kwargs["data_batch"]) if when == "before" else None
        super().call_hook(fn_name, **kwargs)

    def scale_lr(self, optim_wrapper: OptimWrapper, auto_scale_lr: dict[str, Any] | None = None) -> None:
        """Scale the learning rate with the global batch; see :func:`~clipbert_mm.engine.optimizer.scale_learning_rate`."""
        scale_learning_rate(self, optim_wrapper, auto_scale_lr)

    def load_or_resume(self) -> None:
        """Load weights, or a training's state: without ``load_from``, of the newest whole checkpoint of the work folder.

        Raises:
            CheckpointError: If there are checkpoints in the work folder, but none is whole.
        """
        if self._resume and self._load_from is None and not self._has_loaded:
            self._load_from, passed_over = find_latest(*checkpoint_folders(self.work_dir, self.cfg))
            for each in passed_over:
                self.logger.warning(f"passed over: {each}")
            self._resume = self._load_from is not None
        name = os.path.basename(str(self._load_from)) if self._resume else "no checkpoint"
        first = told_by_first(name)
        error = CheckpointError(
            f"Process {self.rank} would go on from {name}, process 0 from {first}. Copy the checkpoint of machine 0 to the "
            "work folder of each machine."
        )
        raise_together(error if name != first else None)
        super().load_or_resume()

    def resume(self, filename: str, *arguments: Any, **options: Any) -> None:  # noqa: ANN401
        """Go on from a checkpoint; arguments as of MMEngine's.

        Raises:
            CheckpointError: If it cannot be read or does not fit, or the state of its training is damaged.
        """
        try:
            super().resume(filename, *arguments, **options)
        except (AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            if isinstance(error, (ClipBertError, torch.OutOfMemoryError)):
                raise
            raise CheckpointError(
                f"{printable(filename)} cannot be resumed: the state of its training is damaged or another training's "
                f"({type(error).__name__}: {first_line(error)}). Use the config that it was trained with, another copy, or "
                "train from its weights with load_from."
            ) from error
        sampler = self.train_dataloader.sampler
        if getattr(sampler, "seed", None) is not None and not self._randomness_cfg.get("diff_rank_seed"):
            sampler.seed = self.seed  # it was built before the seed of the run before was known

    def load_checkpoint(
        self,
        filename: str | Sequence[str],
        map_location: Any = "cpu",  # noqa: ANN401
        strict: bool = False,
        revise_keys: Sequence[tuple[str, str]] = (),
    ) -> dict[str, Any]:
        """Load weights into the model.

        Args:
            filename: File, folder or name of a checkpoint, or several, of which the last counts where they overlap.
            map_location: Device for the tensors of torch's files.
            strict: Whether the names of the checkpoints have to be the model's exactly.
            revise_keys: Must be empty; names are converted by the kind of the checkpoint.

        Returns:
            The checkpoint; what the last file holds beside weights is in it.

        Raises:
            CheckpointError: If one cannot be read, is of no known kind, or does not fit.
        """
        assert not revise_keys, "names are converted by the kind of the checkpoint"
        paths = [filename] if isinstance(filename, str) else list(filename)
        # What is resumed stays in use, and the file may be overwritten meanwhile; weights are copied at once.
        sources = [read_source(path, map_location, mmap=not self._resume) for path in paths]
        rest = training_state(sources[-1].rest, paths[-1]) if self._resume else sources[-1].rest
        tensors = {name: tensor for source in sources for name, tensor in source.tensors.items()}
        checkpoint = {**rest, "state_dict": tensors, "sources": sources}
        self.call_hook("after_load_checkpoint", checkpoint=checkpoint)
        model = self.model.module if is_model_wrapper(self.model) else self.model
        load_weights(model, checkpoint["state_dict"], ", ".join(paths), strict=strict)
        if self._resume:
            self.resumed = dict(meta=rest["meta"], ranks=rest["ranks"])
        self._has_loaded = True
        return checkpoint

    def save_checkpoint(
        self,
        out_dir: str,
        filename: str,
        *,
        save_optimizer: bool = True,
        save_param_scheduler: bool = True,
        meta: dict[str, Any] | None = None,
        by_epoch: bool = True,
    ) -> None:
        """Write a checkpoint; every process has to call it, the first one writes.

        Args:
            out_dir: Folder.
            filename: Name of the file.
            save_optimizer: Whether a training can go on from it.
            save_param_scheduler: Whether it has the state of the schedule.
            meta: ``epoch`` (epochs done) and ``iter`` (iterations done), and what else is to be noted.
            by_epoch: Where ``meta`` has none: whether it is called at the end of an epoch or after an iteration.

        Raises:
            CheckpointError: If it cannot be written, or weights are not finite. Older ones stay.
        """
        done = dict(epoch=self.epoch + 1, iter=self.iter) if by_epoch else dict(epoch=self.epoch, iter=self.iter + 1)
        ranks = all_gather_object(dict(random=random_state(), hooks=self._hook_states()))
        if self.rank == 0:
            checkpoint = self._checkpoint({**done, **(meta or {})}, save_optimizer, save_param_scheduler)
            checkpoint["ranks"] = ranks
            self.call_hook("before_save_checkpoint", checkpoint=checkpoint)
            self._check_finite(checkpoint["state_dict"], filename)
            write_checkpoint(checkpoint, f"{out_dir}/{filename}")
        barrier()  # no process ends before the file is whole

    def _checkpoint(self, meta: dict[str, Any], save_optimizer: bool, save_param_scheduler: bool) -> dict[str, Any]:
        """Return what MMEngine's checkpoints hold."""
        meta |= dict(
            cfg=self._config_text,
            seed=self.seed,
            experiment_name=self.experiment_name,
            time=time.strftime("%Y%m%d_%H%M%S", time.localtime()),
            mmengine_version=mmengine.__version__,
            dataset_meta=getattr(self.train_dataloader.dataset, "metainfo", None),
            **self.epoch_shape(),
        )
        model = self.model.module if is_model_wrapper(self.model) else self.model
        checkpoint = dict(
            meta=meta, state_dict=weights_to_cpu(model.state_dict()), message_hub=self.message_hub.state_dict()
        )
        if save_optimizer:
            checkpoint["optimizer"] = self.optim_wrapper.state_dict()
        if save_param_scheduler and self.param_schedulers is not None:
            checkpoint["param_schedulers"] = (
                [scheduler.state_dict() for scheduler in self.param_schedulers]
                if isinstance(self.param_schedulers, list)
                else {name: [each.state_dict() for each in own] for name, own in self.param_schedulers.items()}
            )
        return checkpoint

    @functools.cached_property
    def _config_text(self) -> str:
        return self.cfg.pretty_text  # laying it out takes longer than writing a small model

    def _check_finite(self, tensors: dict[str, Tensor], filename: str) -> None:
        """See that weights are worth keeping: a gradient without a number ruins them a step before the loss shows it."""
        broken = not_finite(tensors)
        if broken:
            raise CheckpointError(
                f"{filename} is not written: {len(broken)} of the {len(tensors)} tensors of the model are not finite, the "
                f"first is {broken[0]}. Older checkpoints are as they were. Lower the learning rate or clip gradients, and go "
                "on with --resume."
            )

    def epoch_shape(self) -> dict[str, int]:
        """Return how many steps an epoch of training has, and how many items a step over all processes."""
        return dict(steps_per_epoch=len(self.train_dataloader), items_per_step=self.train_loop.items_per_step)

    def _hook_states(self) -> dict[str, Any]:
        return {type(hook).__name__: hook.state_dict() for hook in self.hooks if hasattr(hook, "state_dict")}

    def restore_rank(self) -> None:
        """Set random generators and hooks as they were in the process of this number when the run was cut."""
        ranks = [] if self.resumed is None else self.resumed["ranks"]
        if len(ranks) != get_world_size():
            self.logger.warning(
                f"The run before had the state of {len(ranks)} processes saved, this one has {get_world_size()}: it goes on "
                "from its weights and place, with random numbers of its own."
            )
            return
        own = ranks[self.rank]
        try:
            for hook in self.hooks:
                if type(hook).__name__ in own["hooks"] and hasattr(hook, "load_state_dict"):
                    hook.load_state_dict(own["hooks"][type(hook).__name__])
            set_random_state(own["random"])
        except (AttributeError, LookupError, OverflowError, RuntimeError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"The checkpoint holds no state of process {self.rank} that can be resumed: {first_line(error)}. Take another "
                "copy, or train from its weights with load_from."
            ) from error
