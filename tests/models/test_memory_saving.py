"""However the model computes, it computes the same: losses and gradients agree with the plain path."""

import copy
import weakref
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import build_optim_wrapper
from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from clipbert_mm.models.clipbert import TEXTS
from clipbert_mm.registry import MODELS

ANSWERS = 7
HEADS = {
    "MatchingHead": {},
    "MarginRankingHead": {},
    "OpenEndedHead": dict(num_answers=ANSWERS),
    "SoftAnswerHead": dict(num_answers=ANSWERS),
    "MultipleChoiceHead": {},
    "CountHead": {},
}


def labeled(data: dict[str, Any]) -> dict[str, Any]:
    """The batch with labels for every head."""
    rng = np.random.default_rng(1)
    for sample in data["data_samples"]:
        count = len(sample.texts)
        sample.answer_labels = rng.integers(0, ANSWERS, count)
        sample.answer_scores = rng.random((count, ANSWERS)).astype(np.float32)
        sample.counts = rng.random(count).astype(np.float32)
    return data


@pytest.fixture
def build(model_config: dict) -> Callable[..., nn.Module]:
    """Build models of the same weights, in float64 and training mode, that compute in different ways."""
    weights: dict[str, torch.Tensor] = {}

    def make(*, resnet: bool = False, mlm: bool = False, head: dict | None = None, **options: Any) -> nn.Module:
        config = copy.deepcopy(model_config)
        if not mlm:
            del config["mlm_head"]
        if resnet:
            config["backbone"] = dict(
                type="mmpretrain.ResNet",
                depth=18,
                stem_channels=8,
                base_channels=8,
                strides=(1, 2, 2, 1),
                frozen_stages=1,
                norm_cfg=dict(type="BN", requires_grad=False),
                norm_eval=True,
            )
            config["projection"]["in_channels"] = 64
        config["head"].update(head or {})
        for part in ("encoder", "aggregator"):
            config[part].update(options.pop(part, {}))
        model = MODELS.build(config | options).double().train()
        if resnet:
            for name, value in model.backbone.named_parameters():
                if ".bn" in name and name.endswith("weight"):
                    nn.init.constant_(value, 0.5)  # else each block begins as the identity
        with torch.no_grad():  # else the clips of random weights hardly differ
            model.projection.conv.weight *= 20
            model.head.classifier[-1].weight *= 20
        if not weights:
            weights.update(copy.deepcopy(model.state_dict()))
        model.load_state_dict(weights)
        return model

    return make


def step(model: nn.Module, data: dict[str, Any], autocast: bool = False) -> tuple[dict, dict]:
    """Losses and gradients of a batch."""
    prepared = model.data_preprocessor(copy.deepcopy(data))
    torch.manual_seed(7)
    with torch.autocast("cpu", torch.bfloat16) if autocast else nullcontext():
        loss, log = model.parse_losses(model(**prepared, mode="loss"))
    loss.backward()
    gradients = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    return {name: value.detach() for name, value in log.items()}, gradients


def assert_same_step(found: tuple[dict, dict], wanted: tuple[dict, dict], **tolerance: float) -> None:
    """Losses and gradients agree, in every parameter; to rounding of float64 if nothing else is said."""
    tolerance = tolerance or dict(rtol=1e-9, atol=1e-12)
    assert set(found[1]) == set(wanted[1])
    assert len(wanted[1]) > 20
    torch.testing.assert_close(found[0], wanted[0], **tolerance)
    torch.testing.assert_close(found[1], wanted[1], **tolerance)


@pytest.mark.parametrize("aggregator", ["LogSumExpAggregator", "MeanAggregator", "MaxAggregator"])
def test_clip_by_clip_gives_the_gradient_of_all_clips(build: Callable, make_batch: Callable, aggregator: str):
    data = labeled(make_batch(texts=(2, 3, 1), clips=3, size=64))
    plain = step(build(resnet=True, aggregator=dict(type=aggregator)), data)
    sequential = step(build(resnet=True, aggregator=dict(type=aggregator), clip_sequential=True), data)
    assert_same_step(sequential, plain)
    # It is not the gradient of clips that each had a loss of its own, but for the mean of a linear loss.
    alone = build(resnet=True, aggregator=dict(type=aggregator))
    assert set(plain[1]) == {name for name, value in alone.named_parameters() if value.requires_grad}
    inputs = alone.data_preprocessor(copy.deepcopy(data))["inputs"]
    for k in range(3):
        clip = dict(inputs=inputs | dict(frames=inputs["frames"][:, k : k + 1]), data_samples=data["data_samples"])
        (alone.parse_losses(alone(**clip, mode="loss"))[0] / 3).backward()
    name = "head.classifier.2.weight"
    assert (dict(alone.named_parameters())[name].grad - plain[1][name]).abs().max() > 1e-6


@pytest.mark.parametrize("head", HEADS)
def test_clip_by_clip_serves_every_head(build: Callable, make_batch: Callable, head: str):
    data = labeled(make_batch(texts=(2, 2), clips=3))
    if head == "MultipleChoiceHead":
        for sample in data["data_samples"]:
            sample.answer_labels = sample.answer_labels[:1] % 2
    config = dict(type=head, **HEADS[head])
    assert_same_step(
        step(build(head=config, clip_sequential=True), data), step(build(head=config), data), rtol=1e-7, atol=1e-9
    )


@pytest.mark.parametrize("clips", [1, 3])
def test_clip_by_clip_serves_masked_words(build: Callable, make_batch: Callable, clips: int):
    data = make_batch(clips=clips)
    assert_same_step(
        step(build(mlm=True, clip_sequential=True), data), step(build(mlm=True), data), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("frozen", [("visual_encoder",), ("text_encoder", "fusion_encoder")])
def test_clip_by_clip_leaves_frozen_parts_alone(build: Callable, make_batch: Callable, frozen: tuple[str, ...]):
    data = make_batch(clips=3, size=64)
    plain = step(build(resnet=True, frozen=frozen), data)
    sequential = step(build(resnet=True, frozen=frozen, clip_sequential=True), data)
    assert 0 < len(plain[1]) == len(sequential[1])
    torch.testing.assert_close(sequential, plain)


def test_clip_by_clip_replays_dropout(build: Callable, make_batch: Callable):
    # The plain path draws for all clips at once; so the same draws are compared with clips whose graphs are all held.
    data = make_batch(clips=3)
    options = dict(encoder=dict(dropout=0.3, pixel_sampling=5))
    sequential = step(build(clip_sequential=True, **options), data)
    held = build(**options)
    prepared = held.data_preprocessor(copy.deepcopy(data))
    torch.manual_seed(7)
    frames, texts = prepared["inputs"]["frames"], TEXTS(prepared["inputs"])
    logits = torch.cat([held.predict_clips(frames[:, k : k + 1], *texts)[-1] for k in range(3)], dim=1)
    loss, log = held.parse_losses(held.head.loss(held.aggregator(logits), prepared["data_samples"]))
    loss.backward()
    gradients = {name: value.grad for name, value in held.named_parameters() if value.grad is not None}
    assert_same_step(sequential, ({name: value.detach() for name, value in log.items()}, gradients))


def test_clip_by_clip_in_mixed_precision(build: Callable, make_batch: Callable):
    data = make_batch(clips=3)
    plain = step(build().float(), data, autocast=True)
    sequential = step(build(clip_sequential=True).float(), data, autocast=True)
    exact = step(build().float(), data)
    # bfloat16 has 8 bits; the two differ by no more than the half precision itself does.
    for name, gradient in plain[1].items():
        scale = exact[1][name].norm()
        assert (sequential[1][name] - exact[1][name]).norm() <= 2 * (gradient - exact[1][name]).norm() + 0.02 * scale


def test_clip_by_clip_accumulates(build: Callable, make_batch: Callable):
    def train(model: nn.Module) -> dict[str, torch.Tensor]:
        optimizer = dict(type="SGD", lr=0.1)
        wrapper = build_optim_wrapper(
            model, dict(type="AccumulatingOptimWrapper", optimizer=optimizer, accumulative_counts=2)
        )
        for seed in range(4):
            model.train_step(make_batch(clips=3, seed=seed), wrapper)
        return model.state_dict()

    torch.testing.assert_close(train(build(clip_sequential=True)), train(build()), rtol=1e-9, atol=1e-12)


class Held:
    """A tensor that autograd saved, as long as its graph holds it."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor


def kept_bytes(model: nn.Module, data: dict[str, Any]) -> int:
    """Bytes that a graph keeps for the backward pass, but for weights and frames, which are there anyway."""
    prepared = model.data_preprocessor(copy.deepcopy(data))
    held: weakref.WeakSet[Held] = weakref.WeakSet()

    def pack(tensor: torch.Tensor) -> Held:
        saved = Held(tensor)
        held.add(saved)
        return saved

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved.tensor):
        loss, _ = model.parse_losses(model(**prepared, mode="loss"))
    storages = {saved.tensor.untyped_storage().data_ptr(): saved.tensor.untyped_storage().nbytes() for saved in held}
    for tensor in (*model.parameters(), *prepared["inputs"].values()):
        storages.pop(tensor.untyped_storage().data_ptr(), None)
    loss.backward()
    return sum(storages.values())


def test_one_clip_is_held(build: Callable, make_batch: Callable):
    plain = [kept_bytes(build(), make_batch(clips=clips)) for clips in (1, 8)]
    sequential = [kept_bytes(build(clip_sequential=True), make_batch(clips=clips)) for clips in (1, 8)]
    assert plain[1] > 5 * plain[0]
    assert sequential[0] == plain[0]
    assert sequential[1] < 1.5 * sequential[0]


PARTS = ["encoder.bert.encoder.layer", "backbone.layer2", "backbone.layer3", "backbone.layer4", "projection"]


def test_checkpointed_modules_give_the_same(build: Callable, make_batch: Callable):
    data = make_batch(clips=2, size=64)
    plain = step(build(resnet=True), data)
    model = build(resnet=True, checkpointed=PARTS)
    assert_same_step(step(model, data), plain)
    assert_same_step(step(build(resnet=True, checkpointed=PARTS, clip_sequential=True), data), plain)
    assert kept_bytes(model, data) < 0.6 * kept_bytes(build(resnet=True), data)
    assert_same_step(
        step(copy.deepcopy(build(resnet=True, checkpointed=PARTS)), data), plain
    )  # as an average of weights is


def test_checkpointed_modules_replay_dropout(build: Callable, make_batch: Callable):
    data, options = make_batch(), dict(encoder=dict(dropout=0.3))
    layers = ["encoder.bert.encoder.layer"]
    assert_same_step(step(build(checkpointed=layers, **options), data), step(build(**options), data))


@pytest.mark.parametrize("head", ["MatchingHead", "OpenEndedHead", "MultipleChoiceHead"])
@pytest.mark.parametrize("clip_sequential", [False, True])
@pytest.mark.parametrize("mlm", [False, True])
def test_packed_pairs_give_the_same(build: Callable, make_batch: Callable, head: str, clip_sequential: bool, mlm: bool):
    data = labeled(make_batch(texts=(2, 2), clips=3))
    if head == "MultipleChoiceHead":
        for sample in data["data_samples"]:
            sample.answer_labels = sample.answer_labels[:1] % 2
    config = dict(type=head, **HEADS[head])
    packed = build(head=config, pack_pairs=True, clip_sequential=clip_sequential, mlm=mlm)
    assert_same_step(step(packed, data), step(build(head=config, mlm=mlm), data), rtol=1e-7, atol=1e-9)


def test_packed_pairs_train_in_mixed_precision(build: Callable, make_batch: Callable):
    data = make_batch(clips=3)
    packed, plain = (step(build(pack_pairs=packed).float(), data, autocast=True)[0] for packed in (True, False))
    torch.testing.assert_close(packed, plain, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize(
    ("options", "has"),
    [
        (dict(encoder=dict(dropout=0.1)), "dropout"),
        (dict(checkpointed=["encoder.bert.encoder.layer"]), r"'encoder\.bert\.encoder\.layer'"),
    ],
)
def test_pairs_that_cannot_be_packed_are_refused(build: Callable, options: dict, has: str):
    with pytest.raises(
        ValueError, match=f"pack_pairs of ClipBert computes .*; the config has {has}. Set pack_pairs=False"
    ):
        build(pack_pairs=True, **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            dict(clip_sequential=True),
            "clip_sequential of ClipBert recomputes feature maps, which changes the statistics of batch norms in training mode",
        ),
        (
            dict(checkpointed=["backbone"]),
            "checkpointed of ClipBert recomputes feature maps, which changes the statistics of batch norms in training mode",
        ),
    ],
)
def test_batch_norms_that_follow_the_batch_are_refused(
    model_config: dict, make_batch: Callable, options: dict, words: str
):
    model_config["backbone"] = dict(type="mmpretrain.ResNet", depth=18, base_channels=8, stem_channels=8)
    model_config["projection"]["in_channels"] = 64
    model = MODELS.build(model_config | options)
    with pytest.raises(ValueError, match=words):
        step(model, make_batch(size=64))
    model.eval()
    step(model, make_batch(size=64))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            dict(checkpointed=["encoder.bert.layers"]),
            "checkpointed of ClipBert names 'encoder.bert.layers', which is no module of the model. Modules there: "
            "encoder.bert.embeddings, encoder.bert.encoder, encoder.bert.pooler.",
        ),
        (
            dict(compiled=["backbon"]),
            "compiled of ClipBert names 'backbon', which is no module of the model. Modules there: ",
        ),
    ],
)
def test_modules_that_are_not_there_are_refused(model_config: dict, options: dict, words: str):
    with pytest.raises(ValueError, match=words):
        MODELS.build(model_config | options)


def test_channels_last_gives_the_same(build: Callable, make_batch: Callable):
    data = make_batch(size=64)
    first, last = build(resnet=True, channels_last=False), build(resnet=True)
    weight = "backbone.layer2.0.conv2.weight"
    assert first.get_parameter(weight).is_contiguous()
    assert last.get_parameter(weight).is_contiguous(memory_format=torch.channels_last)
    assert_same_step(step(last, data), step(first, data))


@pytest.mark.parametrize("attention", ["eager", "flash_attention_2"])
def test_kinds_of_attention_agree(
    build: Callable, make_batch: Callable, monkeypatch: pytest.MonkeyPatch, attention: str
):
    if attention == "flash_attention_2":  # by the contract of the package, which needs a GPU
        monkeypatch.setattr("transformers.modeling_utils.is_flash_attn_2_available", lambda: True, raising=False)
        monkeypatch.setattr(
            "clipbert_mm.models.encoders.joint_encoder.JointEncoder._use_attention",
            lambda self, kind: setattr(self.bert.config, "_attn_implementation_internal", kind),
        )
        monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, attention, attend_to_unmasked)
    data = make_batch()
    model = build(encoder=dict(attention=attention))
    assert model.encoder.bert.config._attn_implementation == attention
    assert_same_step(step(model, data), step(build(), data))


def attend_to_unmasked(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """What flash attention does: takes a mask (N, L) of ones and zeros, leaves zeros where a query is masked."""
    assert attention_mask.shape == (query.shape[0], query.shape[2])
    outputs = torch.zeros_like(query)
    for i, kept in enumerate(attention_mask.bool()):
        weights = (query[i][:, kept] @ key[i][:, kept].mT * scaling).softmax(dim=-1)
        outputs[i][:, kept] = weights @ value[i][:, kept]
    return outputs.transpose(1, 2), None


@pytest.mark.parametrize("attention", ["flash_attention_2", "nonsense"])
def test_attention_that_is_not_there_is_refused(model_config: dict, attention: str):
    model_config["encoder"]["attention"] = attention
    with pytest.raises(ValueError, match=f"JointEncoder cannot compute attention with '{attention}': .*pip install"):
        MODELS.build(model_config)


@pytest.mark.slow
def test_compiled_modules_give_the_same(build: Callable, make_batch: Callable, monkeypatch: pytest.MonkeyPatch):
    compile_module = nn.Module.compile  # traced as ever; the compiler of C++ takes minutes
    monkeypatch.setattr(nn.Module, "compile", lambda self, **how: compile_module(self, backend="eager", **how))
    torch._dynamo.reset()
    model, plain = build(compiled=["backbone", "encoder.bert.encoder"]), build()
    assert list(model.state_dict()) == list(plain.state_dict())
    frames = torch._dynamo.utils.counters["frames"]
    frames.clear()
    for seed, texts in enumerate([(2, 2), (2, 3, 1), (1, 4), (3, 3)]):  # other numbers and lengths
        data = make_batch(texts=texts, seed=seed)
        assert_same_step(step(model, data), step(plain, data), rtol=1e-6, atol=1e-8)
        for part in (model, plain):
            part.zero_grad()
        if seed == 1:
            traced = dict(frames)
    assert traced["ok"] >= 2, "both were traced"
    assert dict(frames) == traced, "and never again for another batch"


@pytest.fixture
def process_group() -> Iterator[None]:
    """A process group of this process alone."""
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_clip_by_clip_is_synchronized_once(build: Callable, make_batch: Callable, process_group: None):
    found = {}
    for sequential in (False, True):
        model = build(clip_sequential=sequential)
        wrapped = MMDistributedDataParallel(model, device_ids=None, broadcast_buffers=False)
        reductions: list[int] = []

        def note(state: list[int], bucket: torch.distributed.GradBucket) -> torch.futures.Future[torch.Tensor]:
            state.append(bucket.index())
            future: torch.futures.Future[torch.Tensor] = torch.futures.Future()
            future.set_result(bucket.buffer())
            return future

        wrapped.register_comm_hook(reductions, note)
        optimizer = dict(type="SGD", lr=0.1)
        wrapper = build_optim_wrapper(model, dict(type="AccumulatingOptimWrapper", optimizer=optimizer))
        for seed in range(3):
            wrapped.train_step(make_batch(clips=3, seed=seed), wrapper)
        found[sequential] = (model.state_dict(), reductions)
    assert found[True][1] == found[False][1]
    assert len(found[True][1]) >= 3, "once a step, or more often if there are several buckets"
    torch.testing.assert_close(found[True][0], found[False][0], rtol=1e-5, atol=1e-7)


def test_clips_that_are_joined_are_not_predicted_one_at_a_time(joined_config: dict[str, Any]):
    with pytest.raises(ValueError, match=r"clip_sequential of ClipBert .* and clip_fusion joins all clips of a video"):
        MODELS.build(joined_config | dict(clip_sequential=True))
