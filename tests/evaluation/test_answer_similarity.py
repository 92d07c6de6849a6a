"""WUPS by hand, by the words of NLTK where it is installed, and as a metric."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from small_wordnet import write_nltk_data

from clipbert_mm.errors import OptionError
from clipbert_mm.evaluation import WUPS, answer_similarity, wups
from clipbert_mm.evaluation.answer_similarity import NltkWords

SIMILARITIES = {("cat", "dog"): 0.8, ("run", "walk"): 0.5, ("ball", "dog"): 0.4}
GROUPS = {"causal": ["CW", "CH"], "descriptive": ["DC", "DL"], "temporal": ["TN"]}


def similarity(word: str, other: str) -> float:
    return 1.0 if word == other else SIMILARITIES.get(tuple(sorted((word, other))), 0.0)


@pytest.mark.parametrize(
    ("predicted", "correct", "threshold", "expected"),
    [
        ("dog", "dog", 0, 1),
        ("cat run", "dog walk", 0, 0.8 * 0.5),
        ("cat run", "dog walk", 0.9, 0.08 * 0.05),
        ("cat run", "dog walk", 0.8, 0.8 * 0.05),  # a similarity at the threshold counts
        ("cat", "dog walk", 0, 0.8),  # words like none of the others are left out
        ("cat ball", "dog", 0, 0.8 * 0.4),  # the product of "cat ball"; that of "dog" is 0.8
        ("dog", "walk", 0, 0),
        ("", "dog", 0, 0),
        ("", "", 0, 0),
    ],
)
def test_wups_by_hand(predicted: str, correct: str, threshold: float, expected: float):
    for first, second in ((predicted, correct), (correct, predicted)):
        assert wups(first.split(), second.split(), similarity, threshold) == pytest.approx(expected)


@pytest.fixture(scope="module")
def stop_words(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("words") / "stopwords.txt"
    path.write_text("the\nwith\n")
    return str(path)


@pytest.fixture(scope="module")
def nltk_words(stop_words: str, tmp_path_factory: pytest.TempPathFactory) -> NltkWords:
    """NLTK's words with a small WordNet."""
    pytest.importorskip("nltk", reason="WUPS is computed by NLTK's words")
    folder = tmp_path_factory.mktemp("nltk_data")
    write_nltk_data(folder)
    return NltkWords(stop_words, str(folder))


def test_words_of_nltk_are_lemmas_without_stop_words(nltk_words: NltkWords):
    assert nltk_words.words("the Dog ran") == ["dog", "run"]
    assert nltk_words.words("two cats walking with the ball") == ["two", "cat", "walk", "ball"]
    assert nltk_words.words("") == []


def test_similarities_of_nltk_are_wu_and_palmer_s(nltk_words: NltkWords):
    # 2 · depth of what both are / the sum of their depths along it; "entity" and "act" have a depth of 1.
    assert nltk_words.similarity("dog", "cat") == pytest.approx(2 * 2 / (3 + 3))
    assert nltk_words.similarity("dog", "ball") == pytest.approx(2 * 1 / (3 + 3))
    assert nltk_words.similarity("run", "walk") == pytest.approx(2 * 2 / (3 + 3))
    assert nltk_words.similarity("two", "two") == 1
    assert nltk_words.similarity("two", "dog") == 0
    assert wups(*map(nltk_words.words, ("the dog ran", "cats walking")), nltk_words.similarity) == pytest.approx(4 / 9)


def test_what_is_missing_is_named(stop_words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(
        OptionError, match=r"WUPS expects stop_words, the file stopwords\.txt of .*, there is no .*none"
    ):
        NltkWords(str(tmp_path / "none"))
    monkeypatch.setitem(sys.modules, "nltk", None)
    with pytest.raises(OptionError, match=r"WUPS needs NLTK, which is not installed: pip install nltk\."):
        NltkWords(stop_words)


def test_missing_data_of_nltk_is_named(stop_words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    nltk = pytest.importorskip("nltk", reason="WUPS is computed by NLTK's words")
    monkeypatch.setattr(nltk.data, "path", [])
    with pytest.raises(
        OptionError, match=r"data wordnet and averaged_perceptron_tagger_eng, looked in .*, and set nltk_da"
    ):
        NltkWords(stop_words, str(tmp_path))


def test_a_damaged_wordnet_is_named(nltk_words: NltkWords, stop_words: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(nltk_words.wordnet, "synsets", lambda word: [None])  # of a file whose lines have moved
    with pytest.raises(
        OptionError, match=r"expects NLTK's WordNet, .*wordnet has no sense of 'entity': it is damaged\."
    ):
        NltkWords(stop_words)


@pytest.fixture
def metric(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., WUPS]:
    """The metric with the similarities above and words as they are."""

    class Words:
        def __init__(self, stop_words: str, nltk_data: str | None = None) -> None:
            self.similarity, self.words = similarity, str.split

    monkeypatch.setattr(answer_similarity, "NltkWords", Words)
    (tmp_path / "answers.json").write_text(json.dumps({"dog": 0, "walk": 1, "cat": 2}))
    return lambda **options: WUPS(answer_file=str(tmp_path / "answers.json"), stop_words="", **options)


def sample(predicted: list[int], references: list[list[str]], types: list[str], broken: str | None = None) -> dict:
    """What a model and the dataset say of the questions of a video."""
    labels = np.array([{"dog": 0, "walk": 1, "cat": 2}.get(own[0], -100) for own in references])
    scores = torch.nn.functional.one_hot(torch.tensor(predicted, dtype=torch.int64), 3).float()
    return dict(path="a", broken=broken, scores=scores, answer_labels=labels, answer_types=types, references=references)


def test_the_closest_reference_counts_by_type_and_group(metric: Callable[..., WUPS]):
    evaluator = Evaluator(metric(groups=GROUPS))
    evaluator.process([sample([0, 1], [["run", "cat"], ["walk"]], ["CW", "TN"]), sample([], [], [], broken="why")])
    evaluator.process([sample([0, 2, 1], [["dog ball"], ["dog", "cat"], ["run", "thing"]], ["DL", "DC", "DC"])])
    metrics = evaluator.evaluate(3)
    assert next(iter(metrics)) == "WUPS", "the metric that selects checkpoints comes first"
    # dog for run or cat: 0.8; walk: 1; dog for dog ball: 0.4, the product of "dog ball"; counts: exactly one of the answers.
    assert metrics["WUPS"] == pytest.approx(100 * (0.8 + 1 + 0.4 + 1 + 0) / 5)
    assert metrics["WUPS@0.9"] == pytest.approx(100 * (0.08 + 1 + 0.04 + 1 + 0) / 5)
    assert metrics["WUPS/DC"] == pytest.approx(50)
    assert metrics["WUPS/causal"] == metrics["WUPS/CW"] == pytest.approx(80)
    assert metrics["WUPS/descriptive"] == pytest.approx(100 * (0.4 + 1 + 0) / 3)
    assert metrics["accuracy"] == pytest.approx(20), "of the answers alone, not of the references"
    assert metrics["accuracy/temporal"] == 100
    assert metrics["coverage"] == pytest.approx(200 / 3)


def test_samples_of_another_dataset_are_refused(metric: Callable[..., WUPS]):
    without = sample([0], [["dog"]], ["CW"])
    del without["references"]
    with pytest.raises(
        OptionError, match=r"WUPS expects samples of an OpenEndedDataset in test mode, .* of the 3 answers"
    ):
        metric().process(None, [without])
    with pytest.raises(OptionError, match=r"got scores of shape \(1, 2\) for a\."):
        metric().process(None, [sample([0], [["dog"]], ["CW"]) | dict(scores=torch.ones(1, 2))])
