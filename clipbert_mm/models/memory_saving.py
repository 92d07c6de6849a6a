"""How a model computes, which changes nothing of what it computes: by clips, with fewer activations kept, compiled."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from clipbert_mm.errors import OptionError

if TYPE_CHECKING:
    from clipbert_mm.models.clipbert import ClipBert


def clipwise_forward(model: "ClipBert", frames: Tensor, *texts: Tensor) -> tuple[Tensor, ...]:
    """Predict the clips one after the other and keep what the backward pass needs of the last one alone.

    The backward pass begins with the last clip, frees it, and computes each of the others again, with the same dropout, when
    its turn comes. The gradient of whatever the predictions are pooled into is that of all clips at once, to rounding, for the
    price of (K - 1) / K of another forward pass. Clips share no draw of dropout or of grid cells, as if each were a batch.

    Args:
        model: A ClipBert.
        frames: Normalized frames, (B, K, T, 3, H, W).
        texts: The texts, as of ``model.predict_clips``.

    Returns:
        What ``model.predict_clips`` returns, for all K clips.

    Raises:
        OptionError: If there are several clips and a batch norm that follows the batch.
    """
    clips = frames.split(1, dim=1)  # K of (B, 1, T, 3, H, W)
    if len(clips) > 1:
        refuse_batch_statistics(model, "clip_sequential")
    parts = [checkpoint(model.predict_clips, clip, *texts, use_reentrant=False) for clip in clips[:-1]]
    parts.append(model.predict_clips(clips[-1], *texts))
    return tuple(torch.cat(each, dim=1) for each in zip(*parts, strict=True))


def checkpoint_activations(model: nn.Module, names: Sequence[str]) -> None:
    """Let modules keep their inputs alone for the backward pass, which computes the rest again.

    Args:
        model: The model that they are parts of.
        names: Their names in the model; a list or sequence of modules stands for each module in it.

    Raises:
        OptionError: If there is no module of a name.
    """
    for name in names:
        found = find_module(model, "checkpointed", name)
        for module in found if isinstance(found, (nn.ModuleList, nn.Sequential)) else [found]:
            module.forward = partial(_forward_again, module, module.forward)


def compile_modules(model: nn.Module, names: Sequence[str]) -> None:
    """Compile modules in place, for any number of items and any length of text; the names of the weights stay.

    Args:
        model: The model that they are parts of.
        names: Their names in the model.

    Raises:
        OptionError: If there is no module of a name.
    """
    for name in names:
        find_module(model, "compiled", name).compile(dynamic=True)


def find_module(model: nn.Module, option: str, name: str) -> nn.Module:
    """Return the module of a name.

    Raises:
        OptionError: If there is none; it names the option that asked for it.
    """
    try:
        return model.get_submodule(name)
    except AttributeError as error:
        parent = name.rpartition(".")[0]
        there = [f"{parent}.{child}".lstrip(".") for child, _ in find_module(model, option, parent).named_children()]
        raise OptionError(
            f"{option} of {type(model).__name__} names '{name}', which is no module of it. There are: {', '.join(there)}."
        ) from error


def refuse_batch_statistics(module: nn.Module, option: str) -> None:
    """See that computing a module a second time, or for some clips alone, changes nothing.

    Raises:
        OptionError: If there is a batch norm in training mode: it follows the batch, and counts each pass.
    """
    if any(isinstance(part, _BatchNorm) and part.training for part in module.modules()):
        raise OptionError(
            f"{option} of ClipBert needs batch norms that do not follow the batch, for it computes maps a second time. Set "
            "norm_eval=True of the backbone."
        )


def _forward_again(module: nn.Module, forward: Callable[..., Any], *inputs: Any, **options: Any) -> Any:  # noqa: ANN401
    if not torch.is_grad_enabled():
        return forward(*inputs, **options)
    refuse_batch_statistics(module, "checkpointed")
    return checkpoint(forward, *inputs, use_reentrant=False, **options)
