"""The state of a process's random generators, as plain values that weights-only loading accepts."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def random_state() -> dict[str, Any]:
    """Return the states of the generators of torch (CPU, and the current GPU if there is one), numpy and Python."""
    name, keys, *rest = np.random.get_state()
    state: dict[str, Any] = dict(
        torch=torch.get_rng_state(), numpy=(name, np.asarray(keys).tolist(), *rest), python=random.getstate()
    )
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Set the states that :func:`random_state` returned."""
    torch.set_rng_state(state["torch"].cpu())
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, np.array(keys, np.uint32), *rest))
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())


@contextmanager
def unchanged_random_state() -> Iterator[None]:
    """Restore the generators at the end of the block."""
    state = random_state()
    try:
        yield
    finally:
        set_random_state(state)
