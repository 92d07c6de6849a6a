"""PE-Core from a folder of open_clip: sizes, frames, texts and scores are open_clip's own, or it is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from huggingface_hub import constants
from mmengine.registry import DefaultScope
from PIL import Image
from public_models import write_pe

from clipbert_mm.apis.predictor import Predictor
from clipbert_mm.checkpoint import read_source
from clipbert_mm.checkpoint.families.perception_encoder import TOWERS, build_library, perception_family
from clipbert_mm.checkpoint.open_clip_files import open_clip_tokenizer, open_clip_transforms
from clipbert_mm.checkpoint.public import is_public
from clipbert_mm.datasets.transforms import ResizeTo, Tokenize
from clipbert_mm.errors import CheckpointError
from clipbert_mm.registry import MODELS

open_clip = pytest.importorskip(
    "open_clip", reason="PE-Core comes through open_clip: pip install 'clipbert_mm[open-clip]'"
)
TEXTS = (
    "a dog catches a ball",
    "It's the man’s  42 dogs, don't!",
    "Größe &amp; “quoted” naïve 日本 \t x2024 🙂...!!",
    "word " * 40,
)


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("public") / "pe"
    return folder, write_pe(folder)


@pytest.fixture
def settings(made: tuple[Path, Any]) -> dict[str, Any]:
    return json.loads((made[0] / "open_clip_config.json").read_text())


def test_from_an_image_and_a_text_to_open_clip_s_score(made: tuple[Path, Any], cache: Path) -> None:
    """With open_clip's own transforms and tokenizer on the other side."""
    folder, library = made
    assert is_public(str(folder))
    predictor = Predictor(str(folder))
    assert (predictor.task, predictor.source) == ("retrieval", str(folder))
    assert predictor.model.head.score_kind == "cosine"
    (note,) = (cache / "clipbert_mm" / "equal").iterdir()  # it was compared with the library's own model
    assert "open_clip_torch" in note.read_text()
    frame = np.random.default_rng(0).integers(0, 256, (48, 40, 3), dtype=np.uint8)
    resize = next(step for step in predictor.media_steps if isinstance(step, ResizeTo))
    frames = resize(dict(frames=frame[None, None]))["frames"]
    scores = predictor.clip_logits(predictor.encode([frames]), predictor.token_ids(TEXTS[:3]))[:, 0, 0]
    transform = open_clip.image_transform(
        384, is_train=False, interpolation="bilinear", resize_mode="squash", mean=(0.5,) * 3, std=(0.5,) * 3
    )
    with torch.no_grad():
        images = library.encode_image(transform(Image.fromarray(frame))[None], normalize=True)
        tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(list(TEXTS[:3]))
        expected = library.encode_text(tokens, normalize=True) @ images[0]
    assert expected.std() > 0.01
    torch.testing.assert_close(torch.as_tensor(scores).flatten(), expected, rtol=0, atol=2e-3)  # grey levels


def test_a_bin_file_by_name_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = "0" * 40
    repository = tmp_path / "models--timm--pe"
    (repository / "snapshots").mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(commit)
    library = write_pe(repository / "snapshots" / commit, safetensors=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    predictor = Predictor("timm/pe")
    assert predictor.source == f"timm/pe@{commit}"
    torch.testing.assert_close(predictor.model.head.logit_scale, library.logit_scale)
    loaded = read_source("timm/pe")  # as load_from of a training does
    assert (loaded.title, loaded.rest["attention_heads"]) == ("open_clip's PE-Core", 4)
    assert loaded.input_spec is not None
    assert loaded.input_spec.mean == (127.5,) * 3


@pytest.mark.parametrize("name", TOWERS)
def test_sizes_are_those_of_the_named_towers(name: str, settings: dict[str, Any]) -> None:
    vision, text = settings["model_cfg"]["vision_cfg"], settings["model_cfg"]["text_cfg"]
    vision |= dict(timm_model_name=name, image_size=TOWERS[name]["image_size"])
    text |= dict(width=64, layers=3)
    family = perception_family(settings, "a.json")
    frames = dict(type="VideoTextPreprocessor", mean=[0.0] * 3, std=[1.0] * 3, vocab_size=family.vocab_size)
    with torch.device("meta"), DefaultScope.overwrite_default_scope("clipbert_mm"):
        ours = MODELS.build(dict(type="ClipBert", data_preprocessor=frames, **family.model)).state_dict()
        theirs = build_library(settings).state_dict()
    assert {key: value.shape for key, value in family.library_names(ours).items()} == {
        key: value.shape for key, value in theirs.items()
    }


@pytest.mark.parametrize("mode", ["squash", "shortest"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_frames_are_those_of_open_clip(mode: str, interpolation: str, settings: dict[str, Any]) -> None:
    settings["preprocess_cfg"] = dict(resize_mode=mode, interpolation=interpolation)
    (step,), spec = open_clip_transforms(settings, "a.json")
    frame = np.random.default_rng(0).integers(0, 256, (500, 700, 3), dtype=np.uint8)
    ours = ResizeTo(**{key: value for key, value in step.items() if key != "type"})(dict(frames=frame[None, None]))[
        "frames"
    ]
    transform = open_clip.image_transform(384, is_train=False, interpolation=interpolation, resize_mode=mode)
    theirs = transform(Image.fromarray(frame)).permute(1, 2, 0) * torch.tensor(spec.std) + torch.tensor(spec.mean)
    assert (torch.as_tensor(ours)[0, 0].float() - theirs).abs().max() < 2.01  # open_clip resizes by Pillow


def test_tokens_are_those_of_open_clip() -> None:
    tokenize = Tokenize(tokenizer=open_clip_tokenizer(), max_length=32, read_token="last")
    padded = open_clip.SimpleTokenizer(context_length=32)(list(TEXTS))
    for ids, expected in zip(tokenize.transform(dict(texts=TEXTS))["text_ids"], padded, strict=True):
        np.testing.assert_array_equal(F.pad(torch.as_tensor(ids), (0, 32 - len(ids))), expected)


@pytest.mark.parametrize(
    ("part", "changes", "sentence"),
    [
        (
            "vision_cfg",
            dict(timm_model_name="vit_base_patch16_224"),
            "vision tower is 'vit_base_patch16_224' .* on the hub",
        ),
        ("vision_cfg", dict(image_size=224), r"expected 384 as its vision_cfg\.image_size, got 224"),
        ("vision_cfg", dict(timm_pool="avg"), r"expected 'map' as its vision_cfg\.timm_pool, got 'avg'"),
        ("text_cfg", dict(heads=5), r"expected a divisor of its width 32 as its text_cfg\.heads, got 5"),
        ("text_cfg", dict(hf_model_name="evil/code"), r"no such setting.*text_cfg\.hf_model_name, got 'evil/code'"),
    ],
)
def test_another_model_is_refused(part: str, changes: dict[str, Any], sentence: str, settings: dict[str, Any]) -> None:
    settings["model_cfg"][part] |= changes
    with pytest.raises(CheckpointError, match=sentence):
        perception_family(settings, "a.json")
    settings["preprocess_cfg"]["resize_mode"] = "longest"
    with pytest.raises(CheckpointError, match="its resize_mode is 'longest'; expected squash or shortest"):
        open_clip_transforms(settings, "a.json")
