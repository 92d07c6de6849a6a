"""Names lead to classes, ours and MMEngine's; a wrong name is answered with the right one."""

import mmengine
import pytest
import torch
from mmengine.hooks import IterTimerHook

from clipbert_mm import registry
from clipbert_mm.models import ClipBert


def test_our_names_are_found_from_other_scopes():
    assert mmengine.registry.MODELS.get("clipbert_mm.ClipBert") is ClipBert
    assert registry.MODELS.get("ClipBert") is ClipBert


def test_names_of_mmengine_and_torch_are_found_in_our_registries():
    assert registry.HOOKS.get("IterTimerHook") is IterTimerHook
    assert registry.OPTIMIZERS.get("AdamW") is torch.optim.AdamW
    assert registry.DATA_SAMPLERS.get("DefaultSampler") is mmengine.dataset.DefaultSampler


@pytest.mark.parametrize(
    ("group", "wrong", "right"),
    [
        (registry.MODELS, "ClipBrt", "ClipBert"),
        (registry.MODELS, "LogSumAggregator", "LogSumExpAggregator"),
        (registry.TRANSFORMS, "SampleClip", "SampleClips"),
        (registry.METRICS, "RetreivalMetric", "RetrievalMetric"),
        (registry.HOOKS, "LogerHook", "MainProcessLoggerHook"),  # in the place of MMEngine's
        (registry.OPTIMIZERS, "AdamWW", "AdamW"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_a_misspelt_name_is_answered_with_the_right_one(group: registry.Registry, wrong: str, right: str):
    with pytest.raises(KeyError, match=rf"'{wrong}' is not in the {group.name} registry. Did you mean .*\b{right}\b"):
        group.get(wrong)


def test_a_name_like_no_other_is_answered_with_all_names_and_what_to_do():
    with pytest.raises(KeyError) as caught:
        registry.METRICS.get("qqq")
    message = str(caught.value)
    assert "Did you mean" not in message
    assert "RetrievalMetric" in message
    assert "custom_imports" in message


def test_a_misspelt_type_in_a_config_is_answered_the_same():
    with pytest.raises(KeyError, match="Did you mean MeanFusion"):
        registry.MODELS.build(dict(type="MeanFuson"))
