"""Hard negatives in the batch: the contrastive loss and the draws by brute force; no text is a negative of its own video."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clipbert_mm.errors import OptionError
from clipbert_mm.models.hard_negatives import HardNegatives, matching
from clipbert_mm.registry import MODELS
from clipbert_mm.structures import VideoTextSample

PATHS = ("a.mp4", "b.mp4", "a.mp4", "c.mp4")
# Two items of a.mp4; the second text of b.mp4 is that of c.mp4.
TEXTS = [[1, 5, 2, 0], [1, 6, 2, 0], [1, 7, 2, 0], [1, 8, 9, 2], [1, 7, 2, 0]]
VIDEO_INDEX = torch.tensor([0, 1, 1, 2, 3])
# By hand: texts 0 and 3 are of a.mp4, 1 and 2 of b.mp4, 2 and 4 of c.mp4.
MATCHES = torch.tensor([[1, 0, 1, 0], [0, 1, 0, 0], [0, 1, 0, 1], [1, 0, 1, 0], [0, 1, 0, 1]]).bool()


def samples_of(paths: Sequence[str], video_index: Tensor) -> list[VideoTextSample]:
    samples = []
    for i, path in enumerate(paths):
        sample = VideoTextSample(metainfo=dict(path=path))
        sample.match_labels = np.ones(int((video_index == i).sum()), np.int64)
        samples.append(sample)
    return samples


@pytest.fixture
def batch() -> dict[str, Any]:
    """Four items, of which the second has two texts, with vectors of three clips each."""
    generator = torch.Generator().manual_seed(1)
    text_ids = torch.tensor(TEXTS)
    return dict(
        text_vectors=F.normalize(torch.randn(5, 8, generator=generator), dim=-1),
        clip_vectors=F.normalize(torch.randn(4, 3, 8, generator=generator), dim=-1),
        text_ids=text_ids,
        text_mask=(text_ids > 0).long(),
        video_index=VIDEO_INDEX,
        data_samples=samples_of(PATHS, VIDEO_INDEX),
    )


def test_what_matches_is_of_the_same_file_or_has_an_equal_text():
    assert torch.equal(matching(torch.tensor(TEXTS), VIDEO_INDEX, PATHS), MATCHES)


def test_the_loss_by_brute_force(batch: dict[str, Any]):
    part = HardNegatives(temperature=0.1)
    losses, _, _ = part(**batch)
    videos = [clips.mean(dim=0) / clips.mean(dim=0).norm() for clips in batch["clip_vectors"]]
    cosine = [[float(text @ video) / 0.1 for video in videos] for text in batch["text_vectors"]]
    terms = []
    for text, own in enumerate(VIDEO_INDEX.tolist()):
        among_videos = [cosine[text][v] for v in range(4) if v == own or not MATCHES[text, v]]
        among_texts = [cosine[t][own] for t in range(5) if t == text or not MATCHES[t, own]]
        for others in (among_videos, among_texts):
            terms.append(math.log(sum(map(math.exp, others))) - cosine[text][own])
    assert losses["loss_contrast"].item() == pytest.approx(np.mean(terms), rel=1e-5)
    first = [bool(MATCHES[text, int(np.argmax(cosine[text]))]) for text in range(5)]
    assert losses["contrast_accuracy"].item() == pytest.approx(np.mean(first))


def test_pairs_are_the_own_ones_and_a_negative_of_each_text_and_video(batch: dict[str, Any]):
    part = HardNegatives(temperature=0.5)
    batch["data_samples"] = samples_of(PATHS, VIDEO_INDEX)
    videos = F.normalize(batch["clip_vectors"].mean(dim=1), dim=-1)
    chances = (batch["text_vectors"] @ videos.T / 0.5).masked_fill(MATCHES, -torch.inf)
    # The third and the fifth text are equal, and as negatives not told apart.
    of_text, of_video = chances.softmax(dim=1), chances.softmax(dim=0).T
    drawn, repeats = torch.zeros(5, 4), 400
    for _ in range(repeats):
        _, (text_ids, text_mask, video_index), samples = part(**batch)
        labels = np.concatenate([sample.match_labels for sample in samples])
        assert len(labels) == len(text_ids) == 5 + 5 + 4
        assert torch.equal(text_mask, (text_ids > 0).long())
        counts = [len(sample.match_labels) for sample in samples]
        assert video_index.tolist() == [i for i, count in enumerate(counts) for _ in range(count)]
        assert [sample.path for sample in samples] == list(PATHS)
        for ids, video, label in zip(text_ids.tolist(), video_index.tolist(), labels, strict=True):
            text = TEXTS.index(ids)
            assert MATCHES[text, video] == (label == 1)
            drawn[text, video] += label == 0
    expected = of_text + of_video.T
    expected[2] += expected[4]
    expected[4] = 0
    torch.testing.assert_close(drawn / repeats, expected, atol=0.1, rtol=0)


def test_draws_are_torch_s_own(batch: dict[str, Any]):
    part, states = HardNegatives(), []
    for _ in range(2):
        torch.manual_seed(3)
        states.append([part(**batch)[1] for _ in range(4)])
    for first, second in zip(*states, strict=True):
        assert all(torch.equal(*pair) for pair in zip(first, second, strict=True))
    assert len({tuple(pairs[0].flatten().tolist()) for pairs in states[0]}) > 1


def test_a_video_that_all_texts_match_has_no_negative(batch: dict[str, Any]):
    same = batch | dict(text_ids=torch.tensor([TEXTS[0]] * 5), text_mask=torch.ones(5, 4, dtype=torch.long))
    losses, pairs, samples = HardNegatives()(**same)
    assert len(pairs[0]) == 5
    assert all((sample.match_labels == 1).all() for sample in samples)
    assert losses["loss_contrast"] == 0


def test_what_it_refuses(batch: dict[str, Any]):
    with pytest.raises(OptionError, match=r"^HardNegatives expects a temperature from 0\.01 to 1, got 0\.0\.$"):
        HardNegatives(temperature=0.0)
    alone = {name: value[:1] for name, value in batch.items()}
    with pytest.raises(OptionError, match=r"^HardNegatives chooses negatives among .*2 items or more, got 1\. Raise"):
        HardNegatives()(**alone)
    batch["data_samples"][1].match_labels[1] = 0
    with pytest.raises(
        OptionError, match=r"expects items with match_labels of 1, got \[1 0\] for b\.mp4\. Set num_neg"
    ):
        HardNegatives()(**batch)


def blip(**options: Any) -> dict[str, Any]:
    """Config of a tiny BLIP for make_batch, whose clips have two frames of 32 x 32 pixels."""
    sizes = dict(hidden_size=16, num_layers=2, num_heads=2, intermediate_size=32, initializer_range=0.2)
    text = dict(vocab_size=200, max_text_length=40, visual_size=16, frame_tokens=17, vector_size=8, joint_token=199)
    return dict(
        type="ClipBert",
        data_preprocessor=dict(type="VideoTextPreprocessor", mean=[120.0] * 3, std=[60.0] * 3, vocab_size=200),
        backbone=dict(type="BlipVision", image_size=32, patch_size=8, **sizes),
        temporal_fusion=dict(type="ConcatFusion"),
        encoder=dict(type="CrossEncoder", **text, **sizes),
        head=dict(type="SimilarityMatchingHead", in_channels=16),
        aggregator=dict(type="LogSumExpAggregator"),
        **options,
    )


def own_texts(make_batch: Callable, **options: Any) -> dict[str, Any]:
    """A collated batch without negatives."""
    data = make_batch(**options)
    del data["inputs"]["mlm_labels"]
    for sample in data["data_samples"]:
        sample.match_labels = np.ones_like(sample.match_labels)
    return data


@pytest.mark.parametrize("fusion", [None, dict(type="ConcatClips")])
def test_gradients_reach_all_of_a_model(fusion: dict | None, make_batch: Callable, without_gradient: Callable):
    model = MODELS.build(blip(hard_negatives=dict(type="HardNegatives"), clip_fusion=fusion)).train()
    batch = model.data_preprocessor(own_texts(make_batch, texts=(2, 1, 1)))
    loss, log = model.parse_losses(model(**batch, mode="loss"))
    assert {"loss_contrast", "contrast_accuracy", "loss_match", "match_accuracy"} < set(log)
    loss.backward()
    keys = {name for name in without_gradient(model) if name.endswith("key.bias")}  # no softmax depends on them
    assert set(without_gradient(model)) <= keys
    fixed = MODELS.build(dict(type="HardNegatives", learnt=False))
    assert not any(value.requires_grad for value in fixed.parameters())


def test_the_joint_encoder_scores_the_chosen_pairs(make_batch: Callable):
    model = MODELS.build(blip(hard_negatives=dict(type="HardNegatives"))).eval()
    batch = model.data_preprocessor(own_texts(make_batch, texts=(2, 1, 1), clips=3))
    inputs, samples = batch["inputs"], batch["data_samples"]
    torch.manual_seed(7)
    losses = model(**batch, mode="loss")
    torch.manual_seed(7)
    tokens = model.encode_video(inputs["frames"])
    texts = inputs["text_ids"], inputs["text_mask"], inputs["video_index"]
    clips = model.encoder.clip_vectors(tokens)  # (B, K, P)
    _, pairs, chosen = model.hard_negatives(model.encoder.text_vectors(*texts[:2]), clips, *texts, samples)
    terms = []
    for ids, mask, video, label in zip(*pairs, np.concatenate([each.match_labels for each in chosen]), strict=True):
        alone = ids[mask.bool()][None]
        logits = model.score(tokens[video, None], alone, torch.ones_like(alone), torch.tensor([0]))[0, :, :2]  # (K, 2)
        terms.append(-logits.logsumexp(dim=0).log_softmax(dim=0)[label])
    torch.testing.assert_close(losses["loss_match"], torch.stack(terms).mean(), atol=1e-5, rtol=1e-5)


def build_with(config: dict[str, Any], **changes: Any) -> nn.Module:
    return MODELS.build(config | dict(hard_negatives=dict(type="HardNegatives")) | changes)


def test_what_a_model_cannot_do_with_them(model_config: dict[str, Any]):
    with pytest.raises(
        OptionError, match=r"^hard_negatives of ClipBert are chosen by vectors .* this JointEncoder does no"
    ):
        build_with(model_config, mlm_head=None)
    for option, value in dict(clip_sequential=True, mlm_head=model_config["mlm_head"]).items():
        with pytest.raises(OptionError, match=rf"they do not go with {option}\. Leave one of the two out"):
            build_with(blip(), **{option: value})


@pytest.mark.parametrize("has_hard_negatives", [True, False])
def test_vectors_that_no_loss_reads_keep_their_weights(has_hard_negatives: bool, make_batch: Callable):
    """Their gradients would be zeros, with which AdamW shrinks weights all the same."""
    model = MODELS.build(blip(hard_negatives=dict(type="HardNegatives") if has_hard_negatives else None)).train()
    projections = {name: value for name, value in model.encoder.named_parameters() if "_projection.weight" in name}
    before = {name: value.detach().clone() for name, value in projections.items()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    loss, _ = model.parse_losses(model(**model.data_preprocessor(own_texts(make_batch)), mode="loss"))
    loss.backward()
    optimizer.step()
    assert len(before) == 2
    for name, value in projections.items():
        assert torch.equal(value, before[name]) is not has_hard_negatives, name
    assert model.encoder.text_projection.training is has_hard_negatives
