"""Checks of a run before its first step: settings that have no effect, and parts that do not fit together."""

import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from mmengine.hooks import EarlyStoppingHook, NaiveVisualizationHook
from mmengine.runner import BaseLoop, Runner

from clipbert_mm.datasets.media_dataset import MediaDataset
from clipbert_mm.datasets.transforms import ClipBertTransforms, PackInputs, collate_items
from clipbert_mm.datasets.transforms.other_libraries import library_of
from clipbert_mm.datasets.wrappers import first_value, leaves, steps_of
from clipbert_mm.engine.bare_model import bare_model
from clipbert_mm.engine.hooks.compatibility_hook import datasets_of
from clipbert_mm.errors import ClipBertError, OptionError, printable, quoted
from clipbert_mm.log import logger
from clipbert_mm.registry import DATASETS, class_name


def check_selection(runner: Runner) -> None:
    """Check that a training validates if a hook selects or stops by a metric of validation.

    Raises:
        OptionError: If it does not, so that the hook would never act. ``save_best="auto"`` is for trainings with validation and
            without.
    """
    settings = runner.cfg.get("train_cfg") or {}
    begin = settings.get("val_begin", 1)
    end = next((name for name in ("max_epochs", "max_iters") if settings.get(name) is not None), None)
    if runner._val_loop is not None and (end is None or begin <= settings[end]):
        return
    why = (
        f"val_begin={begin} is after {end}={settings.get(end)}"
        if runner._val_loop is not None
        else "there is no val_dataloader"
    )
    for hook in runner.hooks:
        setting = _selects_by(hook)
        if setting is not None:
            raise OptionError(
                f"{setting} of {type(hook).__name__} needs validation, and {why}: it would never act. Set val_dataloader, "
                "val_evaluator and val_cfg of the config, or remove the setting."
            )


def _selects_by(hook: Any) -> str | None:  # noqa: ANN401
    """Return the setting of a hook that names a metric of validation; None if there is none."""
    if isinstance(hook, EarlyStoppingHook):
        return f"monitor={hook.monitor!r}"
    best = getattr(hook, "save_best", None)
    return None if best in (None, "auto", ["auto"]) else f"save_best={best!r}"


def check_parts(runner: Runner) -> None:
    """Check that the model, the datasets, metrics and hooks of a run fit together; warn of files in training and validation.

    Raises:
        OptionError: If they do not.
    """
    check_foreign_parts(runner)
    check_answers(runner)
    check_pipelines(runner)
    warn_of_shared_files(runner)


def check_foreign_parts(runner: Runner) -> None:
    """Check that metrics and hooks can use what a head of ours predicts; those of MMAction2 and MMPretrain read other results.

    Raises:
        OptionError: If a metric is one of theirs, or their or MMEngine's hook is to draw.
    """
    head = getattr(bare_model(runner.model), "head", None)
    if not type(head).__module__.startswith("clipbert_mm."):
        return
    ours = "AnswerAccuracy" if hasattr(head, "num_answers") else "RetrievalMetric"
    for stage in ("val", "test"):
        loop = getattr(runner, f"_{stage}_loop")  # a config until it is used
        for metric in loop.evaluator.metrics if isinstance(loop, BaseLoop) else ():
            if _is_of_sister(metric):
                raise OptionError(
                    f"{class_name(type(metric))} reads the predictions of a classifier or of features, and "
                    f"{type(head).__name__} gives scores of texts or answers. Set {stage}_evaluator=dict(_delete_=True, "
                    f"type='clipbert_mm.{ours}'), or another metric of clipbert_mm."
                )
    for hook in runner.hooks:
        draws = _is_of_sister(hook) and type(hook).__name__ == "VisualizationHook" and getattr(hook, "enable", True)
        if draws or type(hook) is NaiveVisualizationHook:
            raise OptionError(
                f"{class_name(type(hook))} draws images with labels, and {type(head).__name__} gives scores of texts or "
                "answers. Remove it from the hooks of the config, and draw with --show-dir DIR of clipbert_mm's tools/test.py."
            )


def _is_of_sister(part: Any) -> bool:  # noqa: ANN401
    return type(part).__module__.partition(".")[0] in ("mmaction", "mmpretrain")


def check_pipelines(runner: Runner) -> None:
    """Check that items which ``collate_items`` collates were packed; a last transform of one's own may do so too.

    Raises:
        OptionError: If a pipeline ends with another transform of ours, or with one of another library.
    """
    loops = (runner._train_loop, runner._val_loop, runner._test_loop)  # configs until they begin
    for loader in (loop.dataloader for loop in loops if isinstance(loop, BaseLoop)):
        collate = getattr(loader, "collate_fn", None)
        if getattr(collate, "func", collate) is collate_items:  # MMEngine makes a partial
            for leaf in leaves(loader.dataset):
                _check_end(leaf)


def _check_end(dataset: Any) -> None:  # noqa: ANN401
    """Check the last transform of a dataset that is no wrapper."""
    if not hasattr(dataset, "pipeline"):
        return
    steps = list(steps_of(dataset))
    if steps and isinstance(steps[-1], ClipBertTransforms):
        steps = [step for _, step in steps[-1].steps]
    last = type(steps[-1]) if steps else None
    of_own = last is not None and not library_of(last) and not last.__module__.startswith("clipbert_mm.")
    if last is None or not (of_own or issubclass(last, PackInputs)):
        within = "" if isinstance(dataset, MediaDataset) else ", in ClipBertTransforms"
        got = last.__name__ if last else "none"
        raise OptionError(
            f"The pipeline for {_title(dataset)} expects PackInputs at its end{within}, got {got}. Add dict(type='PackInputs')."
        )


def check_answers(runner: Runner) -> None:
    """Check that the head and all datasets have the same answers, and that labels of MMAction2's datasets stand for one.

    Raises:
        OptionError: If they have others, so that a label would be taken for a wrong answer, or the checkpoint could not be
            asked, or a batch would fail.
    """
    outputs = getattr(getattr(bare_model(runner.model), "head", None), "num_answers", None)
    if outputs is None:
        return
    datasets = datasets_of(runner)
    with_answers = [(leaf, first_value(leaf, "answers")) for dataset in datasets for leaf in leaves(dataset)]
    with_answers = [(leaf, answers) for leaf, answers in with_answers if answers is not None]
    for leaf, answers in with_answers:
        if len(answers) != outputs:
            raise OptionError(
                f"The head has {outputs:,} answers, and the answer_file for {_title(leaf)} has {len(answers):,}. Set "
                f"--cfg-options model.head.num_answers={len(answers)}, or another answer_file of the dataset (answers of "
                "ClipBertTransforms)."
            )
        _check_same(with_answers[0], (leaf, answers))
        _check_labels(leaf)
    if with_answers and isinstance(runner._train_loop, BaseLoop) and first_value(datasets[0], "answers") is None:
        leaf, answers = with_answers[0]
        raise OptionError(
            f"The training set {_title(datasets[0])} does not name the answers that its labels stand for, and the validation "
            f"set {_title(leaf)} has {len(answers):,}, the first of which is {quoted(next(iter(answers)))}. Set answer_file of "
            "the training set (answers of ClipBertTransforms) to the same, and replace datasets inherited from another config."
        )


def _check_same(expected: tuple[Any, Mapping[str, int]], found: tuple[Any, Mapping[str, int]]) -> None:
    """Check that two datasets number the same answers, as many, alike."""
    if expected[1] == found[1]:
        return
    before, after = (sorted(answers, key=answers.__getitem__) for _, answers in (expected, found))
    index = next(i for i, pair in enumerate(zip(before, after, strict=True)) if pair[0] != pair[1])
    raise OptionError(
        f"Answer {index} is {quoted(before[index])} in the vocabulary of {_title(expected[0])} and {quoted(after[index])} in "
        f"that of {_title(found[0])}. Set one answer_file for all datasets (answers of ClipBertTransforms), and replace "
        "datasets inherited from another config."
    )


def _check_labels(dataset: Any) -> None:  # noqa: ANN401
    """Check the labels of a dataset of MMAction2; datasets of ours check theirs when they are built."""
    for step in steps_of(dataset):
        if isinstance(step, ClipBertTransforms) and step.answers is not None and hasattr(dataset, "get_data_info"):
            for info in map(dataset.get_data_info, range(len(dataset))):
                if "label" in info:
                    step.check_label(info["label"], info.get("filename", ""))


def _title(dataset: Any) -> str:  # noqa: ANN401
    """Return the annotation file of a dataset, by which an error names it; its class if it has none."""
    return printable(str(first_value(dataset, "ann_file") or type(dataset).__name__))


def warn_of_shared_files(runner: Runner) -> None:
    """Warn if videos or images of the training set are in those of validation and test, or of validation in those of test.

    The test set, which a training does not build, is read without its pipeline; if it cannot be read, it is left out.
    """
    if runner.rank > 0 or not isinstance(runner._train_loop, BaseLoop):
        return
    sets = dict(zip(("train", "val"), datasets_of(runner), strict=False))
    test = _read_test_set(runner)
    if test is not None:
        sets["test"] = test
    shared = []
    for (first, one), (second, other) in itertools.combinations(sets.items(), 2):
        both = set(np.intersect1d(_hashes(one), _hashes(other)).tolist())
        if both and (first == "train" or first_value(one, "ann_file") != first_value(other, "ann_file")):
            paths = (part.get_data_info(i)["path"] for part in leaves(other) for i in range(len(part)))
            example = next(path for path in paths if hash(path) in both)
            shared.append(f"{len(both):,} are in {first} and {second}, such as {printable(example)}")
    if shared:
        runner.logger.warning(
            f"The same files are in several sets: {'; '.join(shared)}. What a model reaches on files that it was trained or "
            "selected on says little about new ones: remove them from the annotation file of one of the sets."
        )


def _hashes(dataset: Any) -> np.ndarray:  # noqa: ANN401
    """Return the hashes of the paths of a dataset's files; none for a dataset of another library."""
    hashes = [part.path_hashes for part in leaves(dataset) if isinstance(part, MediaDataset)]
    return np.concatenate([np.empty(0, np.int64), *hashes])


def _read_test_set(runner: Runner) -> MediaDataset | None:
    config: Any = (runner.cfg.get("test_dataloader") or {}).get("dataset")
    kind: Any = config.get("type") if isinstance(config, Mapping) else None
    kind = DATASETS.get(kind) if isinstance(kind, str) else kind
    if not isinstance(kind, type) or not issubclass(kind, MediaDataset):
        return None
    try:
        with _muted():
            return DATASETS.build({**dict(config), "pipeline": []})
    except (ClipBertError, OSError):
        return None


@contextmanager
def _muted() -> Iterator[None]:
    """Leave out what the package says; the test will say it."""
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before
