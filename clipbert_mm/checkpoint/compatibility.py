"""Do checkpoints fit the model? MMEngine only warns where they do not, and goes on with random weights."""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from clipbert_mm.checkpoint.formats import LoadedCheckpoint
from clipbert_mm.errors import CheckpointError, printable, quoted


@dataclass(frozen=True)
class LoadReport:
    """What checkpoints gave a model.

    Args:
        sources: Each checkpoint with its kind.
        loaded: Names of the model's tensors that were loaded.
        missing: Those that are in no checkpoint and keep their initial values.
        unexpected: Names in the checkpoints that the model does not have.
        wrong_shape: Names of tensors that have another shape in the checkpoint.
        stuck: Those of the missing that are in frozen modules, and so keep their initial values in training too.
    """

    sources: tuple[str, ...]
    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    wrong_shape: tuple[str, ...]
    stuck: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Lay it out over some lines."""
        own = (*self.loaded, *self.missing, *self.wrong_shape)
        given = (*self.loaded, *self.unexpected, *self.wrong_shape)
        return (
            f"weights from {'; '.join(self.sources)}\n"
            f"  loaded: {len(self.loaded)} of the model's {len(own)} tensors{_listed(self.loaded, own)}\n"
            f"  missing (new): {len(self.missing)}{_listed(self.missing, own)}\n"
            f"  unexpected (not used): {len(self.unexpected)}{_listed(self.unexpected, given)}\n"
            f"  wrong shape: {len(self.wrong_shape)}{_listed(self.wrong_shape, own)}"
            + (f"\n  frozen although new: {len(self.stuck)}{_listed(self.stuck, own)}" if self.stuck else "")
        )


def check_fit(
    model: nn.Module,
    sources: Sequence[LoadedCheckpoint],
    *,
    whole: bool,
    min_share: float = 0.95,
    fresh: Sequence[str] = (),
) -> LoadReport:
    """Compare checkpoints with a model that is to take their weights.

    Args:
        model: The model.
        sources: The checkpoints; of a tensor that several have, the last counts.
        whole: Whether the two have to agree, as for testing and resuming: the model is covered wholly, and no checkpoint has
            more of any part (backbone, encoder, ...) that the model has. A model to be trained on may have new parts.
        min_share: Smallest share of the tensors of each module that a checkpoint is for, 0 to 1.
        fresh: Modules that take nothing from a checkpoint, such as "head" for another number of answers.

    Returns:
        The report.

    Raises:
        CheckpointError: If a tensor has another shape than the model's, the depths differ, too little is there, or ``fresh``
            names no module.
    """
    own = _counted(model.state_dict())
    for module in fresh:
        if not any(within(name, (module,)) for name in own):
            raise CheckpointError(
                f"reinit names '{module}', which is no module of the model. It has: "
                f"{', '.join(dict.fromkeys(name.partition('.')[0] for name in own))}."
            )
    given: dict[str, Tensor] = {}
    for source in sources:
        given |= {name: value for name, value in _counted(source.tensors).items() if not within(name, fresh)}
    frozen = [name for name, module in model.named_modules() if _is_frozen(module)]
    missing = tuple(name for name in own if name not in given)
    report = LoadReport(
        sources=tuple(f"{source.path} ({source.title})" for source in sources),
        loaded=tuple(name for name in own if name in given and given[name].shape == own[name].shape),
        missing=missing,
        unexpected=tuple(name for name in given if name not in own),
        wrong_shape=tuple(name for name in own if name in given and given[name].shape != own[name].shape),
        stuck=tuple(name for name in missing if name.rpartition(".")[0] in frozen),
    )
    heads = [source.rest["attention_heads"] for source in sources if source.rest.get("attention_heads") is not None]
    if within("encoder.bert", fresh):
        heads = []
    _check_sizes(report, _facts(own, _attention_heads(model)), _facts(given, *heads[-1:]), own, given, whole)
    parts = {name.partition(".")[0] for name in own}
    alien = [name for name in report.unexpected if name.partition(".")[0] in parts]
    if whole and (report.missing or alien):
        first = f"missing is {report.missing[0]}" if report.missing else f"not the model's is {alien[0]}"
        raise CheckpointError(
            f"The checkpoint does not fit the model: the first that is {first}. Use the config that the checkpoint was trained "
            f"with.\n{report}"
        )
    for source in sources:
        _check_shares(report, source, own, min_share, fresh)
    if not report.loaded:
        raise CheckpointError(f"Nothing in the checkpoint fits the model.\n{report}")
    for source in sources:
        _check_use(report, source, own, fresh)
    return report


def _check_use(report: LoadReport, source: LoadedCheckpoint, own: Mapping[str, Tensor], fresh: Sequence[str]) -> None:
    """See that the model has a use for most of a checkpoint: else its names are others than they are taken for.

    Raises:
        CheckpointError: If it has not.
    """
    given = [name for name in _counted(source.tensors) if not within(name, fresh)]
    used = sum(name in own for name in given)
    if used < LEAST_USED * len(given):
        first = next(name for name in given if name not in own)
        raise CheckpointError(
            f"The model takes {used} of the {len(given)} tensors of {printable(source.path)} ({source.title}), and not "
            f"{quoted(first)}: the file is of another model, or its names begin with a word of a wrapper that is not known. "
            f"Rename them, or save the part that is wanted alone.\n{report}"
        )


def load_weights(model: nn.Module, tensors: Mapping[str, Tensor], path: str, *, strict: bool = False) -> None:
    """Copy weights into a model that they fit, once they are seen to be numbers.

    Args:
        model: The model.
        tensors: The weights by the model's names.
        path: Where they come from.
        strict: Whether the names have to be the model's exactly.

    Raises:
        CheckpointError: If some are NaN or infinite, or do not fit.
    """
    taken = model.state_dict().keys() & tensors.keys()
    wrong = not_finite({name: tensor for name, tensor in tensors.items() if name in taken})
    if wrong:
        raise CheckpointError(
            f"{printable(path)} is refused: {len(wrong)} of the {len(taken)} tensors that the model takes from it are NaN or "
            f"infinite, the first is {quoted(wrong[0])}. Its training failed before it was written; take an earlier one."
        )
    try:
        model.load_state_dict(tensors, strict=strict)
    except RuntimeError as error:
        raise CheckpointError(
            f"{printable(path)} does not fit the model: {quoted(str(error))}. Use the config that it was trained with."
        ) from error


def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Name the tensors with a NaN or an infinite value in them."""
    return [name for name, tensor in tensors.items() if tensor.is_floating_point() and not _is_finite(tensor)]


def _is_finite(tensor: Tensor) -> bool:
    """Look at each value once, without a copy of the size of the tensor."""
    if tensor.numel() == 0:
        return True
    values = tensor.float() if tensor.itemsize == 1 else tensor  # the 8-bit types know no minimum
    return bool(torch.stack(torch.aminmax(values)).isfinite().all())


def _check_sizes(
    report: LoadReport,
    ours: Mapping[str, object],
    theirs: Mapping[str, object],
    own: Mapping[str, Tensor],
    given: Mapping[str, Tensor],
    whole: bool,
) -> None:
    """See that shapes, depths and heads are the same.

    Raises:
        CheckpointError: If they are not; it names both sides.
    """
    differing = [fact for fact in ours if fact in theirs and ours[fact] != theirs[fact]]
    depths = [fact for fact in differing if fact in DEPTHS]
    if not report.wrong_shape and not depths:
        return
    said = [f"{fact}: checkpoint {theirs[fact]}, model {ours[fact]}" for fact in differing]
    said += [
        f"{name}: checkpoint {tuple(given[name].shape)}, model {tuple(own[name].shape)}"
        for name in report.wrong_shape[:1]
    ]
    heads = [name for name in report.wrong_shape if name.startswith("head.")]
    advice = (
        "Set reinit=['head'] of CheckpointCompatibilityHook to train a new head."
        if heads and len(heads) == len(report.wrong_shape) and not depths and not whole
        else "Use the config that the checkpoint was trained with, or change the model's."
    )
    raise CheckpointError(f"The checkpoint does not fit the model. {'; '.join(said)}. {advice}\n{report}")


def _check_shares(
    report: LoadReport, source: LoadedCheckpoint, own: Mapping[str, Tensor], min_share: float, fresh: Sequence[str]
) -> None:
    """See that each part that a checkpoint is for is filled by it, and that the checkpoint's part is no larger network.

    Raises:
        CheckpointError: If too little of the one is in the other.
    """
    for part in source.parts:
        wanted, offered = (
            [name for name in _counted(names) if within(name, (part,)) and not within(name, fresh)]
            for names in (own, source.tensors)
        )
        both = set(wanted) & set(offered)
        if not wanted or len(both) >= min_share * max(len(wanted), len(offered)):
            continue
        said = f"{len(both)} of the {len(wanted)} tensors of the model's {part}"
        if len(both) >= min_share * len(wanted):
            first = next(name for name in offered if name not in both)
            said = f"{len(offered)} tensors of {part} of which the model has {len(both)}, and not {first}"
        raise CheckpointError(
            f"{source.path} ({source.title}) has {said}, fewer than the share of {min_share:g} that "
            f"CheckpointCompatibilityHook asks for. Take a model that it was made for, or lower min_share.\n{report}"
        )


LONGEST_LIST = 400
"""Letters of the names in a list of modules."""
LEAST_USED = 0.5
"""Smallest share of the tensors of a file that a model has to have."""
DEPTHS = ("blocks of the backbone's stages", "layers of the encoder", "attention heads of the encoder")
"""Facts that have to agree even where every tensor fits."""
BLOCK = re.compile(r"backbone\.(?:timm_model\.)?(?:layers?|stages)[._]?(\d+)\.(?:blocks\.)?(\d+)\.")
"""Stage and block in the names of a backbone, for ResNets, ConvNeXt, Swin, and timm's."""


def _is_frozen(module: nn.Module) -> bool:
    """Whether a module has parameters of its own and none of them learns."""
    own = list(module.parameters(recurse=False))
    return bool(own) and not any(parameter.requires_grad for parameter in own)


def _attention_heads(model: Any) -> int | None:  # noqa: ANN401
    """Return the number of attention heads of a ClipBert."""
    bert = getattr(getattr(model, "encoder", None), "bert", None)
    return None if bert is None else bert.config.num_attention_heads


def _facts(tensors: Mapping[str, Tensor], attention_heads: int | None = None) -> dict[str, object]:
    """Read off the names and shapes what a config says in numbers; no tensor shows the attention heads."""
    facts: dict[str, object] = {}
    blocks: dict[int, int] = {}
    layers = set()
    for name in tensors:
        if block := BLOCK.match(name):
            blocks[int(block[1])] = max(blocks.get(int(block[1]), 0), int(block[2]) + 1)
        if layer := re.match(r"encoder\.bert\.encoder\.layer\.(\d+)\.", name):
            layers.add(layer[1])
    if blocks:
        facts[DEPTHS[0]] = tuple(blocks[stage] for stage in sorted(blocks))
    if layers:
        facts[DEPTHS[1]] = len(layers)
    if attention_heads is not None:
        facts[DEPTHS[2]] = attention_heads
    for title, pattern, axis in (
        ("channels of the backbone's stem", r"backbone\.conv1\.weight", 0),
        ("vocabulary", r"encoder\.bert\.embeddings\.word_embeddings\.weight", 0),
        ("width of the encoder", r"encoder\.bert\.embeddings\.word_embeddings\.weight", 1),
        ("places of a text", r"encoder\.bert\.embeddings\.position_embeddings\.weight", 0),
        ("places of the grid", r"encoder\.visual_embedding\.row_embeddings\.weight", 0),
        ("answers of the head", r"head\.classifier\.(2\.)?weight", 0),
    ):
        found = [tensor for name, tensor in tensors.items() if re.fullmatch(pattern, name)]
        if found and found[0].ndim > axis:
            facts[title] = found[0].shape[axis]
    return facts


def _counted(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Leave out how many batches a norm has seen; not every library saves that, and nothing depends on it."""
    return {name: tensor for name, tensor in tensors.items() if not name.endswith("num_batches_tracked")}


def within(name: str, modules: Sequence[str]) -> bool:
    """Whether a tensor belongs to one of some modules."""
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def _listed(names: Sequence[str], among: Sequence[str]) -> str:
    """Name the modules that tensors belong to, at most eight; a module whose tensors are all listed stands for its parts.

    >>> _listed(
    ...     ["head.a.weight", "head.a.bias", "head.b.bias", "mlm.x.bias"],
    ...     ["head.a.weight", "head.a.bias", "head.b.bias", "mlm.x.bias", "mlm.y.bias"],
    ... )
    ': head, mlm.x'
    >>> _listed([], [])
    ''
    """
    others = set(among) - set(names)
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
    return f": {listed[:LONGEST_LIST]}{'...' * (len(listed) > LONGEST_LIST)}{more}" if modules else ""
