"""Training of WordPiece vocabularies: the one step of a data set-up that writes, called before datasets are built."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from clipbert_mm import compat
from clipbert_mm.checkpoint.metadata import KEY, metadata_of
from clipbert_mm.checkpoint.reading import read_checkpoint
from clipbert_mm.datasets.annotations import read_records
from clipbert_mm.errors import AnnotationError, quoted
from clipbert_mm.fileio import atomic_path
from clipbert_mm.log import logger
from clipbert_mm.trusted import MAX_TEXT_FILE_BYTES

VOCAB_SIZE = 30522
"""Tokens of a vocabulary, at most, where nothing else is asked for; as many as BERT's has."""
WORDS_FILE = "training_words.txt"
"""Beside the tokenizer's own files, in a vocabulary that was trained on texts, the words of these texts, one a line."""
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
EXAMPLE = '{"video": "a.mp4", "caption": "what happens in it"}'


def train_vocabularies(config: Config | Mapping[str, Any]) -> None:
    """Train the vocabularies that the dataloaders of a config need and that do not exist yet.

    A :class:`~clipbert_mm.datasets.transforms.Tokenize` whose ``train_on`` is set needs one in its folder ``tokenizer``.
    ``tools/train.py`` and ``tools/test.py`` do this first. Folders that exist are left as they are. If ``load_from`` has a
    checkpoint of ours, whose weights mean nothing with another vocabulary, its vocabulary is taken instead.

    Args:
        config: A config with ``train_dataloader``, ``val_dataloader`` or ``test_dataloader``.

    Raises:
        AnnotationError: If a file of ``train_on`` cannot be used.
        CheckpointError: If a checkpoint of ``load_from`` is damaged.
    """
    for split in ("train", "val", "test"):
        for step in _find_steps(config.get(f"{split}_dataloader")):
            folder = step["tokenizer"]
            if not os.path.isdir(folder) and not _take_vocabulary(config.get("load_from"), folder, step["train_on"]):
                train_vocabulary(read_texts(step["train_on"]), folder, step.get("vocab_size", VOCAB_SIZE))


def _take_vocabulary(load_from: str | Sequence[str] | None, folder: str, train_on: Sequence[str]) -> bool:
    """Write the vocabulary of the last of these checkpoints that has one to a folder; returns whether one has.

    Its words are those of the checkpoint's texts and of the files ``train_on``, if the checkpoint has them.
    """
    from clipbert_mm.datasets.transforms.text import load_tokenizer

    paths = [load_from] if isinstance(load_from, str) else list(load_from or ())
    for path in reversed([path for path in paths if os.path.isfile(path)]):
        checkpoint = read_checkpoint(path)
        if KEY in checkpoint and (metadata := metadata_of(checkpoint, path)).text_files:
            with atomic_path(folder, folder=True) as part:
                metadata.write_text_files(part)
                if (words := read_words(part)) is not None:
                    backend = load_tokenizer(str(part)).backend_tokenizer
                    texts = read_texts([file for file in train_on if os.path.isfile(file)])
                    own = (word for text in texts for word in split_words(backend, text))
                    write_words(part, words.union(own))
            logger.info(f"Took the vocabulary of {path} and saved it in {folder}.")
            return True
    return False


def train_vocabulary(texts: Iterable[str], folder: str | os.PathLike, vocab_size: int = VOCAB_SIZE) -> Path:
    """Train an uncased WordPiece vocabulary on texts and save it as a Hugging Face tokenizer folder.

    The same texts in the same order make the same files. The folder appears whole or not at all; a folder
    that exists, or that another process finishes first, is kept.

    Args:
        texts: The texts.
        folder: The folder to write.
        vocab_size: Tokens of the vocabulary, at most.

    Returns:
        The folder.
    """
    from tokenizers import BertWordPieceTokenizer

    folder = Path(folder)
    if folder.is_dir():
        return folder
    texts = list(texts)
    trained = BertWordPieceTokenizer(lowercase=True)
    # The trainer meets words in an order of chance. Letters within words are given to it in order, with BERT's own tokens, so
    # that the same texts always make the same vocabulary.
    normalize = trained.normalizer.normalize_str
    words = {word for text in texts for word, _ in trained.pre_tokenizer.pre_tokenize_str(normalize(text))}
    first_tokens = [*SPECIAL_TOKENS, *sorted({f"##{letter}" for word in words for letter in word[1:]})]
    trained.train_from_iterator(
        texts, vocab_size=vocab_size, min_frequency=1, show_progress=False, special_tokens=first_tokens
    )
    try:
        with atomic_path(folder, folder=True) as part:
            trained.save_model(str(part))
            tokenizer = compat.bert_tokenizer(str(part / "vocab.txt"))
            (part / "vocab.txt").unlink()  # tokenizer.json holds the words, too
            tokenizer.save_pretrained(part)
            write_words(part, (word for word in words if any(map(str.isalnum, word))))
    except OSError:
        if not folder.is_dir():
            raise
    logger.info(f"Trained a vocabulary of {trained.get_vocab_size()} tokens and saved it in {folder}.")
    return folder


def split_words(backend: Any, text: str) -> list[str]:  # noqa: ANN401
    """Return the words of a text, without punctuation, as a tokenizer spells them before it cuts them into tokens.

    Args:
        backend: A tokenizer of the package tokenizers.
        text: The text.
    """
    text = text if backend.normalizer is None else backend.normalizer.normalize_str(text)
    parts = [(text, None)] if backend.pre_tokenizer is None else backend.pre_tokenizer.pre_tokenize_str(text)
    return [part for part, _ in parts if any(map(str.isalnum, part))]


def read_words(folder: str | os.PathLike) -> frozenset[str] | None:
    """Return the words of the texts that a vocabulary was trained on; None if its folder does not tell them."""
    path = os.path.join(folder, WORDS_FILE)
    if not os.path.isfile(path) or os.path.getsize(path) > MAX_TEXT_FILE_BYTES:
        return None
    with open(path, encoding="utf-8", errors="replace") as file:
        return frozenset(file.read().split("\n"))


def write_words(folder: Path, words: Iterable[str]) -> None:
    """Write the words of the texts that a vocabulary was trained on into its folder."""
    with open(folder / WORDS_FILE, "w", encoding="utf-8", newline="\n") as file:
        file.write("\n".join(sorted(words)))


def read_texts(paths: Sequence[str]) -> Iterator[str]:
    """Read the captions, questions and answer options of JSON-lines annotation files.

    Args:
        paths: The files.

    Yields:
        The texts, in the order of the files.

    Raises:
        AnnotationError: If a file cannot be used, or a line has neither a caption nor a question nor options.
    """
    for path in paths:
        for record in read_records(path, {}, EXAMPLE):
            texts = [record[key] for key in ("caption", "question") if isinstance(record.get(key), str)]
            if isinstance(options := record.get("options"), list):
                texts += [option for option in options if isinstance(option, str)]
            if not texts:
                raise AnnotationError(
                    f"{path}: a vocabulary is trained on lines with a caption or a question, got a line with "
                    f"{quoted(sorted(record))}."
                )
            yield from texts


def _find_steps(config: object) -> Iterator[Mapping[str, Any]]:
    """Find the configs of transforms with a vocabulary to train, at any depth of a dataloader's config."""
    if isinstance(config, Mapping):
        if config.get("train_on") and "tokenizer" in config:
            yield config
        config = list(config.values())
    if isinstance(config, (list, tuple)):
        for each in config:
            yield from _find_steps(each)
