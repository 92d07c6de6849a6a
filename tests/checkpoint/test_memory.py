"""Loading takes less than twice the size of the file on top of the model, measured in a process of its own."""

from pathlib import Path

import pytest
import torch
from warm_python import run_code

LOAD = """
import resource
import torch
from clipbert_mm.checkpoint import check_fit, read_source

def resident():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmRSS")).split()[1]) * 1024

model = torch.nn.ModuleDict(dict(projection=torch.nn.Linear(5000, 4000)))
model.projection.weight.data.fill_(1.0)
# What the imports took at their highest may hide the peak of what follows: fill up to it.
filled = torch.ones(max(0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - resident()), dtype=torch.uint8)
before = resident()
source = read_source(path)
check_fit(model, [source], whole=True)
model.load_state_dict(source.tensors)
assert model.projection.weight[7, 7] == 0.5
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before)
"""


@pytest.mark.parametrize("archive", [True, False], ids=["zip", "old"])
def test_loading_takes_less_than_twice_the_file(tmp_path: Path, archive: bool):
    path = tmp_path / "weights.pth"
    tensors = {"projection.weight": torch.full((4000, 5000), 0.5), "projection.bias": torch.zeros(4000)}
    torch.save(tensors, path, _use_new_zipfile_serialization=archive)
    growth = int(run_code(LOAD, path=str(path))) / path.stat().st_size
    assert 0.5 < growth < 1.5  # it has to read the file once
