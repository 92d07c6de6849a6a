"""All work-arounds for upstream releases, each with the releases that need it.

A work-around can be removed when requirements/runtime.txt no longer allows its releases. Hooks and optimizer wrappers have a
file of their own, since their base classes take seconds to import.
"""

import importlib.util
import os
import re
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache, wraps
from types import ModuleType
from typing import Any

import mmengine.config.config
import numpy as np
import torch
from mmengine.logging import HistoryBuffer

from clipbert_mm.compat.video_backbones import building_mmaction as building_mmaction
from clipbert_mm.compat.video_backbones import import_mmaction as import_mmaction
from clipbert_mm.compat.video_backbones import import_mmaction_package as import_mmaction_package
from clipbert_mm.compat.video_backbones import mend_mmaction_backbone as mend_mmaction_backbone
from clipbert_mm.compat.video_backbones import without_weights as without_weights
from clipbert_mm.compat.video_transforms import import_mmaction_transforms as import_mmaction_transforms
from clipbert_mm.compat.video_transforms import seeded_generators as seeded_generators
from clipbert_mm.errors import BackendError, OptionError


def _history_statistic(owner: type, name: str) -> object:
    """Replace ``getattr`` in a checkpoint: return one of HistoryBuffer's four statistics, and nothing else."""
    if owner is HistoryBuffer and name in ("current", "max", "mean", "min"):
        return getattr(owner, name)
    raise OptionError(
        f"A checkpoint asks for {getattr(owner, '__name__', owner)}.{name}, which no checkpoint of MMEngine needs."
    )


_safe_globals_lock = threading.RLock()  # torch has one list of allowed types for all threads


@contextmanager
def allowing_mmengine_checkpoints(stand_ins: Mapping[str, Any]) -> Iterator[None]:
    """Let ``torch.load(weights_only=True)`` read checkpoints of MMEngine's Runner inside a block.

    For MMEngine 0.10.7 with torch >= 2.6: the Runner's checkpoints have its message hub (HistoryBuffer, numpy arrays), which
    torch refuses since weights-only loading is the default. Only harmless types are allowed, and torch's check stays on.

    Args:
        stand_ins: The replacement of each of numpy's names in a pickle.
    """
    arrays = [(stand_in, name) for name, stand_in in stand_ins.items()]
    needed = [HistoryBuffer, *arrays, (_history_statistic, "builtins.getattr")]
    with _safe_globals_lock:
        allowed = torch.serialization.get_safe_globals()  # the end of the block must not remove these
        with torch.serialization.safe_globals([each for each in needed if each not in allowed]):
            yield


@contextmanager
def refusing_code_in_weights() -> Iterator[None]:
    """Let MMEngine load weights (``init_cfg`` with "Pretrained") by torch's weights-only loading alone inside a block.

    For onedl-mmengine 0.10.12, which loads a file that torch's check refuses again without the check, so that the file runs
    code.
    """
    from mmengine.runner import checkpoint

    if not hasattr(checkpoint, "_safe_torch_load"):  # MMEngine's own calls torch.load
        yield
        return
    load, checkpoint._safe_torch_load = checkpoint._safe_torch_load, torch.load
    try:
        yield
    finally:
        checkpoint._safe_torch_load = load


def import_mmpretrain() -> None:
    """Import mmpretrain's models without its multi-modal ones, which backbones do not need.

    For mmpretrain 1.2.0 with transformers >= 4.57: if pycocotools is installed, the multi-modal models cannot be imported
    ("NoneType takes no arguments"), and MMEngine reports any import error as "'mmpretrain.ResNet' is not in the registry".
    """
    if "mmpretrain.models" in sys.modules:
        return
    from mmpretrain.utils import dependency

    with_multimodal, dependency.WITH_MULTIMODAL = dependency.WITH_MULTIMODAL, False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # mmcv-lite warns that it has no operators; none is needed
            import mmpretrain.models  # noqa: F401
    finally:
        dependency.WITH_MULTIMODAL = with_multimodal


def remember_config_layouts() -> None:
    """Let MMEngine lay the text of a config out once, not each time it is logged, dumped or saved with a checkpoint.

    For MMEngine 0.10.7 with yapf, which takes a second for it; a run does it four times, and once for each checkpoint.
    """
    module: Any = layout_module()
    if not hasattr(module.FormatCode, "cache_info"):
        module.FormatCode = _remember(module.FormatCode)


def layout_module() -> ModuleType:
    """Return the module whose ``FormatCode`` lays out the text of a config: MMEngine's; with onedl-mmengine, yapf's."""
    from yapf.yapflib import yapf_api

    return mmengine.config.config if hasattr(mmengine.config.config, "FormatCode") else yapf_api


def _remember(lay_out: Callable[..., tuple[str, bool]]) -> Callable[..., tuple[str, bool]]:
    """Cache a function by its first argument; its other arguments are always the same."""
    styles: dict[str, Any] = {}

    @lru_cache(maxsize=8)
    def remembered(text: str) -> tuple[str, bool]:
        return lay_out(text, **styles)

    @wraps(lay_out)
    def call(text: str, **style: Any) -> tuple[str, bool]:  # noqa: ANN401
        styles.update(style)
        return remembered(text)

    call.cache_info = remembered.cache_info  # type: ignore[attr-defined]
    return call


def put_channels_first(backbone: torch.nn.Module) -> None:
    """Let a backbone of timm return its maps as (N, C, H, W).

    For mmpretrain 1.2.0, whose TIMMBackbone returns timm's maps unchanged: (N, H, W, C) for Swin and others.
    """
    if str(getattr(backbone.timm_model, "output_fmt", "NCHW")).endswith("NHWC"):
        backbone.register_forward_hook(_permute_maps)


def _permute_maps(backbone: torch.nn.Module, frames: tuple, maps: tuple) -> tuple:
    return tuple(each.permute(0, 3, 1, 2) for each in maps)


def half_precision(dtype: str) -> torch.dtype:
    """Return torch's type for a name; for "auto", float16 on a GPU and bfloat16 on a CPU.

    Raises:
        OptionError: If the type is unknown, or this machine does not support it.
    """
    gpu = torch.cuda.is_available()
    names = {"auto": "float16" if gpu else "bfloat16", "fp16": "float16", "bf16": "bfloat16"}
    name = names.get(dtype, dtype)
    if name not in ("float16", "bfloat16"):
        raise OptionError(f"Mixed precision is float16 (fp16) or bfloat16 (bf16), got {dtype!r}.")
    if name == "float16" and not gpu:
        raise OptionError(
            "Mixed precision in float16 needs a GPU, and there is none. Use bfloat16 (--amp bf16) on the CPU."
        )
    if name == "bfloat16" and gpu and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise OptionError(
            f"Mixed precision in bfloat16 needs a GPU that computes in it, and {torch.cuda.get_device_name()} does not. Use "
            "float16 (--amp fp16)."
        )
    return getattr(torch, name)


def start_processes(launcher: str, timeout: float | None = None) -> None:
    """Set torch's variables for the rank and the number of processes; on CPUs, start the process group.

    For MMEngine 0.10.7, which calls Slurm's scontrol for addresses, uses the same port for every job of a machine, and calls
    ``torch.cuda.set_device`` even without a GPU. With these variables, its launcher "pytorch" works for all launchers.

    Args:
        launcher: Program that started the processes: "pytorch", "slurm" or "mpi".
        timeout: Seconds that a process waits for others; torch's default if None.

    Raises:
        OptionError: If the launcher is unknown, or its variables are missing.
    """
    if launcher not in LAUNCHED_BY:
        raise OptionError(f"--launcher is none, {', '.join(LAUNCHED_BY)}, got {launcher}.")
    program, names = LAUNCHED_BY[launcher]
    missing = [name for name in names if name not in os.environ]
    if missing:
        raise OptionError(
            f"--launcher {launcher} is for processes started by {program}; {', '.join(missing)} is not set."
        )
    os.environ.update({ours: os.environ[name] for ours, name in zip(TORCH_VARIABLES, names, strict=True)})
    if launcher == "slurm":
        job = int(os.environ.get("SLURM_JOB_ID", 0))
        os.environ.setdefault("MASTER_PORT", str(20000 + job % 20000))  # different ports for jobs on the same machine
        os.environ.setdefault("MASTER_ADDR", first_host(os.environ.get("SLURM_STEP_NODELIST", "127.0.0.1")))
    elif launcher == "mpi":
        is_one_machine = os.environ.get("OMPI_COMM_WORLD_LOCAL_SIZE") == os.environ["WORLD_SIZE"]
        if "MASTER_ADDR" not in os.environ and not is_one_machine:
            raise OptionError(
                "--launcher mpi over several machines needs MASTER_ADDR, the address of the first machine."
            )
        os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
        os.environ.setdefault("MASTER_PORT", "29500")
    # MMEngine's wrapper gives torch's an argument by the name that it had before torch 2.14.
    warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
    if not torch.cuda.is_available() and not torch.distributed.is_initialized():
        limit = None if timeout is None else timedelta(seconds=timeout)
        torch.distributed.init_process_group(backend="gloo", timeout=limit)


TORCH_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
LAUNCHED_BY = {
    "pytorch": ("torchrun (tools/dist_train.sh, dist_test.sh)", TORCH_VARIABLES),
    "slurm": ("srun (tools/slurm_train.sh, slurm_test.sh)", ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID")),
    "mpi": (
        "Open MPI's mpirun",
        ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
    ),
}
"""The program of each launcher, and its variables for rank, number of processes, and rank on the machine."""


def first_host(node_list: str) -> str:
    """Return the first machine of one of Slurm's node lists.

    >>> first_host("gpu[07-09,12],login1")
    'gpu07'
    """
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])+", node_list)
    return re.sub(r"\[([^\],-]+)[^\]]*\]", r"\1", first[0] if first else node_list)


def bert_tokenizer(vocab_file: str) -> Any:  # noqa: ANN401
    """Make BERT's tokenizer from a vocab.txt.

    For transformers 5.0 to 5.23, whose ``BertTokenizerFast(vocab_file=...)`` silently maps every word to [UNK]: the file is
    passed as a positional argument.
    """
    from transformers import BertTokenizerFast

    return BertTokenizerFast(vocab_file)


def siglip_tokenizer(folder: str) -> Any:  # noqa: ANN401
    """Make SigLIP's tokenizer, by the library tokenizers.

    For transformers 4.57 to 5.24, whose SiglipTokenizer needs sentencepiece, and is saved as a file that is no text. Its
    vocabulary is one of T5, which tokenizers reads; what it does to texts before, Tokenize does.

    Raises:
        BackendError: If the folder has only sentencepiece's file, and a package that reads it is missing.
    """
    from transformers import PreTrainedTokenizerFast, T5TokenizerFast

    if os.path.isfile(os.path.join(folder, "tokenizer.json")):
        return PreTrainedTokenizerFast.from_pretrained(folder)
    missing = [name for name in ("sentencepiece", "google.protobuf") if not _is_installed(name)]
    if missing:
        raise BackendError(
            f"SigLIP's tokenizer {folder} has a spiece.model and no tokenizer.json. Its first reading needs sentencepiece and "
            f"protobuf: pip install sentencepiece protobuf"
        )
    read = T5TokenizerFast.from_pretrained(folder, extra_ids=0)
    special = {f"{name}_token": str(getattr(read, f"{name}_token")) for name in ("eos", "pad", "unk")}
    return PreTrainedTokenizerFast(tokenizer_object=read.backend_tokenizer, **special)  # saved without the spiece.model


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of the package that it would be in
        return False


def count_attention(inputs: list, outputs: list) -> float:
    """Count the multiply-adds of scaled_dot_product_attention, (…, L, E) x (…, S, E) x (…, S, V).

    For fvcore 0.1.5, which does not know the operator and does not count it.
    """
    query, key, value = (tensor.type().sizes() for tensor in inputs[:3])
    return float(np.prod(query[:-1])) * key[-2] * (query[-1] + value[-1])


def decoder_reason(error: Exception) -> str:
    """Return the reason that a decoder's error gives.

    For decord 0.6.0, whose messages begin with paths of its build machine and a time stamp, and for mmcv 2.1's reader by
    OpenCV, which counts the frames of a file that is no video as fewer than none.
    """
    line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if "cannot find video stream" in line:
        return "it has no video stream"
    if "Error reading" in line or "av_read_frame failed" in line or "__len__() should return" in line:
        return "not a video, or cut short"
    return re.sub(r"^(\[[\d:]+\]\s+\S+:\d+:\s*)+", "", line).rstrip(".")


def bare_tower(model: Any) -> Any:  # noqa: ANN401
    """Return the tower of a SiglipTextModel or SiglipVisionModel, with the names of its weights in a SiglipModel.

    For transformers 4.57, where these models are a wrapper around a tower; in transformers 5 they are the tower.
    """
    return getattr(model, "text_model", None) or getattr(model, "vision_model", None) or model
