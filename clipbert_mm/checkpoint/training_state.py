"""Read the training state of a checkpoint: only those values that resuming needs."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.logging import HistoryBuffer

from clipbert_mm.errors import CheckpointError, printable, quoted

MAX_COUNT = 2**53
"""Most epochs and iterations."""
PARTS = ("log_scalars", "runtime_info", "resumed_keys")
"""The entries that MMEngine's message hub saves."""


def training_state(rest: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Return the checked training state of a checkpoint.

    ``meta["config"]`` is removed, since MMEngine's Runner would run it as Python. So are attributes of MMEngine's objects
    other than numbers: histories are rebuilt from their numbers, and schedulers keep their own optimizer.

    Args:
        rest: The entries of the file other than the weights.
        path: The file.

    Raises:
        CheckpointError: If there is no training state, or it is damaged.
    """
    if not {"meta", "optimizer", "message_hub"} <= set(rest):
        raise CheckpointError(
            f"{printable(path)} has weights but no training state, so it cannot be resumed. Start a training from its weights "
            "with load_from instead."
        )
    try:
        state = {
            **rest,
            "meta": _meta(rest["meta"]),
            "message_hub": _message_hub(rest["message_hub"]),
            "ranks": [_rank(rank) for rank in _sequence(rest.get("ranks", []), "ranks")],
        }
        if "param_schedulers" in rest:
            state["param_schedulers"] = _schedulers(rest["param_schedulers"])
        _mapping(rest["optimizer"], "optimizer")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reason = error if type(error) is ValueError else f"its training state lacks or has invalid {quoted(str(error))}"
        raise CheckpointError(
            f"{printable(path)} cannot be resumed: {reason}. Take another copy, or start a training from its weights with "
            "load_from."
        ) from error
    return state


def _meta(meta: Any) -> dict[str, Any]:  # noqa: ANN401
    kept = {key: value for key, value in _mapping(meta, "meta").items() if key != "config"}
    for name, largest in (("epoch", MAX_COUNT), ("iter", MAX_COUNT), ("seed", 2**32 - 1)):
        value = kept.get(name)
        if name == "seed" and value is None:
            continue
        if type(value) is not int or not 0 <= value <= largest:
            raise ValueError(f"meta[{name!r}] is expected to be an integer from 0 to {largest}, got {quoted(value)}")
    return kept


def _message_hub(hub: Any) -> dict[str, Any]:  # noqa: ANN401
    scalars, infos, resumed = (_mapping(_mapping(hub, "message_hub")[part], part) for part in PARTS)
    return {
        "log_scalars": {
            str(name): HistoryBuffer(*history.data, history.max_length)
            for name, history in scalars.items()
            if isinstance(history, HistoryBuffer)
        },
        "runtime_info": {str(name): value for name, value in infos.items()},
        "resumed_keys": {str(name): bool(value) for name, value in resumed.items()},
    }


def _rank(rank: Any) -> dict[str, Any]:  # noqa: ANN401
    return {"random": dict(_mapping(rank, "ranks")["random"]), "hooks": dict(_mapping(rank["hooks"], "hooks"))}


def _schedulers(saved: Any) -> Any:  # noqa: ANN401
    if isinstance(saved, Mapping):
        return {name: _schedulers(schedulers) for name, schedulers in saved.items()}
    states = [_mapping(each, "param_schedulers") for each in _sequence(saved, "param_schedulers")]
    return [{name: value for name, value in state.items() if name != "optimizer"} for state in states]


def _mapping(value: Any, name: str) -> Mapping[str, Any]:  # noqa: ANN401
    if not isinstance(value, Mapping):
        raise ValueError(f"{name} is expected to be a dict, got a {type(value).__name__}")
    return value


def _sequence(value: Any, name: str) -> Sequence[Any]:  # noqa: ANN401
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"{name} is expected to be a list, got a {type(value).__name__}")
    return value
