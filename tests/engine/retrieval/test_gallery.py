"""Visual tokens on disk: there whole or not at all, and in memory only as many as may be."""

import os
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from clipbert_mm.engine.retrieval import Gallery


@pytest.fixture
def filled(tmp_path: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    """A gallery of three videos of four clips."""
    tokens = {name: torch.randn(4, 5, 16) for name in ("b", "a", "c")}
    gallery = Gallery(tmp_path / "gallery")
    for name, value in tokens.items():
        gallery.add(name, {"clips": value, "overview": value[:1]}, {"path": f"{name}.mp4", "broken": None})
    return tmp_path / "gallery", tokens


def test_what_is_added_is_read_by_another_process_gallery(filled: tuple):
    folder, tokens = filled
    gallery = Gallery(folder)
    assert gallery.names() == ["a", "b", "c"]
    assert gallery.record("c") == {"path": "c.mp4", "broken": None}
    assert torch.equal(gallery.read(["c", "a"]), torch.stack([tokens["c"], tokens["a"]]))
    assert torch.equal(gallery.read(["b"], "overview"), tokens["b"][None, :1])
    gallery.add("b", {"clips": tokens["a"].bfloat16()}, {})
    assert torch.equal(gallery.read(["b"])[0], tokens["a"].bfloat16())
    gallery.remove("a")
    assert "a" not in gallery
    assert Gallery(folder).names() == ["b", "c"]


def test_a_video_that_could_not_be_read_is_a_record_alone(filled: tuple):
    gallery = Gallery(filled[0])
    gallery.add("d", {}, {"broken": "the file is empty"})
    assert "d" in gallery
    assert gallery.record("d") == {"broken": "the file is empty"}


@pytest.mark.parametrize(("budget", "held"), [(0, 0), (2 * 4 * 5 * 16 * 4, 2), (None, 3)])
def test_memory_holds_what_the_budget_allows(filled: tuple, budget: int | None, held: int):
    folder, tokens = filled
    gallery = Gallery(folder, budget=budget)
    wanted = torch.stack([tokens[name] for name in "abc"])
    assert torch.equal(gallery.read("abc"), wanted)
    for name in "abc":  # what is held is not read again
        written = gallery.path_of(name).stat().st_mtime_ns
        gallery.path_of(name).write_bytes(b"not safetensors")
        os.utime(gallery.path_of(name), ns=(written, written))
    assert torch.equal(torch.cat([gallery.read([name]) for name in "abc"[:held]] or [wanted[:0]]), wanted[:held])
    for name in "abc"[held:]:
        with pytest.raises(SafetensorError):
            gallery.read([name])


def test_what_another_process_puts_in_its_place_is_read(filled: tuple):
    folder, tokens = filled
    gallery = Gallery(folder)
    gallery.read("abc")
    Gallery(folder).add("b", {"clips": tokens["c"]}, {})
    assert torch.equal(gallery.read(["b"])[0], tokens["c"])
    Gallery(folder).remove("c")
    with pytest.raises(FileNotFoundError):
        gallery.read(["c"])


def test_a_file_of_another_kind_is_named(filled: tuple):
    gallery = Gallery(filled[0])
    gallery.path_of("b").write_bytes(b"not safetensors")
    with pytest.raises(
        ValueError, match=r"b\.safetensors is no file of a gallery .* Remove it, and it will be made anew\."
    ):
        gallery.record("b")
