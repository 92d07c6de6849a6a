"""Check of a dataset's texts at the start: unknown words, truncated texts and options that become the same."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from clipbert_mm.datasets.transforms import Tokenize
from clipbert_mm.errors import quoted
from clipbert_mm.log import logger

MAX_CHECKED = 200_000
"""Records of a dataset that are checked, at most, about."""


class WordTokens:
    """The tokens of texts, put together from the tokens of their words: about 20× faster than to tokenize each text.

    This is exact for tokenizers that split at white space first, as BERT's does.

    Args:
        tokenize: The transform.
        texts: The texts.
    """

    def __init__(self, tokenize: Tokenize, texts: Iterable[str]) -> None:
        words = sorted(set(itertools.chain.from_iterable(text.split() for text in texts)))
        self._tokens = dict(zip(words, tokenize.tokens_of(words), strict=True))
        self.unknown = set(tokenize.unknown_words(words))
        self._max_tokens = tokenize.max_length - tokenize.num_special_tokens

    def tokens_of(self, text: str) -> tuple[int, ...]:
        """Return the token ids of a text that the model gets."""
        return tuple(itertools.chain.from_iterable(map(self._tokens.__getitem__, text.split())))[: self._max_tokens]

    def is_cut(self, text: str) -> bool:
        """Whether a text has more tokens than the model gets."""
        longest = 4 * len(text)  # of bytes
        return longest > self._max_tokens and sum(len(self._tokens[word]) for word in text.split()) > self._max_tokens

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
    """Log what the model cannot read or distinguish.

    Args:
        name: The annotation file.
        pipeline: The dataset's transforms; without :class:`~clipbert_mm.datasets.transforms.Tokenize` nothing is checked.
        records: The records of the dataset; of very many, an evenly spaced sample is checked.
        texts_of: Returns the texts of a record.
        are_options: Whether the texts of a record are the options of a question.
    """
    tokenize = next((step for step in pipeline if isinstance(step, Tokenize)), None)
    if tokenize is None:
        return
    groups = [texts_of(record) for record in itertools.islice(records, 0, None, 1 + len(records) // MAX_CHECKED)]
    texts = list(itertools.chain.from_iterable(groups))
    words, limit = WordTokens(tokenize, texts), f"{tokenize.max_length} tokens (max_length of Tokenize)"
    if words.unknown:
        affected = sum(map(words.has_unknown, texts))
        logger.warning(
            f"{name}: the tokenizer does not know {format_words(sorted(words.unknown))}; the model reads each as "
            f"{tokenize.tokenizer.unk_token}, in {affected:,} of {len(texts):,} texts."
        )
    if cut := sum(map(words.is_cut, texts)):
        logger.info(f"{name}: {cut:,} of {len(texts):,} texts are longer than {limit} and are cut.")
    alike = [options for options in groups if are_options and len(set(map(words.tokens_of, options))) < len(options)]
    if alike:
        cut = sum(any(map(words.is_cut, options)) for options in alike)
        logger.warning(
            f"{name}: {len(alike):,} of {len(groups):,} questions have options that are the same to the model, {cut:,} of them "
            f"with texts that are cut at {limit}. Such options tie, and a correct one among t counts 1/t. The first: "
            f"{quoted(alike[0])}."
        )


def format_words(words: Sequence[str]) -> str:
    """Return the first words of a list, quoted, for a message.

    >>> format_words(["blau"]), format_words(list("abcdefg"))
    ("the word 'blau'", "7 words such as 'a', 'b', 'c', 'd', 'e'")
    """
    named = ", ".join(quoted(word, 40) for word in words[:5])
    if len(words) > 5:
        return f"{len(words):,} words such as {named}"
    return f"the word{'s' if len(words) > 1 else ''} {named}"
