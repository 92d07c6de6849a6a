"""Texts to word pieces, and masks over them."""

import functools
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.logging import print_log

from clipbert_mm import compat
from clipbert_mm.datasets.annotations import read_records
from clipbert_mm.errors import AnnotationError, OptionError, quoted
from clipbert_mm.fileio import atomic_path
from clipbert_mm.registry import TRANSFORMS
from clipbert_mm.structures import IGNORED

CAPTION = '{"video": "a.mp4", "caption": "what happens in it"}'


def train_wordpiece(texts: Iterable[str], folder: str | os.PathLike, vocab_size: int = 30522) -> Path:
    """Train an uncased WordPiece vocabulary on texts and save it as a Hugging Face tokenizer folder.

    The folder appears whole or not at all; if it is there already, or another process is faster, that one stays.

    Args:
        texts: The texts.
        folder: Where the tokenizer goes.
        vocab_size: Most word pieces.
    """
    from tokenizers import BertWordPieceTokenizer
    from transformers import BertTokenizerFast

    folder = Path(folder)
    if folder.is_dir():
        return folder
    trained = BertWordPieceTokenizer(lowercase=True)
    trained.train_from_iterator(texts, vocab_size=vocab_size, min_frequency=1, show_progress=False)
    try:
        with atomic_path(folder, folder=True) as part:
            trained.save_model(str(part))
            tokenizer = BertTokenizerFast(str(part / "vocab.txt"))
            (part / "vocab.txt").unlink()  # what is saved says it all
            tokenizer.save_pretrained(part)
    except OSError:
        if not folder.is_dir():
            raise
    print_log(f"Trained a vocabulary of {trained.get_vocab_size()} word pieces, saved in {folder}.", logger="current")
    return folder


@functools.lru_cache(maxsize=8)
def get_tokenizer(path_or_name: str, train_on: tuple[str, ...] = (), vocab_size: int = 30522) -> Any:  # noqa: ANN401
    """Load a tokenizer, once a process; train it first where there is none and ``train_on`` says on what.

    Args:
        path_or_name: A Hugging Face tokenizer folder or name.
        train_on: JSON-lines files whose captions, questions and options a missing folder is trained on.
        vocab_size: Most word pieces of a trained vocabulary.

    Raises:
        OptionError: If there is no such tokenizer, or it puts no [CLS] and [SEP] around a text.
        CheckpointError: If it is damaged, or names code.
        AnnotationError: If a file of ``train_on`` cannot be used.
    """
    if train_on and not os.path.isdir(path_or_name):
        texts = (
            text for path in train_on for record in read_records(path, {}, CAPTION) for text in _texts_of(record, path)
        )
        train_wordpiece(texts, path_or_name, vocab_size)
    try:
        tokenizer = compat.load_tokenizer(path_or_name)
    except OSError as error:
        raise OptionError(
            f"There is no tokenizer at '{path_or_name}': no such folder, and Hugging Face gave none of that name. Put a "
            "tokenizer folder there, or set `train_on` of Tokenize to files of captions or questions to train one on."
        ) from error
    _expect_ends(tokenizer, path_or_name)
    return tokenizer


def _texts_of(record: dict[str, Any], path: str) -> list[str]:
    """Return what there is to read in a record: its caption, or its question and options."""
    texts = [record[key] for key in ("caption", "question") if isinstance(record.get(key), str)]
    if isinstance(options := record.get("options"), list):
        texts += [option for option in options if isinstance(option, str)]
    if not texts:
        raise AnnotationError(
            f"{path}: a vocabulary is trained on lines with a caption or a question, got one with {quoted(sorted(record))}."
        )
    return texts


def _expect_ends(tokenizer: Any, name: str) -> None:  # noqa: ANN401
    """See that a tokenizer puts [CLS], whose state the heads read, before a text, and [SEP] after it."""
    ids, ends = tokenizer("a")["input_ids"], (tokenizer.cls_token_id, tokenizer.sep_token_id)
    if None in ends or len(ids) < 2 or (ids[0], ids[-1]) != ends:
        raise OptionError(
            f"The tokenizer '{name}' makes {quoted(tokenizer.convert_ids_to_tokens(ids))} of the text 'a'; the model expects "
            "[CLS] before each text, whose state its head reads, and [SEP] after it. Take a tokenizer of BERT's kind."
        )


@TRANSFORMS.register_module()
class Tokenize(BaseTransform):
    """Turn texts into word pieces, [CLS] first and [SEP] last; padding is left to the batch.

    Required Keys:
        texts (list of m strings)

    Added Keys:
        text_ids (list of m int64 arrays)

    Args:
        tokenizer: A Hugging Face tokenizer folder or name.
        max_length: Longest text in word pieces with [CLS] and [SEP]; longer ones are cut.
        train_on: JSON-lines files; where the folder ``tokenizer`` is missing, a vocabulary is trained on their captions,
            questions and options, and saved there.
        vocab_size: Most word pieces of a vocabulary that is trained.
    """

    def __init__(
        self, *, tokenizer: str, max_length: int, train_on: Sequence[str] = (), vocab_size: int = 30522
    ) -> None:
        self.max_length = max_length
        self.tokenizer = get_tokenizer(tokenizer, tuple(train_on), vocab_size)

    def tokens_of(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the word pieces of texts, all of them, without [CLS] and [SEP]."""
        return self.tokenizer(list(texts), add_special_tokens=False)["input_ids"] if texts else []

    def unknown_words(self, texts: Iterable[str]) -> list[str]:
        """Return the words of texts that the tokenizer does not know, in their order; the model reads each as [UNK]."""
        words = list(dict.fromkeys(word for text in texts for word in text.split()))
        unknown = self.tokenizer.unk_token_id
        return [word for word, own in zip(words, self.tokens_of(words), strict=True) if unknown in own]

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add the word pieces of every text."""
        pieces = self.tokenizer(results["texts"], max_length=self.max_length, truncation=True)["input_ids"]
        results["text_ids"] = [np.array(ids, np.int64) for ids in pieces]
        return results


@TRANSFORMS.register_module()
class MaskTokens(BaseTransform):
    """Mask word pieces for masked language modeling, BERT's way: 80 % [MASK], 10 % any piece, 10 % as they were.

    Texts that do not match their image are masked like the others: [MASK] in matching ones alone would give the label of
    image-text matching away.

    Required Keys:
        text_ids, rng, match_labels

    Modified Keys:
        text_ids

    Added Keys:
        mlm_labels (list of m int64 arrays, ``IGNORED`` where nothing is to be predicted)

    Args:
        tokenizer: The folder or name given to :class:`Tokenize`, which comes before.
        probability: Share of the word pieces that are predicted; 0.15 in the paper.
        predict_unmatched: Whether masked pieces of texts that do not match are predicted too, as the paper's release
            does; else they are masked only.
    """

    def __init__(self, *, tokenizer: str, probability: float = 0.15, predict_unmatched: bool = True) -> None:
        self.tokenizer = get_tokenizer(tokenizer)
        if self.tokenizer.mask_token_id is None:
            raise OptionError(f"MaskTokens expects a tokenizer with a [MASK], '{tokenizer}' has none.")
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
        """Return masked word pieces and labels, both (L,), of word pieces (L,)."""
        special = np.isin(text_ids, self.tokenizer.all_special_ids)
        chosen = (rng.random(len(text_ids)) < self.probability) & ~special
        labels = np.where(chosen, text_ids, IGNORED)
        kind = rng.random(len(text_ids))
        masked = np.where(chosen & (kind < 0.8), self.tokenizer.mask_token_id, text_ids)
        masked = np.where(chosen & (kind >= 0.9), rng.integers(0, len(self.tokenizer), len(text_ids)), masked)
        return masked, labels
