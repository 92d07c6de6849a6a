"""WUPS, the metric of NExT-QA's open-ended questions: how close an answer is to the correct one in WordNet."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clipbert_mm.errors import OptionError
from clipbert_mm.evaluation.answer_accuracy import AnswerAccuracy, means_by_type
from clipbert_mm.registry import METRICS
from clipbert_mm.structures import read_answers

THRESHOLDS = (0.0, 0.9)
"""Similarities below a threshold count a tenth."""
PARTS_OF_SPEECH = {"NN": "n", "JJ": "a", "VB": "v", "RB": "r"}
"""WordNet's parts of speech, by the beginning of the tags of the Penn Treebank."""
RESOURCES = ("wordnet", "averaged_perceptron_tagger_eng")


def wups(
    predicted: Sequence[str], correct: Sequence[str], similarity: Callable[[str, str], float], threshold: float = 0.0
) -> float:
    """Compute the WUPS of an answer, 0 to 1 (Malinowski and Fritz, A Multi-World Approach to Question Answering, 2014).

    Each word is matched with the most similar word of the other answer; the product of these similarities is taken over the
    words of each answer, and the smaller product counts. As in the evaluation of NExT-QA (metrics.py of its release), words
    that are similar to none are left out of their product, which is 0 if no word remains.

    Args:
        predicted: Words of the predicted answer.
        correct: Words of the correct answer.
        similarity: Returns the similarity of two words, 0 to 1.
        threshold: Similarities below it count a tenth.

    >>> wups(["red", "dog"], ["dog"], lambda a, b: float(a == b))
    1.0
    >>> round(wups(["cat"], ["dog"], lambda a, b: 0.86, threshold=0.9), 3)
    0.086
    """

    def product(words: Sequence[str], others: Sequence[str]) -> float:
        best = [max((scaled(word, other) for other in others), default=0.0) for word in words]
        found = [value for value in best if value > 0]
        return math.prod(found) if found else 0.0

    def scaled(word: str, other: str) -> float:
        value = similarity(word, other)
        return value if value >= threshold else 0.1 * value

    return min(product(predicted, correct), product(correct, predicted))


class NltkWords:
    """Lemmas and similarities of English words by NLTK, as the evaluation of NExT-QA takes them.

    A text is split into words, tagged, and each word is replaced by its lemma in WordNet, or by its stem where WordNet has the
    stem alone, as ``lemmatize_sentence`` of pywsd does; stop words are left out. The similarity of two words is Wu and Palmer's
    of their first senses.

    Args:
        stop_words: File of the words to leave out, one per line: stopwords.txt of NExT-OE.
        nltk_data: Folder with NLTK's data, ``corpora/wordnet`` and ``taggers/averaged_perceptron_tagger_eng``; None for where
            NLTK looks.

    Raises:
        OptionError: If NLTK, its data or the file of stop words is missing, or WordNet is damaged.
    """

    def __init__(self, stop_words: str, nltk_data: str | None = None) -> None:
        if not Path(stop_words).is_file():
            raise OptionError(
                f"WUPS expects stop_words, the file stopwords.txt of https://github.com/doc-doc/NExT-OE, there is no "
                f"{Path(stop_words).absolute()}."
            )
        self.stop_words = set(Path(stop_words).read_text(encoding="utf-8").split())
        try:
            import nltk
        except ImportError:
            raise OptionError("WUPS needs NLTK, which is not installed: pip install nltk.") from None
        if nltk_data is not None and (folder := str(Path(nltk_data).absolute())) not in nltk.data.path:
            nltk.data.path.insert(0, folder)  # NLTK reads no other folders
        try:
            nltk.corpus.wordnet.ensure_loaded()
            self.tag = nltk.tag.PerceptronTagger().tag
        except LookupError:
            raise OptionError(
                f"WUPS needs NLTK's data {' and '.join(RESOURCES)}, looked in {', '.join(nltk.data.path)}. Fetch it by "
                f"python -m nltk.downloader -d FOLDER {' '.join(RESOURCES)}, or copy it, and set nltk_data=FOLDER."
            ) from None
        self.wordnet = nltk.corpus.wordnet
        if not any(self.wordnet.synsets("entity")):
            raise OptionError(
                f"WUPS expects NLTK's WordNet, {self.wordnet.root} has no sense of 'entity': it is damaged. Fetch it again."
            )
        self.lemmatize, self.stem = nltk.stem.WordNetLemmatizer().lemmatize, nltk.stem.PorterStemmer().stem
        self.tokenize = functools.partial(nltk.word_tokenize, preserve_line=True)
        self.similarity = functools.lru_cache(maxsize=1_000_000)(self._similarity)

    def words(self, text: str) -> list[str]:
        """Return the lemmas of the words of a text, without stop words."""
        lemmas = (self._lemma(word, tag) for word, tag in self.tag(self.tokenize(text)))
        return [lemma for lemma in lemmas if lemma not in self.stop_words]

    def _lemma(self, word: str, tag: str) -> str:
        word = word.lower()
        if tag[:2] not in PARTS_OF_SPEECH:
            ((_, tag),) = self.tag([word])  # by itself
        lemma, stem = self.lemmatize(word, PARTS_OF_SPEECH.get(tag[:2], "n")), self.stem(word)
        if self.wordnet.synsets(lemma):
            return lemma
        return stem if self.wordnet.synsets(stem) else word

    def _similarity(self, word: str, other: str) -> float:
        if word == other:
            return 1.0
        senses, others = self.wordnet.synsets(word), self.wordnet.synsets(other)
        return (senses[0].wup_similarity(others[0]) or 0.0) if senses and others else 0.0


@METRICS.register_module()
class WUPS(AnswerAccuracy):
    """WUPS in percent over all questions, by type and by group, as the evaluation of NExT-QA computes it (eval_oe.py).

    ``WUPS`` counts all similarities, ``WUPS@0.9`` those below 0.9 a tenth. Of several correct answers, ``answer`` and
    ``references`` of a line, the closest counts. Of several predicted answers with the same score the first one counts.
    ``accuracy`` and the others are those of :class:`AnswerAccuracy`.

    Args:
        answer_file: JSON file of the answer vocabulary.
        stop_words: See :class:`NltkWords`.
        nltk_data: See :class:`NltkWords`.
        exact_types: Answer types for which an answer counts only if all of its words are the correct ones; in NExT-QA counts
            and yes or no.
        groups: See :class:`AnswerAccuracy`.
        outcomes_file: See :class:`AnswerAccuracy`.
        collect_device: Device that gathers the results of all ranks, "cpu" or "gpu".
        prefix: Prefix of the metrics' names.
        collect_dir: Folder that gathers the results of all ranks by way of the disk.

    Raises:
        OptionError: If NLTK, its data or the file of stop words is missing.
        AnnotationError: If the vocabulary is invalid.
    """

    def __init__(
        self,
        *,
        answer_file: str,
        stop_words: str,
        nltk_data: str | None = None,
        exact_types: Sequence[str] = ("DC", "DB"),
        groups: Mapping[str, Sequence[str]] | None = None,
        outcomes_file: str | None = None,
        collect_device: str = "cpu",
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(
            outcomes_file=outcomes_file,
            groups=groups,
            collect_device=collect_device,
            prefix=prefix,
            collect_dir=collect_dir,
        )
        indices = read_answers(answer_file)
        self.answers = sorted(indices, key=indices.__getitem__)
        self.exact_types = tuple(exact_types)
        self.nltk = NltkWords(stop_words, nltk_data)

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:  # noqa: ANN401
        """Add the predictions of some items.

        Raises:
            OptionError: If the numbers of scores and of answers in the vocabulary differ, or the dataset gives no references.
        """
        super().process(data_batch, data_samples)
        for sample, entry in zip(data_samples, self.results[-len(data_samples) :], strict=True):
            if sample["broken"] is not None:
                continue
            if "references" not in sample or sample["scores"].shape[-1] != len(self.answers):
                raise OptionError(
                    f"WUPS expects samples of an OpenEndedDataset in test mode, with a score for each of the "
                    f"{len(self.answers)} answers of answer_file, got scores of shape {tuple(sample['scores'].shape)} for "
                    f"{sample['path']}."
                )
            best = sample["scores"].argmax(dim=-1).tolist()  # (m,)
            entry["wups"] = [
                self.values(self.answers[index], references, str(kind))
                for index, references, kind in zip(best, sample["references"], entry["types"], strict=True)
            ]

    def values(self, predicted: str, references: Sequence[str], kind: str) -> list[float]:
        """Return the WUPS of an answer at each of :data:`THRESHOLDS`, by the closest reference."""
        words, correct = self.nltk.words(predicted), [self.nltk.words(reference) for reference in references]
        if kind in self.exact_types:
            return [float(words in correct)] * len(THRESHOLDS)
        return [max(wups(words, own, self.nltk.similarity, threshold) for own in correct) for threshold in THRESHOLDS]

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """Compute the metrics over all items."""
        others = super().compute_metrics(results)
        read = [entry for entry in results if entry["broken"] is None]
        types = [kind for entry in read for kind in entry["types"]]
        values = np.concatenate([entry["wups"] for entry in read])  # (q, thresholds)
        metrics = means_by_type(values[:, 0], types, "WUPS", self.groups)
        return metrics | {"WUPS@0.9": float(values[:, 1].mean() * 100)} | others
