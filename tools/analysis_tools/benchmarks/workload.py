"""What the measurements of a step share: its settings, its batch, and the step itself."""

import argparse
import copy
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import DefaultScope

from clipbert_mm import engine  # noqa: F401  registers the optimizer's constructor
from clipbert_mm.errors import OptionError
from clipbert_mm.models import ClipBert
from clipbert_mm.registry import MODELS, type_name
from clipbert_mm.structures import VideoTextSample

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Precisions of matrix products, by their names on the command line."""


@dataclass(frozen=True)
class Setting:
    """What a step works on.

    Args:
        batch: Videos B.
        clips: Clips K of each, N_train.
        frames: Frames T of a clip.
        texts: Texts of a video.
        size: Height and width of a frame, in pixels.
        length: Tokens L of the longest text.
    """

    batch: int
    clips: int
    frames: int
    texts: int
    size: int
    length: int

    def but(self, **changes: int) -> "Setting":
        """Return the setting with some of it changed."""
        return replace(self, **changes)

    def to_dict(self) -> dict[str, int]:
        """Return the setting for a report."""
        return asdict(self)


def add_setting(parser: argparse.ArgumentParser, batch: int) -> None:
    """Add the arguments that :func:`read_setting` reads, and device, clock and precision."""
    parser.add_argument("--batch", type=int, default=batch, help=f"videos B (default: {batch})")
    parser.add_argument("--clips", type=int, help="clips N_train of a video (default: the training pipeline's)")
    parser.add_argument("--frames", type=int, help="frames T of a clip (default: the training pipeline's)")
    parser.add_argument("--texts", type=int, help="texts of a video (default: those of the training data)")
    parser.add_argument("--size", type=int, help="frame size in pixels (default: the training pipeline's)")
    parser.add_argument("--text-length", type=int, default=20, help="tokens of the longest text (default: 20)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=1, help="threads on a CPU (default: 1)")
    parser.add_argument(
        "--cpu-time", action="store_true", help="count the time on the processor alone: for a CPU with other work to do"
    )
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32", help="fp32, or mixed precision")


def read_setting(config: Config, args: argparse.Namespace) -> Setting:
    """Return the setting of the command line; what it leaves out is the training pipeline's of the config.

    Raises:
        OptionError: If a number is not positive.
    """
    dataset = config.train_dataloader.dataset
    dataset = dataset.get("datasets", [dataset])[0]
    pipeline = {key: value for transform in dataset.pipeline for key, value in transform.items()}
    options = 5 if type_name(config.model["head"]) == "MultipleChoiceHead" else 1
    own = options * dataset.get("captions_per_item", dataset.get("questions_per_item", 1))
    setting = Setting(
        batch=args.batch,
        clips=args.clips or pipeline.get("num_clips", 1),  # an image is a video of one clip of one frame
        frames=args.frames or pipeline.get("num_frames", 1),
        texts=args.texts or own * (1 + dataset.get("num_negatives", 1 if "Retrieval" in type_name(dataset) else 0)),
        size=args.size or pipeline["size"],
        length=args.text_length,
    )
    if min(setting.to_dict().values()) < 1:
        raise OptionError(f"A step works on positive numbers of everything, got {setting}.")
    return setting


def build_model(config: Config, device: str) -> ClipBert:
    """Build the model of a config, in training mode, with random weights."""
    with DefaultScope.overwrite_default_scope("clipbert_mm"):
        return MODELS.build(copy.deepcopy(config.model)).to(device).train()


def build_wrapper(model: ClipBert, config: Config, **optimizer: Any) -> OptimWrapper:
    """Build the optimizer of a config, with some of its options changed; each batch is a step."""
    wanted = {
        key: copy.deepcopy(config.optim_wrapper[key])
        for key in ("constructor", "clip_grad")
        if key in config.optim_wrapper
    }
    wanted["optimizer"] = {**config.optim_wrapper["optimizer"], **optimizer}
    with DefaultScope.overwrite_default_scope("clipbert_mm"):
        return build_optim_wrapper(model, dict(type="AccumulatingOptimWrapper", **wanted))


def choose_clock(args: argparse.Namespace) -> Callable[[], float]:
    """Return the clock that the command line asks for.

    Raises:
        OptionError: If the processor's time is asked for where it is not the time that the work takes.
    """
    if args.cpu_time and (torch.device(args.device).type != "cpu" or args.threads != 1):
        raise OptionError(
            f"--cpu-time is for one thread on a CPU, got --threads {args.threads} --device {args.device}."
        )
    return time.process_time if args.cpu_time else time.perf_counter


def random_batch(model: ClipBert, setting: Setting, *, longest: bool = True, seed: int = 0) -> dict[str, Any]:
    """Make a collated batch of random pixels and words.

    Args:
        model: A ClipBert, for whose head there are labels.
        setting: What the batch is of.
        longest: Whether the first text of each video is the longest there is; else all are of 40 to 80 % of its length.
        seed: Seed of the pixels and words.
    """
    rng = np.random.default_rng(seed)
    text_ids, samples = [], []
    for _ in range(setting.batch):
        lengths = rng.integers(max(2, setting.length * 2 // 5), max(3, setting.length * 4 // 5 + 1), setting.texts)
        lengths[0] = setting.length if longest else lengths[0]
        words = min(model.data_preprocessor.vocab_size, model.encoder.word_embeddings.shape[0])
        text_ids.append([rng.integers(1, words, length) for length in lengths])
        samples.append(_sample(model, setting, rng))
    shape = (setting.batch, setting.clips, setting.frames, setting.size, setting.size, 3)
    inputs = dict(frames=torch.from_numpy(rng.integers(0, 256, shape, np.uint8)), text_ids=text_ids)
    if model.mlm_head is not None:
        inputs["mlm_labels"] = [[np.where(rng.random(len(ids)) < 0.15, ids, -100) for ids in own] for own in text_ids]
    return dict(inputs=inputs, data_samples=samples)


def _sample(model: ClipBert, setting: Setting, rng: np.random.Generator) -> VideoTextSample:
    """Return a sample with whatever the model's head is trained on."""
    sample = VideoTextSample(metainfo=dict(sample_idx=0, path="random", texts=["random"] * setting.texts, broken=None))
    sample.match_labels = np.arange(setting.texts) % 2
    sample.counts = rng.random(setting.texts).astype(np.float32)
    answers = getattr(model.head, "num_answers", 1)
    questions = 1 if type(model.head).__name__ == "MultipleChoiceHead" else setting.texts
    sample.answer_labels = np.zeros(questions, np.int64)
    sample.answer_scores = rng.random((setting.texts, answers)).astype(np.float32)
    return sample


@contextmanager
def mixed_precision(name: str, device: str) -> Iterator[None]:
    """Compute in mixed precision, or in float32."""
    mixed = torch.autocast(torch.device(device).type, PRECISIONS[name]) if name != "fp32" else nullcontext()
    with mixed:
        yield


def loss_of(model: ClipBert, data: dict[str, Any], name: str, device: str) -> torch.Tensor:
    """Do the forward pass of a step."""
    with mixed_precision(name, device):
        losses = model(**model.data_preprocessor(dict(data), True), mode="loss")
    return model.parse_losses(losses)[0]


def training_step(model: ClipBert, data: dict[str, Any], wrapper: OptimWrapper, name: str, device: str) -> None:
    """Do a whole step, with that of the optimizer."""
    wrapper.update_params(loss_of(model, data, name, device))
