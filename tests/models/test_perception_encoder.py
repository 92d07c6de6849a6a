"""The towers of PE-Core against open_clip's and timm's: vectors, texts of several lengths, gradients, errors."""

import importlib.util

import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from clipbert_mm.errors import BackendError, OptionError
from clipbert_mm.registry import MODELS

pytest.importorskip("open_clip", reason="PE-Core comes through open_clip: pip install 'clipbert_mm[open-clip]'")

VISION = dict(
    image_size=48, patch_size=8, hidden_size=64, num_layers=2, num_heads=4, intermediate_size=96, vector_size=16
)
TEXT = dict(
    vocab_size=99,
    hidden_size=32,
    num_layers=2,
    num_heads=4,
    intermediate_size=64,
    max_text_length=12,
    vector_size=16,
)


def build(kind: str, **config: object) -> nn.Module:
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope("clipbert_mm"):
        model = MODELS.build(dict(type=kind, **config))
    with torch.no_grad():
        for value in model.parameters():  # timm's last layer is all but zero
            value.normal_(std=0.3 if value.ndim > 1 else 0.1)
    return model.eval()


@pytest.mark.parametrize(
    ("name", "class_token"), [("vit_pe_core_base_patch16_224", True), ("vit_pe_core_gigantic_patch14_448", False)]
)
def test_frames_as_by_timm_s_own_tower(name: str, class_token: bool) -> None:
    """The library's own builder of the named tower, in smaller sizes, decides all options that are not sizes."""
    import timm

    ours = build("PEVision", **VISION, class_token=class_token)
    sizes = dict(img_size=48, patch_size=8, embed_dim=64, depth=2, num_heads=4, mlp_ratio=1.5, ref_feat_shape=(6, 6))
    theirs = timm.create_model(name, pretrained=False, num_classes=16, global_pool="map", **sizes).eval()
    theirs.load_state_dict(ours.vit.state_dict())
    frames = torch.randn(3, 3, 48, 48)
    with torch.no_grad():
        expected = F.normalize(theirs(frames), dim=1)
        assert expected.std() > 0.01
        torch.testing.assert_close(ours(frames)[:, :, 0, 0], expected, rtol=0, atol=1e-6)


def texts() -> tuple[Tensor, Tensor]:
    ids = torch.randint(1, 97, (4, 9), generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([9, 5, 9, 2])
    ids[torch.arange(4), lengths - 1] = 98  # the end of a text has the largest id
    mask = (torch.arange(9) < lengths[:, None]).long()
    return ids * mask, mask


def test_texts_of_any_length_as_by_open_clip_s_tower() -> None:
    encoder = build("PEText", **TEXT)
    ids, mask = texts()
    with torch.no_grad():
        expected = F.normalize(
            encoder.text(F.pad(ids, (0, 3))), dim=1
        )  # open_clip's own forward, of the longest length
        assert expected.std() > 0.01
        torch.testing.assert_close(encoder.text_vectors(ids, mask), expected, rtol=0, atol=1e-6)
        pairs = encoder.pair_encoder(tokens_per_pass=6)
        encoded = pairs.encode_texts([each[: int(kept.sum())] for each, kept in zip(ids, mask, strict=True)])
        torch.testing.assert_close(encoded.vectors, expected, rtol=0, atol=1e-6)
    assert (encoder.visual_size, encoder.vector_size, encoder.max_text_length) == (16, 16, 12)
    assert encoder.text_config.num_attention_heads == 4
    with pytest.raises(OptionError, match="PEText takes texts of at most 12 tokens, got 13"):
        encoder.text_vectors(torch.ones(1, 13, dtype=torch.long), torch.ones(1, 13))


def test_gradients_reach_all_parameters() -> None:
    vision, encoder = build("PEVision", **VISION), build("PEText", **TEXT)
    ids, mask = texts()
    tokens = vision(torch.randn(4, 3, 48, 48)).flatten(2).transpose(1, 2)[:, None]  # (M, 1, 1, D)
    encoder(ids, mask, tokens).square().sum().backward()
    for model in (vision, encoder):
        for name, value in model.named_parameters():
            assert value.grad is not None, name
            # The bias of a key changes all of a query's scores alike.
            assert value.grad.abs().sum() > 0 or "bias" in name, name


def test_what_cannot_be_built_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OptionError, match="multiple of 8 and of 4 times num_heads 3, got 64"):
        build("PEVision", **VISION | dict(num_heads=3))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for kind, sizes in (("PEVision", VISION), ("PEText", TEXT)):
        with pytest.raises(BackendError, match=rf"{kind} needs open_clip, .* pip install 'clipbert_mm\[open-clip\]'"):
            build(kind, **sizes)
