"""MMEngine's Runner: it loads checkpoints of any kind, and writes its own so that a run can go on from them exactly."""

import functools
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import mmengine
import torch
from mmengine.config import Config
from mmengine.dist import all_gather_object, barrier, get_world_size
from mmengine.logging import MMLogger
from mmengine.model import is_model_wrapper
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.runner import BaseLoop, Runner
from mmengine.runner.checkpoint import weights_to_cpu
from torch import Tensor, nn
from torch.utils.data import DataLoader

from clipbert_mm.checkpoint import find_latest, load_weights, read_source, write_checkpoint
from clipbert_mm.checkpoint.archives import first_line
from clipbert_mm.checkpoint.compatibility import not_finite
from clipbert_mm.checkpoint.training_state import training_state
from clipbert_mm.deprecation import NAMES_IN_CONFIGS
from clipbert_mm.engine.config import without_folders
from clipbert_mm.engine.hooks.checkpoint_hook import checkpoint_folders, file_names
from clipbert_mm.engine.optimizer import scale_learning_rate
from clipbert_mm.engine.out_of_memory import explaining_out_of_memory
from clipbert_mm.engine.random_state import random_state, set_random_state
from clipbert_mm.engine.rank_sync import locked_for_all, raise_together, told_by_first
from clipbert_mm.engine.train_loop import ResumableEpochTrainLoop
from clipbert_mm.engine.watched_loader import WatchedLoader
from clipbert_mm.errors import CheckpointError, ClipBertError, OptionError, printable
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
    while_training: ExitStack
    """What hooks begin before a training, such as watching for signals; it ends with the training, however that ends."""
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
        self.while_training = ExitStack()
        folders = checkpoint_folders(self.work_dir, self.cfg)
        with locked_for_all(*folders), explaining_out_of_memory(self), self.while_training:
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

    def register_default_hooks(self, hooks: dict[str, Any] | None = None) -> None:
        """Register the default hooks; ours, where a config names none, in the place of MMEngine's of that purpose."""
        ours = dict(
            logger=dict(type="MainProcessLoggerHook"), checkpoint=dict(type="FaultTolerantCheckpointHook", interval=1)
        )
        super().register_default_hooks({**ours, **(hooks or {})})

    def build_train_loop(self, loop: BaseLoop | dict[str, Any]) -> BaseLoop:
        """Build the loop of training; MMEngine's short form, ``by_epoch=True``, gives :class:`ResumableEpochTrainLoop`."""
        if isinstance(loop, dict) and loop.get("by_epoch"):
            loop = {"type": "ResumableEpochTrainLoop", **{key: loop[key] for key in loop if key != "by_epoch"}}
        return super().build_train_loop(loop)

    def build_optim_wrapper(self, optim_wrapper: OptimWrapper | dict[str, Any]) -> OptimWrapper:
        """Build the optimizer wrapper, an AccumulatingOptimWrapper where a config names none.

        Raises:
            OptionError: If it is MMEngine's AmpOptimWrapper, and there is no GPU.
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
        """Batches of which a step of the optimizer accumulates the gradients."""
        wrapper = self.optim_wrapper  # a config until training begins
        if isinstance(wrapper, dict):
            return wrapper.get("accumulative_counts", 1)
        return getattr(wrapper, "_accumulative_counts", 1)

    @property
    def items_per_step(self) -> int:
        """Items of one step of the optimizer over all processes (the global batch)."""
        return self.world_size * self.train_dataloader.batch_sampler.batch_size * self.accumulation

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
        folder = checkpoint_folders(self.work_dir, self.cfg)[-1]
        for key, path in self._checkpoint_paths(self.message_hub.runtime_info).items():
            # MMEngine's CheckpointHook takes them for paths, and removes the file.
            names = file_names([path])
            self.message_hub.update_info(key, os.path.join(folder, names[0]) if names else None)
        sampler = self.train_dataloader.sampler
        if getattr(sampler, "seed", None) is not None and not self._randomness_cfg.get("diff_rank_seed"):
            sampler.seed = self.seed  # it was built before the seed of the run before was known
        if not isinstance(self.train_loop, ResumableEpochTrainLoop):
            self.logger.warning(
                f"{type(self.train_loop).__name__} resumes at the beginning of an epoch, with other random numbers. Use "
                "ResumableEpochTrainLoop to resume exactly."
            )

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
        file_client_args: dict[str, Any] | None = None,
        save_optimizer: bool = True,
        save_param_scheduler: bool = True,
        meta: dict[str, Any] | None = None,
        by_epoch: bool = True,
        backend_args: dict[str, Any] | None = None,
    ) -> None:
        """Write a checkpoint; every process has to call it, the first one writes.

        Args:
            out_dir: Folder.
            filename: Name of the file.
            file_client_args: Must be None, as ``backend_args``: checkpoints are files.
            save_optimizer: Whether a training can go on from it.
            save_param_scheduler: Whether it has the state of the schedule.
            meta: ``epoch`` (epochs done) and ``iter`` (iterations done), and what else is to be noted.
            by_epoch: Where ``meta`` has none: whether it is called at the end of an epoch or after an iteration.
            backend_args: Must be None.

        Raises:
            CheckpointError: If it cannot be written, or weights are not finite. Older ones stay.
            OptionError: If it should go to a storage that is no file system.
        """
        if file_client_args or backend_args or "://" in out_dir:
            raise OptionError(
                f"Checkpoints are written to a folder of a file system, got {out_dir} with {file_client_args or backend_args}. "
                "Mount the storage, and leave file_client_args and backend_args out."
            )
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
        hub = self.message_hub.state_dict()
        infos = hub["runtime_info"]
        infos |= {key: os.path.basename(path) for key, path in self._checkpoint_paths(infos).items()}
        if "cfg" in infos:
            infos["cfg"] = self._config_text
        checkpoint = dict(meta=meta, state_dict=weights_to_cpu(model.state_dict()), message_hub=hub)
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
        return Config(
            without_folders(self.cfg.to_dict())
        ).pretty_text  # formatting takes longer than a small model's writing

    @staticmethod
    def _checkpoint_paths(infos: Mapping[str, Any]) -> dict[str, str]:
        """Return the paths of checkpoints among the entries of the message hub: last_ckpt, best_ckpt and best_ckpt_METRIC."""
        return {
            key: value
            for key, value in infos.items()
            if key.startswith(("last_ckpt", "best_ckpt")) and isinstance(value, str)
        }

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
        """Return how many iterations an epoch of training has, and how many items an iteration over all processes.

        An iteration is a step of the optimizer in our loop, a batch in MMEngine's.
        """
        batches = getattr(self.train_loop, "accumulation", 1)
        items = self.items_per_step // self.accumulation * batches
        return dict(steps_per_epoch=len(self.train_dataloader), items_per_step=items)

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
        try:
            states = {NAMES_IN_CONFIGS.get(name, name): state for name, state in ranks[self.rank]["hooks"].items()}
            for hook in self.hooks:
                if type(hook).__name__ in states and hasattr(hook, "load_state_dict"):
                    hook.load_state_dict(states[type(hook).__name__])
            set_random_state(ranks[self.rank]["random"])
        except (AttributeError, LookupError, OverflowError, RuntimeError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"The checkpoint holds no state of process {self.rank} that can be resumed: {first_line(error)}. Take another "
                "copy, or train from its weights with load_from."
            ) from error
