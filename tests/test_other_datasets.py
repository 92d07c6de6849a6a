"""The configs of data sets that the paper does not use, tried on small files in the publishers' formats, converted."""

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from mmengine.config import Config
from peer_files import PEERS
from shrinking import take_a_step, train_a_step

from clipbert_mm.engine.config import load_config
from clipbert_mm.evaluation.answer_similarity import NltkWords

CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "other_datasets"
PATHS = sorted(CONFIGS.glob("*.py"))


def name_of(path: Path) -> str:
    return path.stem.rpartition("_")[2]


def test_each_data_set_has_a_config():
    assert sorted(map(name_of, PATHS)) == sorted(PEERS)


def link_media(annotations: Path, media: Path, sources: Iterator[Path]) -> None:
    """Let each file that annotations name be one of these."""
    for path in annotations.glob("*.jsonl"):
        for line in path.read_text().splitlines():
            record = json.loads(line)
            target = media / record.get("video", record.get("image"))
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                target.symlink_to(next(sources))


@pytest.fixture
def read(
    world: Path,
    captions: list[str],
    tokenizer: str,
    tool: Callable[[str], ModuleType],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[Path], Config]:
    """Convert the files of a data set whose texts are those of the small world, and read its config."""

    def load(path: Path) -> Config:
        peer, root = PEERS[name_of(path)], tmp_path / "data"
        converter = tool(f"dataset_converters/{peer.converter}.py")
        if peer.converter == "ssv2":
            converter.VIDEOS_A_TEMPLATE = {"val": 1, "test": 2}  # of three of each template
        (tmp_path / "published").mkdir()
        converter.main([*peer.write(tmp_path / "published", captions), str(root)])
        files = sorted((world / peer.media).iterdir())
        link_media(root / "annotations", root / peer.media, itertools.cycle(files))
        (root / "stopwords.txt").write_text("the\n")
        monkeypatch.setenv(f"CLIPBERT_{peer.variable}", str(root))
        monkeypatch.setenv("CLIPBERT_BERT", tokenizer)
        config = load_config(str(path))
        if "num_answers" in config.model.head:
            (answers,) = (root / "annotations").glob("*_answers.json")
            config.model.head.num_answers = len(json.loads(answers.read_text()))
        return config

    return load


@pytest.mark.parametrize("path", PATHS, ids=name_of)
def test_a_config_takes_a_training_and_a_test_step(path: Path, read: Callable, monkeypatch: pytest.MonkeyPatch):
    # NLTK has tests of its own.
    monkeypatch.setattr(NltkWords, "__init__", lambda self, *options: None)
    monkeypatch.setattr(NltkWords, "words", lambda self, text: text.split())
    monkeypatch.setattr(NltkWords, "similarity", lambda self, word, other: float(word == other), raising=False)
    config = read(path)
    model, _, moved = train_a_step(config)
    needless = {"head.classifier.2.bias"} if config.model.head.type == "MultipleChoiceHead" else set()
    assert {name for name, value in model.named_parameters() if value.requires_grad} - moved <= needless
    model.eval()
    for split in ("val", "test"):
        take_a_step(model, config[f"{split}_dataloader"], config[f"{split}_evaluator"])
