"""Visual tokens on disk: there whole or not at all, and in memory only as many as may be."""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from clipbert_mm.errors import VideoIndexError
from clipbert_mm.retrieval import FeatureStore


@pytest.fixture
def filled(tmp_path: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    """A gallery of three videos of four clips."""
    tokens = {name: torch.randn(4, 5, 16) for name in ("b", "a", "c")}
    gallery = FeatureStore(tmp_path / "gallery")
    for name, value in tokens.items():
        gallery.add(name, {"clips": value, "coarse": value[:1]}, {"path": f"{name}.mp4", "broken": None})
    return tmp_path / "gallery", tokens


def test_what_is_added_is_read_by_another_process_gallery(filled: tuple):
    folder, tokens = filled
    gallery = FeatureStore(folder)
    assert gallery.names() == ["a", "b", "c"]
    assert gallery.record("c") == {"path": "c.mp4", "broken": None}
    assert torch.equal(gallery.read(["c", "a"]), torch.stack([tokens["c"], tokens["a"]]))
    assert torch.equal(gallery.read(["b"], "coarse"), tokens["b"][None, :1])
    gallery.add("b", {"clips": tokens["a"].bfloat16()}, {})
    assert torch.equal(gallery.read(["b"])[0], tokens["a"].bfloat16())
    gallery.remove("a")
    assert "a" not in gallery
    assert FeatureStore(folder).names() == ["b", "c"]


def test_videos_with_fewer_tokens_end_with_zeros(filled: tuple):
    gallery, tokens = FeatureStore(filled[0]), filled[1]
    wide = torch.randn(4, 7, 16)
    gallery.add("d", {"clips": wide}, {})
    found = gallery.read(["a", "d"])
    assert torch.equal(found[1], wide)
    assert torch.equal(found[0, :, :5], tokens["a"])
    assert not found[0, :, 5:].any()


def test_a_video_that_could_not_be_read_is_a_record_alone(filled: tuple):
    gallery = FeatureStore(filled[0])
    gallery.add("d", {}, {"broken": "the file is empty"})
    assert "d" in gallery
    assert gallery.record("d") == {"broken": "the file is empty"}


@pytest.mark.parametrize(("budget", "held"), [(0, 0), (2 * 4 * 5 * 16 * 4, 2), (None, 3)])
def test_memory_holds_what_the_budget_allows(filled: tuple, budget: int | None, held: int):
    folder, tokens = filled
    gallery = FeatureStore(folder, budget=budget)
    wanted = torch.stack([tokens[name] for name in "abc"])
    assert torch.equal(gallery.read("abc"), wanted)
    for name in "abc":  # what is held is not read again
        written = gallery.path_of(name).stat().st_mtime_ns
        gallery.path_of(name).write_bytes(b"not safetensors")
        os.utime(gallery.path_of(name), ns=(written, written))
    assert torch.equal(torch.cat([gallery.read([name]) for name in "abc"[:held]] or [wanted[:0]]), wanted[:held])
    for name in "abc"[held:]:
        with pytest.raises(VideoIndexError, match=rf"{name}\.safetensors is damaged or not a file of visual tokens"):
            gallery.read([name])


def test_what_is_replaced_frees_its_room(filled: tuple):
    folder, tokens = filled
    gallery = FeatureStore(folder, budget=tokens["a"].nbytes)
    for i in range(3):
        FeatureStore(folder).add("a", {"clips": tokens["a"] + i, "coarse": tokens["a"] + i}, {})
        first = gallery.read(["a"])
        assert torch.equal(first[0], tokens["a"] + i)
        gallery.add("b", {"clips": tokens["b"]}, {})  # which has no room
        assert gallery._tokens("a", "clips").data_ptr() == gallery._tokens("a", "clips").data_ptr(), "held"
    gallery.remove("a")
    gallery.read(["b"])
    assert gallery._tokens("b", "clips").data_ptr() == gallery._tokens("b", "clips").data_ptr(), "in its room"


def test_adding_and_removing_a_video_looks_at_no_other_one(filled: tuple):
    class NoWalk(dict):
        def __iter__(self) -> None:
            raise AssertionError("all videos are looked at")

    gallery, tokens = FeatureStore(filled[0]), filled[1]
    gallery.read("abc")
    gallery.read("abc", "coarse")
    gallery._cached = NoWalk(gallery._cached)
    gallery.add("a", {"clips": tokens["b"], "coarse": tokens["b"][:1]}, {})
    gallery.remove("c")
    assert gallery._cached_bytes == tokens["b"].nbytes + tokens["b"][:1].nbytes
    assert torch.equal(gallery.read("ab"), torch.stack([tokens["b"], tokens["b"]]))


def test_what_another_process_puts_in_its_place_is_read(filled: tuple):
    folder, tokens = filled
    gallery = FeatureStore(folder)
    gallery.read("abc")
    FeatureStore(folder).add("b", {"clips": tokens["c"]}, {})
    assert torch.equal(gallery.read(["b"])[0], tokens["c"])
    FeatureStore(folder).remove("c")
    with pytest.raises(VideoIndexError, match=r"c\.safetensors is missing\. Index the video again"):
        gallery.read(["c"])
    with pytest.raises(VideoIndexError, match=r"c\.safetensors is missing"):
        gallery.record("c")


def test_a_file_of_another_kind_is_named(filled: tuple):
    gallery = FeatureStore(filled[0])
    gallery.path_of("b").write_bytes(b"not safetensors")
    with pytest.raises(
        VideoIndexError,
        match=r"b\.safetensors is damaged or not a file of visual tokens: .* Delete it, and the video will be encoded again\.",
    ):
        gallery.record("b")


def test_w3_any_changed_byte_of_the_tokens_or_the_record_is_noticed(filled: tuple):
    folder, _ = filled
    path = FeatureStore(folder).path_of("b")
    whole = path.read_bytes()
    header = int.from_bytes(whole[:8], "little")
    for place in [*range(8 + header, len(whole), 97), len(whole) - 1, whole.index(b"b.mp4")]:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        gallery = FeatureStore(folder)
        with pytest.raises(
            VideoIndexError, match=r"b\.safetensors is damaged .*: the checksum of its \w+ does not match"
        ):
            gallery.record("b"), gallery.read("b", "clips"), gallery.read("b", "coarse")
    path.write_bytes(whole[:-7])
    with pytest.raises(VideoIndexError, match=r"b\.safetensors is damaged"):
        FeatureStore(folder).read("b")


def test_w3_tokens_that_changed_their_type_are_noticed(filled: tuple):
    folder, _ = filled
    gallery = FeatureStore(folder)
    gallery.add("b", {"clips": torch.ones(2, 3, 4, dtype=torch.float16)}, {})
    data = gallery.path_of("b").read_bytes()
    gallery.path_of("b").write_bytes(data.replace(b'"dtype":"F16"', b'"dtype":"I16"'))
    with pytest.raises(VideoIndexError, match="the checksum of its clips does not match"):
        gallery.read("b")


def test_files_of_before_have_no_checksums_and_are_read(filled: tuple):
    folder, tokens = filled
    old = {"clips": tokens["a"], "overview": tokens["b"]}
    save_file(old, folder / "b.safetensors", {"record": '{"path": "b.mp4"}'})
    gallery = FeatureStore(folder)
    assert gallery.record("b") == {"path": "b.mp4"}
    assert torch.equal(gallery.read("b")[0], tokens["a"])
    assert torch.equal(gallery.read("b", "coarse")[0], tokens["b"]), "its name of before"
