"""A batch that does not fit: memory really ends, and what the message says does fit."""

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from limited_memory import train_with_less
from mmengine.config import Config
from warm_python import processes

from clipbert_mm.engine import out_of_memory
from clipbert_mm.engine.out_of_memory import TrialStep, advise, is_out_of_memory


def test_what_is_said_to_fit_fits(runner_config: Config, world: Path, tmp_path: Path):
    for loader in (runner_config.train_dataloader, runner_config.test_dataloader):
        loader.dataset.pipeline[3].size = 256
    runner_config.tried = {**runner_config.train_dataloader, "batch_size": 1}
    lines = (world / "train.jsonl").read_text().splitlines()
    (tmp_path / "one_step.jsonl").write_text("\n".join(lines[:8]))
    runner_config.train_dataloader.batch_size = 8
    runner_config.train_dataloader.dataset.ann_file = str(tmp_path / "one_step.jsonl")
    runner_config.model.backbone = dict(
        type="mmpretrain.ResNet", depth=18, stem_channels=16, base_channels=16, norm_eval=True
    )
    runner_config.model.projection.in_channels = 128
    runner_config.dump(str(tmp_path / "config.py"))
    arguments = (str(tmp_path / "config.py"), str(tmp_path / "said.txt"))
    process = processes().Process(target=train_with_less, args=arguments)
    process.start()
    process.join(300)
    assert process.exitcode == 0
    said = (tmp_path / "said.txt").read_text()
    found = re.match(
        r"OutOfMemoryError A batch of 8 x 2 clips x 2 frames of 256 x 256 pixels with 16 texts of up to \d+ tokens does "
        r"not fit into memory\. Tried: (\d) of 8 fit\. Set train_dataloader\.batch_size=(\d) and "
        r"optim_wrapper\.accumulative_counts=(\d) for a step of as many items.*num_clips of SampleClips and the size of "
        r"ResizePad helps too\. \(.*allocate",
        said,
    )
    assert found, said
    assert found[1] == found[2]
    assert int(found[2]) * int(found[3]) == 8


def test_a_micro_batch_is_advised_to_who_gave_one(
    make_batch: Callable, model_config: dict, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(TrialStep, "__call__", lambda self, count: count <= 4)
    monkeypatch.setattr(TrialStep, "helpful_options", lambda self, clips: ())
    config = Config(dict(model=model_config, train_dataloader=dict(sampler=dict(type="SameStepsSampler"))))
    runner = SimpleNamespace(model=torch.nn.Identity(), cfg=config, accumulation=2)
    batch = make_batch(texts=(2,) * 9)
    assert "Tried: 4 of 9 fit. Give --micro-batch 3, which takes the same steps. Lowering" in advise(
        runner, "train", batch
    )
    config.train_dataloader.sampler.type = "DefaultSampler"
    assert "Set train_dataloader.batch_size=4 and optim_wrapper.acc" in advise(runner, "train", batch)


@pytest.mark.parametrize(
    ("error", "ended"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (MemoryError(), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("shapes do not fit"), False),
        (ValueError("std::bad_alloc"), False),
    ],
)
def test_other_errors_are_not_taken_for_it(error: Exception, ended: bool):
    assert is_out_of_memory(error) == ended


def test_the_allocator_s_words_are_known():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


def test_a_model_of_another_library_gets_the_short_advice():
    runner = SimpleNamespace(cfg=dict(model=dict(type="mmpretrain.ImageClassifier")))
    said = out_of_memory.advise(runner, "train", dict(inputs=torch.zeros(8, 3, 4, 4), data_samples=[]))
    assert said == "A batch of 8 does not fit into memory. Lower train_dataloader.batch_size"
