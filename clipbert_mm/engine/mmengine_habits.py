"""What MMEngine's short forms in a config mean for ClipBertRunner: loops without a type, and trainings by iterations."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.dataset import InfiniteSampler, default_collate, pseudo_collate
from mmengine.evaluator import Evaluator
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from torch.utils.data import DataLoader
from torch.utils.data import default_collate as torch_default_collate

from clipbert_mm.datasets.transforms import ClipBertTransforms, PackInputs
from clipbert_mm.datasets.wrappers import is_slice, leaves, steps_of
from clipbert_mm.engine.config import foreign_model
from clipbert_mm.errors import OptionError
from clipbert_mm.evaluation import RetrievalMetric
from clipbert_mm.log import logger
from clipbert_mm.registry import METRICS, type_name


def resumable_loop(loop: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of a training loop, with the type that ``by_epoch`` stands for, and without what is None.

    Raises:
        OptionError: If a training has both a number of epochs and a number of iterations.
    """
    settings = {name: value for name, value in loop.items() if value is not None}
    if "by_epoch" in settings and ("type" not in settings or type_name(settings) in RESUMABLE.values()):
        settings["type"] = RESUMABLE[bool(settings.pop("by_epoch"))]
    if {"max_epochs", "max_iters"} <= set(settings):
        raise OptionError(
            f"train_cfg has max_epochs={settings['max_epochs']} and max_iters={settings['max_iters']}, expected one. To "
            "train by iterations, set train_cfg=dict(_delete_=True, by_epoch=False, max_iters=...), or on the command line "
            "train_cfg.by_epoch=False train_cfg.max_epochs=None train_cfg.max_iters=..."
        )
    return settings


RESUMABLE = {True: "ResumableEpochTrainLoop", False: "ResumableIterTrainLoop"}


def check_train_loop(loop: Any) -> None:  # noqa: ANN401
    """Check that an epoch ends, and that a ClipBert gets one batch at a time.

    Raises:
        OptionError: If the sampler of a training by epochs never ends, or the loop gives a ClipBert batches of several loaders.
    """
    if hasattr(loop, "multi_loaders") and foreign_model(loop.runner.cfg) is None:
        raise OptionError(
            f"{type(loop).__name__} gives a model a batch of each of its loaders at once, and a ClipBert takes one. Put the "
            "datasets of other_loaders into train_dataloader.dataset, a MixedDataset or ConcatDataset, and leave out "
            "train_cfg.type."
        )
    if isinstance(loop, EpochBasedTrainLoop) and isinstance(loop.dataloader.sampler, InfiniteSampler):
        raise OptionError(
            f"{type(loop.dataloader.sampler).__name__} never ends, so that an epoch would not either. Train by iterations, "
            "train_cfg=dict(_delete_=True, by_epoch=False, max_iters=...), or set train_dataloader.sampler.type=DefaultSampler."
        )


def build_loader(settings: DataLoader | dict[str, Any], **options: Any) -> DataLoader:  # noqa: ANN401
    """Build a dataloader as MMEngine's Runner does.

    ``persistent_workers`` is ignored if there are no workers, where torch refuses it. ``num_batch_per_epoch`` is ignored, with
    a warning, if there are fewer batches.

    Raises:
        OptionError: If MMEngine's functions would collate items of ours.
    """
    if isinstance(settings, dict) and not settings.get("num_workers"):
        settings = {key: value for key, value in settings.items() if key != "persistent_workers"}
    built = Runner.build_dataloader(settings, **options)
    dataset: Any = built.dataset
    if isinstance(settings, dict) and is_slice(dataset) and len(dataset) > len(dataset._dataset):
        logger.warning(f"num_batch_per_epoch={settings['num_batch_per_epoch']} is more than there are: all are used.")
        whole = {key: value for key, value in settings.items() if key != "num_batch_per_epoch"}
        built = Runner.build_dataloader(whole, **options)
    check_collate(built)
    return built


def check_collate(loader: DataLoader) -> None:
    """Check that items that PackInputs made are not collated by MMEngine's or torch's functions.

    Raises:
        OptionError: If they are: items have different numbers of texts, which those cannot stack, or would exchange.
    """
    function = getattr(loader.collate_fn, "func", loader.collate_fn)
    packed = any(
        isinstance(step, (PackInputs, ClipBertTransforms)) for leaf in leaves(loader.dataset) for step in steps_of(leaf)
    )
    if packed and function in (default_collate, pseudo_collate, torch_default_collate):
        raise OptionError(
            f"{function.__name__} cannot make a batch of items with different numbers of texts. Set "
            "collate_fn=dict(type='clipbert_mm.collate_items') of the dataloader; without a collate_fn MMEngine takes "
            "pseudo_collate."
        )


def schedules_by_iteration(schedule: Any) -> Any:  # noqa: ANN401
    """Return the configs of schedules for a training by iterations.

    A schedule with ``convert_to_iter_based`` and without ``end`` is as long as the training. One with an ``end`` counts passes
    over the dataset as epochs.

    Raises:
        OptionError: If one counts epochs, of which such a training has none: it would never act.
    """
    if isinstance(schedule, Sequence):
        return [schedules_by_iteration(each) for each in schedule]
    if not isinstance(schedule, Mapping) or "type" not in schedule:
        return schedule
    settings = dict(schedule)
    if not settings.get("by_epoch", True):
        return settings
    if not settings.get("convert_to_iter_based"):
        raise OptionError(
            f"{settings['type']} of param_scheduler counts epochs, of which a training by iterations has none. Set its "
            "by_epoch=False and count begin, end and milestones in iterations."
        )
    if "end" not in settings:
        settings.pop("convert_to_iter_based")
        settings["by_epoch"] = False
    return settings


def count_by_iteration(runner: Any) -> None:  # noqa: ANN401
    """Let logs of a training by iterations count iterations, unless the config says what they count."""
    if not isinstance(runner.train_loop, IterBasedTrainLoop):
        return
    if "by_epoch" not in (runner.cfg.get("log_processor") or {}):
        runner.log_processor.by_epoch = False
    logger = (runner.cfg.get("default_hooks") or {}).get("logger") or {}
    if "log_metric_by_epoch" not in logger:
        for hook in runner.hooks:
            if hasattr(hook, "log_metric_by_epoch"):
                hook.log_metric_by_epoch = False


def name_evaluation_loop(runner: Any, loop: Any, evaluator: Any, name: str) -> Any:  # noqa: ANN401
    """Return the config of a loop of validation or test; with a RetrievalMetric and without a type, that of ``name``."""
    if isinstance(loop, Mapping) and "type" not in loop and any(map(is_retrieval, metrics_of(evaluator))):
        runner.logger.info(f"The loop of a RetrievalMetric is {name}, since the config names none.")
        return {"type": name, **loop}
    return loop


def metrics_of(evaluator: Any) -> list[Any]:  # noqa: ANN401
    """Return the metrics, or their configs, of an evaluator: one, a list, or an Evaluator or its config."""
    if isinstance(evaluator, Evaluator) or (isinstance(evaluator, Mapping) and "metrics" in evaluator):
        evaluator = evaluator.metrics if isinstance(evaluator, Evaluator) else evaluator["metrics"]
    if evaluator is None:
        return []
    return list(evaluator) if isinstance(evaluator, Sequence) else [evaluator]


def is_retrieval(metric: Any) -> bool:  # noqa: ANN401
    """Whether a metric, or the config of one, is a RetrievalMetric."""
    kind = metric.get("type") if isinstance(metric, Mapping) else type(metric)
    kind = METRICS.get(kind) if isinstance(kind, str) else kind
    return isinstance(kind, type) and issubclass(kind, RetrievalMetric)


def check_evaluation_loop(loop: BaseLoop, stage: str) -> None:
    """Check that a loop of validation or test gives its metrics what they need.

    Args:
        loop: The loop.
        stage: "val" or "test".

    Raises:
        OptionError: If a RetrievalMetric is in another loop than ours, or a ClipBert in a retrieval loop of another library.
    """
    if hasattr(loop, "shortlist"):
        return
    ours = f"clipbert_mm.Retrieval{stage.capitalize()}Loop"
    if type(loop).__name__.startswith("Retrieval") and foreign_model(loop.runner.cfg) is None:
        raise OptionError(
            f"{type(loop).__name__} of {type(loop).__module__.partition('.')[0]} compares features of texts with features of "
            "videos, which a ClipBert has not, since it reads a text and a video together. "
            f"Set {stage}_cfg=dict(type='{ours}')."
        )
    if not any(isinstance(metric, RetrievalMetric) for metric in loop.evaluator.metrics):
        return
    raise OptionError(
        f"RetrievalMetric needs the scores of all texts with all videos, which {type(loop).__name__} does not compute. Set "
        f"{stage}_cfg=dict(type='{ours}')."
    )
