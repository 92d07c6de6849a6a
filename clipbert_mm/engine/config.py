"""Read a config with options from the command line, and refuse misspelt names."""

import copy
import difflib
import glob
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.config import Config

import clipbert_mm
from clipbert_mm.engine.known_keys import known_in, runner_keys
from clipbert_mm.engine.tool_flags import LOADERS, MAX_SEED
from clipbert_mm.errors import OptionError, is_count, quoted
from clipbert_mm.log import logger
from clipbert_mm.registry import type_name

RUNNER_KEYS = runner_keys()
"""Top-level names of a config that a run reads; all others are variables of the config file."""


def load_config(
    source: str | os.PathLike | Config, options: dict[str, Any] | None = None, needs: Sequence[str] = ("model",)
) -> Config:
    """Read a config file and apply options to it.

    Args:
        source: The config file, or what :func:`find_config` finds; or a config, which stays as it is: a copy is returned.
        options: Values by dotted key, such as ``{"train_dataloader.batch_size": 8}``; they stay as they are.
        needs: Top-level names that the config must have.

    Raises:
        FileNotFoundError: If there is no such file.
        OptionError: If a key sets nothing in the config, the file misspells a name that a run reads or reads an environment
            variable that is empty, or one of ``needs`` is missing.
    """
    if isinstance(source, Config):
        config, who = copy.deepcopy(source), source.filename or "The config"
    else:
        config, who = _read_config(os.fspath(source)), os.fspath(source)
    drop_scope(config)
    options = copy.deepcopy(options or {})  # MMEngine takes "_delete_" out of what it merges
    for name in config:
        near = difflib.get_close_matches(name, RUNNER_KEYS, n=1, cutoff=0.85)
        if name not in RUNNER_KEYS and near and not callable(config[name]):  # a config may import what it names
            raise OptionError(f"{who}: '{name}' is not used by anything. Did you mean {near[0]}?")
    for key in options:
        check_option(config, key, options)
    config.merge_from_dict(options)
    for name in needs:
        if config.get(name) is None:
            raise OptionError(f"{who} needs {name} for this. It has: {', '.join(sorted(config))}.")
    return config


def _read_config(name: str) -> Config:
    try:
        return Config.fromfile(find_config(name))
    except KeyError as error:
        if (variable := re.search(r"`(\w+)` cannot be found in `os.environ`", str(error))) is None:
            raise
        raise OptionError(
            f"{name}: expected a value of the environment variable {variable[1]}, got nothing. Set it, or unset it for the "
            "config's default if it has one."
        ) from None


def drop_scope(config: Config) -> None:
    """Remove the scopes that MMEngine adds to what is inherited from ``clipbert_mm::NAME``, where ours is the default scope.

    MMEngine passes them on to ``collate_fn``, and a checkpoint would keep them.
    """
    if config.get("default_scope") == "clipbert_mm":
        _drop_scope(config._cfg_dict)


def _drop_scope(value: Any) -> None:  # noqa: ANN401
    if isinstance(value, dict) and dict.get(value, "_scope_") == "clipbert_mm":
        del value["_scope_"]
    if isinstance(value, (dict, list, tuple)):
        for each in dict.values(value) if isinstance(value, dict) else value:
            _drop_scope(each)


def configs_folder() -> str:
    """Return the folder of the package's configs: of an installed package, or of a clone."""
    return os.path.join(os.path.dirname(clipbert_mm.__file__), ".mim", "configs")


def find_config(name: str) -> str:
    """Return the path of a config file.

    Args:
        name: A path; or a config of the package, as ``clipbert_mm::shapes/NAME.py``, as its path in the repository,
            ``configs/shapes/NAME.py``, or as its name alone, with or without ``.py``. What exists as a path is a path.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    if os.path.isfile(name):
        return name
    folder = configs_folder()
    wanted = name.removeprefix("clipbert_mm::").removeprefix("configs/")
    found = [os.path.join(folder, wanted)]
    if os.sep not in wanted:
        found = glob.glob(os.path.join(folder, "*", f"{glob.escape(wanted.removesuffix('.py'))}.py"))
    if len(found) != 1 or not os.path.isfile(found[0]):
        raise FileNotFoundError(f"There is no config {os.path.abspath(name)}. Those of the package are in {folder}.")
    logger.info(f"The config {name} is the package's {found[0]}.")
    return found[0]


def drop_validation(config: Config) -> None:
    """Change a config so that training does not validate, nor select or stop by metrics of validation."""
    for part in ("dataloader", "cfg", "evaluator"):
        config[f"val_{part}"] = None
    hooks = config.get("default_hooks") or {}
    for name in [name for name, hook in hooks.items() if _stops_early(hook)]:
        hooks.pop(name)
    if config.get("custom_hooks"):
        config.custom_hooks = [hook for hook in config.custom_hooks if not _stops_early(hook)]
    if (hooks.get("checkpoint") or {}).get("save_best") is not None:
        hooks["checkpoint"]["save_best"] = None


def _stops_early(hook: Any) -> bool:  # noqa: ANN401
    return isinstance(hook, Mapping) and type_name(hook).endswith("EarlyStoppingHook")


def names_library(settings: Any, library: str) -> bool:  # noqa: ANN401
    """Say whether a part of a config builds something of a library, by the scope of a ``type``.

    >>> names_library(dict(pipeline=[dict(type="mmaction.Flip")]), "mmaction")
    True
    """
    if isinstance(settings, Mapping):
        kind = settings.get("type")
        return (isinstance(kind, str) and kind.startswith(f"{library}.")) or names_library(
            list(settings.values()), library
        )
    return isinstance(settings, (list, tuple)) and any(names_library(each, library) for each in settings)


def missing_validation(config: Mapping[str, Any]) -> str | None:
    """Return the annotation file that training validates on if it does not exist, else None."""
    dataset = (config.get("val_dataloader") or {}).get("dataset") or {}
    named = dataset.get("ann_file") or []
    for name in [named] if isinstance(named, str) else named:
        path = os.path.join(dataset.get("data_root") or "", name)
        if "://" not in path and not os.path.isfile(path):
            return path
    return None


def check_validation(config: Mapping[str, Any]) -> None:
    """Check that the annotation file that training validates on exists.

    Raises:
        OptionError: If it does not.
    """
    if (path := missing_validation(config)) is not None:
        raise OptionError(
            f"There is no {os.path.abspath(path)}, which training validates on to select the best checkpoint. Let the "
            "dataset's converter write it (docs/datasets.md), set val_dataloader.dataset.ann_file, or train with --no-validate."
        )


def check_start(config: Mapping[str, Any]) -> None:
    """Check that the files exist that training starts from.

    Raises:
        OptionError: If one does not. It may be the result of a training that was not run yet, so the error names other starts.
    """
    paths = config.get("load_from")
    for path in [paths] if isinstance(paths, str) else paths or ():
        if "://" in path or os.path.exists(path) or not re.search(r"\.(pth?|pkl|bin|safetensors)$", path):
            continue  # an address, or a name on the Hugging Face hub
        raise OptionError(
            f"There is no checkpoint {os.path.abspath(path)}, which training starts from. Run the training that writes it, or "
            "name other weights by --load-from: a checkpoint of this model, or a ResNet and a BERT; docs/where_to_start.md "
            "lists those that exist."
        )


OF_MMCV_1 = {
    "checkpoint_config": "default_hooks.checkpoint",
    "cudnn_benchmark": "env_cfg.cudnn_benchmark",
    "data": "train_dataloader, val_dataloader and test_dataloader",
    "dist_params": "env_cfg.dist_cfg",
    "evaluation": "train_cfg.val_interval and val_evaluator",
    "fp16": "optim_wrapper.type='AmpAccumulatingOptimWrapper', or --amp",
    "log_config": "default_hooks.logger and visualizer",
    "lr_config": "param_scheduler",
    "optimizer": "optim_wrapper.optimizer",
    "optimizer_config": "optim_wrapper.clip_grad",
    "resume_from": "resume='PATH', or --resume PATH",
    "runner": "train_cfg and runner_type",
    "total_epochs": "train_cfg.max_epochs",
    "total_iters": "train_cfg.max_iters",
    "workflow": "train_cfg and val_cfg",
}
"""Settings of OpenMMLab's tools before MMEngine, and what they are called since."""
VARIABLES = ("data", "optimizer", "runner")
"""Those that may also be variables of a config file, where they are no dict."""


def check_unused(config: Config) -> None:
    """Refuse what nothing reads; move ``data_preprocessor`` to a model that has none, as MMEngine's Runner does.

    Raises:
        OptionError: If a setting would have no effect.
    """
    for name in sorted(OF_MMCV_1.keys() & config.keys()):
        if name in VARIABLES and not isinstance(config[name], dict):
            continue
        raise OptionError(f"{name} of the config is read by nothing since MMEngine. Set {OF_MMCV_1[name]}.")
    if config.get("strategy") is not None and "ClipBertRunner" in str(config.get("runner_type", "ClipBertRunner")):
        raise OptionError("strategy of the config is read by FlexibleRunner alone. Remove it.")
    preprocessor, model = config.get("data_preprocessor"), config.get("model")
    if not preprocessor or not isinstance(model, dict):
        return
    own = model.setdefault("data_preprocessor", preprocessor)
    if own != preprocessor:
        raise OptionError(
            "data_preprocessor of the config is not used, since model.data_preprocessor differs from it. Set "
            "model.data_preprocessor, and remove data_preprocessor."
        )


NUMBERS: dict[str, tuple[int, int | None]] = {
    "train_cfg.max_epochs": (1, None),
    "train_cfg.max_iters": (1, None),
    "train_cfg.val_interval": (1, None),
    "optim_wrapper.accumulative_counts": (1, None),
    **{f"{loader}.batch_size": (1, None) for loader in LOADERS},
    **{f"{loader}.num_workers": (0, None) for loader in LOADERS},
    "randomness.seed": (0, MAX_SEED),
}
"""Numbers that a run reads, with the least and the most."""


def check_stages(config: Mapping[str, Any]) -> None:
    """Check that training, validation and test have each all of their settings, or none.

    Raises:
        OptionError: If one has some of them.
    """
    for stage, last in dict(train="optim_wrapper", val="val_evaluator", test="test_evaluator").items():
        names = (f"{stage}_dataloader", f"{stage}_cfg", last)
        missing = [name for name in names if config.get(name) is None]
        if 0 < len(missing) < len(names):
            given = " and ".join(name for name in names if name not in missing)
            raise OptionError(
                f"The config has {given}, but not {' nor '.join(missing)}. Set all of {', '.join(names)}, or all to None."
            )


def check_numbers(config: Mapping[str, Any]) -> None:
    """Check the numbers of a config that MMEngine, torch and NumPy answer with a traceback, or take without a sense.

    A training of no epochs, which only sets up, has no schedule.

    Raises:
        OptionError: If one is not a whole number of its range.
    """
    for key, (least, most) in NUMBERS.items():
        part, _, name = key.partition(".")
        value = settings.get(name) if isinstance(settings := config.get(part), Mapping) else None
        if part == "train_cfg" and isinstance(value, float) and value.is_integer():
            value = int(value)  # as MMEngine's loops take 1e5
        if name in ("max_epochs", "max_iters") and not config.get("param_scheduler"):
            least = 0
        if value is not None and not (is_count(value, least) and (most is None or value <= most)):
            expected = f"{least} or more" if most is None else f"{least} to {most}"
            raise OptionError(f"{key} of the config: expected a whole number, {expected}, got {quoted(value)}.")


def check_averaging(config: Mapping[str, Any]) -> None:
    """Check that a ClipBert is in no model of another library that averages over changed images, as ``--tta`` makes it.

    Raises:
        OptionError: If it is.
    """
    model = config.get("model") or {}
    if "encoder" in (model.get("module") or {}):
        raise OptionError(
            f"{type_name(model)} averages a classifier's scores over flips (--tta), and a ClipBert's test averages over clips. "
            "Leave it out, and set num_clips of SampleClips in the test pipeline."
        )


def foreign_model(config: Mapping[str, Any]) -> str | None:
    """Return the type of a config's model if it is another library's, which our tools train too; None for a ClipBert."""
    model = config.get("model") or {}
    return type_name(model) if model and "encoder" not in model else None


def expect_clipbert(config: Mapping[str, Any], who: str) -> None:
    """Check that a config is for a ClipBert.

    Raises:
        OptionError: If its model is another library's.
    """
    if (other := foreign_model(config)) is not None:
        raise OptionError(f"{who} needs the config of a ClipBert, got one with a model of type {other}.")


def text_without_folders(config: Config) -> str:
    """Return the text of a config with only the last part of each absolute path, for a checkpoint that may go anywhere."""
    return Config(without_folders(config.to_dict())).pretty_text


def without_folders(value: Any) -> Any:  # noqa: ANN401
    """Return a config's value with only the last part of each absolute path.

    >>> without_folders(dict(data_root="/home/someone/msrvtt", load_from="weights/bert.pth"))
    {'data_root': 'msrvtt', 'load_from': 'weights/bert.pth'}
    """
    if isinstance(value, Mapping):
        return {key: without_folders(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(without_folders(each) for each in value)
    return os.path.basename(value.rstrip("/")) if isinstance(value, str) and os.path.isabs(value) else value


def check_option(config: Config, key: str, options: Mapping[str, Any]) -> None:
    """Check that a dotted key names something that the config has, or that is checked where it is used.

    A new key may be added to a dict with a ``type``, whose class refuses what it does not know; to ``default_hooks`` with its
    ``type``; where MMEngine or torch know it, see :mod:`~clipbert_mm.engine.known_keys`; and at the top, if MMEngine's Runner
    takes it. Other names at the top are variables of the config file: settings computed from them do not follow a change.

    Args:
        config: The config.
        key: The key.
        options: All options, by their keys.

    Raises:
        OptionError: If the key names nothing.
    """
    node: Any = config
    parts = key.split(".")
    if parts[0] in config and parts[0] not in RUNNER_KEYS:
        raise OptionError(
            f"--cfg-options {key}: '{parts[0]}' is a variable of the config file; settings computed from it do not follow a "
            "change. Set those (tools/analysis_tools/print_config.py shows them), or the variable in a config of your own."
        )
    for depth, part in enumerate(parts):
        path = ".".join(parts[:depth])
        if isinstance(node, (list, tuple)):
            if not part.isdigit() or int(part) >= len(node):
                raise OptionError(f"--cfg-options {key}: '{part}' is no index of a list of {len(node)}.")
            node = node[int(part)]
            continue
        if not isinstance(node, dict) and not isinstance(node, Config):
            raise OptionError(f"--cfg-options {key}: {path} is {quoted(node)}, which has no '{part}'.")
        if part in node:
            node = node[part]
            continue
        known = RUNNER_KEYS if depth == 0 else set(node) | known_in(path)
        if "type" in node or (path == "default_hooks" and f"{path}.{part}.type" in options):
            _check_new_list(key, depth)
            return
        if part in known:
            _check_new_list(key, depth)
            node = {}  # what is below is known by its path too
            if depth == len(parts) - 1 or not known_in(f"{path}.{part}".strip(".")):
                return
            continue
        near = difflib.get_close_matches(part, sorted(map(str, known)), n=3)
        hint = f" Did you mean {' or '.join(near)}?" if near else f" There are: {', '.join(sorted(map(str, known)))}."
        raise OptionError(f"--cfg-options {key}: the config has no '{part}'{' in ' * bool(depth)}{path}.{hint}")


def _check_new_list(key: str, depth: int) -> None:
    """Refuse a key whose part after ``depth`` is an index, of a list that the config does not have: it would become a dict."""
    parts = key.split(".")
    if not parts[depth + 1 : depth + 2] or not parts[depth + 1].isdigit():
        return
    what = (
        "Name a hook by default_hooks.NAME.type"
        if parts[depth] == "custom_hooks"
        else "Write it in a config of your own"
    )
    raise OptionError(
        f"--cfg-options {key}: the config has no list {'.'.join(parts[: depth + 1])}, of which to set an entry. {what}."
    )
