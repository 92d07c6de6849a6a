"""Vocabularies: trained by a step of their own, on what a config names, and never by building it."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from clipbert_mm.datasets import train_vocabularies, train_vocabulary
from clipbert_mm.datasets.transforms import MaskTokens, Tokenize
from clipbert_mm.engine.config import load_config
from clipbert_mm.engine.launch import build_runner
from clipbert_mm.errors import AnnotationError, OptionError
from clipbert_mm.registry import MODELS

CONFIGS = ("shapes/clipbert_tiny_1xb16-2x2-4e_shapes-retrieval", "shapes/clipbert_tiny_1xb32-4e_shapes-pretrain")


def write_lines(path: Path, *records: dict[str, Any]) -> str:
    """Write a JSON-lines file."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def config_of(**step: Any) -> dict[str, Any]:
    """A config of datasets in a dataset, as MixedDataset has them, with one step that tokenizes."""
    dataset = dict(pipeline=[dict(type="OpenVideo"), dict(type="Tokenize", max_length=9, **step)])
    return dict(test_dataloader=dict(dataset=dict(type="MixedDataset", datasets=[dataset])))


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of change of everything below a folder."""
    return {
        os.path.relpath(path, folder): (os.lstat(path).st_ino, os.lstat(path).st_mtime_ns)
        for path in [folder, *folder.rglob("*")]
    }


@pytest.mark.parametrize("name", CONFIGS)
def test_building_a_config_writes_nothing(
    name: str, root: Path, own_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for variable in ("HOME", "TMPDIR", "HF_HOME"):
        monkeypatch.setenv(variable, str(tmp_path))
    monkeypatch.setenv("SHAPES_ROOT", str(own_world))
    monkeypatch.chdir(tmp_path)
    config = load_config(str(root / "configs" / f"{name}.py"))

    def build() -> None:
        MODELS.build(config.model)
        for split in ("train", "test"):
            loader = config[f"{split}_dataloader"]
            next(iter(Runner.build_dataloader({**loader, "num_workers": 0, "batch_size": 2}, seed=0)))

    fresh = snapshot(tmp_path)
    with pytest.raises(
        OptionError, match=r"no tokenizer at '.*world/tokenizer'.*call clipbert_mm\.datasets\.train_vocab"
    ):
        build()
    assert snapshot(tmp_path) == fresh
    train_vocabularies(config)
    trained = snapshot(tmp_path)
    assert {path for path in trained.keys() - fresh.keys() if "tokenizer/" not in path} == {"world/tokenizer"}
    build()
    assert snapshot(tmp_path) == trained


def test_build_runner_trains_what_is_missing(runner_config: Config, own_world: Path, tokenizer: str):
    folder = own_world / "tokenizer"
    for split in ("train", "test"):
        step = next(step for step in runner_config[f"{split}_dataloader"].dataset.pipeline if step.type == "Tokenize")
        files = [str(own_world / name) for name in ("pretrain.jsonl", "train.jsonl")]
        step.update(tokenizer=str(folder), train_on=files, vocab_size=200)
    runner = build_runner(runner_config)
    assert torch.isfinite(next(iter(runner.train_dataloader))["inputs"]["frames"].float()).all()
    same = {path.name: path.read_bytes() for path in Path(tokenizer).iterdir()}
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == same, "as train_vocabulary makes it"


def test_a_vocabulary_is_trained_once_and_kept(tmp_path: Path):
    texts = (dict(video="a.mp4", caption=text) for text in ("two cats", "two dogs"))
    path, folder = write_lines(tmp_path / "train.jsonl", *texts), tmp_path / "deep" / "tokenizer"
    train_vocabularies(config_of(tokenizer=str(folder), train_on=[path], vocab_size=60))
    step = Tokenize(tokenizer=str(folder), max_length=9)
    ids = step.transform(dict(texts=["two dogs"]))["text_ids"][0]
    assert step.tokenizer.decode(ids) == "[CLS] two dogs [SEP]"
    assert [path.name for path in folder.parent.iterdir()] == ["tokenizer"], "no scratch folder is left"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    write_lines(tmp_path / "train.jsonl", dict(video="a.mp4", caption="other words"))
    train_vocabularies(config_of(tokenizer=str(folder), train_on=[path]))
    assert train_vocabulary(["other words"], folder) == folder
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_the_same_texts_make_the_same_files(captions: list[str], tmp_path: Path):
    # The trainer of the tokenizers library by itself makes another vocabulary each time.
    folders = [train_vocabulary(captions, tmp_path / str(i), 200) for i in range(3)]
    first, *others = [{path.name: path.read_bytes() for path in folder.iterdir()} for folder in folders]
    assert others == [first, first]


def test_questions_and_options_are_trained_on_too(tmp_path: Path):
    path = write_lines(
        tmp_path / "a.jsonl",
        dict(video="a.mp4", question="what jumps", answer="zebra"),
        dict(video="a.mp4", question="who", options=["giraffe", "lion"], answer=0),
        dict(video="a.mp4", caption="two cats"),
    )
    train_vocabularies(config_of(tokenizer=str(tmp_path / "words"), train_on=[path], vocab_size=200))
    step = Tokenize(tokenizer=str(tmp_path / "words"), max_length=9)
    assert step.unknown_words(["what jumps who giraffe lion two cats"]) == []
    assert [len(ids) for ids in step.tokens_of(["jumps", "giraffe", "cats"])] == [1, 1, 1]


def test_files_without_texts_are_errors(tmp_path: Path):
    path = write_lines(tmp_path / "b.jsonl", dict(video="a.mp4", text="a"))
    with pytest.raises(
        AnnotationError, match=r"lines with a caption or a question, got a line with \['media', 'text'\]"
    ):
        train_vocabularies(config_of(tokenizer=str(tmp_path / "none"), train_on=[path]))
    with pytest.raises(AnnotationError, match=r"no annotation file .*none\.jsonl"):
        train_vocabularies(config_of(tokenizer=str(tmp_path / "none"), train_on=[str(tmp_path / "none.jsonl")]))
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    "step", [lambda path: Tokenize(tokenizer=path, max_length=9), lambda path: MaskTokens(tokenizer=path)]
)
def test_a_missing_tokenizer_is_an_error_that_says_how_to_make_one(step: Callable[[str], Any], tmp_path: Path):
    message = rf"There is no tokenizer at '{tmp_path}/none'.*set `train_on` of Tokenize.*tools/train\.py then trains it"
    with pytest.raises(OptionError, match=message):
        step(str(tmp_path / "none"))


def test_the_old_name_warns(tmp_path: Path):
    from clipbert_mm.datasets.transforms import text

    with pytest.warns(
        FutureWarning, match=r"train_wordpiece is deprecated .* clipbert_mm\.datasets\.vocabulary\.train_"
    ):
        assert text.train_wordpiece is train_vocabulary


def test_words_that_no_text_of_the_vocabulary_had_are_named(tmp_path: Path):
    texts = ["A red circle, then a blue star.", "a red star moving up and down"]
    train_vocabulary(texts, tmp_path / "words", vocab_size=60)  # less than there are words: some are spelt in letters
    step = Tokenize(tokenizer=str(tmp_path / "words"), max_length=20)
    assert max(map(len, step.tokens_of(["moving"]))) > 1
    assert step.new_words(["Moving star, a RED circle!", "down"]) == []
    assert step.new_words(["a teen cuts a red star", "teen"]) == ["teen", "cuts"]
    assert step.unknown_words(["a teen"]) == []  # its letters are known
    (tmp_path / "words" / "training_words.txt").unlink()  # of an earlier release
    assert Tokenize(tokenizer=str(tmp_path / "words"), max_length=20).new_words(["a teen"]) == []
