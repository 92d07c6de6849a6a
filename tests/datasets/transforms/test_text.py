"""Tokens and masks."""

from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from clipbert_mm.datasets.transforms import MaskTokens, Tokenize
from clipbert_mm.structures import IGNORED

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "star", "##s", "circle", "then", ","]


@pytest.fixture
def vocab_only(tmp_path: Path) -> str:
    """A tokenizer folder that holds a vocab.txt and nothing else, as BERT's first releases do."""
    folder = tmp_path / "bert"
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    return str(folder)


def ids_of(tokenizer: str, texts: list[str], max_length: int = 20) -> list[list[int]]:
    """Tokenize."""
    results = Tokenize(tokenizer=tokenizer, max_length=max_length).transform(dict(texts=texts))
    return [ids.tolist() for ids in results["text_ids"]]


def test_a_folder_with_only_a_vocabulary_knows_its_words(vocab_only: str):
    # transformers 5 maps every word to [UNK] here if it is asked in the obvious way.
    assert ids_of(vocab_only, ["a red star", "A Red, then stars", "zebra"]) == [
        [2, 5, 6, 7, 3],
        [2, 5, 6, 11, 10, 7, 8, 3],
        [2, 1, 3],
    ]


def test_long_texts_are_cut_and_still_end_with_sep(vocab_only: str):
    assert ids_of(vocab_only, ["a red star a red star", "a"], max_length=4) == [[2, 5, 6, 3], [2, 5, 3]]


def test_a_trained_vocabulary_reads_its_texts_back(tokenizer: str, captions: list[str]):
    found = ids_of(tokenizer, captions, max_length=64)
    reader = AutoTokenizer.from_pretrained(tokenizer)
    assert len(reader) <= 200
    for text, ids in zip(captions, found, strict=True):
        assert (ids[0], ids[-1]) == (reader.cls_token_id, reader.sep_token_id)
        assert reader.unk_token_id not in ids
        assert reader.decode(ids[1:-1]).replace(" ,", ",") == text


def test_a_saved_folder_and_its_vocabulary_alone_agree(tokenizer: str, captions: list[str], tmp_path: Path):
    words = AutoTokenizer.from_pretrained(tokenizer).get_vocab()
    (tmp_path / "vocab.txt").write_text("\n".join(sorted(words, key=words.get)) + "\n")
    assert ids_of(str(tmp_path), captions[:20]) == ids_of(tokenizer, captions[:20])


def masked_many_times(tokenizer: str, **options) -> tuple[np.ndarray, np.ndarray, np.ndarray, MaskTokens]:
    """Mask one text of 60 tokens 500 times: what it was, what it became, and the labels, each (500, 60)."""
    step = MaskTokens(tokenizer=tokenizer, **options)
    rng = np.random.default_rng(0)
    vocabulary = [i for i in range(len(step.tokenizer)) if i not in step.tokenizer.all_special_ids]
    text = np.array([step.tokenizer.cls_token_id, *rng.choice(vocabulary, 58), step.tokenizer.sep_token_id])
    results = dict(text_ids=[text] * 500, rng=rng, match_labels=np.ones(500, np.int64))
    results = step.transform(results)
    return np.array([text] * 500), np.array(results["text_ids"]), np.array(results["mlm_labels"]), step


def close(share: float, expected: float, count: int) -> bool:
    """Whether a share is within five standard deviations of what is expected."""
    return abs(share - expected) < 5 * np.sqrt(expected * (1 - expected) / count)


def test_masks_come_at_bert_s_rates(tokenizer: str):
    text, masked, labels, step = masked_many_times(tokenizer, probability=0.15)
    chosen = labels != IGNORED
    count = chosen.sum()
    words = len(step.tokenizer)
    assert close(chosen[:, 1:-1].mean(), 0.15, 500 * 58)
    assert (labels[chosen] == text[chosen]).all()
    assert (masked[~chosen] == text[~chosen]).all()
    # A token drawn at random may be [MASK], or the one that was there.
    assert close((masked[chosen] == step.tokenizer.mask_token_id).mean(), 0.8 + 0.1 / words, count)
    assert close((masked[chosen] == text[chosen]).mean(), 0.1 + 0.1 / words, count)
    drawn = masked[chosen & (masked != text) & (masked != step.tokenizer.mask_token_id)]
    assert close(len(drawn) / count, 0.1 * (1 - 2 / words), count)
    assert len(set(drawn.tolist())) > 0.7 * words


def test_special_tokens_are_never_masked(tokenizer: str):
    text, masked, labels, _ = masked_many_times(tokenizer, probability=1.0)
    assert (masked[:, [0, -1]] == text[:, [0, -1]]).all()
    assert (labels[:, [0, -1]] == IGNORED).all()
    assert (labels[:, 1:-1] == text[:, 1:-1]).all()


@pytest.mark.parametrize("predict_unmatched", [True, False])
def test_texts_that_do_not_match_are_masked_as_often(tokenizer: str, predict_unmatched: bool):
    # Else [MASK] alone would tell the label of image-text matching.
    step = MaskTokens(tokenizer=tokenizer, probability=0.3, predict_unmatched=predict_unmatched)
    text = np.array([step.tokenizer.cls_token_id, *[20] * 20, step.tokenizer.sep_token_id])
    matches = np.arange(600) % 2
    results = dict(text_ids=[text] * 600, rng=np.random.default_rng(0), match_labels=matches)
    results = step.transform(results)
    found = np.array(results["text_ids"]) == step.tokenizer.mask_token_id
    predicted = np.array(results["mlm_labels"]) != IGNORED
    for label in (0, 1):
        # A token is [MASK] in 0.3 x 0.8 of cases, and now and then by a random draw.
        assert close(found[matches == label][:, 1:-1].mean(), 0.24, 300 * 20)
    assert close(predicted[matches == 1][:, 1:-1].mean(), 0.3, 300 * 20)
    if predict_unmatched:
        assert close(predicted[matches == 0][:, 1:-1].mean(), 0.3, 300 * 20)
    else:
        assert not predicted[matches == 0].any()


def test_the_item_s_generator_decides_the_masks(tokenizer: str):
    step = MaskTokens(tokenizer=tokenizer, probability=0.3)
    text = np.arange(5, 45)
    first, again, other = (step.mask(text, np.random.default_rng(seed))[0].tolist() for seed in (1, 1, 2))
    assert first == again != other
    assert text.tolist() == list(range(5, 45)), "the item's own token ids are left alone"
