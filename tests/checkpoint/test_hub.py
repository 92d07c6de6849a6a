"""Files of a folder or a name on the hub: what is found in the cache, and a sentence for each reason why not."""

import json
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors.torch import save_file

from clipbert_mm.checkpoint import CheckpointError, read_checkpoint
from clipbert_mm.checkpoint.hub import commit_of, find_file, locate_file, tokenizer_folder
from clipbert_mm.checkpoint.reading import HUGGING_FACE_FILES

NAME, COMMIT = "owner/model", "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of huggingface_hub that has one file of a model, and knows of one that the model has not."""
    repository = tmp_path / "models--owner--model"
    for folder in ("refs", f"snapshots/{COMMIT}", f".no_exist/{COMMIT}"):
        (repository / folder).mkdir(parents=True)
    (repository / "refs/main").write_text(COMMIT)
    (repository / f"snapshots/{COMMIT}/config.json").write_text("{}")
    (repository / f".no_exist/{COMMIT}/merges.txt").touch()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    return repository


def raising(error: Exception, monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """Let the hub answer with an error; returns what it is asked for."""
    asked: list[tuple] = []

    def answer(*args, **kwargs):
        asked.append((*args, kwargs))
        raise error

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", answer)
    return asked


def of(kind: type[Exception], text: str = "why", cause: Exception | None = None) -> Exception:
    """Return an error of the hub, whose constructors differ between its releases."""
    error = kind.__new__(kind, text)
    error.args, error.__cause__ = (text,), cause
    return error


def test_the_first_file_that_a_folder_has(tmp_path: Path):
    (tmp_path / "b.json").touch()
    (tmp_path / "c.json").mkdir()
    assert find_file(str(tmp_path), "a.json", "b.json") == str(tmp_path / "b.json")
    assert locate_file(str(tmp_path), "a.json") is locate_file(str(tmp_path), "c.json") is None
    assert commit_of(str(tmp_path / "b.json")) is None
    with pytest.raises(
        CheckpointError, match=rf"^The folder {tmp_path} has no a\.json or c\.json\. Take a complete copy"
    ):
        find_file(str(tmp_path), "a.json", "c.json")
    with pytest.raises(CheckpointError, match=rf"{tmp_path} is a folder; got the revision 'v1'\. Leave it out"):
        find_file(str(tmp_path), "b.json", revision="v1")


@pytest.mark.parametrize("revision", [None, "main", COMMIT])
def test_offline_the_cache_is_read(cached: Path, revision: str | None):
    # HF_HUB_OFFLINE is set, as in all tests.
    path = find_file(NAME, "config.json", revision=revision)
    assert path == str(cached / f"snapshots/{COMMIT}/config.json")
    assert commit_of(path) == COMMIT
    with pytest.raises(
        CheckpointError, match=r"^vocab\.json of owner/model .*not in the cache.*offline mode forbids.*HF_HUB"
    ):
        find_file(NAME, "vocab.json", revision=revision)
    with pytest.raises(CheckpointError, match="owner/other is not in the cache of Hugging Face, and offline mode"):
        find_file("owner/other", "config.json")
    assert find_file(NAME, "vocab.json", "config.json", revision=revision) == path


def test_of_a_commit_the_hub_is_asked_only_for_what_is_new(cached: Path, monkeypatch: pytest.MonkeyPatch):
    asked = raising(of(EntryNotFoundError), monkeypatch)
    assert locate_file(NAME, "config.json", revision=COMMIT) is not None
    assert locate_file(NAME, "merges.txt", revision=COMMIT) is None
    assert asked == []
    assert locate_file(NAME, "vocab.json", revision=COMMIT) is None
    assert locate_file(NAME, "config.json", revision="main") is None
    assert asked == [(NAME, "vocab.json", dict(revision=COMMIT)), (NAME, "config.json", dict(revision="main"))]


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (of(RepositoryNotFoundError), r"no folder owner/model, and no such name on Hugging Face.*`hf auth login`"),
        (of(GatedRepoError), r"owner/model is gated: accept its terms on https://huggingface.co/owner/model"),
        (of(RevisionNotFoundError), r"owner/model has no revision 'v2'\. Give a branch, a tag or a whole commit"),
        (
            of(LocalEntryNotFoundError, cause=ConnectionError("[Errno -2] Name or service not known")),
            r"a\.json of owner/model at the revision v2 is not in the cache.*cannot be reached: '\[Errno -2\] Name or service",
        ),
        (of(LocalEntryNotFoundError, cause=of(OfflineModeIsEnabled)), "offline mode forbids to download it"),
        (
            OSError(28, "No space left on device"),
            r"cannot be downloaded from Hugging Face: '\[Errno 28\] No space left",
        ),
        (TimeoutError(), "cannot be downloaded from Hugging Face: 'TimeoutError'"),
    ],
)
def test_each_failure_is_one_sentence(error: Exception, sentence: str, monkeypatch: pytest.MonkeyPatch):
    raising(error, monkeypatch)
    with pytest.raises(CheckpointError, match=sentence) as caught:
        find_file(NAME, "a.json", "b.json", revision="v2")
    assert caught.value.__cause__ is error
    assert "\n" not in str(caught.value)


def test_a_model_without_the_files_and_names_like_no_name(monkeypatch: pytest.MonkeyPatch):
    raising(of(EntryNotFoundError), monkeypatch)
    with pytest.raises(
        CheckpointError, match=r"The Hugging Face model owner/model at the revision v2 has no a\.json or b"
    ):
        find_file(NAME, "a.json", "b.json", revision="v2")
    for name in ("a/b/c", "../b", "a b", ""):
        with pytest.raises(
            CheckpointError, match=r"There is no folder .*, and no name on the Hugging Face hub is like it"
        ):
            find_file(name, "a.json")


def test_weights_of_a_revision_safetensors_first(monkeypatch: pytest.MonkeyPatch):
    asked = raising(of(EntryNotFoundError), monkeypatch)
    with pytest.raises(
        CheckpointError, match=r"none named 'owner/model' on Hugging Face: .*revision v2 has no model\.safet"
    ):
        read_checkpoint(NAME, revision="v2")
    assert [each[1] for each in asked] == list(HUGGING_FACE_FILES)
    assert HUGGING_FACE_FILES[0] == "model.safetensors"
    assert all(each[2] == dict(revision="v2") for each in asked)


def write_shards(folder: Path, kind: str) -> dict[str, torch.Tensor]:
    """Write three tensors in two files with their index, as ``save_pretrained`` does; returns the tensors."""
    tensors = {name: torch.randn(2, 3) for name in ("layer1.0.conv1.weight", "fc.weight", "fc.bias")}
    stem, ending = kind.rsplit(".", 1)
    weight_map = {}
    for i, names in enumerate((["layer1.0.conv1.weight"], ["fc.weight", "fc.bias"]), start=1):
        file = f"{stem}-{i:05d}-of-00002.{ending}"
        part = {name: tensors[name] for name in names}
        save_file(part, folder / file) if ending == "safetensors" else torch.save(part, folder / file)
        weight_map |= dict.fromkeys(names, file)
    (folder / f"{kind}.index.json").write_text(json.dumps(dict(metadata={}, weight_map=weight_map)))
    return tensors


@pytest.mark.parametrize("kind", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("source", [NAME, f"{NAME}@main", "folder"])
def test_weights_in_several_files(cached: Path, kind: str, source: str):
    snapshot = cached / f"snapshots/{COMMIT}"
    tensors = write_shards(snapshot, kind)
    for file in HUGGING_FACE_FILES[: HUGGING_FACE_FILES.index(f"{kind}.index.json")]:
        (cached / f".no_exist/{COMMIT}/{file}").touch()
    name, _, revision = (str(snapshot) if source == "folder" else source).partition("@")
    loaded = read_checkpoint(name, revision=revision or None)["state_dict"]
    assert loaded.keys() == tensors.keys()
    for key, value in tensors.items():
        assert torch.equal(loaded[key], value)
    shard = sorted(snapshot.glob("*-00002-of-00002.*"))[0]
    shard.unlink()
    sentence = (
        "The folder .* has no {}. Take a complete" if source == "folder" else "{} of owner/model .* not in the cache"
    )
    with pytest.raises(CheckpointError, match=sentence.format(shard.name)):
        read_checkpoint(name, revision=revision or None)


@pytest.mark.parametrize(
    "weight_map", [None, {}, {"a": 1}, {"a": "../model-00001-of-00002.safetensors"}, {"a": "config.json"}]
)
def test_an_index_names_files_next_to_it_alone(tmp_path: Path, weight_map: object):
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(dict(weight_map=weight_map)))
    with pytest.raises(
        CheckpointError, match=r"index\.json is damaged: expected the names of files next to it as its weight_map"
    ):
        read_checkpoint(str(tmp_path))


def test_the_folder_of_a_tokenizer(cached: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    own = tmp_path / "own"
    own.mkdir()
    with pytest.raises(CheckpointError, match=rf"The folder {own} has no tokenizer\.json or vocab\.txt or vocab\.json"):
        tokenizer_folder(str(own))
    (own / "vocab.txt").touch()
    assert tokenizer_folder(str(own)) == str(own)
    snapshot = cached / f"snapshots/{COMMIT}"
    with pytest.raises(CheckpointError, match=r"tokenizer\.json of owner/model is not in the cache"):
        tokenizer_folder(NAME)
    (snapshot / "vocab.txt").touch()
    assert tokenizer_folder(NAME) == tokenizer_folder(NAME, revision=COMMIT) == str(snapshot)
    asked = raising(of(EntryNotFoundError), monkeypatch)
    monkeypatch.setattr(
        huggingface_hub, "hf_hub_download", lambda *args, **kwargs: asked.append(args) or str(snapshot / args[1])
    )
    assert tokenizer_folder(NAME, revision="main") == str(snapshot)
    assert asked[:3] == [(NAME, "tokenizer.json"), (NAME, "tokenizer.json"), (NAME, "vocab.json")]
    assert (NAME, "vocab.txt") not in asked, "of a commit, the cache is asked"
