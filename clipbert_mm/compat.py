"""Every work-around for an upstream release, each with the releases it is for. Nowhere else.

A part of this file can go as soon as its releases are out of our bounds (requirements/runtime.txt).
"""

import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from mmengine.hooks import EarlyStoppingHook as _EarlyStoppingHook
from mmengine.logging import HistoryBuffer
from mmengine.optim import OptimWrapper

from clipbert_mm.checkpoint.arrays import STAND_INS
from clipbert_mm.registry import HOOKS, OPTIM_WRAPPERS


def _history_statistic(owner: type, name: str) -> object:
    """Stand for ``getattr`` in a checkpoint: gives HistoryBuffer's four statistics, nothing else."""
    if owner is HistoryBuffer and name in ("current", "max", "mean", "min"):
        return getattr(owner, name)
    raise ValueError(f"A checkpoint asks for {getattr(owner, '__name__', owner)}.{name}, which ours never hold.")


def allow_mmengine_checkpoints() -> None:
    """Let ``torch.load(weights_only=True)`` read what MMEngine's Runner writes.

    For MMEngine 0.10.7 with torch >= 2.6: the Runner's checkpoints hold its message hub (HistoryBuffer, numpy arrays),
    which torch refuses since weights-only loading is the default; so neither resume nor test could open them. Only
    harmless types are allowed, numpy's by stand-ins of ours; the check stays on.
    """
    arrays = [(stand_in, name) for name, stand_in in STAND_INS.items()]
    torch.serialization.add_safe_globals([HistoryBuffer, *arrays, (_history_statistic, "builtins.getattr")])


def import_mmpretrain() -> None:
    """Import mmpretrain's models, so that an import error there shows as itself.

    For mmpretrain 1.2.0 with transformers >= 4.57: where pycocotools is installed, its multi-modal models fail to import
    ("NoneType takes no arguments"). They are left out; backbones need none of them. MMEngine would otherwise turn any
    import error into "'mmpretrain.ResNet' is not in the registry".
    """
    from mmpretrain.utils import dependency

    dependency.WITH_MULTIMODAL = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # mmcv-lite says that it has no operators; nothing here needs them
        import mmpretrain.models  # noqa: F401


def put_channels_first(backbone: torch.nn.Module) -> None:
    """Let a backbone of timm give its maps as (N, C, H, W).

    For mmpretrain 1.2.0, whose TIMMBackbone hands on what timm gives: (N, H, W, C) for Swin and others.
    """
    if str(getattr(backbone.timm_model, "output_fmt", "NCHW")).endswith("NHWC"):
        backbone.register_forward_hook(_permute_maps)


def _permute_maps(backbone: torch.nn.Module, frames: tuple, maps: tuple) -> tuple:
    return tuple(each.permute(0, 3, 1, 2) for each in maps)


@OPTIM_WRAPPERS.register_module()
class CpuAmpOptimWrapper(OptimWrapper):
    """Mixed precision on the CPU, in bfloat16.

    For MMEngine 0.10.7, whose AmpOptimWrapper refuses CPUs. bfloat16 has float32's range, so no loss scaling is needed.
    Arguments are those of MMEngine's OptimWrapper.
    """

    @contextmanager
    def optim_context(self, model: torch.nn.Module) -> Iterator[None]:
        """Run the forward pass of a step in bfloat16 autocast."""
        with super().optim_context(model), torch.autocast("cpu", dtype=torch.bfloat16):
            yield


@HOOKS.register_module()
class EarlyStoppingHook(_EarlyStoppingHook):
    """MMEngine's hook, which goes on counting where a run was cut.

    For MMEngine 0.10.7, whose hook begins to wait anew after each resume.
    """

    def state_dict(self) -> dict[str, Any]:
        """Return what it counted, for a checkpoint."""
        return dict(wait_count=self.wait_count, best_score=self.best_score)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a run was cut."""
        self.wait_count, self.best_score = state["wait_count"], state["best_score"]


def start_gloo(launcher: str) -> None:
    """Start the process group of a run on CPUs before the Runner does.

    For MMEngine 0.10.7, whose launchers call ``torch.cuda.set_device`` even where there is no GPU.

    Raises:
        ValueError: If the launcher is not "pytorch", the only one that is known to work without GPUs.
    """
    if launcher != "pytorch":
        raise ValueError(f"Without a GPU only --launcher pytorch works, got {launcher}.")
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group(backend="gloo")


def load_tokenizer(path_or_name: str) -> Any:  # noqa: ANN401
    """Load a Hugging Face tokenizer from a folder or by name.

    For transformers 5.0 to 5.23, whose ``BertTokenizerFast(vocab_file=...)`` maps every word to [UNK] in silence: a folder
    with a vocab.txt and no word of how to use it is given by position.
    """
    from transformers import AutoTokenizer, BertTokenizerFast

    vocab = os.path.join(path_or_name, "vocab.txt")
    described = ("tokenizer.json", "tokenizer_config.json")
    if os.path.isfile(vocab) and not any(os.path.isfile(os.path.join(path_or_name, name)) for name in described):
        return BertTokenizerFast(vocab)
    return AutoTokenizer.from_pretrained(path_or_name)


def count_attention(inputs: list, outputs: list) -> float:
    """Count the multiply-adds of scaled_dot_product_attention, (…, L, E) x (…, S, E) x (…, S, V).

    For fvcore 0.1.5, which does not know the operator and leaves it out of its sum.
    """
    query, key, value = (tensor.type().sizes() for tensor in inputs[:3])
    return float(np.prod(query[:-1])) * key[-2] * (query[-1] + value[-1])


def build_decord_init(num_threads: int) -> Any:  # noqa: ANN401
    """Build mmaction2's DecordInit, opening files by their path.

    For mmaction2 1.2.0 with decord 0.6.0: it hands decord the file's bytes, and decord then ends the whole process
    (segmentation fault) on an AVI file that is cut short; by path it does not. It also adds ".mp4" to a path without an
    ending, and uses a file client of MMEngine's that is deprecated and says so each time.
    """
    import decord
    from mmaction.datasets.transforms import DecordInit  # takes seconds, and images do without

    class OpenByPath(DecordInit):
        def _get_video_reader(self, filename: str) -> object:
            return decord.VideoReader(filename, num_threads=self.num_threads)

    return OpenByPath(num_threads=num_threads)


def decoder_reason(error: Exception) -> str:
    """Return what a decoder's error says of the file.

    For decord 0.6.0, whose messages begin with its build machine's paths and a time stamp, and say little.
    """
    line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if "cannot find video stream" in line:
        return "it has no video stream"
    if "Error reading" in line or "av_read_frame failed" in line:
        return "not a video, or cut short"
    return re.sub(r"^(\[[\d:]+\]\s+\S+:\d+:\s*)+", "", line).rstrip(".")
