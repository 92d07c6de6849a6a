"""Heads and their losses, against the formulas written out."""

import numpy as np
import pytest
import torch

from clipbert_mm.models import MaskedLanguageHead, MatchingHead
from clipbert_mm.structures import IGNORED, VideoTextSample


def samples_of(*labels: list[int]) -> list[VideoTextSample]:
    """Samples with labels."""
    samples = [VideoTextSample(metainfo=dict(path=f"{i}.mp4")) for i in range(len(labels))]
    for sample, own in zip(samples, labels, strict=True):
        sample.match_labels = np.array(own)
    return samples


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Logarithms of probabilities over the last axis."""
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


@pytest.fixture
def matching() -> MatchingHead:
    return MatchingHead(in_channels=6, hidden_channels=10, dropout=0.5)


def test_matching_is_a_two_layer_mlp(matching: MatchingHead):
    states = torch.randn(3, 4, 6)
    first, _, second = matching.classifier
    weights = [value.detach().double().numpy() for value in (first.weight, first.bias, second.weight, second.bias)]
    hidden = np.maximum(states.double().numpy() @ weights[0].T + weights[1], 0)
    wanted = hidden @ weights[2].T + weights[3]
    assert matching.eval()(states).detach().numpy() == pytest.approx(wanted, abs=1e-6)
    assert not torch.equal(matching.train()(states), matching(states)), "dropout is on in training"


def test_matching_loss_by_hand(matching: MatchingHead):
    logits = np.array([[2.0, -1.0], [0.5, 0.5], [-1.0, 3.0]])
    labels = [1, 0, 1]
    found = matching.loss(torch.from_numpy(logits), samples_of([1, 0], [1]))
    wanted = -np.mean([log_softmax(row)[label] for row, label in zip(logits, labels, strict=True)])
    assert found["loss_match"].item() == pytest.approx(wanted)
    assert found["match_accuracy"].item() == pytest.approx(2 / 3)


def test_matching_score_is_the_log_odds_and_keeps_its_order_where_probabilities_round_to_one(matching: MatchingHead):
    logits = torch.tensor([[0.0, 1.5], [-30.0, 30.0], [-31.0, 30.0]])
    assert matching.scores(logits).tolist() == [1.5, 60.0, 61.0]
    probability = logits[0].double().softmax(dim=0)[1].item()
    assert matching.scores(logits)[0].item() == pytest.approx(np.log(probability / (1 - probability)))


def test_matching_without_labels_is_an_error(matching: MatchingHead):
    unlabelled = VideoTextSample(metainfo=dict(path="b.mp4"))
    with pytest.raises(ValueError, match=r"MatchingHead needs match_labels to train on, got none for b\.mp4\."):
        matching.loss(torch.zeros(2, 2), [*samples_of([1]), unlabelled])


def test_matching_gradients_reach_every_parameter(matching: MatchingHead, without_gradient):
    logits = matching.eval()(torch.randn(3, 1, 6))[:, 0]
    matching.loss(logits, samples_of([1, 0, 1]))["loss_match"].backward()
    assert without_gradient(matching) == []


def test_heads_start_as_bert_s_do():
    matching = MatchingHead(in_channels=200, hidden_channels=400)
    language = MaskedLanguageHead(in_channels=200, vocab_size=50)
    for head in (matching, language):
        head.init_weights()
    for layer in (matching.classifier[0], language.transform[0]):
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.05)
        assert not layer.bias.any()


@pytest.fixture
def language() -> MaskedLanguageHead:
    return MaskedLanguageHead(in_channels=6, vocab_size=9)


def test_masked_language_loss_by_hand(language: MaskedLanguageHead):
    # 2 texts, 3 clips, 4 tokens: each clip predicts the two masked tokens on its own.
    states, words = torch.randn(2, 3, 4, 6), torch.randn(9, 6)
    language.bias.data.normal_()
    labels = torch.tensor([[IGNORED, 7, IGNORED, IGNORED], [IGNORED, IGNORED, 2, IGNORED]])
    found = language.loss(states, words, labels)
    dense, _, norm = language.transform
    total, right = 0.0, 0
    for text, token, label in ((0, 1, 7), (1, 2, 2)):
        for clip in range(3):
            hidden = states[text, clip, token].double().numpy() @ dense.weight.detach().double().numpy().T
            hidden = torch.nn.functional.gelu(torch.from_numpy(hidden + dense.bias.detach().double().numpy())).numpy()
            hidden = (hidden - hidden.mean()) / np.sqrt(hidden.var() + norm.eps)
            logits = words.double().numpy() @ hidden + language.bias.detach().double().numpy()
            total -= log_softmax(logits)[label]
            right += int(logits.argmax() == label)
    assert found["loss_mlm"].item() == pytest.approx(total / 6, rel=1e-5)
    assert found["mlm_accuracy"].item() == pytest.approx(right / 6)


def test_a_batch_without_masked_tokens_has_no_loss_and_no_gradient(language: MaskedLanguageHead):
    words = torch.randn(9, 6, requires_grad=True)
    found = language.loss(torch.randn(2, 1, 4, 6), words, torch.full((2, 4), IGNORED))
    found["loss_mlm"].backward()
    assert found["loss_mlm"].item() == found["mlm_accuracy"].item() == 0
    assert all(value.grad is not None and not value.grad.any() for value in [words, *language.parameters()])


def test_masked_language_gradients_reach_every_parameter_and_the_word_embeddings(
    language: MaskedLanguageHead, without_gradient
):
    words = torch.randn(9, 6, requires_grad=True)
    language.loss(torch.randn(2, 1, 4, 6), words, torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]]))["loss_mlm"].backward()
    assert without_gradient(language) == []
    assert words.grad.any()


def test_misspelt_options_are_refused():
    with pytest.raises(TypeError, match="unexpected keyword argument 'hidden_size'"):
        MatchingHead(in_channels=6, hidden_size=10)
