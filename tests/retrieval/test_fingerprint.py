"""What tells results apart."""

import os
from pathlib import Path

import pytest
import torch
from torch import nn

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
