"""What tells results apart."""

import os
from pathlib import Path

import pytest
import torch
from torch import nn

from clipbert_mm.errors import VideoIndexError
from clipbert_mm.retrieval import ResultsMismatchError, digest, digest_files, digest_weights, reserve


def test_digests_tell_apart_what_differs():
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    first = digest_weights(model)
    assert digest_weights(model) == first
    model[1].running_mean[2] += 1e-6
    assert digest_weights(model) != first
    second = digest_weights(model)
    assert digest_weights(model.to(torch.bfloat16)) != second


def test_digests_are_those_of_results_that_were_kept():
    # By sha256sum of {"a": [1, "x"], "b": null} and of ["{1}"].
    assert digest(dict(b=None, a=(1, "x"))) == "8401963c5b51c522"
    assert digest([{1}]) == "0021ddfedf5dd89d"
    # By sha256sum of the lines, names and types, before the bytes of the values.
    model = nn.ModuleDict(dict(b=nn.Linear(1, 1), a=nn.Linear(2, 1, bias=False)))
    for parameter in model.parameters():
        nn.init.constant_(parameter, 0.5)
    assert digest_weights(model) == "84f5480d5f3fb8e4"


def test_a_file_that_changes_is_another(tmp_path: Path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"one")
    first = digest_files([str(path), "http://host/b.mp4"])
    assert digest_files([str(path), "http://host/b.mp4"]) == first
    assert digest_files(["http://host/b.mp4", str(path)]) != first
    written = path.stat().st_mtime_ns
    path.write_bytes(b"other")
    os.utime(path, ns=(written, written))
    assert digest_files([str(path), "http://host/b.mp4"]) != first, "by its size alone"
    path.write_bytes(b"one")
    os.utime(path, ns=(written, written))
    assert digest_files([str(path), "http://host/b.mp4"]) == first, "by nothing else"
    os.utime(path, ns=(written, written + 1))
    assert digest_files([str(path), "http://host/b.mp4"]) != first, "by its time alone"
    path.unlink()
    assert digest_files([str(path), "http://host/b.mp4"]) != first


def test_a_folder_is_reserved_by_the_first_run(tmp_path: Path):
    identity = dict(weights="aa", texts="bb")
    assert reserve(tmp_path / "new", identity) is False
    assert reserve(tmp_path / "new", identity) is True
    with pytest.raises(
        ResultsMismatchError, match=r"with other settings: weights was aa, is cc; clips was None, is 3\. Resume"
    ):
        reserve(tmp_path / "new", dict(weights="cc", texts="bb", clips="3"))
    assert reserve(tmp_path / "new", identity) is True


def test_a_folder_is_reserved_where_there_are_no_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*paths: str) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    assert reserve(tmp_path, dict(weights="aa")) is False
    assert reserve(tmp_path, dict(weights="aa")) is True
    assert os.listdir(tmp_path) == ["manifest.json"]


def test_of_two_that_reserve_at_once_the_second_checks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    link = os.link

    def come_second(part: str, manifest: Path) -> None:
        manifest.write_text('{"weights": "aa"}')
        link(part, manifest)

    monkeypatch.setattr(os, "link", come_second)
    assert reserve(tmp_path / "same", dict(weights="aa")) is True
    with pytest.raises(ResultsMismatchError, match="weights was aa, is bb"):
        reserve(tmp_path / "other", dict(weights="bb"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "Expecting property name"),
        (b"\xff", "'utf-8' codec can't decode"),
        (b"[1]", r"expected a JSON object, got \[1\]"),
    ],
)
def test_a_damaged_manifest_is_named(tmp_path: Path, content: bytes, said: str):
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(
        VideoIndexError, match=rf"manifest\.json is damaged: {said}.* Delete the folder {tmp_path} to start"
    ):
        reserve(tmp_path, {})
