"""The model of a run without the wrapper that several processes put around it."""

from typing import Any

from mmengine.model import is_model_wrapper


def bare_model(model: Any) -> Any:  # noqa: ANN401
    """Return a model without its wrapper, such as DistributedDataParallel; itself if it has none."""
    return model.module if is_model_wrapper(model) else model
