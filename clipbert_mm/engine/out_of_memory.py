"""Explain that a batch does not fit into memory, by trying what does fit."""

import gc
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from mmengine.runner import Runner

from clipbert_mm.engine.bare_model import bare_model
from clipbert_mm.engine.config import foreign_model
from clipbert_mm.errors import ClipBertError
from clipbert_mm.registry import type_name

if TYPE_CHECKING:
    from clipbert_mm.models import ClipBert

ADAM_STATES = 2
"""Numbers that the optimizer will hold for each trained parameter."""
ALLOCATION_FAILED = (
    "DefaultCPUAllocator: can't allocate memory",
    "std::bad_alloc",
    "could not create a primitive",  # of oneDNN
    "could not create a memory",
)
"""Texts of out-of-memory errors on the CPU, which have no class of their own."""


class OutOfMemoryError(ClipBertError, RuntimeError):
    """A batch does not fit into memory; the message says how much of it fits, and what else helps."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that a GPU or the machine is out of memory."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in ALLOCATION_FAILED)
    )


@contextmanager
def explaining_out_of_memory(runner: Runner) -> Iterator[None]:
    """Turn an out-of-memory error into a message that says what to lower and by how much.

    Args:
        runner: A runner whose ``current_batch`` is the stage and the batch that it processes, or None between batches.

    Raises:
        OutOfMemoryError: If the process ran out of memory.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        traceback.clear_frames(error.__traceback__)  # they hold the graph of the batch
        error.__traceback__ = None
        current = runner.current_batch
        advice = describe_settings(runner) if current is None else advise(runner, *current)
        raise OutOfMemoryError(f"{advice} ({reason})") from None


def describe_settings(runner: Runner) -> str:
    """Name the settings that bound the memory where no batch is known: when a gallery is encoded and scored."""
    settings = {
        f"{part}.{key}": value
        for part in ("test_cfg", "test_dataloader")
        for key, value in (runner.cfg.get(part) or {}).items()
        if key in ("clips_per_tile", "batch_size")
    }
    named = " or ".join(f"{name} (now {value}, try {max(1, value // 2)})" for name, value in settings.items())
    return f"Out of memory. Lower {named or 'the batch size'}, or the size of ResizePad."


def advise(runner: Runner, stage: str, batch: dict[str, Any]) -> str:
    """Try smaller batches, and the same batch with options that save memory, and say what fits.

    Args:
        runner: The runner, with its model on the device.
        stage: "train", "val" or "test".
        batch: The collated batch that did not fit; if a step has several, the first is tried.
    """
    if foreign_model(runner.cfg) is not None:
        return f"A batch of {len(batch['inputs'])} does not fit into memory. Lower {stage}_dataloader.batch_size"
    model = bare_model(runner.model)
    inputs, samples = batch["inputs"], [sample for sample in batch["data_samples"] if sample.get("broken") is None]
    inputs = inputs[0] if isinstance(inputs, list) else inputs
    items, clips, frames, height, width, _ = inputs["frames"].shape
    training = stage == "train"
    trial = TrialStep(runner, model, inputs, samples, training=training)
    count = items // 2
    while count and not trial(count):
        count //= 2
    lengths = [len(ids) for item in inputs["text_ids"] for ids in item]
    advice = (
        f"A batch of {items} x {clips} clips x {frames} frames of {width} x {height} pixels with {len(lengths)} texts of up to "
        f"{max(lengths)} tokens does not fit into memory. Tried: "
    )
    sampler = runner.cfg.train_dataloader.get("sampler") if training else None
    if count and sampler and type_name(sampler) == "SameStepsSampler":
        divisor = max(each for each in range(1, count + 1) if items % each == 0)
        advice += f"{count} of {items} fit. Give --micro-batch {divisor}, which takes the same steps"
    elif count:
        advice += f"{count} of {items} fit. Set {stage}_dataloader.batch_size={count}"
        if training:
            batches = -(-items // count) * runner.accumulation
            advice += f" and optim_wrapper.accumulative_counts={batches} for a step of as many items"
    else:
        advice += f"not even 1 of {items} fits"
    if training:
        advice += "".join(f"; or keep {items} with {option}" for option in trial.helpful_options(clips))
    fewer = "num_clips of SampleClips and " if clips > 1 else ""
    return f"{advice}. Lowering {fewer}the size of ResizePad helps too."


class TrialStep:
    """A training or test step on the first items of a batch that leaves weights and statistics unchanged.

    Args:
        runner: The runner.
        model: The model.
        inputs: The collated inputs.
        samples: The data samples.
        training: Whether the step has a backward pass.
    """

    def __init__(
        self, runner: Runner, model: "ClipBert", inputs: dict[str, Any], samples: list[Any], *, training: bool
    ) -> None:
        self.runner, self.model, self.inputs, self.samples, self.training = runner, model, inputs, samples, training

    def __call__(self, count: int) -> bool:
        """Return whether the first ``count`` items fit."""
        self.free()
        buffers = [(buffer, buffer.clone()) for buffer in self.model.buffers()]
        try:
            self.run(count)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return False
        finally:
            self.free()
            for buffer, before in buffers:
                buffer.copy_(before)
        return True

    def run(self, count: int) -> None:
        """Run the forward pass and, in training, the backward pass with room for the optimizer."""
        data = {
            "inputs": {key: value[:count] for key, value in self.inputs.items()},
            "data_samples": self.samples[:count],
        }
        if not self.training:
            with torch.no_grad():
                self.model(**self.model.data_preprocessor(data), mode="predict")
            return
        wrapper = self.runner.optim_wrapper
        missing = sum(  # bytes of parameters that have no optimizer state yet
            parameter.numel() * parameter.element_size()
            for group in wrapper.param_groups
            for parameter in group["params"]
            if parameter not in wrapper.optimizer.state
        )
        device = next(self.model.parameters()).device
        reserved = torch.empty(ADAM_STATES * missing, dtype=torch.uint8, device=device)
        with wrapper.optim_context(self.model):
            losses = self.model(**self.model.data_preprocessor(data, True), mode="loss")
        self.model.parse_losses(losses)[0].backward()
        del reserved

    def free(self) -> None:
        """Free the memory of a trial."""
        self.model.zero_grad()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def helpful_options(self, clips: int) -> Iterator[str]:
        """Yield the options with which the whole batch fits; each is tried together with those before it."""
        # The models take seconds to import, and the engine does not need them earlier.
        from clipbert_mm.models.memory_saving import checkpoint_activations

        layers = f"encoder.{self.model.encoder.layers}"
        options = {
            "model.clip_sequential=True": lambda: setattr(self.model, "clip_sequential", True),
            f"model.checkpointed=['{layers}']": lambda: checkpoint_activations(self.model, [layers]),
        }
        if clips == 1 or self.model.clip_sequential:
            del options["model.clip_sequential=True"]
        tried = []
        for option, switch_on in options.items():
            try:
                switch_on()
                tried.append(option)
                if self(len(self.samples)):
                    yield " and ".join(tried)
                    return
            except ValueError:  # batch norms use batch statistics, or another architecture names its layers differently
                return
