"""The model of a run without the wrapper that several processes put around it, and the runner that our parts need."""

from typing import Any

from mmengine.model import is_model_wrapper

from clipbert_mm.errors import OptionError


def bare_model(model: Any) -> Any:  # noqa: ANN401
    """Return a model without its wrapper, such as DistributedDataParallel; itself if it has none."""
    return model.module if is_model_wrapper(model) else model


def expect_clipbert_runner(runner: Any, who: str) -> None:  # noqa: ANN401
    """Check that a part of a run, such as a loop or a hook, has the runner that it needs.

    Args:
        runner: The runner.
        who: Name of the part.

    Raises:
        OptionError: If it is another one than ClipBertRunner.
    """
    if not hasattr(runner, "resumed"):
        raise OptionError(
            f"{who} needs ClipBertRunner, got {type(runner).__name__}. Set runner_type='clipbert_mm.ClipBertRunner', which "
            "the tools of MMEngine's libraries read too, or in Python ClipBertRunner.from_cfg(config); or name MMEngine's own "
            "loop and hooks."
        )
