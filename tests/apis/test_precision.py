"""A model in half precision: the scores to its rounding, and the same index."""

from pathlib import Path

import numpy as np
import pytest
import torch
from public_models import write_blip

from clipbert_mm.__main__ import build_parser
from clipbert_mm.apis.opening import find_precision
from clipbert_mm.apis.predictor import Predictor
from clipbert_mm.errors import OptionError

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


def test_bfloat16_gives_the_scores_to_its_rounding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_blip(tmp_path)
    plain, half = (Predictor(str(tmp_path), device="cpu", precision=precision) for precision in (None, "bf16"))
    assert (plain.precision, half.precision) == ("fp32", "bf16")
    assert plain.identity == half.identity, "an index is for both"
    frames = [np.random.default_rng(i).integers(0, 256, (2, 1, 32, 32, 3), dtype=np.uint8) for i in range(3)]
    token_ids = plain.token_ids(["a red circle", "two people talk"])
    tokens, rounded = plain.encode(frames), half.encode(frames)
    logits, half_logits = plain.clip_logits(tokens, token_ids), half.clip_logits(rounded, token_ids)
    assert tokens.dtype == rounded.dtype == half_logits.dtype == torch.float32
    for exact, found in ((tokens, rounded), (logits, half_logits)):
        error = (found - exact).abs().max() / exact.abs().max()
        assert 0 < error < 0.05, "it is computed in another precision, and nearly the same"
    both, half_both = (each.encode_for_index(frames) for each in (plain, half))
    assert torch.equal(half_both["clips"], rounded)
    torch.testing.assert_close(half_both["vectors"], both["vectors"], rtol=0.05, atol=0.05)
    assert {parameter.dtype for parameter in half.model.parameters()} == {torch.float32}, "only copies are rounded"


@pytest.mark.parametrize(
    ("precision", "device", "native", "expected"),
    [
        (None, CPU, False, "fp32"),
        ("bf16", CPU, False, "bf16"),
        (None, GPU, True, "bf16"),
        (None, GPU, False, "fp32"),
        ("fp16", GPU, False, "fp16"),
        ("fp32", GPU, True, "fp32"),
    ],
)
def test_the_default_is_what_the_device_has(
    precision: str | None, device: torch.device, native: bool, expected: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native)
    assert find_precision(precision, device, is_public=True) == expected
    assert find_precision(precision, device, is_public=False) == (precision or "fp32")


@pytest.mark.parametrize(
    ("precision", "device", "expected"),
    [
        ("fp16", CPU, "on cpu is fp32 or bf16; got 'fp16'"),
        ("bf16", GPU, "on cuda:0 is fp32 or fp16; got 'bf16'"),
        ("half", CPU, "on cpu is fp32 or bf16; got 'half'"),
    ],
)
def test_what_the_device_lacks_is_refused(
    precision: str, device: torch.device, expected: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    with pytest.raises(OptionError, match=expected):
        find_precision(precision, device, is_public=True)


def test_the_command_takes_a_precision():
    for words in (["index", "a"], ["search", "a"], ["serve"], ["rank", "v", "a"], ["ask", "v", "q", "--model", "m"]):
        assert build_parser().parse_args(words).precision is None
        assert build_parser().parse_args([*words, "--precision", "bf16"]).precision == "bf16"
