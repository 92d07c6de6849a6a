"""The method: clips are predicted on their own and pooled; folding them into the batch changes nothing."""

import copy
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.optim import build_optim_wrapper
from torch import nn

from clipbert_mm.registry import MODELS
from clipbert_mm.structures import VideoTextSample

PARTS = ("visual_encoder", "text_encoder", "fusion_encoder")
SUBSETS = [subset for count in range(4) for subset in itertools.combinations(PARTS, count)]


@pytest.fixture
def model(model_config: dict) -> nn.Module:
    """The tiny model in eval mode, in float64."""
    return MODELS.build(model_config).double().eval()


@pytest.fixture
def with_resnet(model_config: dict) -> Callable[..., nn.Module]:
    """Build the tiny model on a ResNet with batch norms that have seen something, in training mode."""

    def build(frozen: Sequence[str] = (), **options) -> nn.Module:
        model_config["frozen"] = frozen
        backbone = dict(type="mmpretrain.ResNet", depth=18, stem_channels=8, base_channels=8, strides=(1, 2, 2, 1))
        model_config["backbone"] = backbone | options
        model_config["projection"]["in_channels"] = 64
        model = MODELS.build(model_config)
        model.init_weights()
        model = model.double()
        for name, buffer in model.backbone.named_buffers():
            if name.endswith("running_var"):
                buffer *= 0.5 + torch.rand_like(buffer)
            elif name.endswith("running_mean"):
                buffer += 0.1 * torch.randn_like(buffer)
        model.train()
        return model

    return build


def clip_of(inputs: dict[str, Any], k: int) -> dict[str, Any]:
    """The same preprocessed batch with one clip of each video."""
    return inputs | {"frames": inputs["frames"][:, k : k + 1]}


def test_folding_clips_into_the_batch_equals_a_loop_over_clips(with_resnet: Callable, make_batch: Callable):
    model = with_resnet(norm_eval=True)
    inputs = model.data_preprocessor(make_batch(texts=(2, 1), clips=3, size=64))["inputs"]
    clip_logits = model(inputs)
    assert clip_logits.shape == (3, 3, 2)
    loop = torch.cat([model(clip_of(inputs, k)) for k in range(3)], dim=1)
    torch.testing.assert_close(clip_logits, loop)
    assert (clip_logits[:, 0] - clip_logits[:, 1]).abs().max() > 1e-4, "clips do differ"


def test_batch_norms_that_are_not_frozen_would_mix_the_clips(with_resnet: Callable, make_batch: Callable):
    # Why the paper's are frozen, and that the test above can fail.
    model = with_resnet(norm_eval=False)
    inputs = model.data_preprocessor(make_batch(clips=3, size=64))["inputs"]
    loop = torch.cat([model(clip_of(inputs, k)) for k in range(3)], dim=1)
    assert (model(inputs) - loop).abs().max() > 1e-4


def test_a_batch_of_two_equals_two_batches_of_one(model: nn.Module, make_batch: Callable):
    data = make_batch(texts=(2, 3))
    together = model(model.data_preprocessor(copy.deepcopy(data))["inputs"])
    alone = []
    for i in range(2):
        own = {key: value[i : i + 1] for key, value in data["inputs"].items()}
        alone.append(model(model.data_preprocessor({"inputs": own})["inputs"]))
    torch.testing.assert_close(together, torch.cat(alone))


def test_text_padding_changes_nothing(model: nn.Module, make_batch: Callable):
    inputs = model.data_preprocessor(make_batch())["inputs"]
    padded = inputs | {
        "text_ids": nn.functional.pad(inputs["text_ids"], (0, 9), value=7),
        "text_mask": nn.functional.pad(inputs["text_mask"], (0, 9)),
    }
    torch.testing.assert_close(model(padded), model(inputs))


def test_texts_meet_their_own_video(model: nn.Module, make_batch: Callable):
    inputs = model.data_preprocessor(make_batch(texts=(1, 1)))["inputs"]
    text = {key: inputs[key][:1].repeat(2, 1) for key in ("text_ids", "text_mask")}
    tokens = model.encode_video(inputs["frames"])
    straight = model.score(tokens, **text, video_index=torch.tensor([0, 1]))
    crossed = model.score(tokens, **text, video_index=torch.tensor([1, 0]))
    torch.testing.assert_close(straight, crossed.flip(0))
    assert (straight[0] - straight[1]).abs().max() > 1e-4


def test_scores_without_a_gradient_are_those_with_one(model: nn.Module, make_batch: Callable):
    model.float()
    inputs = model.data_preprocessor(make_batch(texts=(3, 1, 4), clips=3))["inputs"]
    wanted = model(inputs)
    assert wanted.requires_grad
    with torch.no_grad():
        quick = model(inputs)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = model(inputs)
        assert len({int(length) for length in inputs["text_mask"].sum(dim=1)}) > 3, "texts of several lengths"
    torch.testing.assert_close(quick, wanted.detach(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(half.float(), quick, atol=0.02, rtol=0.05)
    assert not torch.equal(half.float(), quick)


def test_frames_of_a_clip_are_averaged_after_the_projection(model: nn.Module, make_batch: Callable):
    inputs = model.data_preprocessor(make_batch(length=3))["inputs"]
    frames = inputs["frames"]  # (B, K, T, 3, H, W)
    grids = [model.projection(model.backbone(frames[:, :, t].flatten(0, 1))) for t in range(3)]
    mean = (sum(grids) / 3).unflatten(0, frames.shape[:2])
    torch.testing.assert_close(model.encode_video(frames), model.encoder.embed_clips(mean))


def test_loss_is_equation_4(model: nn.Module, make_batch: Callable):
    data = make_batch(texts=(2, 2), clips=3)
    prepared = model.data_preprocessor(data)
    losses = model(**prepared, mode="loss")
    clip_logits = model(prepared["inputs"]).detach().numpy()  # (M, K, C)
    summed = np.exp(clip_logits).sum(axis=1)
    probability = summed / summed.sum(axis=1, keepdims=True)
    labels = [0, 1, 0, 1]
    wanted = -np.mean([np.log(probability[i, label]) for i, label in enumerate(labels)])
    assert losses["loss_match"].item() == pytest.approx(wanted, rel=1e-5)


def test_the_order_of_clips_does_not_matter(model: nn.Module, make_batch: Callable):
    data = make_batch(clips=4)
    prepared = model.data_preprocessor(data)
    turned = prepared["inputs"] | {"frames": prepared["inputs"]["frames"][:, [2, 0, 3, 1]]}
    for key, value in model(**prepared, mode="loss").items():
        torch.testing.assert_close(model(turned, prepared["data_samples"], mode="loss")[key], value)


def test_predictions_are_written_to_their_own_samples(model: nn.Module, make_batch: Callable):
    data = make_batch(texts=(2, 1, 3))
    prepared = model.data_preprocessor(data)
    samples = model(**prepared, mode="predict")
    clip_logits = model(prepared["inputs"])
    assert [sample.sample_idx for sample in samples] == [0, 1, 2]
    first = 0
    for sample, count in zip(samples, (2, 1, 3), strict=True):
        own = clip_logits[first : first + count]
        assert torch.equal(sample.clip_logits, own)
        pooled = own.logsumexp(dim=1).detach().numpy()
        assert sample.scores.tolist() == pytest.approx((pooled[:, 1] - pooled[:, 0]).tolist(), abs=1e-5)
        first += count


def test_of_a_batch_in_which_nothing_could_be_read_nothing_is_predicted(model: nn.Module, make_batch: Callable):
    broken = VideoTextSample(metainfo=dict(broken="the file is cut", sample_idx=7))
    samples = model({}, [broken], mode="predict")
    assert samples == [broken]
    assert "scores" not in broken
    prepared = model.data_preprocessor(make_batch(texts=(2, 1)))
    first, second = prepared["data_samples"]
    model(prepared["inputs"], [first, broken, second], mode="predict")
    assert "scores" not in broken
    assert torch.equal(torch.cat([first.clip_logits, second.clip_logits]), model(prepared["inputs"]))


def test_unless_told_weights_lie_as_the_frames_do_and_clips_go_at_once(model_config: dict):
    model = MODELS.build(model_config)
    for weight in (model.backbone.conv.weight, model.projection.conv.weight):
        assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not model.clip_sequential
    model = MODELS.build(model_config | dict(channels_last=False))
    assert not model.projection.conv.weight.is_contiguous(memory_format=torch.channels_last)


def test_scores_in_training_mode_need_no_gradient(model: nn.Module, make_batch: Callable):
    inputs = model.data_preprocessor(make_batch())["inputs"]
    wanted = model(inputs).detach()
    with torch.no_grad():
        torch.testing.assert_close(model.train()(inputs), wanted)  # it has no dropout


def test_masked_words_are_told_right_or_wrong_by_their_own_samples(model: nn.Module, make_batch: Callable):
    inputs, samples = model.data_preprocessor(make_batch(texts=(2, 1))).values()
    labels = inputs["mlm_labels"]  # (M, L)
    states, _ = model.predict_clips(*(inputs[name] for name in ("frames", "text_ids", "text_mask", "video_index")))
    best = model.mlm_head(states, model.encoder.word_embeddings).argmax(dim=3)  # (M, K, L)
    masked = (labels != -100).nonzero().tolist()
    for m, place in masked[::2]:
        labels[m, place] = best[m, 0, place]  # right by the first clip
    model(inputs, samples, mode="predict")
    for sample, texts in zip(samples, ([0, 1], [2]), strict=True):
        wanted = [
            int(best[m, k, place]) == int(labels[m, place])
            for m in texts
            for k in range(2)
            for row, place in masked
            if row == m
        ]
        assert sample.mlm_correct.tolist() == wanted
    assert set(samples[0].mlm_correct.tolist()) == {True, False}
    del inputs["mlm_labels"]
    assert "mlm_correct" not in model(inputs, [VideoTextSample(metainfo=dict(broken=None))], mode="predict")[0]


@pytest.mark.parametrize("pretraining", [True, False])
def test_gradients_reach_every_parameter(
    model_config: dict, make_batch: Callable, without_gradient: Callable, pretraining: bool
):
    if not pretraining:
        del model_config["mlm_head"]
    model = MODELS.build(model_config).train()
    prepared = model.data_preprocessor(make_batch(clips=1, length=1) if pretraining else make_batch())
    loss, log = model.parse_losses(model(**prepared, mode="loss"))
    loss.backward()
    assert without_gradient(model) == []
    assert ("loss_mlm" in log) == pretraining
    assert loss.item() == pytest.approx(sum(value.item() for key, value in log.items() if key.startswith("loss_")))


def test_the_word_embeddings_learn_from_the_masked_words(model: nn.Module, make_batch: Callable):
    prepared = model.data_preprocessor(make_batch())
    model(**prepared, mode="loss")["loss_mlm"].backward()
    never_seen = sorted(set(range(200)) - set(prepared["inputs"]["text_ids"].unique().tolist()))
    assert model.encoder.word_embeddings.grad[never_seen].abs().sum(dim=1).min() > 0, "the decoder is tied to them"


def test_one_step_of_training_lowers_the_loss(model_config: dict, make_batch: Callable):
    model = MODELS.build(model_config).train()
    prepared = model.data_preprocessor(make_batch())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    values = []
    for _ in range(5):
        loss, _ = model.parse_losses(model(**prepared, mode="loss"))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    assert values == sorted(values, reverse=True)


def part_of(name: str) -> str:
    """The part of the model that a parameter, buffer or module belongs to."""
    if name.startswith(("backbone.", "projection.", "temporal_fusion.")):
        return "visual_encoder"
    if name.startswith("encoder.bert.embeddings"):  # with embeddings_project, ELECTRA's
        return "text_encoder"
    return "fusion_encoder" if name.startswith("encoder.") else "heads"


@pytest.mark.parametrize("frozen", SUBSETS, ids="+".join)
def test_frozen_parts_stay_in_eval_mode(frozen: tuple[str, ...], model_config: dict, with_resnet: Callable):
    model_config["encoder"]["dropout"] = 0.3
    model = with_resnet(frozen=frozen, norm_eval=False)
    leaves = [(name, module) for name, module in model.named_modules() if not list(module.children())]
    for _ in range(2):
        assert all(module.training == (part_of(f"{name}.") not in frozen) for name, module in leaves)
        model.eval()
        assert not any(module.training for _, module in leaves)
        model.train()


@pytest.mark.parametrize("architecture", ["bert", "electra"])
@pytest.mark.parametrize("frozen", SUBSETS, ids="+".join)
def test_what_is_frozen_stays_as_it_was_and_all_else_learns(
    frozen: tuple[str, ...],
    architecture: str,
    model_config: dict,
    with_resnet: Callable,
    make_batch: Callable,
    without_gradient: Callable,
):
    model_config["encoder"] |= dict(architecture=architecture, dropout=0.3)
    model_config["temporal_fusion"] = dict(type="Conv2Plus1DFusion", channels=16)
    if architecture == "electra":
        del model_config["mlm_head"]  # its word embeddings are of another width than its encoder
    model = with_resnet(frozen=frozen, norm_eval=False, zero_init_residual=False)
    before = copy.deepcopy(model.state_dict())
    # Weight decay would move what has a gradient of zero.
    adam = dict(type="AdamW", lr=0.01, weight_decay=0.1)
    wrapper = build_optim_wrapper(model, dict(type="AccumulatingOptimWrapper", optimizer=adam))
    loss, _ = model.parse_losses(model(**model.data_preprocessor(make_batch(size=64)), mode="loss"))
    wrapper.backward(loss)
    assert without_gradient(model) == []
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == (part_of(name) in frozen), name
    wrapper.step()
    for name, parameter in model.named_parameters():
        assert (parameter not in wrapper.optimizer.state) == (part_of(name) in frozen), name
    for name, value in model.state_dict().items():  # with the statistics of batch norms
        assert torch.equal(value, before[name]) == (part_of(name) in frozen), name


@pytest.mark.parametrize("frozen", [["backbone"], ["text_encoder", "head"], "text_encoder"])
def test_something_else_to_freeze_is_refused(model_config: dict, frozen: list[str] | str):
    with pytest.raises(
        ValueError,
        match="ClipBert expects frozen to be a list of some of visual_encoder, text_encoder, fusion_encoder, vectors, got",
    ) as caught:
        MODELS.build(model_config | dict(frozen=frozen))
    assert f"got {frozen!r}." in str(caught.value)


def test_an_unknown_mode_is_refused(model: nn.Module, make_batch: Callable):
    with pytest.raises(ValueError, match="expects mode 'loss', 'predict' or 'tensor', got 'train'"):
        model(model.data_preprocessor(make_batch())["inputs"], mode="train")


def test_a_misspelt_part_is_refused(model_config: dict):
    model_config["agregator"] = model_config.pop("aggregator")
    with pytest.raises(TypeError, match="unexpected keyword argument 'agregator'"):
        MODELS.build(model_config)
