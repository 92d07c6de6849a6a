"""Tokenizing texts, and masking tokens for pre-training."""

import functools
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform

from clipbert_mm import compat
from clipbert_mm.datasets.vocabulary import VOCAB_SIZE
from clipbert_mm.deprecation import renamed
from clipbert_mm.errors import CheckpointError, OptionError, printable, quoted
from clipbert_mm.registry import TRANSFORMS
from clipbert_mm.structures import IGNORED
from clipbert_mm.trusted import check_tokenizer

__getattr__ = renamed(__name__, {"train_wordpiece": "clipbert_mm.datasets.vocabulary.train_vocabulary"})


@functools.lru_cache(maxsize=8)
def get_tokenizer(path_or_name: str) -> Any:  # noqa: ANN401
    """Load a tokenizer, once per process.

    Args:
        path_or_name: A Hugging Face tokenizer folder or name.

    Raises:
        OptionError: If there is no such tokenizer, or it does not put [CLS] before a text and [SEP] after it.
        CheckpointError: If it is damaged, or names code.
    """
    try:
        tokenizer = load_tokenizer(path_or_name)
    except OSError as error:
        raise OptionError(
            f"There is no tokenizer at '{path_or_name}': no such folder, and Hugging Face has none of that name. Set "
            "`tokenizer` of Tokenize to a tokenizer folder. To train one on your own texts, set `train_on` of Tokenize to "
            "caption files: tools/train.py then trains it first; in Python, call "
            "clipbert_mm.datasets.train_vocabularies(config) before you build the datasets."
        ) from error
    _check_special_tokens(tokenizer, path_or_name)
    return tokenizer


def load_tokenizer(path_or_name: str) -> Any:  # noqa: ANN401
    """Load a Hugging Face tokenizer from a folder or by name; code that comes with it is never run.

    A folder may have only a vocab.txt, which is then BERT's.

    Raises:
        CheckpointError: If the tokenizer names what a file may not name, or is damaged.
        OSError: If there is no such tokenizer.
    """
    from transformers import AutoTokenizer, PreTrainedConfig
    from transformers.models.auto.tokenization_auto import get_tokenizer_config

    vocab = os.path.join(path_or_name, "vocab.txt")
    config_files = ("tokenizer.json", "tokenizer_config.json")
    try:
        model_settings: dict[str, Any] = {}
        with suppress(OSError):  # not every tokenizer comes with a model
            model_settings = PreTrainedConfig.get_config_dict(path_or_name)[0]
        check_tokenizer(path_or_name, get_tokenizer_config(path_or_name), model_settings)
        if os.path.isfile(vocab) and not any(os.path.isfile(os.path.join(path_or_name, name)) for name in config_files):
            return compat.bert_tokenizer(vocab)
        return AutoTokenizer.from_pretrained(path_or_name, trust_remote_code=False)
    except BaseException as error:  # transformers, tokenizers and its Rust code each raise errors of their own
        if isinstance(error, CheckpointError) or not (
            isinstance(error, Exception) or type(error).__name__ == "PanicException"
        ):
            raise
        if not os.path.isdir(path_or_name):
            raise FileNotFoundError(f"There is no tokenizer {printable(path_or_name)}: {quoted(str(error))}") from error
        raise CheckpointError(
            f"The tokenizer {printable(path_or_name)} cannot be loaded; it is damaged, or not a tokenizer: "
            f"{quoted(str(error))}. Take another copy."
        ) from error


def _check_special_tokens(tokenizer: Any, name: str) -> None:  # noqa: ANN401
    """Check that a tokenizer puts [CLS], whose state the heads read, before a text, and [SEP] after it."""
    ids, expected = tokenizer("a")["input_ids"], (tokenizer.cls_token_id, tokenizer.sep_token_id)
    if None in expected or len(ids) < 2 or (ids[0], ids[-1]) != expected:
        raise OptionError(
            f"The model expects [CLS] before each text, whose state its head reads, and [SEP] after it; the tokenizer '{name}' "
            f"turns the text 'a' into {quoted(tokenizer.convert_ids_to_tokens(ids))}. Use a tokenizer like BERT's."
        )


@TRANSFORMS.register_module()
class Tokenize(BaseTransform):
    """Turn texts into token ids, [CLS] first and [SEP] last, without padding: texts are padded with their batch.

    Required Keys:
        texts (list of m strings)

    Added Keys:
        text_ids (list of m int64 arrays)

    Args:
        tokenizer: A Hugging Face tokenizer folder or name.
        max_length: Most tokens of a text, [CLS] and [SEP] among them; longer texts are cut.
        train_on: JSON-lines files. If the folder ``tokenizer`` does not exist,
            :func:`~clipbert_mm.datasets.train_vocabularies` trains it on their captions, questions and options before the
            datasets are built. The transform itself reads none of them.
        vocab_size: Tokens of a vocabulary that is trained so, at most.

    Raises:
        OptionError: If there is no such tokenizer, or it does not put [CLS] before a text and [SEP] after it.
    """

    def __init__(
        self, *, tokenizer: str, max_length: int, train_on: Sequence[str] = (), vocab_size: int = VOCAB_SIZE
    ) -> None:
        self.max_length = max_length
        self.tokenizer = get_tokenizer(tokenizer)

    def tokens_of(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of whole texts, without [CLS] and [SEP]."""
        return self.tokenizer(list(texts), add_special_tokens=False)["input_ids"] if texts else []

    def unknown_words(self, texts: Iterable[str]) -> list[str]:
        """Return the words of texts that the tokenizer does not know, in their order; the model reads each as [UNK]."""
        words = list(dict.fromkeys(word for text in texts for word in text.split()))
        unknown = self.tokenizer.unk_token_id
        return [word for word, token_ids in zip(words, self.tokens_of(words), strict=True) if unknown in token_ids]

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add the token ids of every text."""
        token_ids = self.tokenizer(results["texts"], max_length=self.max_length, truncation=True)["input_ids"]
        results["text_ids"] = [np.array(ids, np.int64) for ids in token_ids]
        return results


@TRANSFORMS.register_module()
class MaskTokens(BaseTransform):
    """Mask tokens for masked language modeling as BERT does: 80 % [MASK], 10 % a random token, 10 % unchanged.

    Texts that do not match their image are masked like the others: [MASK] only in matching texts would give away the label of
    image-text matching.

    Required Keys:
        text_ids, rng, match_labels

    Modified Keys:
        text_ids

    Added Keys:
        mlm_labels (list of m int64 arrays, ``IGNORED`` where nothing is to be predicted)

    Args:
        tokenizer: The folder or name given to :class:`Tokenize`, which comes before.
        probability: Share of the tokens that are predicted; 0.15 in the paper.
        predict_unmatched: Whether masked tokens of texts that do not match their image are predicted too, as in the paper's
            release; otherwise they are only masked.

    Raises:
        OptionError: If there is no such tokenizer, or it has no [MASK].
    """

    def __init__(self, *, tokenizer: str, probability: float = 0.15, predict_unmatched: bool = True) -> None:
        self.tokenizer = get_tokenizer(tokenizer)
        if self.tokenizer.mask_token_id is None:
            raise OptionError(f"MaskTokens expects a tokenizer with a [MASK] token; '{tokenizer}' has none.")
        self.probability = probability
        self.predict_unmatched = predict_unmatched

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Mask every text."""
        rng = results["rng"]
        masked = [self.mask(ids, rng) for ids in results["text_ids"]]
        results["text_ids"] = [ids for ids, _ in masked]
        results["mlm_labels"] = [
            labels if matches or self.predict_unmatched else np.full_like(labels, IGNORED)
            for (_, labels), matches in zip(masked, results["match_labels"], strict=True)
        ]
        return results

    def mask(self, text_ids: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return the masked token ids and the labels, both (L,), of token ids (L,)."""
        special = np.isin(text_ids, self.tokenizer.all_special_ids)
        chosen = (rng.random(len(text_ids)) < self.probability) & ~special
        labels = np.where(chosen, text_ids, IGNORED)
        kind = rng.random(len(text_ids))
        masked = np.where(chosen & (kind < 0.8), self.tokenizer.mask_token_id, text_ids)
        masked = np.where(chosen & (kind >= 0.9), rng.integers(0, len(self.tokenizer), len(text_ids)), masked)
        return masked, labels
