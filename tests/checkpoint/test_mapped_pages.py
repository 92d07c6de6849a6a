"""What is in memory of a file that is mapped, before and after its tensors are given back."""

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from clipbert_mm.checkpoint import load_weights
from clipbert_mm.checkpoint.mapped_pages import MappedPages
from clipbert_mm.checkpoint.reading import read_checkpoint

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux lists mappings in /proc")
SIZE = 1 << 20


def resident(tensor: Tensor) -> int:
    """Return the KiB of the mapping of a tensor that are in memory."""
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first = line.split()[0]
        if "-" in first and not first.endswith(":"):
            start, end = (int(address, 16) for address in first.split("-"))
            inside = start <= tensor.data_ptr() < end
        elif inside and first == "Rss:":
            return int(line.split()[1])
    raise AssertionError("the tensor is in no mapping")


def write(path: Path) -> dict[str, Tensor]:
    tensors = {f"{i}.weight": torch.rand(SIZE // 512, 512) for i in range(3)}
    save_file(tensors, path) if path.suffix == ".safetensors" else torch.save(tensors, path)
    return tensors


@pytest.mark.parametrize("name", ["a.safetensors", "a.bin"])
def test_pages_are_given_back_and_values_stay(tmp_path: Path, name: str) -> None:
    expected = write(tmp_path / name)
    found = read_checkpoint(str(tmp_path / name))["state_dict"]
    pages = MappedPages()
    for key, tensor in expected.items():
        assert torch.equal(found[key], tensor)
    before = resident(found["0.weight"])
    for tensor in found.values():
        pages.release(tensor)
    assert before > 3 * SIZE * 4 / 1024 * 0.9
    assert resident(found["0.weight"]) < before / 10
    assert all(torch.equal(found[key], tensor) for key, tensor in expected.items())


def test_what_is_in_no_file_and_what_has_gaps_is_left_alone(tmp_path: Path) -> None:
    expected = write(tmp_path / "a.safetensors")
    found = read_checkpoint(str(tmp_path / "a.safetensors"))["state_dict"]
    pages = MappedPages()
    own, values = torch.ones(SIZE), found["1.weight"].clone()
    pages.release(own)
    pages.release(values)
    pages.release(found["2.weight"][:, ::2])
    pages.release(torch.empty(0))
    assert torch.equal(own, torch.ones(SIZE))
    assert torch.equal(values, expected["1.weight"])
    assert torch.equal(found["2.weight"], expected["2.weight"])


def test_a_model_keeps_its_weights_when_the_file_is_gone(tmp_path: Path) -> None:
    """The pages are those of the file, and never the model's."""
    expected = write(tmp_path / "a.safetensors")
    model = nn.Sequential(*(nn.Linear(512, SIZE // 512, bias=False) for _ in range(3)))
    found = read_checkpoint(str(tmp_path / "a.safetensors"))["state_dict"]
    load_weights(model, found, "a.safetensors", strict=True)
    assert resident(found["0.weight"]) < 3 * SIZE * 4 / 1024 / 10
    (tmp_path / "a.safetensors").write_bytes(b"")
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())
    assert not any(module._load_state_dict_post_hooks for module in model.modules())
