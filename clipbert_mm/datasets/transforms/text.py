"""Tokenizing texts, and masking tokens for pre-training."""

import functools
import os
import string
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform

from clipbert_mm import compat
from clipbert_mm.checkpoint.hub import VOCABULARIES, find_file, tokenizer_folder
from clipbert_mm.datasets.vocabulary import VOCAB_SIZE, read_words, split_words
from clipbert_mm.deprecation import renamed
from clipbert_mm.errors import CheckpointError, ClipBertError, OptionError, printable, quoted
from clipbert_mm.registry import TRANSFORMS
from clipbert_mm.structures import IGNORED
from clipbert_mm.trusted import check_tokenizer

__getattr__ = renamed(__name__, {"train_wordpiece": "clipbert_mm.datasets.vocabulary.train_vocabulary"})


READ_TOKENS = ("first", "last")
"""Which token's state a text encoder may read."""
WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


@functools.lru_cache(maxsize=8)
def get_tokenizer(path_or_name: str, read_token: str = "first") -> Any:  # noqa: ANN401
    """Load a tokenizer, once per process.

    Args:
        path_or_name: A Hugging Face tokenizer folder or name.
        read_token: As of :class:`Tokenize`.

    Raises:
        OptionError: If there is no such tokenizer, or it does not put around a text what the text encoder reads.
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
    _check_special_tokens(tokenizer, path_or_name, read_token)
    return tokenizer


def load_tokenizer(path_or_name: str) -> Any:  # noqa: ANN401
    """Load a Hugging Face tokenizer from a folder or by name; code that comes with it is never run.

    A folder may have only a vocab.txt, which is then BERT's.

    Raises:
        CheckpointError: If the tokenizer names what a file may not name, has no vocabulary, or is damaged.
        BackendError: If a package that reads it is missing.
        OSError: If there is no such tokenizer.
    """
    from transformers import AutoTokenizer, PretrainedConfig
    from transformers.models.auto.tokenization_auto import get_tokenizer_config

    vocab = os.path.join(path_or_name, "vocab.txt")
    config_files = ("tokenizer.json", "tokenizer_config.json")
    if os.path.isdir(path_or_name):
        find_file(path_or_name, *VOCABULARIES)
    try:
        model_settings: dict[str, Any] = {}
        with suppress(OSError):  # not every tokenizer comes with a model
            model_settings = PretrainedConfig.get_config_dict(path_or_name)[0]
        settings = get_tokenizer_config(path_or_name)
        check_tokenizer(path_or_name, settings, model_settings)
        if os.path.isfile(vocab) and not any(os.path.isfile(os.path.join(path_or_name, name)) for name in config_files):
            return compat.bert_tokenizer(vocab)
        if settings.get("tokenizer_class") == "SiglipTokenizer":
            return compat.siglip_tokenizer(tokenizer_folder(path_or_name))
        return AutoTokenizer.from_pretrained(path_or_name, trust_remote_code=False)
    except BaseException as error:  # transformers, tokenizers and its Rust code each raise errors of their own
        if isinstance(error, ClipBertError) or not (
            isinstance(error, Exception) or type(error).__name__ == "PanicException"
        ):
            raise
        if not os.path.isdir(path_or_name):
            raise FileNotFoundError(f"There is no tokenizer {printable(path_or_name)}: {quoted(str(error))}") from error
        raise CheckpointError(
            f"The tokenizer {printable(path_or_name)} cannot be loaded; it is damaged, or not a tokenizer: "
            f"{quoted(str(error))}. Take another copy."
        ) from error


def _check_special_tokens(tokenizer: Any, name: str, read_token: str) -> None:  # noqa: ANN401
    """Check that a tokenizer puts around a text what the text encoder reads: [CLS] and [SEP], or an end of the text."""
    ids, expected = tokenizer("a")["input_ids"], (tokenizer.cls_token_id, tokenizer.sep_token_id)
    if read_token == "last":
        if tokenizer.eos_token_id is None or len(ids) < 2 or ids[-1] != tokenizer.eos_token_id:
            raise OptionError(
                "The model expects an end-of-text token after each text, whose state it reads (read_token='last'); the "
                f"tokenizer '{name}' turns the text 'a' into {quoted(tokenizer.convert_ids_to_tokens(ids))}. Use a tokenizer "
                "like CLIP's or SigLIP's."
            )
    elif None in expected or len(ids) < 2 or (ids[0], ids[-1]) != expected:
        raise OptionError(
            f"The model expects [CLS] before each text, whose state its head reads, and [SEP] after it; the tokenizer '{name}' "
            f"turns the text 'a' into {quoted(tokenizer.convert_ids_to_tokens(ids))}. Use a tokenizer like BERT's."
        )


@TRANSFORMS.register_module()
class Tokenize(BaseTransform):
    """Turn texts into token ids, special tokens among them, without padding: texts are padded with their batch.

    ``read_token`` is "first" for text encoders like BERT's (ClipBERT, BLIP, ViLT), "last" for CLIP's and SigLIP's. SigLIP was
    trained on texts in lower case without punctuation, SigLIP2 on texts in lower case; not every release of transformers does
    that to them.

    Required Keys:
        texts (list of m strings)

    Added Keys:
        text_ids (list of m int64 arrays)

    Args:
        tokenizer: A Hugging Face tokenizer folder or name.
        max_length: Most tokens of a text, special ones among them; longer texts are cut between those.
        train_on: JSON-lines files. If the folder ``tokenizer`` does not exist,
            :func:`~clipbert_mm.datasets.train_vocabularies` trains it on their captions, questions and options before the
            datasets are built. The transform itself reads none of them.
        vocab_size: Tokens of a vocabulary that is trained so, at most.
        read_token: Which token's state the text encoder reads: "first", which has to be [CLS], with [SEP] last; or "last",
            which has to be the end-of-text token.
        lowercase: Whether texts are turned into lower case first.
        strip_punctuation: Whether ASCII punctuation is removed first, and what is blank becomes one space.

    Raises:
        OptionError: If there is no such tokenizer, it does not put around a text what the text encoder reads, or there is no
            such ``read_token``.
    """

    def __init__(
        self,
        *,
        tokenizer: str,
        max_length: int,
        train_on: Sequence[str] = (),
        vocab_size: int = VOCAB_SIZE,
        read_token: str = "first",
        lowercase: bool = False,
        strip_punctuation: bool = False,
    ) -> None:
        if read_token not in READ_TOKENS:
            raise OptionError(f"Tokenize expects read_token {' or '.join(READ_TOKENS)}, got {quoted(read_token)}.")
        self.max_length = max_length
        self.lowercase, self.strip_punctuation = lowercase, strip_punctuation
        self.tokenizer = get_tokenizer(tokenizer, read_token)
        self.training_words = read_words(tokenizer)
        self.num_special_tokens = self.tokenizer.num_special_tokens_to_add()

    def clean(self, text: str) -> str:
        """Return a text as the tokenizer gets it."""
        text = text.lower() if self.lowercase else text
        return " ".join(text.translate(WITHOUT_PUNCTUATION).split()) if self.strip_punctuation else text

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of whole texts, with special tokens, of any length."""
        return self.tokenizer([self.clean(text) for text in texts])["input_ids"] if texts else []

    def tokens_of(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of whole texts, without special tokens."""
        cleaned = [self.clean(text) for text in texts]
        return self.tokenizer(cleaned, add_special_tokens=False)["input_ids"] if texts else []

    def unknown_words(self, texts: Iterable[str]) -> list[str]:
        """Return the words of texts that the tokenizer does not know, in their order; the model reads each as [UNK]."""
        words = list(dict.fromkeys(word for text in texts for word in text.split()))
        unknown = self.tokenizer.unk_token_id
        return [word for word, token_ids in zip(words, self.tokens_of(words), strict=True) if unknown in token_ids]

    def new_words(self, texts: Iterable[str]) -> list[str]:
        """Return the words of texts that the vocabulary's texts did not have, in their order; the model reads their letters.

        There are none where the tokenizer's folder does not tell the words of its texts.
        """
        if self.training_words is None:
            return []
        words = dict.fromkeys(word for text in texts for word in text.split())
        backend = self.tokenizer.backend_tokenizer
        return [word for word in words if not self.training_words.issuperset(split_words(backend, self.clean(word)))]

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add the token ids of every text."""
        cleaned = [self.clean(text) for text in results["texts"]]
        token_ids = self.tokenizer(cleaned, max_length=self.max_length, truncation=True)["input_ids"]
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
