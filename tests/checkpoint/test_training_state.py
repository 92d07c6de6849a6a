"""A training state is taken as it was saved, up to its limits; nothing else is kept of it."""

import copy
from typing import Any

import pytest
from mmengine.logging import HistoryBuffer

from clipbert_mm.checkpoint import CheckpointError
from clipbert_mm.checkpoint.training_state import training_state


@pytest.fixture
def saved() -> dict[str, Any]:
    """What a training saves beside its weights."""
    history = HistoryBuffer([0.5, 0.25], [1, 2], max_length=7)
    return dict(
        meta=dict(epoch=3, iter=18, seed=5, config="raise SystemExit"),
        message_hub=dict(
            log_scalars={"train/loss": history, "train/odd": 3.0},
            runtime_info={"best": "a.pth"},
            resumed_keys={"train/loss": 1},
        ),
        optimizer={"state": {}},
        param_schedulers=[dict(last_step=18, optimizer="another")],
        ranks=[dict(random={"torch": 1}, hooks={"EMA": 2}, other=3)],
        mine="kept",
    )


def test_the_state_is_what_was_saved_without_what_could_run_or_replace_objects(saved: dict[str, Any]):
    state = training_state(copy.deepcopy(saved), "a.pth")
    hub = state.pop("message_hub")
    assert state == dict(
        meta=dict(epoch=3, iter=18, seed=5),
        optimizer={"state": {}},
        param_schedulers=[dict(last_step=18)],
        ranks=[dict(random={"torch": 1}, hooks={"EMA": 2})],
        mine="kept",
    )
    (history,) = hub["log_scalars"].values()
    assert [values.tolist() for values in history.data] == [[0.5, 0.25], [1, 2]]
    assert history.max_length == 7
    assert (hub["runtime_info"], hub["resumed_keys"]) == ({"best": "a.pth"}, {"train/loss": True})


def test_schedulers_may_be_grouped_by_optimizer_and_parts_may_be_missing(saved: dict[str, Any]):
    saved["param_schedulers"] = {"head": saved["param_schedulers"]}
    assert training_state(saved, "a.pth")["param_schedulers"] == {"head": [dict(last_step=18)]}
    del saved["param_schedulers"], saved["ranks"]
    state = training_state(saved, "a.pth")
    assert state["ranks"] == []
    assert "param_schedulers" not in state


@pytest.mark.parametrize(
    ("name", "allowed", "refused"),
    [("epoch", (0, 2**53), (-1, 2**53 + 1, None)), ("iter", (0, 2**53), (-1, 2**53 + 1, None)),
     ("seed", (None, 0, 2**32 - 1), (-1, 2**32, "5"))],
)  # fmt: skip
def test_numbers_have_limits(saved: dict[str, Any], name: str, allowed: tuple, refused: tuple):
    # A double counts up to 2**53; numpy takes seeds below 2**32.
    for value in allowed:
        saved["meta"][name] = value
        assert training_state(saved, "a.pth")["meta"][name] == value
    for value in refused:
        saved["meta"][name] = value
        with pytest.raises(CheckpointError, match=rf"^a\.pth cannot be resumed: meta\['{name}'\] is expected to be"):
            training_state(saved, "a.pth")


def test_a_training_without_a_seed_resumes(saved: dict[str, Any]):
    del saved["meta"]["seed"]
    assert "seed" not in training_state(saved, "a.pth")["meta"]


@pytest.mark.parametrize("name", ["meta", "optimizer", "message_hub"])
def test_weights_without_a_training_are_not_resumed(saved: dict[str, Any], name: str):
    del saved[name]
    with pytest.raises(CheckpointError, match="load_from"):
        training_state(saved, "a.pth")
