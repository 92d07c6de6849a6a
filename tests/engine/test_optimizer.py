"""What one step does to each weight: its decay, its rate, nothing to what is frozen, and the average of several batches."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from mmengine.optim import OptimWrapper, build_optim_wrapper
from torch import Tensor, nn

from clipbert_mm.models import ClipBert
from clipbert_mm.registry import MODELS

RESNET = dict(type="mmpretrain.ResNet", depth=50, stem_channels=8, base_channels=8)
NORMS = (nn.LayerNorm, nn.modules.batchnorm._BatchNorm)


@pytest.fixture
def build(model_config: dict[str, Any]) -> Callable[..., ClipBert]:
    """Build a small ClipBert with a ResNet of batch norms and both heads, in training mode."""

    def make(backbone: dict[str, Any] = RESNET, **options: Any) -> ClipBert:
        model_config["backbone"] = backbone
        model_config["projection"]["in_channels"] = 256
        model = MODELS.build(model_config | options)
        model.train()
        return model

    return make


def wrap(model: nn.Module, paramwise_cfg: dict[str, Any] | None = None, **optimizer: Any) -> OptimWrapper:
    """Build the optimizer wrapper as the Runner does."""
    config = dict(constructor="GroupedOptimWrapperConstructor", paramwise_cfg=paramwise_cfg, optimizer=optimizer)
    return build_optim_wrapper(model, config)


def copies(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def step_with(model: nn.Module, wrapper: OptimWrapper, gradient: float) -> None:
    """Make a step with the same gradient everywhere."""
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, gradient) if parameter.requires_grad else None
    wrapper.step()


def test_all_but_biases_and_norms_decay(build: Callable):
    model = build()
    for parameter in model.parameters():
        parameter.data += 1  # so that decay shows
    before = copies(model)
    step_with(model, wrap(model, type="AdamW", lr=0.5, weight_decay=1e-3), gradient=0.0)
    decayed = set()
    for name, value in model.named_parameters():
        module = model.get_submodule(name.rpartition(".")[0])
        spared = isinstance(module, NORMS) or name.endswith("bias")
        torch.testing.assert_close(value, before[name] * (1 if spared else 1 - 0.5 * 1e-3))
        decayed |= set() if spared else {name}
    for name in (
        "backbone.conv1",
        "encoder.bert.embeddings.word_embeddings",
        "encoder.visual_embedding.type_embedding",
    ):
        assert f"{name}.weight" in decayed
    assert not decayed & {
        "backbone.bn1.weight",
        "mlm_head.bias",
        "mlm_head.transform.2.weight",
        "head.classifier.0.bias",
    }


def test_modules_have_rates_of_their_own_of_which_the_longest_name_counts(build: Callable, model_config: dict):
    model_config["encoder"]["num_layers"] = 11  # layer.10 is not in layer.1
    model = build()
    factors = {
        "encoder": 0.5,
        "head": 3.0,  # not the mlm_head
        "backbone": 0.1,
        "encoder.bert.encoder.layer.1": 0.25,
        "encoder.bert.encoder.layer.1.output": 0.0,
        "backbone.layer4.2.bn3": 2.0,
    }
    wrapper = wrap(model, {"lr_mult": factors}, type="SGD", lr=0.1, weight_decay=0.0)
    before = copies(model)
    step_with(model, wrapper, gradient=1.0)
    moved = {name: (before[name] - value).detach() for name, value in model.named_parameters()}

    def factor_of(name: str) -> float:
        while name and name not in factors:
            name = name.rpartition(".")[0]
        return factors.get(name, 1.0)

    for name, distance in moved.items():
        torch.testing.assert_close(distance, torch.full_like(distance, 0.1 * factor_of(name)), msg=name)
    assert len({factor_of(name) for name in moved}) == 7
    assert len(wrapper.optimizer.param_groups) <= 2 * 7
    # What the log calls lr.
    assert wrapper.get_lr()["lr"][0] == 0.1


def test_few_groups_hold_each_trainable_parameter_once(build: Callable):
    model = build()
    groups = wrap(model, type="AdamW", lr=1e-3).optimizer.param_groups
    assert len(groups) == 2
    assert len(list(model.parameters())) > 200
    held = [parameter for group in groups for parameter in group["params"]]
    assert sorted(map(id, held)) == sorted(map(id, model.parameters()))


def test_what_is_frozen_takes_no_state_and_stays(build: Callable, make_batch: Callable):
    norms = dict(norm_cfg=dict(type="BN", requires_grad=False), norm_eval=True, frozen_stages=1)
    model = build(RESNET | norms, frozen=["text_encoder"])
    wrapper = wrap(model, type="AdamW", lr=0.1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train_step(make_batch(size=64), wrapper)
    frozen = {name for name, value in model.named_parameters() if not value.requires_grad}
    assert {name.split(".")[0] for name in frozen} == {"backbone", "encoder"}
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items() if name in frozen)
    trained = [value for value in model.parameters() if value.requires_grad]
    assert set(map(id, wrapper.optimizer.state)) == set(map(id, trained))
    held = sum(len(group["params"]) for group in wrapper.optimizer.param_groups)
    assert held == len(trained)


def test_what_cannot_be_grouped_is_said(build: Callable):
    model = build()
    message = r"takes lr_mult in paramwise_cfg, got bias_decay_mult, custom_keys\. Biases and norm scales have no"
    with pytest.raises(ValueError, match=message):
        wrap(model, dict(custom_keys={}, bias_decay_mult=0.0, lr_mult={}), type="SGD", lr=0.1)
    for name in ("backbon", "aggregator", "head.classifier.1", "encoder.bert.encoder.layer.2"):
        parts = r"The model has: backbone, projection, encoder, head, mlm_head\."
        with pytest.raises(
            ValueError, match=rf"names '{name}', which is no module with trainable parameters\. {parts}"
        ):
            wrap(model, {"lr_mult": {name: 0.1}}, type="SGD", lr=0.1)
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="nothing to train: every parameter of the model is frozen"):
        wrap(model, type="SGD", lr=0.1)


def joined(batches: list[dict[str, Any]]) -> dict[str, Any]:
    """One batch of several."""
    return {
        "inputs": dict(
            frames=torch.cat([batch["inputs"]["frames"] for batch in batches]),
            text_ids=[texts for batch in batches for texts in batch["inputs"]["text_ids"]],
        ),
        "data_samples": [sample for batch in batches for sample in batch["data_samples"]],
    }


@pytest.mark.parametrize("iterations", [3, 6, 7, 8, 2])
def test_steps_over_several_batches_are_those_over_one_large_batch(
    model_config: dict[str, Any], make_batch: Callable, iterations: int
):
    del model_config["mlm_head"]  # its loss is a mean over masked tokens, which batches have more and fewer of
    model, twin = (MODELS.build(model_config).double() for _ in range(2))
    twin.load_state_dict(model.state_dict())
    before = model.head.classifier[0].weight.detach().clone()
    sgd = dict(type="SGD", lr=0.5, momentum=0.9, weight_decay=0.01)
    config = dict(optimizer=sgd, constructor="GroupedOptimWrapperConstructor", clip_grad=dict(max_norm=0.2))
    wrapper = build_optim_wrapper(model, config | dict(accumulative_counts=3))
    wrapper.initialize_count_status(model, 0, iterations)
    batches = [make_batch(seed=seed) for seed in range(iterations)]
    for batch in batches:
        model.train_step(batch, wrapper)
    whole = build_optim_wrapper(twin, config)
    for first in range(0, iterations, 3):  # the last step may be of fewer
        twin.train_step(joined(batches[first : first + 3]), whole)
    assert (model.head.classifier[0].weight - before).abs().max() > 1e-3
    torch.testing.assert_close(dict(model.named_parameters()), dict(twin.named_parameters()))
