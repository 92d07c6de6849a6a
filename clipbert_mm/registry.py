"""The registries of clipbert_mm, children of MMEngine's; the error of an unknown name lists the names that are registered."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine import registry as root
from mmengine.config.utils import MODULE2PACKAGE

from clipbert_mm.deprecation import NAMES_IN_CONFIGS, warn_renamed
from clipbert_mm.errors import UnknownNameError


class Registry(root.Registry):
    """MMEngine's registry, with an error that offers close names, and with the old names of the last release."""

    def get(self, key: str) -> type:
        """Return the class or function registered as ``key`` here, in MMEngine, or as ``scope.key`` elsewhere.

        Raises:
            UnknownNameError: If nothing is registered under that name.
        """
        scope, _, name = key.rpartition(".")
        if scope in ("", "clipbert_mm") and name in NAMES_IN_CONFIGS:
            key = NAMES_IN_CONFIGS[name]
            inherited = self.parent is not None and name in self.parent.module_dict
            warn_renamed(name, f"{key}, or mmengine.{name} for MMEngine's own" if inherited else key)
        try:
            registered = super().get(key)
        except RuntimeError:  # MMEngine's "Failed to get ..."
            registered = None
        if registered is not None:
            return registered
        raise UnknownNameError(self._describe_unknown(key, scope, name))

    def _describe_unknown(self, key: str, scope: str, name: str) -> str:
        """Return the error of a name that is not registered: of another library if it has its scope."""
        libraries = {each: child for each, child in getattr(self.parent, "children", {}).items() if child is not self}
        if scope and scope != self.scope and scope != getattr(self.parent, "scope", None):
            if scope not in libraries:
                return (
                    f"'{key}' is of a library {scope}, which is not imported or has no {self.name} registry. Install it, and "
                    "list its module in `custom_imports` of the config."
                )
            theirs = libraries[scope].module_dict
            close = [f"{scope}.{each}" for each in difflib.get_close_matches(name, theirs, n=3)]
            names = _hint(close) or f" There are: {', '.join(sorted(theirs))}."
            return f"{scope} has no {name} in its {self.name} registry.{names}"
        inherited = self.parent.module_dict if self.parent else {}
        close = difflib.get_close_matches(name, {*self.module_dict, *inherited}, n=3)
        close = list(dict.fromkeys(NAMES_IN_CONFIGS.get(each, each) for each in close))
        close += [f"{each}.{name}" for each, child in libraries.items() if name in child.module_dict]
        return (
            f"'{key}' is not in the {self.name} registry.{_hint(close)} There are: "
            f"{', '.join(sorted(self.module_dict or inherited))}. For a class of your own, list its module in `custom_imports` "
            "of the config; for a class of another library, put its scope before the name, as in 'mmpretrain.ResNet'."
        )


def _hint(close: Sequence[str]) -> str:
    return f" Did you mean {' or '.join(close)}?" if close else ""


def class_name(kind: type) -> str:
    """Return the name by which a config names a class, with its scope if it is a class of MMEngine's other libraries.

    >>> class_name(Registry)
    'Registry'
    """
    library = kind.__module__.partition(".")[0]
    return f"{library}.{kind.__name__}" if library in ("mmaction", "mmengine", "mmpretrain") else kind.__name__


def type_name(settings: Mapping[str, Any]) -> str:
    """Return the ``type`` of a part of a config, without our scope; new-style configs name the class itself.

    >>> type_name(dict(type="clipbert_mm.RetrievalTestLoop"))
    'RetrievalTestLoop'
    """
    kind = settings.get("type")
    return without_scope(class_name(kind) if isinstance(kind, type) else str(kind))


def without_scope(name: str) -> str:
    """Return the name of a class without our scope; with another library's, it stays as it is.

    >>> without_scope("clipbert_mm.ClipBert"), without_scope("mmaction.ResNet")
    ('ClipBert', 'mmaction.ResNet')
    """
    return name.removeprefix("clipbert_mm.")


# MMEngine reads configs as clipbert_mm::NAME, in _base_ and by get_config, from the libraries that it knows.
MODULE2PACKAGE["clipbert_mm"] = "clipbert_mm"


def _child(name: str, parent: root.Registry, *locations: str) -> Registry:
    return Registry(
        name,
        parent=parent,
        scope="clipbert_mm",
        locations=[f"clipbert_mm.{each}" for each in locations or ("registry",)],
    )


DATASETS = _child("dataset", root.DATASETS, "datasets")
TRANSFORMS = _child("transform", root.TRANSFORMS, "datasets.transforms")
FUNCTIONS = _child("function", root.FUNCTIONS, "datasets.transforms")
MODELS = _child("model", root.MODELS, "models")
METRICS = _child("metric", root.METRICS, "evaluation")
RUNNERS = _child("runner", root.RUNNERS, "engine.runner")
LOOPS = _child("loop", root.LOOPS, "engine.train_loop", "retrieval.loops")
HOOKS = _child("hook", root.HOOKS, "engine.hooks", "compat.optim")
OPTIM_WRAPPERS = _child("optimizer wrapper", root.OPTIM_WRAPPERS, "compat.optim")
DATA_SAMPLERS = _child("data sampler", root.DATA_SAMPLERS, "engine.global_batch")
INFERENCERS = _child("inferencer", root.INFERENCERS, "apis.inferencer")
# The next ones have no classes of ours; they let MMEngine find every name from our scope, and offer close names.
OPTIMIZERS = _child("optimizer", root.OPTIMIZERS)
OPTIM_WRAPPER_CONSTRUCTORS = _child(
    "optimizer wrapper constructor", root.OPTIM_WRAPPER_CONSTRUCTORS, "engine.optimizer"
)
PARAM_SCHEDULERS = _child("parameter scheduler", root.PARAM_SCHEDULERS, "engine.schedulers")
WEIGHT_INITIALIZERS = _child("weight initializer", root.WEIGHT_INITIALIZERS)
MODEL_WRAPPERS = _child("model wrapper", root.MODEL_WRAPPERS)
VISUALIZERS = _child("visualizer", root.VISUALIZERS)
VISBACKENDS = _child("visualizer backend", root.VISBACKENDS)
