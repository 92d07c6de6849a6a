"""Tokenizers of CLIP, SigLIP and SigLIP2: their ids, what is done to texts before, and what each has around a text."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from clipbert_mm.apis.predictor import Predictor
from clipbert_mm.datasets.text_check import WordTokens
from clipbert_mm.datasets.transforms import MaskTokens, Tokenize
from clipbert_mm.datasets.transforms.text import get_tokenizer
from clipbert_mm.errors import BackendError, CheckpointError, OptionError

TEXTS = ["a red star", "A Red, then  STARS!", "it's 3.5", "日本 a", "red\tstar\n"]
CLIP = dict(read_token="last", max_length=77)
SIGLIP = dict(read_token="last", lowercase=True, strip_punctuation=True, max_length=64)
SIGLIP2 = dict(read_token="last", lowercase=True, max_length=64)


@pytest.fixture
def clip(tmp_path: Path) -> str:
    """CLIP's two files, of a few words."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = ["r e", "re d</w>", "s t", "a r</w>", "st ar</w>"]
    words = [*letters, *(f"{each}</w>" for each in letters), *(pair.replace(" ", "") for pair in merges)]
    vocabulary = {word: i for i, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    (tmp_path / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(dict(tokenizer_class="CLIPTokenizer")))
    return str(tmp_path)


@pytest.fixture
def siglip(tmp_path: Path) -> str:
    """SigLIP's vocabulary as tokenizers saves it."""
    words = ["<pad>", "</s>", "<unk>", "▁", "▁a", "▁red", "▁star", "▁then", "s", "▁its", "▁35", *"adehnrt"]
    made = Tokenizer(models.Unigram([(word, -float(i)) for i, word in enumerate(words)], unk_id=2))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    made.save(str(tmp_path / "tokenizer.json"))
    settings = dict(tokenizer_class="SiglipTokenizer", eos_token="</s>", pad_token="</s>", unk_token="<unk>")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    (tmp_path / "config.json").write_text(json.dumps(dict(model_type="siglip")))
    return str(tmp_path)


@pytest.fixture
def siglip2(tmp_path: Path) -> str:
    """The vocabulary of a SigLIP2 of fixed resolution, which is Gemma's."""
    words = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{i:02X}>" for i in range(256)), "▁", *"adehnrst,"]
    merges = [("r", "e"), ("re", "d"), ("s", "t"), ("st", "a"), ("sta", "r"), ("▁", "red"), ("▁", "star")]
    vocabulary = {word: i for i, word in enumerate([*words, *("".join(pair) for pair in merges)])}
    made = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    made.normalizer = normalizers.Replace(" ", "▁")
    made.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    made.post_processor = processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
    made.save(str(tmp_path / "tokenizer.json"))
    names = {f"{name}_token": f"<{name}>" for name in ("pad", "eos", "bos", "unk", "mask")}
    settings = dict(tokenizer_class="GemmaTokenizer", add_bos_token=False, add_eos_token=True, **names)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    (tmp_path / "config.json").write_text(json.dumps(dict(model_type="siglip")))
    return str(tmp_path)


def test_clip_s_ids(clip: str):
    step = Tokenize(tokenizer=clip, **CLIP)
    theirs = transformers.CLIPTokenizerFast.from_pretrained(clip)
    assert step.encode(TEXTS) == theirs(TEXTS)["input_ids"]
    (ids,) = step.encode(["A red  star"])
    words = ["<|startoftext|>", "a</w>", "red</w>", "star</w>", "<|endoftext|>"]
    assert step.tokenizer.convert_ids_to_tokens(ids) == words
    assert step.num_special_tokens == 2
    cut = step.transform(dict(texts=["a red star " * 40]))["text_ids"][0]
    assert (len(cut), cut[-1]) == (77, step.tokenizer.eos_token_id)
    assert step.unknown_words(["a zebra 日本"]) == []  # whose bytes it knows


def test_the_model_names_the_class_where_the_tokenizer_does_not(clip: str):
    ids = Tokenize(tokenizer=clip, **CLIP).encode(TEXTS)
    get_tokenizer.cache_clear()
    (Path(clip) / "tokenizer_config.json").write_text("{}")
    (Path(clip) / "config.json").write_text(json.dumps(dict(model_type="clip")))
    assert Tokenize(tokenizer=clip, **CLIP).encode(TEXTS) == ids
    get_tokenizer.cache_clear()
    (Path(clip) / "config.json").write_text(json.dumps(dict(model_type="llama")))
    with pytest.raises(CheckpointError, match="names the model type 'llama'"):
        Tokenize(tokenizer=clip, **CLIP)


def test_siglip_s_ids_are_those_of_the_cleaned_text(siglip: str):
    step = Tokenize(tokenizer=siglip, **SIGLIP)
    cleaned = ["a red star", "a red then stars", "its 35", "日本 a", "red star"]
    assert [step.clean(text) for text in TEXTS] == cleaned
    own = Tokenizer.from_file(f"{siglip}/tokenizer.json")
    assert step.encode(TEXTS) == [own.encode(text).ids for text in cleaned]
    assert step.encode(["A red, STAR!"]) == [[4, 5, 6, 1]]
    assert step.num_special_tokens == 1
    assert step.unknown_words(["a red 日本!"]) == ["日本!"]
    cut = step.transform(dict(texts=["a red star " * 40]))["text_ids"][0]
    assert (len(cut), cut[-1]) == (64, 1)


def test_siglip2_s_ids_are_in_lower_case(siglip2: str):
    step = Tokenize(tokenizer=siglip2, **SIGLIP2)
    own = Tokenizer.from_file(f"{siglip2}/tokenizer.json")
    assert step.encode(TEXTS) == [own.encode(text.lower()).ids for text in TEXTS]
    assert step.tokenizer.convert_ids_to_tokens(step.encode(["A red, STAR"])[0]) == ["a", "▁red", ",", "▁star", "<eos>"]
    if hasattr(transformers, "Siglip2Tokenizer"):  # since 5.0
        theirs = transformers.Siglip2Tokenizer.from_pretrained(siglip2)
        assert step.encode(TEXTS) == theirs(TEXTS)["input_ids"]


def test_siglip_s_own_vocabulary_file_is_read_as_the_library_reads_it(tmp_path: Path, captions: list[str]):
    sentencepiece = pytest.importorskip("sentencepiece")
    (tmp_path / "texts.txt").write_text("\n".join(captions))
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "texts.txt"), model_prefix=str(tmp_path / "spiece"), vocab_size=60, hard_vocab_limit=False,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2,
    )  # fmt: skip
    theirs = transformers.SiglipTokenizer(str(tmp_path / "spiece.model"))
    theirs.save_pretrained(tmp_path / "model")
    step = Tokenize(tokenizer=str(tmp_path / "model"), **SIGLIP)
    texts = [*captions[:20], *TEXTS]
    assert step.encode(texts) == [theirs(text)["input_ids"] for text in texts]
    step.tokenizer.save_pretrained(tmp_path / "saved")
    assert not list((tmp_path / "saved").glob("*.model"))
    assert Tokenize(tokenizer=str(tmp_path / "saved"), **SIGLIP).encode(texts) == step.encode(texts)


def test_siglip_s_own_vocabulary_file_needs_a_package(siglip: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("clipbert_mm.compat._is_installed", lambda name: False)
    (Path(siglip) / "tokenizer.json").rename(Path(siglip) / "spiece.model")
    with pytest.raises(
        BackendError, match=rf"{siglip} has a spiece.model and no tokenizer\.json.*pip install sentencepiece"
    ):
        Tokenize(tokenizer=siglip, **SIGLIP)


@pytest.mark.parametrize("family", ["clip", "siglip", "siglip2"])
def test_a_saved_tokenizer_is_the_same(family: str, tmp_path: Path, request: pytest.FixtureRequest):
    options = dict(clip=CLIP, siglip=SIGLIP, siglip2=SIGLIP2)[family]
    step = Tokenize(tokenizer=request.getfixturevalue(family), **options)
    step.tokenizer.save_pretrained(tmp_path / "saved")
    assert Tokenize(tokenizer=str(tmp_path / "saved"), **options).encode(TEXTS) == step.encode(TEXTS)


def test_a_text_is_empty_if_only_special_tokens_are_left(siglip: str):
    predictor = SimpleNamespace(tokenize=Tokenize(tokenizer=siglip, **SIGLIP))
    assert Predictor.token_ids(predictor, ["s"])[0].tolist() == [3, 8, 1]
    for text in ("", " ", "?!"):
        with pytest.raises(OptionError, match="The text is empty"):
            Predictor.token_ids(predictor, [text])
    with pytest.raises(OptionError, match="has 81 tokens, and the model takes at most 64"):
        Predictor.token_ids(predictor, ["a " * 80])


def test_the_check_of_texts_counts_special_tokens(siglip: str):
    words = WordTokens(Tokenize(tokenizer=siglip, **SIGLIP | dict(max_length=4)), ["a red star", "a red star then"])
    assert [words.is_cut(text) for text in ("a red star", "a red star then")] == [False, True]


@pytest.mark.parametrize("family", ["clip", "siglip", "siglip2"])
def test_the_first_token_is_not_read_of_those(family: str, request: pytest.FixtureRequest):
    folder = request.getfixturevalue(family)
    with pytest.raises(OptionError, match=r"The model expects \[CLS\] before each text.*Use a tokenizer like BERT's"):
        Tokenize(tokenizer=folder, max_length=64)
    with pytest.raises(OptionError, match=r"The model expects \[CLS\]"):
        MaskTokens(tokenizer=folder)


def test_the_last_token_is_not_read_of_bert_s(tokenizer: str, siglip: str):
    with pytest.raises(
        OptionError, match=r"expects an end-of-text token after each text.*the text 'a' into .*'\[SEP\]'"
    ):
        Tokenize(tokenizer=tokenizer, max_length=64, read_token="last")
    with pytest.raises(OptionError, match="expects read_token first or last, got 'middle'"):
        Tokenize(tokenizer=tokenizer, max_length=64, read_token="middle")
    content = json.loads((Path(siglip) / "tokenizer.json").read_text())
    (Path(siglip) / "tokenizer.json").write_text(json.dumps(content | dict(post_processor=None)))
    with pytest.raises(OptionError, match=r"turns the text 'a' into \['▁a'\]"):
        Tokenize(tokenizer=siglip, **SIGLIP)


@pytest.mark.parametrize(
    "write", [lambda folder: None, lambda folder: (folder / "tokenizer_config.json").write_text("{}")]
)
def test_a_folder_without_a_vocabulary_is_refused(tmp_path: Path, write: Callable):
    write(tmp_path)
    with pytest.raises(
        CheckpointError, match=rf"The folder {tmp_path} has no tokenizer\.json or vocab\.txt or vocab\.json"
    ):
        Tokenize(tokenizer=str(tmp_path), max_length=64)


def test_other_classes_and_code_are_refused(siglip: str):
    path = Path(siglip) / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    for change, sentence in (
        (dict(tokenizer_class="LlamaTokenizer"), "names the class 'LlamaTokenizer'. Expected one of .*SiglipTokenizer"),
        (dict(auto_map={"AutoTokenizer": "a.B"}), r"names code of its own \(auto_map\)"),
    ):
        path.write_text(json.dumps(settings | change))
        with pytest.raises(CheckpointError, match=sentence):
            Tokenize(tokenizer=siglip, **SIGLIP)
