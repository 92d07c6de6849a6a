"""ViLT by folder: frames that are not square are scored as by the library's processor, padding mask and model."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from public_models import write_vilt
from transformers import (
    AutoTokenizer,
    ViltForImageAndTextRetrieval,
    ViltForMaskedLM,
    ViltForQuestionAnswering,
    ViltImageProcessor,
)

from clipbert_mm.apis.predictor import Predictor
from clipbert_mm.checkpoint import CheckpointError

ANSWERS = ["one", "two", "red", "blue"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize("shape", [(60, 100), (100, 60), (64, 64)], ids=str)
@pytest.mark.parametrize(
    ("kind", "answers"), [(ViltForImageAndTextRetrieval, None), (ViltForQuestionAnswering, ANSWERS)]
)
def test_a_folder_gives_the_library_s_scores(tmp_path: Path, kind: Any, answers: Any, shape: tuple[int, int]) -> None:
    folder = tmp_path / "vilt"
    library = write_vilt(folder, kind, **({} if answers is None else dict(id2label=dict(enumerate(answers)))))
    predictor = Predictor(str(folder))
    assert predictor.answers == answers
    frame = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    resize = next(step for step in predictor.media_steps if type(step).__name__ == "ResizeTo")
    media = resize(dict(frames=frame[None, None]))
    tokens = predictor.encode([media["frames"]], [media["content_shape"]])
    logits = predictor.clip_logits(tokens, predictor.token_ids(["a red circle"]))[0, 0, 0]
    pixels = ViltImageProcessor.from_pretrained(folder)(frame, return_tensors="pt")
    ids = torch.tensor([AutoTokenizer.from_pretrained(folder)("a red circle").input_ids])
    with torch.no_grad():
        expected = library(input_ids=ids, **pixels).logits[0]
    torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-2)  # one grey level


def test_masked_words_alone_score_nothing(tmp_path: Path) -> None:
    write_vilt(tmp_path, ViltForMaskedLM)
    with pytest.raises(CheckpointError, match=r"lacks head\.classifier"):
        Predictor(str(tmp_path))
