"""Public models by folder and by name: equal to the library's own, or refused in one sentence."""

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from public_models import edit_settings, without, write_blip, write_clip, write_siglip, write_vilt
from safetensors.torch import load_file, save_file
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertModel,
    BlipForQuestionAnswering,
    BlipImageProcessor,
    BlipModel,
    ViltForImageAndTextRetrieval,
    ViltForQuestionAnswering,
)

from clipbert_mm.apis.predictor import Predictor
from clipbert_mm.checkpoint import public
from clipbert_mm.errors import CheckpointError, OptionError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "clipbert_mm" / "equal"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("public") / "blip"
    return folder, write_blip(folder)


@pytest.fixture
def folder(made: tuple[Path, Any], tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return shutil.copytree(made[0], tmp_path / "blip")


@pytest.mark.parametrize("safetensors", [True, False])
def test_a_folder_gives_the_library_s_scores(tmp_path: Path, safetensors: bool) -> None:
    """From an image file's pixels and a text to logits, with the library's own processor and tokenizer on the other side."""
    folder = tmp_path / "blip"
    library = write_blip(folder, safetensors=safetensors)
    predictor = Predictor(str(folder))
    assert (predictor.task, predictor.source) == ("retrieval", str(folder))
    frame = np.random.default_rng(0).integers(0, 256, (48, 40, 3), dtype=np.uint8)
    resize = next(step for step in predictor.media_steps if type(step).__name__ == "ResizeTo")
    frames = resize(dict(frames=frame[None, None]))["frames"]
    text = "a red circle"
    logits = predictor.clip_logits(predictor.encode([frames]), predictor.token_ids([text]))[0, 0, 0]
    pixels = BlipImageProcessor.from_pretrained(folder)(frame, return_tensors="pt").pixel_values
    ids = torch.tensor([AutoTokenizer.from_pretrained(folder)(text).input_ids])
    joint = ids.clone()
    joint[:, 0] = library.config.text_config.vocab_size - 1  # [ENC]
    with torch.no_grad():
        match = library(input_ids=joint, pixel_values=pixels).itm_score[0]
        similarity = library(input_ids=ids, pixel_values=pixels, use_itm_head=False).itm_score[0]
    torch.testing.assert_close(logits, torch.cat([match, similarity]), rtol=1e-3, atol=2e-3)  # one grey level


@pytest.mark.parametrize(
    ("write", "task"),
    [
        (partial(write_blip, kind=BlipForQuestionAnswering, visual_size=32), "candidate answers"),
        (write_clip, "retrieval"),
        (write_siglip, "retrieval"),
        (partial(write_vilt, kind=ViltForImageAndTextRetrieval), "retrieval"),
        (
            partial(write_vilt, kind=ViltForQuestionAnswering, id2label={0: "no", 1: "yes", 2: "red"}),
            "questions with several answers",
        ),
    ],
    ids=["blip-vqa", "clip", "siglip", "vilt", "vilt-vqa"],
)
def test_each_family_opens_and_equals_the_library_s(write: Any, task: str, tmp_path: Path, cache: Path) -> None:
    write(tmp_path / "model")
    predictor = Predictor(str(tmp_path / "model"))
    assert predictor.task == task
    (note,) = cache.iterdir()
    assert json.loads(note.read_text())["difference"] < 1e-4
    assert Predictor(str(tmp_path / "model")).identity == predictor.identity


def test_siglip_2_pads_with_its_tokenizer_s_token(tmp_path: Path) -> None:
    """Its config says nothing of it, and the default of the library is that of SigLIP, 1."""
    library = write_siglip(tmp_path / "model")
    predictor = Predictor(str(tmp_path / "model"))
    assert predictor.model.encoder.text.config.pad_token_id == 0
    (ids,) = predictor.token_ids(["A red dog"])
    padded = torch.cat([torch.as_tensor(ids), torch.zeros(16 - len(ids), dtype=torch.long)])[None]
    pixels = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        output = library(input_ids=padded, pixel_values=pixels)
        expected = torch.cosine_similarity(output.text_embeds, output.image_embeds)
    found = predictor.clip_logits(predictor.model.encode_video(pixels[None, None]), [ids])
    torch.testing.assert_close(found.flatten(), expected, rtol=1e-4, atol=1e-5)


def test_the_first_opening_compares_with_the_library_and_the_second_does_not(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Predictor(str(folder))
    (note,) = cache.iterdir()
    assert json.loads(note.read_text())["difference"] < 1e-5
    monkeypatch.setattr("clipbert_mm.apis.equality.library_model", None)
    Predictor(str(folder))


def test_scores_that_differ_from_the_library_s_are_refused(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from clipbert_mm.models import CrossEncoder

    right = CrossEncoder.clip_vectors
    monkeypatch.setattr(CrossEncoder, "clip_vectors", lambda self, tokens: -right(self, tokens))
    with pytest.raises(
        CheckpointError, match=r"its scores differ from those of BlipForImageTextRetrieval of transformers .* by "
    ):
        Predictor(str(folder))
    assert not cache.exists()


def change_weights(folder: Path, *, drop: str = "", add: str = "") -> None:
    tensors = load_file(folder / "model.safetensors")
    if drop:
        del tensors[drop]
    if add:
        tensors[add] = torch.zeros(3)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            dict(drop="text_encoder.encoder.layer.1.crossattention.self.key.weight"),
            "it lacks encoder.text.encoder.layer.1.cross",
        ),
        (dict(add="text_encoder.encoder.extra"), "the model does not have its tensor encoder.text.encoder.extra"),
    ],
)
def test_missing_and_unexpected_tensors_are_refused(folder: Path, change: dict[str, str], message: str) -> None:
    change_weights(folder, **change)
    with pytest.raises(CheckpointError, match=message):
        Predictor(str(folder))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            dict(architectures=["BertModel"]),
            "it names the class 'BertModel'. Expected a model of BlipForImageTextRetrieval",
        ),
        (dict(architectures=["BlipModel"]), "it names the class 'BlipModel'"),
        (dict(architectures=None), "it names the class ''"),
        (dict(auto_map={"AutoModel": "evil.Model"}), "it names code of its own"),
        (
            dict(image_text_hidden_size=-1),
            "expected a whole number from 1 to 1,048,576 as its image_text_hidden_size, got -1",
        ),
        (dict(text_config=[1]), "expected a JSON object as its text_config, got"),
        (dict(image_text_hidden_size=17), r"encoder.text_projection.weight: checkpoint \(16, 32\), model \(17, 32\)"),
        (dict(text_config=dict(hidden_size=2**20)), "larger than its weights"),
    ],
)
def test_settings_of_another_model_are_refused(folder: Path, settings: dict[str, Any], message: str) -> None:
    edit_settings(folder, **settings)
    with pytest.raises(CheckpointError, match=message):
        Predictor(str(folder))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["vocab.txt", "tokenizer_config.json"], "has no tokenizer.json or vocab.txt"),
        (["preprocessor_config.json"], "preprocessor_config.json"),
        (["model.safetensors"], "model.safetensors or .*pytorch_model.bin"),
    ],
)
def test_a_folder_that_lacks_a_file_is_refused(folder: Path, files: list[str], message: str) -> None:
    without(folder, *files)
    with pytest.raises(CheckpointError, match=message):
        Predictor(str(folder))


def test_weights_of_another_model_beside_a_right_config_are_refused(folder: Path) -> None:
    """BlipModel has the same text layers under other names: by the library they would stay random, with a warning."""
    config = json.loads((folder / "config.json").read_text())
    torch.manual_seed(0)
    other = BlipModel(BlipModel.config_class.from_dict(config))
    save_file({name: value.contiguous() for name, value in other.state_dict().items()}, folder / "model.safetensors")
    with pytest.raises(CheckpointError):
        Predictor(str(folder))
    BertModel(
        BertConfig(hidden_size=32, num_attention_heads=4, intermediate_size=8, num_hidden_layers=1)
    ).save_pretrained(folder)
    with pytest.raises(CheckpointError, match="it names the class 'BertModel'"):
        Predictor(str(folder))


def test_names_revisions_and_what_is_no_name() -> None:
    with pytest.raises(CheckpointError, match=r"config.json of Salesforce/blip-itm-base-coco.* offline mode forbids"):
        Predictor("Salesforce/blip-itm-base-coco")
    with pytest.raises(CheckpointError, match=r"at the revision v2.* offline mode forbids"):
        Predictor("Salesforce/blip-itm-base-coco@v2")
    with pytest.raises(CheckpointError, match="names a revision, and so does"):
        Predictor("Salesforce/blip-itm-base-coco@v2", revision="v1")
    with pytest.raises(
        OptionError, match=r"revision= goes with a name on the Hugging Face hub, and .*epoch_4.pth is none"
    ):
        Predictor("epoch_4.pth", revision="v1")
    with pytest.raises(CheckpointError, match="There is no checkpoint"):
        Predictor("work_dirs/nothing/epoch_4.pth")


def test_a_revision_of_a_folder_is_refused(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="is a folder; got the revision 'v1'"):
        Predictor(str(folder), revision="v1")


def test_a_commit_of_the_hub_s_cache_is_named(
    made: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache as huggingface_hub fills it: the name with its commit opens the same files, also offline."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    hub = tmp_path / "hub" / "models--owner--name"
    shutil.copytree(made[0], hub / "snapshots" / commit)
    (hub / "refs").mkdir()
    (hub / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    found = public.read_public("owner/name")
    assert found.source == f"owner/name@{commit}"
    predictor = Predictor(found.source)
    assert predictor.source == found.source
    assert predictor.identity == Predictor(str(made[0])).identity
