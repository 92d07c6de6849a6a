"""The page on where to start, followed: its commands train and test, from files as the publishers have them."""

import importlib.util
import json
import re
import shlex
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from mmengine.config import Config
from shrinking import shrink_model
from transformers import AutoTokenizer, BertConfig, BertModel

from clipbert_mm.registry import MODELS

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "where_to_start.md").read_text()
ADDRESSES = re.findall(r"https://[^\s`]+\.pth", PAGE)


def commands_of(section: str) -> list[list[str]]:
    """The commands of a section's first block, in words."""
    block = re.search(rf"^## {section}\n.*?```bash\n(.*?)```", PAGE, re.MULTILINE | re.DOTALL)[1]
    return [shlex.split(line) for line in block.replace("\\\n", " ").splitlines()]


def write_as_published(world: Path, folder: Path) -> None:
    """Write the small world as MSRVTT: the publisher's annotations and the test pairs, and the videos by number."""
    (folder / "data/msrvtt/videos").mkdir(parents=True)
    for name, split, first in (("train_val", "train", 0), ("test", "test", 7010)):
        records = [json.loads(line) for line in (world / f"{split}.jsonl").read_text().splitlines()]
        numbers = {video: first + i for i, video in enumerate(dict.fromkeys(record["video"] for record in records))}
        videos = [
            {"video_id": f"video{number}", "category": 9, "split": split, "id": number} for number in numbers.values()
        ]
        sentences = [
            {"video_id": f"video{numbers[record['video']]}", "sen_id": 20 * first + i, "caption": record["caption"]}
            for i, record in enumerate(records)
        ]
        (folder / f"{name}_videodatainfo.json").write_text(json.dumps({"videos": videos, "sentences": sentences}))
        for video, number in numbers.items():
            shutil.copy(world / "videos" / video, folder / f"data/msrvtt/videos/video{number}.mp4")
    pairs = [f'ret{i},msr{7010 + i},video{7010 + i},"{sentences[2 * i]["caption"]}"' for i in range(4)]
    (folder / "MSRVTT_JSFusion_test.csv").write_text("\n".join(["key,vid_key,video_id,sentence", *pairs]) + "\n")


@pytest.fixture
def small(tokenizer: str) -> dict:
    """The paper's model with few channels, layers and words."""
    model = Config.fromfile(ROOT / "configs/_base_/models/clipbert_r50_bert-base.py").model
    model.head = dict(type="MatchingHead", in_channels=768, hidden_channels=1536)
    return shrink_model(model, len(AutoTokenizer.from_pretrained(tokenizer)))


@pytest.fixture
def downloads(small: dict, tokenizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the page's address and name lead to: a ResNet-50 with torchvision's names, and a BERT that transformers wrote."""
    resnet = MODELS.build(small["backbone"]).state_dict()

    def download(address: str, path: str) -> None:
        assert address == ADDRESSES[0]
        torch.save(dict(resnet), path)

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    encoder = small["encoder"]
    sizes = BertConfig(
        vocab_size=encoder["vocab_size"],
        hidden_size=encoder["hidden_size"],
        num_hidden_layers=encoder["num_layers"],
        num_attention_heads=encoder["num_heads"],
        intermediate_size=encoder["intermediate_size"],
    )
    BertModel(sizes).save_pretrained(tmp_path / "bert-base-uncased")
    AutoTokenizer.from_pretrained(tokenizer).save_pretrained(tmp_path / "bert-base-uncased")


def smaller(small: dict, training: bool) -> list[str]:
    """Options for a step of a second: the small model, frames of 64 pixels, and 16 items per step in place of 128."""
    options = [
        f"model.{part}.{key}={value}"
        for part in ("data_preprocessor", "backbone", "projection", "encoder", "head")
        for key, value in small[part].items()
        if isinstance(value, int) and not isinstance(value, bool)
    ]
    for split in ("train", "val", "test"):
        options += [f"{split}_dataloader.num_workers=0", f"{split}_dataloader.dataset.pipeline.3.size=64"]
    options.append("test_dataloader.dataset.pipeline.1.num_clips=2")
    if training:
        options += ["train_cfg.max_epochs=1", "auto_scale_lr.base_batch_size=16", "val_dataloader.dataset.indices=3"]
    return ["--cfg-options", *options]


@pytest.mark.usefixtures("downloads")
def test_the_page_leads_from_an_empty_folder_to_a_tested_model(
    world: Path, small: dict, tool: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("CLIPBERT_BERT", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    write_as_published(world, tmp_path)
    convert, train, test = commands_of("From an empty folder to a fine-tuned model")
    run = {words[1]: tool(words[1].removeprefix("tools/")).main for words in (convert, train, test)}
    run[convert[1]](convert[2:])
    run[train[1]](train[2:] + smaller(small, training=True))
    work_dir = Path(test[-1])
    log = next(work_dir.glob("*/*.log")).read_text()
    said = "16 items per step = 1 processes x 8 items x 2 batches; 1 steps per epoch, 1 in total; learning rate 5e-05."
    assert said in log
    assert re.search(r"loaded: \d+ of the model's \d+ tensors: backbone, encoder.bert\n", log)
    assert list(work_dir.glob("best_*.pth"))
    metrics = run[test[1]](test[2:] + smaller(small, training=False))
    assert metrics["t2v/MnR"] <= 4


def addresses_in(paths: Iterable[Path]) -> set[str]:
    return {address for path in paths for address in re.findall(r"https://[^\s}\"]+\.pth", path.read_text())}


def test_the_configs_of_table_5_start_from_the_page_s_addresses():
    named = addresses_in(set(ROOT.glob("configs/**/*.py")) - set(ROOT.glob("configs/video_encoders/*.py")))
    assert len(named) == 3
    assert named <= set(ADDRESSES)


def test_video_encoders_start_from_addresses_that_mmaction2_publishes():
    if (spec := importlib.util.find_spec("mmaction")) is None:
        pytest.skip("MMAction2 is installed on x86-64 alone")
    (package,) = spec.submodule_search_locations
    published = addresses_in(Path(package).glob(".mim/configs/**/metafile.yml"))
    named = addresses_in(ROOT.glob("configs/video_encoders/*.py"))
    assert len(named) == 3
    assert named <= published


def test_a_start_that_is_not_there_names_the_others(
    tool: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CLIPBERT_WEIGHTS", raising=False)
    config = str(ROOT / "configs/retrieval/clipbert_r50_8xb16-4x1-20e_msrvtt.py")
    message = (
        r"There is no checkpoint .*epoch_40\.pth, which training starts from\. Run the training that writes it, or name"
    )
    with pytest.raises(ValueError, match=message):
        tool("train.py").main([config, "--no-validate"])
