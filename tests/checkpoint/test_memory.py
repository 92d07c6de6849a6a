"""Loading takes less than twice the size of the file on top of the model, measured in a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

LOAD = """
import resource, sys
import torch
from clipbert_mm.checkpoint import check_fit, read_source

def resident():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmRSS")).split()[1]) * 1024

model = torch.nn.ModuleDict(dict(projection=torch.nn.Linear(5000, 8000)))
model.projection.weight.data.fill_(1.0)
# What the imports took at their highest may hide the peak of what follows: fill up to it.
filled = torch.ones(max(0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - resident()), dtype=torch.uint8)
before = resident()
source = read_source(sys.argv[1])
check_fit(model, [source], whole=True)
model.load_state_dict(source.tensors)
assert model.projection.weight[7, 7] == 0.5
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize("archive", [True, False], ids=["zip", "old"])
def test_loading_takes_less_than_twice_the_file(tmp_path: Path, archive: bool):
    path = tmp_path / "weights.pth"
    tensors = {"projection.weight": torch.full((8000, 5000), 0.5), "projection.bias": torch.zeros(8000)}
    torch.save(tensors, path, _use_new_zipfile_serialization=archive)
    told = subprocess.run([sys.executable, "-c", LOAD, str(path)], capture_output=True, text=True, check=True)
    growth = int(told.stdout) / path.stat().st_size
    assert 0.5 < growth < 1.5  # it has to read the file once
