"""Check that checkpoints fit the model; where they do not, MMEngine only warns and continues with random weights."""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from clipbert_mm.checkpoint.formats import LoadedCheckpoint
from clipbert_mm.checkpoint.mapped_pages import MappedPages, releasing_copied
from clipbert_mm.deprecation import warn_renamed
from clipbert_mm.errors import CheckpointError, printable, quoted

USE_ITS_CONFIG = "Use the config that the checkpoint was trained with, with the environment variables that it read then"


@dataclass(frozen=True)
class LoadReport:
    """Which of a model's tensors checkpoints fill.

    Args:
        sources: Each checkpoint with its format.
        loaded: Names of the model's tensors that are loaded.
        missing: Names of the model's tensors that are in no checkpoint and keep their initial values.
        unexpected: Names in the checkpoints that the model does not have.
        wrong_shape: Names of tensors that have another shape in the checkpoint.
        frozen_uninitialized: Names of missing tensors in frozen modules, which keep their initial values in training too.
    """

    sources: tuple[str, ...]
    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    wrong_shape: tuple[str, ...]
    frozen_uninitialized: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return the report, one line for each group of tensors."""
        model = (*self.loaded, *self.missing, *self.wrong_shape)
        checkpoint = (*self.loaded, *self.unexpected, *self.wrong_shape)
        return (
            f"weights from {'; '.join(self.sources)}\n"
            f"  loaded: {len(self.loaded)} of the model's {len(model)} tensors{_list_modules(self.loaded, model)}\n"
            f"  missing (new): {len(self.missing)}{_list_modules(self.missing, model)}\n"
            f"  unexpected (not used): {len(self.unexpected)}{_list_modules(self.unexpected, checkpoint)}\n"
            f"  wrong shape: {len(self.wrong_shape)}{_list_modules(self.wrong_shape, model)}{self._frozen_line(model)}"
        )

    def _frozen_line(self, model: Sequence[str]) -> str:
        names = self.frozen_uninitialized
        return f"\n  frozen but not initialized: {len(names)}{_list_modules(names, model)}" if names else ""

    @property
    def stuck(self) -> tuple[str, ...]:
        """The old name of ``frozen_uninitialized``."""
        warn_renamed("LoadReport.stuck", "frozen_uninitialized")
        return self.frozen_uninitialized


def check_fit(
    model: nn.Module,
    sources: Sequence[LoadedCheckpoint],
    *,
    whole: bool,
    min_share: float = 0.95,
    reinit: Sequence[str] = (),
) -> LoadReport:
    """Compare checkpoints with the model that loads them.

    Args:
        model: The model.
        sources: The checkpoints; where several have the same tensor, the last one counts.
        whole: Whether model and checkpoints have to agree, as for testing and resuming: every tensor of the model is in a
            checkpoint, and no checkpoint has additional tensors in a part (backbone, encoder, ...) of the model. A model that
            starts training may have new parts.
        min_share: Smallest share of the tensors that have to agree in each module that a checkpoint fills, 0 to 1.
        reinit: Modules that are initialized anew instead of loaded, such as "head" for another number of answers.

    Returns:
        The report.

    Raises:
        CheckpointError: If shapes or depths differ, too few tensors agree, or ``reinit`` names no module.
    """
    model_tensors = _without_counters(model.state_dict())
    for module in reinit:
        if not any(within(name, (module,)) for name in model_tensors):
            raise CheckpointError(
                f"reinit names '{module}', which is no module of the model. Its modules are: "
                f"{', '.join(dict.fromkeys(name.partition('.')[0] for name in model_tensors))}."
            )
    checkpoint_tensors: dict[str, Tensor] = {}
    for source in sources:
        checkpoint_tensors |= {
            name: value for name, value in _without_counters(source.tensors).items() if not within(name, reinit)
        }
    frozen = [name for name, module in model.named_modules() if _is_frozen(module)]
    missing = tuple(name for name in model_tensors if name not in checkpoint_tensors)
    report = LoadReport(
        sources=tuple(f"{source.path} ({source.title})" for source in sources),
        loaded=tuple(
            name
            for name in model_tensors
            if name in checkpoint_tensors and checkpoint_tensors[name].shape == model_tensors[name].shape
        ),
        missing=missing,
        unexpected=tuple(name for name in checkpoint_tensors if name not in model_tensors),
        wrong_shape=tuple(
            name
            for name in model_tensors
            if name in checkpoint_tensors and checkpoint_tensors[name].shape != model_tensors[name].shape
        ),
        frozen_uninitialized=tuple(name for name in missing if name.rpartition(".")[0] in frozen),
    )
    heads = [source.rest["attention_heads"] for source in sources if source.rest.get("attention_heads") is not None]
    if within("encoder.bert", reinit):
        heads = []
    _check_sizes(
        report,
        _sizes(model_tensors, _attention_heads(model)),
        _sizes(checkpoint_tensors, *heads[-1:]),
        model_tensors,
        checkpoint_tensors,
        whole,
    )
    parts = {name.partition(".")[0] for name in model_tensors}
    additional = [name for name in report.unexpected if name.partition(".")[0] in parts]
    if whole and (report.missing or additional):
        reason = (
            f"it lacks {report.missing[0]}" if report.missing else f"the model does not have its tensor {additional[0]}"
        )
        raise CheckpointError(f"The checkpoint does not fit the model: {reason}. {USE_ITS_CONFIG}.\n{report}")
    for source in sources:
        _check_shares(report, source, model_tensors, min_share, reinit)
    if not report.loaded:
        raise CheckpointError(f"Nothing in the checkpoint fits the model.\n{report}")
    for source in sources:
        _check_use(report, source, model_tensors, reinit)
    return report


def _check_use(
    report: LoadReport, source: LoadedCheckpoint, model_tensors: Mapping[str, Tensor], reinit: Sequence[str]
) -> None:
    """Check that the model has most of a checkpoint's tensors; otherwise their names were misunderstood.

    Raises:
        CheckpointError: If it has fewer than :data:`MIN_USED`.
    """
    names = [name for name in _without_counters(source.tensors) if not within(name, reinit)]
    used = sum(name in model_tensors for name in names)
    if used < MIN_USED * len(names):
        first = next(name for name in names if name not in model_tensors)
        raise CheckpointError(
            f"The model has {used} of the {len(names)} tensors of {printable(source.path)} ({source.title}); it does not have "
            f"{quoted(first)}. The file belongs to another model, or a wrapper's prefix in its names is not known. Rename the "
            f"tensors, or save only the part that is to be loaded.\n{report}"
        )


def load_weights(model: nn.Module, tensors: Mapping[str, Tensor], path: str, *, strict: bool = False) -> None:
    """Copy weights into a model, after checking that they are finite.

    Of tensors in a mapped file no more than one module's are in memory at a time, besides the model's.

    Args:
        model: The model.
        tensors: The weights by the model's names.
        path: Where they come from.
        strict: Whether the names have to be exactly the model's.

    Raises:
        CheckpointError: If weights are NaN or infinite, or do not fit.
    """
    loaded = model.state_dict().keys() & tensors.keys()
    pages, broken = MappedPages(), []
    for name, tensor in tensors.items():
        if name in loaded:
            broken += not_finite({name: tensor})
            pages.release(tensor)
    if broken:
        raise CheckpointError(
            f"{printable(path)} is refused: {len(broken)} of the {len(loaded)} tensors that the model loads from it are NaN or "
            f"infinite, the first is {quoted(broken[0])}. Its training failed before it was written. Use an earlier checkpoint."
        )
    try:
        with releasing_copied(model, tensors, pages):
            model.load_state_dict(tensors, strict=strict)
    except RuntimeError as error:
        raise CheckpointError(
            f"{printable(path)} does not fit the model: {quoted(str(error))}. Use the config that it was trained with."
        ) from error


def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the names of the tensors that have NaN or infinite values."""
    return [name for name, tensor in tensors.items() if tensor.is_floating_point() and not _is_finite(tensor)]


def _is_finite(tensor: Tensor) -> bool:
    """Read each value once, without a copy of the tensor."""
    if tensor.numel() == 0:
        return True
    values = tensor.float() if tensor.itemsize == 1 else tensor  # the 8-bit types have no minimum
    return bool(torch.stack(torch.aminmax(values)).isfinite().all())


def _check_sizes(
    report: LoadReport,
    model_sizes: Mapping[str, object],
    checkpoint_sizes: Mapping[str, object],
    model_tensors: Mapping[str, Tensor],
    checkpoint_tensors: Mapping[str, Tensor],
    whole: bool,
) -> None:
    """Check that shapes, depths and attention heads agree.

    Raises:
        CheckpointError: If they do not; it names both sides.
    """
    differing = [
        size for size in model_sizes if size in checkpoint_sizes and model_sizes[size] != checkpoint_sizes[size]
    ]
    depths = [size for size in differing if size in DEPTHS]
    if not report.wrong_shape and not depths:
        return
    differences = [f"{size}: checkpoint {checkpoint_sizes[size]}, model {model_sizes[size]}" for size in differing]
    differences += [
        f"{name}: checkpoint {tuple(checkpoint_tensors[name].shape)}, model {tuple(model_tensors[name].shape)}"
        for name in report.wrong_shape[:1]
    ]
    heads = [name for name in report.wrong_shape if name.startswith("head.")]
    advice = (
        "Set reinit=['head'] of CheckpointCompatibilityHook to train a new head: --cfg-options "
        "\"default_hooks.checkpoint_fit.reinit=['head']\"."
        if heads and len(heads) == len(report.wrong_shape) and not depths and not whole
        else f"{USE_ITS_CONFIG}, or change the model's."
    )
    raise CheckpointError(f"The checkpoint does not fit the model. {'; '.join(differences)}. {advice}\n{report}")


def _check_shares(
    report: LoadReport,
    source: LoadedCheckpoint,
    model_tensors: Mapping[str, Tensor],
    min_share: float,
    reinit: Sequence[str],
) -> None:
    """Check that a checkpoint fills each part of the model that it is for, and that its part is no larger network.

    Raises:
        CheckpointError: If too few tensors agree.
    """
    for part in source.parts:
        needed, offered = (
            [name for name in _without_counters(names) if within(name, (part,)) and not within(name, reinit)]
            for names in (model_tensors, source.tensors)
        )
        both = set(needed) & set(offered)
        if not needed or len(both) >= min_share * max(len(needed), len(offered)):
            continue
        shared = f"{len(both)} of the {len(needed)} tensors of the model's {part}"
        if len(both) >= min_share * len(needed):
            first = next(name for name in offered if name not in both)
            shared = f"{len(offered)} tensors of {part}, and the model has {len(both)} of them but not {first}"
        raise CheckpointError(
            f"{source.path} ({source.title}) has {shared}; CheckpointCompatibilityHook requires a share of {min_share:g}. Use "
            f"the model that it was made for, or lower min_share.\n{report}"
        )


MAX_LIST_LENGTH = 400
"""Most characters of a list of modules."""
MIN_USED = 0.5
"""Smallest share of a file's tensors that a model has to have."""
TEXTS = r"encoder\.(?:(?:bert|text)\.embeddings|text_embedding)"
"""How the names of the embeddings of texts begin."""
DEPTHS = ("blocks of the backbone's stages", "layers of the encoder", "attention heads of the encoder")
"""Sizes that have to agree even where every tensor fits."""
BLOCK = re.compile(r"backbone\.(?:timm_model\.|backbone\.)?(?:layers?|stages)[._]?(\d+)\.(?:blocks\.)?(\d+)\.")
"""Stage and block in the names of a backbone, for ResNets, ConvNeXt, Swin, and timm's."""


def _is_frozen(module: nn.Module) -> bool:
    """Return whether a module has parameters of its own and all of them are frozen."""
    parameters = list(module.parameters(recurse=False))
    return bool(parameters) and not any(parameter.requires_grad for parameter in parameters)


def _attention_heads(model: Any) -> int | None:  # noqa: ANN401
    """Return the number of attention heads of a ClipBert."""
    config = getattr(getattr(model, "encoder", None), "text_config", None)
    return None if config is None else config.num_attention_heads


def _sizes(tensors: Mapping[str, Tensor], attention_heads: int | None = None) -> dict[str, object]:
    """Derive the sizes that a config sets from names and shapes; the attention heads cannot be derived."""
    sizes: dict[str, object] = {}
    blocks: dict[int, int] = {}
    layers = set()
    for name in tensors:
        if block := BLOCK.match(name):
            blocks[int(block[1])] = max(blocks.get(int(block[1]), 0), int(block[2]) + 1)
        if layer := re.match(r"encoder\.(?:(?:bert|text)\.encoder|transformer)\.layers?\.(\d+)\.", name):
            layers.add(layer[1])
    if blocks:
        sizes[DEPTHS[0]] = tuple(blocks[stage] for stage in sorted(blocks))
    if layers:
        sizes[DEPTHS[1]] = len(layers)
    if attention_heads is not None:
        sizes[DEPTHS[2]] = attention_heads
    for title, pattern, axis in (
        ("channels of the backbone's stem", r"backbone\.conv1\.weight", 0),
        ("vocabulary", rf"{TEXTS}\.(word_embeddings|token_embedding)\.weight", 0),
        ("hidden size of the encoder", rf"{TEXTS}\.(word_embeddings|token_embedding)\.weight", 1),
        ("position embeddings", rf"{TEXTS}\.position_embeddings?\.weight", 0),
        ("rows of the grid", r"encoder\.visual_embedding\.row_embeddings\.weight", 0),
        ("answers of the head", r"head\.classifier\.([23]\.)?weight", 0),
    ):
        matching = [tensor for name, tensor in tensors.items() if re.fullmatch(pattern, name)]
        if matching and matching[0].ndim > axis:
            sizes[title] = matching[0].shape[axis]
    return sizes


def _without_counters(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Leave out the batch counters of norms; not every library saves them, and nothing depends on them."""
    return {name: tensor for name, tensor in tensors.items() if not name.endswith("num_batches_tracked")}


def within(name: str, modules: Sequence[str]) -> bool:
    """Return whether a tensor belongs to one of the modules."""
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def _list_modules(names: Sequence[str], all_names: Sequence[str]) -> str:
    """List the modules that tensors belong to, at most eight; a module stands for its parts if all its tensors are listed.

    >>> _list_modules(
    ...     ["head.a.weight", "head.a.bias", "head.b.bias", "mlm.x.bias"],
    ...     ["head.a.weight", "head.a.bias", "head.b.bias", "mlm.x.bias", "mlm.y.bias"],
    ... )
    ': head, mlm.x'
    >>> _list_modules([], [])
    ''
    """
    others = set(all_names) - set(names)
    modules = dict.fromkeys(
        next(
            module
            for module in itertools.accumulate(name.split("."), "{}.{}".format)
            if module == name or not any(within(other, (module,)) for other in others)
        )
        for name in names
    )
    more = f" and {len(modules) - 8} more" if len(modules) > 8 else ""
    listed = ", ".join(list(modules)[:8])
    return f": {listed[:MAX_LIST_LENGTH]}{'...' * (len(listed) > MAX_LIST_LENGTH)}{more}" if modules else ""
