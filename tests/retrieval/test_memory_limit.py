"""Memory stays under the limit of the config, measured by the system."""

import sys
from pathlib import Path

import pytest
from warm_python import run_code

from clipbert_mm.retrieval import memory_limit
from clipbert_mm.retrieval.memory_limit import RESERVE, memory_in_use, memory_left

RUN = """
import logging
from pathlib import Path
import torch
from clipbert_mm.retrieval.memory_limit import memory_in_use
from clipbert_mm.retrieval.evaluator import RetrievalEvaluator
from clipbert_mm.models import JointEncoder, PairEncoder

class Model(torch.nn.Module):  # what of a ClipBert scores texts beside tokens
    def __init__(self):
        super().__init__()
        self.encoder = JointEncoder(hidden_size=64, num_heads=1, num_layers=1, intermediate_size=64, vocab_size=50)
        self.clip_fusion = torch.nn.Identity()
        self.head = torch.nn.Linear(64, 1)

    def score_pairs(self, pairs, *texts_and_tokens):
        return self.head(pairs(*texts_and_tokens))

    def pool_scores(self, logits):
        return logits.mean(dim=1)[:, 0]

torch.set_num_threads(1)
torch.manual_seed(1)  # weights that tell these videos apart
model = Model().eval()
limit = None if room is None else f"{memory_in_use() // 2**20 + room}MiB"
pairs = PairEncoder(model.encoder)
run = RetrievalEvaluator(model, pairs, Path(folder), logging.getLogger(), clips_per_tile=64, memory_limit=limit)
records = []
for i in range(120):
    records.append(dict(sample_idx=i, broken=None, pieces=[[1, 2, 3]] * (i == 0)))
    name = f"{i:07d}"
    if name not in run.store:
        run.store.add(name, {"clips": torch.randn(1, 64).expand(20, 196, -1)}, {})  # 1 MiB
run.folder /= str(room)  # of its own for scores
scores, _ = run.score(records)
peak = int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM:")).split()[1]) * 1024
print(scores.shape, scores.std() > 1e-4, limit, peak // 2**20)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel for the peak")
def test_the_peak_stays_under_the_limit(tmp_path: Path):
    # Visual tokens of 120 MiB: with room for a quarter of them, and without a limit.
    peaks = {}
    for room in (110, None):
        printed = run_code(RUN, folder=str(tmp_path / "gallery"), room=room)
        assert printed.startswith("(1, 120) True"), printed
        limit, peaks[room] = printed.split()[-2:]
        if room is not None:
            assert int(peaks[room]) <= int(limit.removesuffix("MiB"))
    assert int(peaks[None]) - int(peaks[110]) > 60


def test_what_a_limit_leaves():
    assert memory_left(None, 10**12) is None
    held = memory_in_use()
    assert 50 * 2**20 < held < 20 * 2**30
    left = memory_left("64GiB", 2**30)
    assert left == pytest.approx(63 * 2**30 - RESERVE - held, abs=50 * 2**20)
    with pytest.raises(
        ValueError, match=r"memory_limit 1GiB is too low: this process uses \d+ MiB and needs about 2112 MiB"
    ):
        memory_left("1GiB", 2**31)


@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel for the peak")
@pytest.mark.parametrize(("platform", "unit"), [("linux", 1), ("darwin", 1024)])  # macOS counts bytes, others KiB
def test_where_the_system_does_not_tell_it_is_the_peak(monkeypatch: pytest.MonkeyPatch, platform: str, unit: int):
    monkeypatch.setattr(memory_limit, "Path", lambda path: Path("/nowhere"))
    monkeypatch.setattr(sys, "platform", platform)
    (peak,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    assert memory_in_use() * unit == pytest.approx(int(peak.split()[1]) * 1024, rel=0.05)
