"""Heads and their losses, against the formulas written out."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from clipbert_mm.models import (
    CountHead,
    MarginRankingHead,
    MaskedLanguageHead,
    MatchingHead,
    MultipleChoiceHead,
    OpenEndedHead,
    SoftAnswerHead,
    SoftmaxRankingHead,
)
from clipbert_mm.models.heads.task_head import TaskHead
from clipbert_mm.structures import IGNORED, VideoTextSample


def samples_of(
    *labels: list, field: str = "match_labels", texts: tuple[int, ...] | None = None
) -> list[VideoTextSample]:
    """Samples with labels, as many texts as labels if not told."""
    samples = []
    for i, own in enumerate(labels):
        count = len(own) if texts is None else texts[i]
        sample = VideoTextSample(metainfo=dict(path=f"{i}.mp4", texts=["a"] * count))
        sample.set_field(np.array(own), field)
        samples.append(sample)
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


def test_log_odds_follow_the_prior_of_their_use_by_bayes_rule():
    logits = torch.tensor([[0.3, 1.1], [2.0, -0.5], [0.0, 0.0]], dtype=torch.float64)
    trained, used = 0.2, 0.08
    plain, shifted = (
        MatchingHead(in_channels=6, hidden_channels=None, prior=prior).scores(logits)
        for prior in (None, (trained, used))
    )
    right = plain.sigmoid() / trained * used  # the likelihood of a match, times its prior
    wrong = (1 - plain.sigmoid()) / (1 - trained) * (1 - used)
    torch.testing.assert_close(shifted.sigmoid(), right / (right + wrong))
    torch.testing.assert_close(plain, logits[:, 1] - logits[:, 0])


@pytest.mark.parametrize("prior", [(0.5,), (0.0, 0.5), (0.5, 1.0)])
def test_a_prior_that_is_none_is_refused(prior: tuple):
    with pytest.raises(ValueError, match="MatchingHead expects a prior of two shares between 0 and 1"):
        MatchingHead(in_channels=6, hidden_channels=None, prior=prior)


def test_matching_of_pre_training_is_one_linear_layer():
    head = MatchingHead(in_channels=6, hidden_channels=None)
    weight, bias = (value.detach().double().numpy() for value in head.parameters())
    states = torch.randn(3, 4, 6)
    wanted = states.double().numpy() @ weight.T + bias
    assert head.eval()(states).detach().numpy() == pytest.approx(wanted, abs=1e-6)


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
    unlabeled = VideoTextSample(metainfo=dict(path="b.mp4"))
    with pytest.raises(ValueError, match=r"MatchingHead needs match_labels to train on, got none for b\.mp4\."):
        matching.loss(torch.zeros(2, 2), [*samples_of([1]), unlabeled])


def test_heads_start_as_bert_s_do():
    matching = MatchingHead(in_channels=200, hidden_channels=400)
    language = MaskedLanguageHead(in_channels=200, vocab_size=50)
    for head in (matching, language):
        head.init_weights()
    for layer in (matching.classifier[0], language.transform[0]):
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.05)
        assert not layer.bias.any()


@pytest.mark.parametrize(
    "kind",
    [MatchingHead, MarginRankingHead, SoftmaxRankingHead, OpenEndedHead, SoftAnswerHead, MultipleChoiceHead, CountHead],
)
def test_unless_told_heads_drop_as_bert_does_and_start_as_told(kind: type):
    answers = dict(num_answers=3) if kind in (OpenEndedHead, SoftAnswerHead) else {}
    head = kind(in_channels=6, hidden_channels=None, **answers)
    assert head.dropout.p == 0.1
    init = dict(type="Constant", layer="Linear", val=3.0, bias=2.0)
    head = kind(in_channels=6, hidden_channels=None, dropout=0.3, init_cfg=init, **answers)
    head.init_weights()
    assert head.dropout.p == 0.3
    assert head.classifier.weight.unique().tolist() == [3]
    assert head.classifier.bias.unique().tolist() == [2]


def test_unless_told_margin_and_epsilon_are_those_of_the_release():
    head = MarginRankingHead(in_channels=6, hidden_channels=None)
    losses = head.loss(torch.zeros(2, 1), samples_of([1, 0]))  # equal: the whole margin is lost, and neither is first
    assert losses["loss_rank"].item() == pytest.approx(0.2)
    assert losses["rank_accuracy"].item() == 0
    language = MaskedLanguageHead(in_channels=6, vocab_size=9)
    assert language.transform[2].eps == 1e-12
    assert language.bias.tolist() == [0] * 9
    language = MaskedLanguageHead(in_channels=6, vocab_size=9, init_cfg=dict(type="Constant", layer="Linear", val=3.0))
    language.init_weights()
    assert language.transform[0].weight.unique().tolist() == [3]


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


@pytest.fixture
def ranking() -> MarginRankingHead:
    return MarginRankingHead(in_channels=6, hidden_channels=10, margin=0.3)


def test_margin_ranking_loss_by_hand(ranking: MarginRankingHead):
    logits = 2 * np.random.default_rng(1).normal(size=10)
    labels = [[1, 0, 0], [0, 1, 1, 0, 0], [1, 0]]
    losses, right, first = [], [], 0
    for own in labels:  # a text is never compared with one of another video
        scores = 1 / (1 + np.exp(-logits[first : first + len(own)]))
        for p, match in enumerate(own):
            for n, other in enumerate(own):
                if match == 1 and other == 0:
                    losses.append(max(0, 0.3 + scores[n] - scores[p]))
                    right.append(scores[p] > scores[n])
        first += len(own)
    found = ranking.loss(torch.from_numpy(logits)[:, None], samples_of(*labels))
    assert len(losses) == 9
    assert 0 < losses.count(0) < 9
    assert found["loss_rank"].item() == pytest.approx(np.mean(losses))
    assert found["rank_accuracy"].item() == pytest.approx(np.mean(right))


def test_margin_ranking_is_content_where_all_margins_are_kept(ranking: MarginRankingHead):
    logits = torch.tensor([[2.0], [-2.0], [30.0], [1.0]])  # the second video's probabilities are 1.0 and 0.73
    found = ranking.loss(logits, samples_of([1, 0], [1, 0]))
    assert found["loss_rank"].item() == pytest.approx((0.3 - 1 + 1 / (1 + np.exp(-1))) / 2, rel=1e-5)
    assert ranking.loss(logits[:2], samples_of([1, 0]))["loss_rank"].item() == 0


def test_margin_ranking_scores_keep_their_order_where_probabilities_round_to_one(ranking: MarginRankingHead):
    logits = torch.tensor([[30.0], [-1.0], [31.0]])
    assert ranking.scores(logits).argsort().tolist() == [1, 0, 2]


def test_softmax_ranking_loss_by_hand():
    logits = 2 * np.random.default_rng(1).normal(size=10)
    labels = [[1, 0, 0], [0, 1, 1, 0, 0], [1, 0]]
    losses, first_ranks, first = [], [], 0
    for own in labels:  # a matching text is compared with the other texts of its video that do not match
        scores = np.exp(logits[first : first + len(own)])
        others = [score for score, match in zip(scores, own, strict=True) if not match]
        for score in (score for score, match in zip(scores, own, strict=True) if match):
            losses.append(-np.log(score / (score + sum(others))))
            first_ranks.append(score > max(others))
        first += len(own)
    head = SoftmaxRankingHead(in_channels=6, hidden_channels=None)
    found = head.loss(torch.from_numpy(logits)[:, None], samples_of(*labels))
    assert 0 < sum(first_ranks) < len(first_ranks)
    assert found["loss_rank"].item() == pytest.approx(np.mean(losses))
    assert found["rank_accuracy"].item() == pytest.approx(np.mean(first_ranks))
    assert head.scores(torch.tensor([[30.0], [-1.0]])).tolist() == [30.0, -1.0]
    with pytest.raises(ValueError, match="SoftmaxRankingHead compares texts that match a video with texts that do not"):
        head.loss(torch.zeros(2, 1), samples_of([1, 1]))


def test_a_hidden_layer_with_a_norm_is_vilt_s():
    head = SoftAnswerHead(in_channels=6, num_answers=5, hidden_channels=8, hidden_norm=True, dropout=0.0)
    states, (first, norm, _, last) = torch.randn(3, 2, 6), head.classifier
    hidden = first(states)
    hidden = (hidden - hidden.mean(dim=2, keepdim=True)) / (
        hidden.var(dim=2, unbiased=False, keepdim=True) + 1e-5
    ).sqrt()
    gelu = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
    assert isinstance(norm, torch.nn.LayerNorm)
    torch.testing.assert_close(head(states), last(gelu))
    with pytest.raises(ValueError, match=r"SoftAnswerHead has no hidden layer for hidden_norm=True"):
        SoftAnswerHead(in_channels=6, num_answers=5, hidden_channels=None, hidden_norm=True)


def test_a_decoder_of_its_own_is_not_the_word_embeddings():
    head = MaskedLanguageHead(in_channels=6, vocab_size=9, tied=False)
    states, words = torch.randn(4, 6), torch.randn(9, 6)
    torch.testing.assert_close(head(states, words), head.transform(states) @ head.decoder.T + head.bias)


@pytest.mark.parametrize("labels", [[1, 1], [0, 0]])
def test_margin_ranking_needs_both_kinds_of_texts(ranking: MarginRankingHead, labels: list[int]):
    with pytest.raises(
        ValueError, match=rf"got match_labels \[{labels[0]}, {labels[1]}\] for 1\.mp4\. Set num_negatives of"
    ):
        ranking.loss(torch.zeros(4, 1), samples_of([1, 0], labels))


@pytest.fixture
def open_ended() -> OpenEndedHead:
    return OpenEndedHead(in_channels=6, num_answers=4, hidden_channels=10)


def test_open_ended_loss_and_scores_by_hand(open_ended: OpenEndedHead):
    logits = np.random.default_rng(0).normal(size=(3, 4))
    labels = [int(logits[0].argmax()), int(logits[1].argmin()), int(logits[2].argmax())]
    found = open_ended.loss(torch.from_numpy(logits), samples_of(labels[:1], labels[1:], field="answer_labels"))
    wanted = -np.mean([log_softmax(row)[label] for row, label in zip(logits, labels, strict=True)])
    assert found["loss_answer"].item() == pytest.approx(wanted)
    assert found["answer_accuracy"].item() == pytest.approx(2 / 3)
    assert open_ended.scores(torch.from_numpy(logits)).numpy() == pytest.approx(log_softmax(logits))


@pytest.mark.parametrize("label", [-1, 4])
def test_an_answer_out_of_the_vocabulary_is_refused(open_ended: OpenEndedHead, label: int):
    samples = samples_of([0], [3, label], field="answer_labels")
    with pytest.raises(
        ValueError,
        match=rf"OpenEndedHead has 4 answers, got answer_labels \[3, {label}\] for 1\.mp4\. Set num_answers",
    ):
        open_ended.loss(torch.zeros(3, 4), samples)


@pytest.fixture
def soft_answer() -> SoftAnswerHead:
    return SoftAnswerHead(in_channels=6, num_answers=4, hidden_channels=10)


def test_soft_answer_loss_by_hand(soft_answer: SoftAnswerHead):
    logits = np.array([[2.0, -1.0, 0.5, 0.0], [-3.0, 1.0, 0.0, 0.5], [0.0, -1.0, -2.0, 4.0]])
    truth = [[1.0, 0.0, 0.3, 0.0], [0.0, 0.6, 0.0, 0.9], [0.3, 0.0, 0.0, 0.0]]
    found = soft_answer.loss(torch.from_numpy(logits), samples_of(truth[:2], truth[2:], field="answer_scores"))
    total = 0.0
    for row, wanted in zip(logits, truth, strict=True):
        for logit, share in zip(row, wanted, strict=True):
            probability = 1 / (1 + np.exp(-logit))
            total -= share * np.log(probability) + (1 - share) * np.log(1 - probability)
    assert found["loss_answer"].item() == pytest.approx(total / 3)
    assert found["answer_accuracy"].item() == pytest.approx((1.0 + 0.6 + 0.0) / 3)  # of answers 0, 1 and 3


def test_soft_answer_scores_rank_as_probabilities_do(soft_answer: SoftAnswerHead):
    logits = torch.tensor([[30.0, -1.0, 31.0, 0.0]])
    assert soft_answer.scores(logits).argsort(dim=1).tolist() == [[1, 3, 0, 2]]


def test_soft_answers_of_another_vocabulary_are_refused(soft_answer: SoftAnswerHead):
    samples = samples_of([[0.0, 1.0, 0.0]], [[1.0, 0.0, 0.0]], field="answer_scores")
    with pytest.raises(
        ValueError, match=r"expects answer_scores of shape \(2, 4\), got \(2, 3\)\. Set num_answers of the head"
    ):
        soft_answer.loss(torch.zeros(2, 4), samples)


@pytest.fixture
def choice() -> MultipleChoiceHead:
    return MultipleChoiceHead(in_channels=6, hidden_channels=10)


def test_multiple_choice_loss_by_hand(choice: MultipleChoiceHead):
    # One question of 5 options, then two of 3, then one of 2: each is a softmax of its own and counts the same.
    logits = np.random.default_rng(1).normal(size=13)
    samples = samples_of([4], [0, 2], [1], field="answer_labels", texts=(5, 6, 2))
    losses, right = [], []
    for first, last, label in ((0, 5, 4), (5, 8, 0), (8, 11, 2), (11, 13, 1)):
        losses.append(-log_softmax(logits[first:last])[label])
        right.append(logits[first:last].argmax() == label)
    found = choice.loss(torch.from_numpy(logits)[:, None], samples)
    assert found["loss_answer"].item() == pytest.approx(np.mean(losses))
    assert found["answer_accuracy"].item() == pytest.approx(np.mean(right))
    assert 0 < sum(right) < 4


@pytest.mark.parametrize(("labels", "texts"), [([0, 1], 5), ([3], 3), ([-1], 3), ([0, 1], 1)])
def test_options_and_labels_that_do_not_go_together_are_refused(
    choice: MultipleChoiceHead, labels: list[int], texts: int
):
    samples = samples_of([1], labels, field="answer_labels", texts=(2, texts))
    with pytest.raises(
        ValueError, match=rf"MultipleChoiceHead expects .* got {texts} texts and answer_labels "
    ) as caught:
        choice.loss(torch.zeros(2 + texts, 1), samples)
    assert f"answer_labels {labels} for 1.mp4" in str(caught.value)


def test_count_loss_by_hand():
    head = CountHead(in_channels=6, hidden_channels=10)
    outputs = torch.tensor([[2.4], [7.6], [3.0], [-0.4]], dtype=torch.float64)
    found = head.loss(outputs, samples_of([2.0, 7.0], [5.0, 0.0], field="counts"))
    assert found["loss_count"].item() == pytest.approx((0.4**2 + 0.6**2 + 2**2 + 0.4**2) / 4)
    assert found["count_accuracy"].item() == pytest.approx(2 / 4)  # 2 and 0 after rounding


@pytest.mark.parametrize("kind", [CountHead, MultipleChoiceHead])
def test_one_output_is_the_score(kind: type):
    head = kind(in_channels=6, hidden_channels=10)
    assert head.scores(torch.tensor([[2.5], [-1.0]])).tolist() == [2.5, -1.0]


@pytest.mark.parametrize(
    ("kind", "options", "field"),
    [
        (MarginRankingHead, {}, "match_labels"),
        (OpenEndedHead, dict(num_answers=4), "answer_labels"),
        (SoftAnswerHead, dict(num_answers=4), "answer_scores"),
        (MultipleChoiceHead, {}, "answer_labels"),
        (CountHead, {}, "counts"),
    ],
)
def test_training_without_labels_is_an_error(kind: type, options: dict, field: str):
    head = kind(in_channels=6, hidden_channels=10, **options)
    unlabeled = VideoTextSample(metainfo=dict(path="b.mp4", texts=["a"]))
    with pytest.raises(ValueError, match=rf"{kind.__name__} needs {field} to train on, got none for b\.mp4\."):
        head.loss(torch.zeros(1, 4), [unlabeled])


@pytest.mark.parametrize("hidden_channels", [10, None])
@pytest.mark.parametrize(
    ("kind", "options", "field", "labels"),
    [
        (MatchingHead, {}, "match_labels", [1, 0, 1]),
        (MarginRankingHead, {}, "match_labels", [1, 0, 1]),
        (OpenEndedHead, dict(num_answers=4), "answer_labels", [3, 0, 1]),
        (SoftAnswerHead, dict(num_answers=2), "answer_scores", [[1.0, 0.3], [0.0, 1.0], [0.6, 0.0]]),
        (CountHead, {}, "counts", [2.0, 3.0, 0.0]),
    ],
)
def test_gradients_reach_every_parameter_of_a_head(
    kind: type[TaskHead],
    options: dict,
    field: str,
    labels: list,
    hidden_channels: int | None,
    without_gradient: Callable,
):
    head = kind(in_channels=6, hidden_channels=hidden_channels, dropout=0.0, **options).double()
    logits = head(torch.randn(3, 1, 6, dtype=torch.float64))[:, 0]
    losses = head.loss(logits, samples_of(labels, field=field, texts=(3,)))
    next(iter(losses.values())).backward()
    assert without_gradient(head) == []


@pytest.mark.parametrize("hidden_channels", [10, None])
@pytest.mark.parametrize(
    ("kind", "field", "labels"),
    [(MultipleChoiceHead, "answer_labels", [2]), (SoftmaxRankingHead, "match_labels", [0, 1, 0])],
)
def test_gradients_of_a_softmax_over_texts_reach_all_but_the_last_bias(
    kind: type[TaskHead], field: str, labels: list, hidden_channels: int | None, without_gradient: Callable
):
    head = kind(in_channels=6, hidden_channels=hidden_channels, dropout=0.0).double()
    logits = head(torch.randn(3, 1, 6, dtype=torch.float64))[:, 0]
    next(iter(head.loss(logits, samples_of(labels, field=field, texts=(3,))).values())).backward()
    *_, bias = head.parameters()
    assert bias.grad.item() == pytest.approx(0, abs=1e-12), "it shifts all texts alike"
    bias.requires_grad_(False)
    assert without_gradient(head) == []


def test_gradients_reach_the_norm_of_a_hidden_layer(without_gradient: Callable):
    head = SoftAnswerHead(in_channels=6, num_answers=2, hidden_channels=8, hidden_norm=True, dropout=0.0)
    labels = [[1.0, 0.3], [0.0, 1.0], [0.6, 0.0]]
    head.loss(head(torch.randn(3, 6)), samples_of(labels, field="answer_scores", texts=(3,)))["loss_answer"].backward()
    assert without_gradient(head) == []


def test_misspelt_options_are_refused():
    with pytest.raises(TypeError, match="unexpected keyword argument 'hidden_size'"):
        MatchingHead(in_channels=6, hidden_size=10)
