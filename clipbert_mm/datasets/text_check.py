"""What a tokenizer makes of a dataset's texts, said at the start: unknown words, cut texts, options that become the same."""

import itertools
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from mmengine.logging import print_log

from clipbert_mm.datasets.transforms import Tokenize
from clipbert_mm.errors import quoted

LOOKED_AT = 200_000
"""Most records of a dataset that are looked at, about."""


class WordTokens:
    """The tokens of texts by those of their words, which is some 20 times faster than to tokenize each text.

    Exact for tokenizers that split at white space first, as BERT's does.

    Args:
        tokenize: The transform.
        texts: The texts.
    """

    def __init__(self, tokenize: Tokenize, texts: Iterable[str]) -> None:
        words = sorted(set(itertools.chain.from_iterable(text.split() for text in texts)))
        self._tokens = dict(zip(words, tokenize.tokens_of(words), strict=True))
        self.unknown = set(tokenize.unknown_words(words))
        self._longest = tokenize.max_length - 2  # without [CLS] and [SEP]

    def read(self, text: str) -> tuple[int, ...]:
        """Return the tokens that the model gets of a text."""
        return tuple(itertools.chain.from_iterable(map(self._tokens.__getitem__, text.split())))[: self._longest]

    def is_cut(self, text: str) -> bool:
        """Whether a text is longer than what the model gets."""
        return len(text) > self._longest and sum(len(self._tokens[word]) for word in text.split()) > self._longest

    def has_unknown(self, text: str) -> bool:
        """Whether a text has words that the tokenizer does not know."""
        return not self.unknown.isdisjoint(text.split())


def check_texts(
    name: str,
    pipeline: Sequence[Any],
    records: Sequence[Any],
    texts_of: Callable[[Any], list[str]],
    *,
    are_options: bool = False,
) -> None:
    """Say in the log what the model cannot read or tell apart.

    Args:
        name: The annotation file.
        pipeline: The dataset's transforms; without :class:`~clipbert_mm.datasets.transforms.Tokenize` there is nothing to say.
        records: What the dataset has; of many, some that are evenly spread are looked at.
        texts_of: Returns the texts of a record.
        are_options: Whether the texts of a record are the options of a question, to choose among.
    """
    tokenize = next((step for step in pipeline if isinstance(step, Tokenize)), None)
    if tokenize is None:
        return
    groups = [texts_of(record) for record in itertools.islice(records, 0, None, 1 + len(records) // LOOKED_AT)]
    texts = list(itertools.chain.from_iterable(groups))
    words, limit = WordTokens(tokenize, texts), f"{tokenize.max_length} tokens (max_length of Tokenize)"
    if words.unknown:
        affected = sum(map(words.has_unknown, texts))
        _log(
            f"{name}: the tokenizer does not know {say_words(sorted(words.unknown))}; the model reads each as "
            f"{tokenize.tokenizer.unk_token}, in {affected:,} of {len(texts):,} texts."
        )
    if cut := sum(map(words.is_cut, texts)):
        _log(f"{name}: {cut:,} of {len(texts):,} texts are longer than {limit} and are cut.", logging.INFO)
    alike = [own for own in groups if are_options and len(set(map(words.read, own))) < len(own)]
    if alike:
        cut = sum(any(map(words.is_cut, own)) for own in alike)
        _log(
            f"{name}: {len(alike):,} of {len(groups):,} questions have options that are the same to the model, {cut:,} of them "
            f"with texts that are cut at {limit}. Such options tie, and a right one among t counts 1/t. The first: "
            f"{quoted(alike[0])}."
        )


def say_words(words: Sequence[str]) -> str:
    """Name some words.

    >>> say_words(["blau"]), say_words(list("abcdefg"))
    ("the word 'blau'", "7 words such as 'a', 'b', 'c', 'd', 'e'")
    """
    named = ", ".join(quoted(word, 40) for word in words[:5])
    if len(words) > 5:
        return f"{len(words):,} words such as {named}"
    return f"the word{'s' if len(words) > 1 else ''} {named}"


def _log(text: str, level: int = logging.WARNING) -> None:
    print_log(text, logger="current", level=level)
