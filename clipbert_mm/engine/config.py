"""Read a config with options from the command line, and refuse misspelt names."""

import difflib
import inspect
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.config import Config
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from clipbert_mm.errors import OptionError, quoted

RUNNER_KEYS = {
    *inspect.signature(Runner.__init__).parameters,
    *("custom_imports", "find_unused_parameters", "model_wrapper_cfg", "runner_type"),
} - {"self", "cfg"}
"""Top-level names of a config that a run reads; all others are variables of the config file."""


def load_config(path: str, options: dict[str, Any] | None = None, needs: Sequence[str] = ("model",)) -> Config:
    """Read a config file and apply options to it.

    Args:
        path: The config file.
        options: Values by dotted key, such as ``{"train_dataloader.batch_size": 8}``.
        needs: Top-level names that the config must have.

    Raises:
        FileNotFoundError: If there is no such file.
        OptionError: If a key sets nothing in the config, the file misspells a name that a run reads, or one of ``needs`` is
            missing.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"There is no config {os.path.abspath(path)}.")
    config = Config.fromfile(path)
    for name in config:
        near = difflib.get_close_matches(name, RUNNER_KEYS, n=1, cutoff=0.85)
        if name not in RUNNER_KEYS and near:
            raise OptionError(f"{path}: '{name}' is not used by anything. Did you mean {near[0]}?")
    for key in options or {}:
        check_option(config, key)
    config.merge_from_dict(options or {})
    for name in needs:
        if config.get(name) is None:
            raise OptionError(f"{path} needs {name} for this. It has: {', '.join(sorted(config))}.")
    return config


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
    return isinstance(hook, Mapping) and str(hook.get("type")).endswith("EarlyStoppingHook")


def missing_validation(config: Mapping[str, Any]) -> str | None:
    """Return the annotation file that training validates on if it does not exist, else None."""
    dataset = (config.get("val_dataloader") or {}).get("dataset") or {}
    path = os.path.join(dataset.get("data_root") or "", dataset.get("ann_file") or "")
    return path if dataset.get("ann_file") and "://" not in path and not os.path.isfile(path) else None


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


def foreign_model(config: Mapping[str, Any]) -> str | None:
    """Return the type of a config's model if it is another library's, which our tools train too; None for a ClipBert."""
    model = config.get("model") or {}
    return str(model.get("type")) if model and "encoder" not in model else None


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


def check_option(config: Config, key: str) -> None:
    """Check that a dotted key names something that the config has, or that is checked where it is used.

    A new key may be added to a dict with a ``type``, whose class refuses what it does not know; to a dataloader, if torch's
    DataLoader takes it; and at the top, if MMEngine's Runner takes it. Other names at the top are variables of the config
    file: settings computed from them do not follow a change.

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
        if isinstance(node, (list, tuple)):
            if not part.isdigit() or int(part) >= len(node):
                raise OptionError(f"--cfg-options {key}: '{part}' is no index of a list of {len(node)}.")
            node = node[int(part)]
            continue
        if not isinstance(node, dict) and not isinstance(node, Config):
            raise OptionError(
                f"--cfg-options {key}: {'.'.join(parts[:depth])} is {quoted(node)}, which has no '{part}'."
            )
        if part in node:
            node = node[part]
            continue
        known = set(node)
        if depth == 0:
            known = RUNNER_KEYS
        elif depth == 1 and parts[0].endswith("_dataloader"):
            known |= set(inspect.signature(DataLoader.__init__).parameters) - {"self"}
        if part in known or "type" in node:
            return
        near = difflib.get_close_matches(part, sorted(map(str, known)), n=3)
        hint = f" Did you mean {' or '.join(near)}?" if near else f" There are: {', '.join(sorted(map(str, known)))}."
        raise OptionError(
            f"--cfg-options {key}: the config has no '{part}'{' in ' * bool(depth)}{'.'.join(parts[:depth])}.{hint}"
        )
