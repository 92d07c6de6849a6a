"""Ways to compute the same model with less memory or time: clip by clip, with activation checkpointing, compiled, packed."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from clipbert_mm.errors import OptionError


def clipwise_forward(
    model: nn.Module, predict_clips: Callable[..., tuple[Tensor, ...]], frames: Tensor, *texts: Tensor
) -> tuple[Tensor, ...]:
    """Predict the clips one after the other and keep activations of the last one only.

    The backward pass starts with the last clip, frees its activations, and recomputes each of the other clips with the same
    dropout when its turn comes. The gradient equals that of all clips at once, to rounding, and costs (K - 1) / K of another
    forward pass. Each clip draws its own dropout and grid cells, as if it were a batch.

    Args:
        model: The model that ``predict_clips`` runs.
        predict_clips: Predicts clips from frames and texts; returns tensors with the clips in dimension 1.
        frames: Normalized frames, (B, K, T, 3, H, W).
        texts: Further arguments of ``predict_clips``.

    Returns:
        What ``predict_clips`` returns, for all K clips.

    Raises:
        OptionError: If there are several clips and a batch norm in training mode.
    """
    clips = frames.split(1, dim=1)  # K of (B, 1, T, 3, H, W)
    if len(clips) > 1:
        refuse_batch_statistics(model, "clip_sequential")
    parts = [checkpoint(predict_clips, clip, *texts, use_reentrant=False) for clip in clips[:-1]]
    parts.append(predict_clips(clips[-1], *texts))
    return tuple(torch.cat(each, dim=1) for each in zip(*parts, strict=True))


def save_memory(model: nn.Module, checkpointed: Sequence[str], compiled: Sequence[str]) -> None:
    """Let modules recompute activations, and compile modules, of a model with all its options set.

    Raises:
        OptionError: If a name is no module of the model, or the model cannot train clip by clip, or on packed pairs, and is to.
    """
    if model.clip_sequential and model.joins_clips:
        raise OptionError(
            f"clip_sequential of {type(model).__name__} predicts one clip at a time, and clip_fusion joins all clips of a "
            "video before they are predicted. Set clip_sequential=False, or clip_fusion=None."
        )
    checkpoint_activations(model, checkpointed)
    compile_modules(model, compiled)
    check_packing(model, (*checkpointed, *compiled))


def checkpoint_activations(model: nn.Module, names: Sequence[str]) -> None:
    """Let modules keep only their inputs for the backward pass, which recomputes their activations.

    Args:
        model: The model.
        names: Names of modules in the model; a list or sequence of modules stands for each module in it.

    Raises:
        OptionError: If a name is no module of the model.
    """
    for name in names:
        found = find_module(model, "checkpointed", name)
        for module in found if isinstance(found, (nn.ModuleList, nn.Sequential)) else [found]:
            module.forward = partial(_forward_again, module, module.forward)


def compile_modules(model: nn.Module, names: Sequence[str]) -> None:
    """Compile modules in place, for any batch size and text length; the names of the weights stay.

    Args:
        model: The model.
        names: Names of modules in the model.

    Raises:
        OptionError: If a name is no module of the model.
    """
    for name in names:
        find_module(model, "compiled", name).compile(dynamic=True)


def check_packing(model: Any, names: Sequence[str]) -> None:  # noqa: ANN401
    """Check that a model can train on packed pairs, if it is to.

    Args:
        model: The model.
        names: Modules that are compiled or recomputed.

    Raises:
        OptionError: If its joint encoder has dropout, or modules that are compiled or recomputed: packed pairs pass by both.
    """
    if not model.pack_pairs:
        return
    dropout = any(isinstance(part, nn.Dropout) and part.p for part in model.encoder.modules())
    passed_by = [name for name in names if name.split(".")[0] == "encoder"]
    if dropout or passed_by:
        reason = "dropout" if dropout else f"'{passed_by[0]}'"
        raise OptionError(
            f"pack_pairs of {type(model).__name__} computes without dropout, and passes by the forward methods of the "
            f"encoder's modules; the config has {reason}. Set pack_pairs=False, or dropout=0.0 of the encoder, and no module "
            "of the encoder in checkpointed and compiled."
        )


def find_module(model: nn.Module, option: str, name: str) -> nn.Module:
    """Return the module with a name.

    Raises:
        OptionError: If there is none; the error names the option that asked for it.
    """
    try:
        return model.get_submodule(name)
    except AttributeError as error:
        parent = name.rpartition(".")[0]
        there = [f"{parent}.{child}".lstrip(".") for child, _ in find_module(model, option, parent).named_children()]
        raise OptionError(
            f"{option} of {type(model).__name__} names '{name}', which is no module of the model. "
            f"Modules there: {', '.join(there)}."
        ) from error


def refuse_batch_statistics(module: nn.Module, option: str) -> None:
    """Refuse batch norms in training mode: recomputing them, or computing some clips only, changes the result.

    Raises:
        OptionError: If there is one.
    """
    if any(isinstance(part, _BatchNorm) and part.training for part in module.modules()):
        raise OptionError(
            f"{option} of ClipBert recomputes feature maps, which changes the statistics of batch norms in training mode. Set "
            "norm_eval=True of the backbone."
        )


def _forward_again(module: nn.Module, forward: Callable[..., Any], *inputs: Any, **options: Any) -> Any:  # noqa: ANN401
    if not torch.is_grad_enabled():
        return forward(*inputs, **options)
    refuse_batch_statistics(module, "checkpointed")
    return checkpoint(forward, *inputs, use_reentrant=False, **options)
