"""Building a transform of MMAction2 from its config, with the checks of its settings that MMAction2 leaves out."""

import difflib
import inspect
from collections.abc import Mapping
from typing import Any

from mmcv.transforms import BaseTransform
from mmengine.fileio import FileClient
from mmengine.registry import DefaultScope

from clipbert_mm import compat
from clipbert_mm.datasets.transforms.other_libraries import library_of
from clipbert_mm.errors import OptionError, is_count, quoted

OWN_GENERATOR = ("ImgAug",)
"""Transforms of MMAction2 whose draws cannot be repeated, as their library has generators of its own."""
LEAST = dict(clip_len=1, num_clips=1, frame_interval=0, num_threads=0)
"""Settings of MMAction2's transforms that are whole numbers, and the smallest that is one; it checks none of them."""


def name_of(config: Mapping[str, Any]) -> str:
    """Return the name of a transform, without its scope."""
    kind = config.get("type") if isinstance(config, Mapping) else None
    if kind is None:
        raise OptionError(f"Expected configs of transforms, such as dict(type='Flip'), got {quoted(config)}.")
    return kind.rpartition(".")[2] if isinstance(kind, str) else kind.__name__


def build_transform(config: Mapping[str, Any]) -> BaseTransform:
    """Build a transform of MMAction2.

    Raises:
        OptionError: If MMAction2 has no such transform, cannot build it, or nothing reads one of its settings.
    """
    from mmaction.registry import TRANSFORMS as theirs

    name = name_of(config)
    if name in OWN_GENERATOR:
        raise OptionError(
            f"MMAction2's {name} draws from generators of its own library, so that a training could not be repeated or resumed "
            "exactly. Use other transforms."
        )
    kind = theirs.get(config["type"]) if isinstance(config["type"], str) else config["type"]
    if kind is None:
        close = difflib.get_close_matches(name, theirs.module_dict, n=3)
        hint = f" Did you mean {' or '.join(close)}?" if close else ""
        raise OptionError(f"MMAction2 has no transform {quoted(name)}.{hint}")
    if library_of(kind) not in (None, "MMAction2"):
        raise OptionError(
            f"MMActionTransforms takes transforms of MMAction2, got {library_of(kind)}'s {name}, which takes a single image. "
            "Use what MMAction2 has of its kind, or its TorchVisionWrapper."
        )
    settings = {key: value for key, value in config.items() if key != "type"}
    for key, least in LEAST.items():
        if key in settings and not is_count(settings[key], least):
            raise OptionError(f"MMAction2's {name} expects {key} >= {least}, got {quoted(settings[key])}.")
    if settings.get("io_backend", "disk") not in FileClient._backends:  # which it looks up when it reads the first file
        raise OptionError(
            f"MMAction2's {name} expects io_backend {', '.join(FileClient._backends)}, got {quoted(settings['io_backend'])}."
        )
    _check_names(name, kind, settings)
    if name == "UniformSample" and settings.get("num_clips", 1) > 1 and not settings.get("test_mode"):
        raise OptionError(
            f"MMAction2's UniformSample draws one clip unless test_mode=True, got num_clips={settings['num_clips']}. Use its "
            "SampleFrames, or SampleClips, for several."
        )
    try:
        with compat.seeded_generators(0), DefaultScope.overwrite_default_scope("mmaction"):
            return theirs.build(dict(config))
    except Exception as error:  # assertions and errors of any kind, of their constructors
        reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        raise OptionError(f"MMAction2 cannot build {name} with {quoted(settings)}: {reason[0]}") from error


def _check_names(name: str, kind: type, settings: Mapping[str, Any]) -> None:
    """Check that a transform of MMAction2 whose constructor takes any setting, by ``**kwargs``, reads those that it gets.

    It ignores them, or passes them to the ``io_backend`` when it reads the first file. Its wrappers of other libraries'
    transforms (by ``op``) check theirs, and a class of one's own may read what it likes.

    Raises:
        OptionError: If nothing reads a setting.
    """
    named, takes_any = _parameters(kind)
    if kind.__module__.partition(".")[0] != "mmaction" or not takes_any or "op" in named:
        return
    for parent in kind.__mro__[1:]:  # to which **kwargs may go
        named |= _parameters(parent)[0]
    if "io_backend" in named:
        more, takes_any = _parameters(FileClient._backends[settings.get("io_backend", "disk")])
        if takes_any:
            return
        named |= more
    for setting in settings:
        if setting not in named:
            close = difflib.get_close_matches(setting, named, n=1)
            hint = f"Did you mean {close[0]}?" if close else f"It has {', '.join(sorted(named)) or 'none'}."
            raise OptionError(f"MMAction2's {name} has no setting {quoted(setting)}. {hint}")


def _parameters(kind: type) -> tuple[set[str], bool]:
    """Return the names of the arguments of a class, and whether it takes any other."""
    kinds = {each.name: each.kind for each in inspect.signature(kind).parameters.values()}
    others = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {name for name, each in kinds.items() if each not in others}, others[1] in kinds.values()
