"""Memory that loading takes on top of the model, measured in a process of its own."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from warm_python import run_code

LOAD = """
import resource
import torch
from clipbert_mm.checkpoint import check_fit, load_weights, read_source

def resident():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmRSS")).split()[1]) * 1024

model = torch.nn.ModuleDict(dict(projection=torch.nn.Sequential(*(torch.nn.Linear(2000, 1000) for _ in range(10)))))
for parameter in model.parameters():
    parameter.data.fill_(1.0)
# What the imports took at their highest may hide the peak of what follows: fill up to it.
filled = torch.ones(max(0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - resident()), dtype=torch.uint8)
before = resident()
source = read_source(path)
check_fit(model, [source], whole=True)
load_weights(model, source.tensors, path)
assert model.projection[9].weight[7, 7] == 0.5
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before)
"""


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("new.pth", 0.5),  # of a mapped file, about one tensor at a time
        ("new.safetensors", 0.5),
        ("old.pth", 1.5),  # which torch cannot map
    ],
)
def test_loading_takes_a_part_of_the_file(tmp_path: Path, name: str, most: float):
    path = tmp_path / name
    tensors = {f"projection.{i}.weight": torch.full((1000, 2000), 0.5) for i in range(10)}
    tensors |= {f"projection.{i}.bias": torch.zeros(1000) for i in range(10)}
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path, _use_new_zipfile_serialization=path.stem == "new")
    growth = int(run_code(LOAD, path=str(path))) / path.stat().st_size
    assert growth < most
    assert growth > most - 1.0  # an old file is read once
