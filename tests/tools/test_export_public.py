"""A training from a public folder, with hard negatives in the batch, and back to a folder that the library reads."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from mmengine.config import Config
from public_models import OPENAI_MEAN, OPENAI_STD, VOCABULARY, write_blip
from transformers import BlipForImageTextRetrieval

from clipbert_mm.apis.predictor import Predictor
from clipbert_mm.checkpoint.families import read_family
from clipbert_mm.engine.launch import build_runner


@pytest.fixture
def trained(runner_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The checkpoint of a training of some steps from a tiny BLIP's folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "blip"
    write_blip(folder)
    config = copy.deepcopy(runner_config)
    family = read_family(json.loads((folder / "config.json").read_text()), "config.json")
    spec = dict(mean=[255 * each for each in OPENAI_MEAN], std=[255 * each for each in OPENAI_STD])
    frames = dict(type="VideoTextPreprocessor", vocab_size=len(VOCABULARY) + 2, **spec)
    config.model = dict(type="ClipBert", data_preprocessor=frames, **family.model)
    config.model.update(clip_fusion=None, hard_negatives=dict(type="HardNegatives"))
    config.train_dataloader.dataset.num_negatives = 0
    for split in ("train", "test"):
        dataset = config[f"{split}_dataloader"].dataset
        for step in dataset.pipeline:
            step.update(dict(tokenizer=str(folder)) if step.type == "Tokenize" else {})
        resize = next(i for i, step in enumerate(dataset.pipeline) if step.type == "ResizePad")
        dataset.pipeline[resize] = dict(type="ResizeTo", size=[32, 32], interpolation="bicubic")
    config.load_from = str(folder)
    config.default_hooks.checkpoint = dict(type="FaultTolerantCheckpointHook", interval=1)
    build_runner(config).train()
    return next(Path(config.work_dir).glob("*.pth"))


def test_a_training_becomes_a_folder_that_the_library_reads(
    trained: Path, tool: Callable[[str], ModuleType], tmp_path: Path, capsys: pytest.CaptureFixture
):
    folder = tmp_path / "exported"
    assert tool("model_converters/export_public.py").main([str(trained), str(folder)]) < 1e-4
    assert "exported is a BlipForImageTextRetrieval of Hugging Face; its scores differ from" in capsys.readouterr().out
    library, start = (BlipForImageTextRetrieval.from_pretrained(each).eval() for each in (folder, tmp_path / "blip"))
    assert not torch.equal(library.itm_head.weight, start.itm_head.weight), "it was trained"
    ours, theirs = Predictor(str(trained)), Predictor(str(folder))
    frames = np.random.default_rng(0).integers(0, 256, (1, 2, 32, 32, 3), dtype=np.uint8)
    ids = ours.token_ids(["two people run"])
    logits = [each.clip_logits(each.encode([frames]), ids)[0, 0, 0] for each in (ours, theirs)]
    torch.testing.assert_close(*logits, atol=1e-5, rtol=1e-5)
