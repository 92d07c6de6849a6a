"""From a collated batch to tensors: pixels, padding, and which text goes with which video."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from clipbert_mm.models import VideoTextPreprocessor
from clipbert_mm.structures import IGNORED


def build(**options) -> VideoTextPreprocessor:
    return VideoTextPreprocessor(**(dict(mean=[10.0, 20.0, 30.0], std=[2.0, 4.0, 8.0], vocab_size=200) | options))


@pytest.mark.parametrize("to_bgr", [False, True])
def test_pixels_are_normalized_in_rgb_and_handed_over_as_the_backbone_wants(make_batch: Callable, to_bgr: bool):
    data = make_batch(size=8)
    pixels = data["inputs"]["frames"].numpy().astype(float)
    frames = build(to_bgr=to_bgr)(data)["inputs"]["frames"]
    assert frames.dtype == torch.float32
    assert frames.shape == (2, 2, 2, 3, 8, 8)
    for place, channel in enumerate((2, 1, 0) if to_bgr else (0, 1, 2)):
        wanted = (pixels[..., channel] - (10, 20, 30)[channel]) / (2, 4, 8)[channel]
        assert frames[:, :, :, place].numpy() == pytest.approx(wanted, abs=1e-5)


def test_padding_is_masked_if_told(make_batch: Callable):
    data = make_batch(size=8)
    data["inputs"]["content_shape"] = [(8, 5), (3, 8)]
    black = build()(data)["inputs"]["frames"]
    masked = build(mask_padding=True)(data)["inputs"]["frames"]
    for i, (height, width) in enumerate([(8, 5), (3, 8)]):
        assert torch.equal(masked[i, ..., :height, :width], black[i, ..., :height, :width])
        assert not masked[i, ..., height:, :].any()
        assert not masked[i, ..., width:].any()


def test_texts_are_padded_to_the_longest_of_the_batch(make_batch: Callable):
    data = make_batch(texts=(2, 1, 3))
    inputs = build()(data)["inputs"]
    texts = [text for item in data["inputs"]["text_ids"] for text in item]
    labels = [label for item in data["inputs"]["mlm_labels"] for label in item]
    longest = max(map(len, texts))
    assert inputs["text_ids"].shape == inputs["text_mask"].shape == inputs["mlm_labels"].shape == (6, longest)
    for i, (text, label) in enumerate(zip(texts, labels, strict=True)):
        pad = longest - len(text)
        assert inputs["text_ids"][i].tolist() == text.tolist() + [0] * pad
        assert inputs["text_mask"][i].tolist() == [1] * len(text) + [0] * pad
        assert inputs["mlm_labels"][i].tolist() == label.tolist() + [IGNORED] * pad
    assert inputs["video_index"].tolist() == [0, 0, 1, 2, 2, 2]


def test_samples_are_handed_through_and_labels_are_not_made_up(make_batch: Callable):
    data = make_batch()
    del data["inputs"]["mlm_labels"]
    prepared = build()(data)
    assert prepared["data_samples"] is data["data_samples"]
    assert "mlm_labels" not in prepared["inputs"]


def test_a_token_id_that_the_model_does_not_have_is_refused(make_batch: Callable):
    data = make_batch()
    data["inputs"]["text_ids"][1][0] = np.array([2, 250, 3])
    with pytest.raises(
        ValueError, match=r"tokenizer gave token id 250, but the model has 200 tokens \(0 to 199\)\. Set vocab_size"
    ):
        build()(data)
    build(vocab_size=251)(data)


def test_the_statistics_are_no_part_of_a_checkpoint():
    assert build().state_dict() == {}
