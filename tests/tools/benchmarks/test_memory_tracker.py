"""Counted memory: by hand, with and without computing."""

import copy
import math
from collections.abc import Callable

import pytest
import torch
from benchmarks.bench_memory import counted_peak, largest_batch, read_bytes
from benchmarks.memory_tracker import LiveBytes, without_computing
from benchmarks.workload import Setting

from clipbert_mm.registry import MODELS

SETTING = Setting(batch=3, clips=4, frames=2, texts=2, size=32, length=9)


def test_live_bytes_by_hand():
    kept = torch.zeros(100)
    with LiveBytes(kept) as live:
        assert live.now == 400
        other = kept + 1
        view = other[10:]  # the same memory
        assert live.now == 800
        third = view * 2
        assert (live.now, live.peak) == (1160, 1160)
        del other, third
        assert live.now == 800, "the view keeps it"
        del view
        kept.add_(1)
    assert (live.now, live.peak) == (400, 1160)


@pytest.mark.parametrize("options", [{}, dict(clip_sequential=True)], ids=["plain", "clip by clip"])
def test_what_is_counted_without_computing_is_what_computing_takes(model_config: dict, options: dict):
    model = MODELS.build(copy.deepcopy(model_config) | options).train()
    computed = counted_peak(model, SETTING, "fp32", "cpu")
    with without_computing(model, "cpu"):
        assert counted_peak(model, SETTING, "fp32", "cpu") == pytest.approx(computed, rel=0.02)


def test_memory_hardly_depends_on_the_clips_if_one_is_held(model_config: dict):
    del model_config["mlm_head"]
    peaks: dict[bool, list[float]] = {}
    for sequential in (False, True):
        model = MODELS.build(copy.deepcopy(model_config) | dict(clip_sequential=sequential)).train()
        with without_computing(model, "cpu"):
            peaks[sequential] = [counted_peak(model, SETTING.but(batch=16, clips=k), "fp32", "cpu") for k in (1, 8)]
    assert peaks[False][1] > 5 * peaks[False][0]
    frames = 7 * 16 * 2 * 32 * 32 * 3 * (1 + 4)  # those of seven more clips, as integers and normalized
    assert peaks[True][1] - frames < 1.5 * peaks[True][0]


@pytest.mark.parametrize(
    "peak_of",
    [
        lambda batch: 100 + 7 * batch,
        lambda batch: max(500 + 2 * batch, 100 + 7 * batch),
        lambda batch: 100 + 7 * batch if batch < 50 else math.inf,
        lambda batch: 100 + 7 * batch + batch % 3,
        lambda batch: 5000 + batch,
    ],
)
@pytest.mark.parametrize("known", [None, 8, 200])
def test_the_largest_batch_is_the_largest(peak_of: Callable[[int], float], known: int | None):
    asked = []

    def ask(batch: int) -> float:
        asked.append(batch)
        return peak_of(batch)

    found = largest_batch(ask, 1000, None if known is None else (known, peak_of(known)))
    assert found == max((batch for batch in range(300) if batch == 0 or peak_of(batch) <= 1000), default=0)
    assert len(asked) <= 16


def test_sizes_are_read():
    assert [read_bytes(text) for text in ("32GiB", "1.5 MB", "7")] == [32 * 2**30, 1_500_000, 7]
    with pytest.raises(Exception, match="expected a size such as 32GiB or 800MiB, got 'much'"):
        read_bytes("much")
