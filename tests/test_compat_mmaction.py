"""Each work-around for mmaction2 does its work."""

import random

import numpy as np
import pytest
import torch
from forking import ForkingProcess
from sister_libraries import import_mmaction

from clipbert_mm import compat
from clipbert_mm.errors import BackendError

WITHOUT_WORK_AROUND = """
try:
    import mmaction.models
except (ImportError, AttributeError, AssertionError) as error:
    print(error)
"""
MMACTION = """
import sys
import clipbert_mm.models
assert "mmaction" not in sys.modules, "only a config that asks for it imports it"
from clipbert_mm import compat
compat.import_mmaction()
compat.import_mmaction()
import mmaction.models
from mmaction.utils import dependency
assert not any("drn" in name.split(".") for name in sys.modules), "the stand-ins are gone"
print(dependency.WITH_MULTIMODAL)
backbone = mmaction.models.ResNet(depth=18)
assert backbone.eval() is backbone and not backbone.training
assert backbone.train() is backbone and backbone.training
"""


def test_mmaction2_s_color_jitter_turns_hues_both_ways():
    import_mmaction()
    compat.import_mmaction_transforms()
    from mmaction.datasets.transforms import ColorJitter

    red = np.full((2, 2, 3), (250, 0, 0), np.float32)
    degrees = {factor: ColorJitter.adjust_hue(red, factor)[0, 0].tolist() for factor in (-0.25, 0.25, 0.5)}
    # int(0.25 * 255) = 63 steps of 2 degrees: from red, 126 degrees to blue and to green, 254 degrees to blue.
    assert degrees == {-0.25: [0, 25, 250], 0.25: [0, 250, 25], 0.5: [58, 0, 250]}


def test_generators_are_seeded_inside_a_block_and_restored():
    np.random.seed(1)
    expected = np.random.random(), random.random(), torch.rand(1).item()
    np.random.seed(1)
    state = random.getstate(), torch.get_rng_state()
    drawn = []
    for _ in range(2):
        with compat.seeded_generators(2**32 - 1):
            drawn.append((np.random.random(), random.random(), torch.rand(1).item()))
    assert drawn[0] == drawn[1]
    assert random.getstate() == state[0]
    assert torch.equal(torch.get_rng_state(), state[1])
    assert np.random.random() == expected[0]


def test_mmaction2_s_models_can_be_imported(with_libraries: ForkingProcess):
    pytest.importorskip("decord", reason="mmaction2 needs decord, which has no wheel for this machine")
    done = with_libraries.run(WITHOUT_WORK_AROUND)
    reasons = "mmaction.models.localizers.drn", "is used but incompatible"  # with mmcv < 2.2, and with a newer one
    assert any(reason in done.stdout for reason in reasons), "the wheel is whole: this work-around can go"
    assert with_libraries.run(MMACTION).stdout.split()[-1] == "True", "its setting is as before"


def test_mmaction2_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        BackendError, match=r"^Backbones of mmaction2 need mmaction2, which is not installed: pip install 'mm"
    ):
        compat.import_mmaction()
