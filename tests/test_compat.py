"""Each work-around does its work."""

import os
import pickle
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fvcore.nn import FlopCountAnalysis
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch import nn

from clipbert_mm import compat
from clipbert_mm.checkpoint import CheckpointError
from clipbert_mm.engine.launch import build_runner


@pytest.fixture
def trained(runner_config: Config) -> tuple[Config, Path]:
    """A config and the checkpoint that MMEngine's Runner wrote after its first of two epochs."""
    runner_config.default_hooks.checkpoint.interval = 1
    runner_config.train_dataloader.dataset.captions_per_item = 3
    runner = build_runner(runner_config)
    runner.train()
    runner_config.train_cfg.max_epochs = 2
    runner_config.experiment_name += "-resumed"
    return runner_config, Path(runner_config.work_dir) / "epoch_1.pth"


def test_a_checkpoint_of_the_runner_is_resumed(trained: tuple[Config, Path]):
    config, path = trained
    checkpoint = torch.load(path, weights_only=True)
    history = checkpoint["message_hub"]["log_scalars"]["train/loss"]
    assert isinstance(history, HistoryBuffer)
    assert history.mean(2) == pytest.approx(np.mean(history.data[0][-2:]))
    config.resume, config.load_from = True, str(path)
    runner = build_runner(config)
    runner.train()
    assert (runner.epoch, runner.iter) == (2, 4)
    resumed = runner.message_hub.get_scalar("train/loss").data[0]
    assert resumed[:2].tolist() == history.data[0].tolist()
    assert len(resumed) == 4


def test_without_the_work_around_it_is_refused(trained: tuple[Config, Path]):
    allowed = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    try:
        with pytest.raises(pickle.UnpicklingError, match="HistoryBuffer"):
            torch.load(trained[1], weights_only=True)
        compat.allow_mmengine_checkpoints()
        assert "message_hub" in torch.load(trained[1], weights_only=True)
    finally:
        torch.serialization.add_safe_globals(allowed)


@pytest.mark.parametrize("core", [b"numpy.core", b"numpy._core"], ids=["numpy 1", "numpy 2"])
def test_numpy_s_own_names_of_either_release_are_read(tmp_path: Path, core: bytes):
    torch.save({"scalar": np.float64(0.5), "array": np.arange(3)}, tmp_path / "a.pth")
    renamed = tmp_path / "b.pth"
    with zipfile.ZipFile(tmp_path / "a.pth") as source, zipfile.ZipFile(renamed, "w") as target:
        for entry in source.infolist():
            data = source.read(entry)
            if entry.filename.endswith("data.pkl"):
                data = data.replace(b"numpy._core", b"numpy.core").replace(b"numpy.core", core)
                assert core + b".multiarray" in data
            target.writestr(entry, data)
    found = torch.load(renamed, weights_only=True)
    assert found["scalar"] == 0.5
    assert found["array"].tolist() == [0, 1, 2]


class Command:
    """Runs a command when it is unpickled, if one lets it."""

    def __init__(self, function, *arguments) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("whole_file", [False, True], ids=["beside weights", "as the whole file"])
def test_a_malicious_checkpoint_is_refused_and_nothing_in_it_runs(
    runner_config: Config, tmp_path: Path, whole_file: bool
):
    marker = tmp_path / "it-ran"
    command = Command(os.system, f"touch {marker}")
    torch.save(command if whole_file else {"state_dict": {}, "message_hub": command}, tmp_path / "evil.pth")
    for resume in (False, True):
        runner_config.load_from, runner_config.resume = str(tmp_path / "evil.pth"), resume
        runner_config.experiment_name += "x"
        with pytest.raises(CheckpointError, match=r"posix\.system"):
            build_runner(runner_config).train()
    assert not marker.exists()
    runner_config.experiment_name += "x"
    with pytest.raises(CheckpointError, match=r"posix\.system"):
        build_runner(runner_config).test()
    assert not marker.exists()
    assert pickle.loads(pickle.dumps(command)) == 0
    assert marker.exists(), "elsewhere it does run"


@pytest.mark.parametrize(
    ("owner", "name"),
    [(HistoryBuffer, "__subclasses__"), (HistoryBuffer, "_set_default_statistics"), (np.ndarray, "tofile")],
)
def test_getattr_gives_nothing_but_four_statistics(tmp_path: Path, owner: type, name: str):
    torch.save({"message_hub": Command(getattr, owner, name)}, tmp_path / "evil.pth")
    with pytest.raises((pickle.UnpicklingError, ValueError), match=rf"\.{name}, which ours never hold"):
        torch.load(tmp_path / "evil.pth", weights_only=True)
    for good in ("current", "max", "mean", "min"):
        torch.save({"a": Command(getattr, HistoryBuffer, good)}, tmp_path / "good.pth")
        assert torch.load(tmp_path / "good.pth", weights_only=True)["a"] is getattr(HistoryBuffer, good)


def test_mmpretrain_is_imported_also_beside_pycocotools(tmp_path: Path, root: Path):
    # Where it is installed, mmpretrain imports its multi-modal models, which fail with newer transformers.
    (tmp_path / "pycocotools").mkdir()
    (tmp_path / "pycocotools" / "__init__.py").touch()
    (tmp_path / "pycocotools-2.0.8.dist-info").mkdir()
    (tmp_path / "pycocotools-2.0.8.dist-info" / "METADATA").write_text("Name: pycocotools\nVersion: 2.0.8\n")
    code = """
from mmpretrain.utils import dependency
assert dependency.WITH_MULTIMODAL
from clipbert_mm.models.backbones import build_backbone
print(type(build_backbone(dict(type="mmpretrain.ResNet", depth=18))).__module__)
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(root)])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "mmpretrain.models.backbones.resnet", done.stderr


def test_mixed_precision_on_the_cpu_computes_in_bfloat16_and_updates_in_float32():
    inputs = torch.randn(16, 8)

    def step(kind: type[OptimWrapper]) -> tuple[nn.Linear, torch.dtype]:
        torch.manual_seed(0)
        layer = nn.Linear(8, 4)
        wrapper = kind(optimizer=torch.optim.SGD(layer.parameters(), lr=0.1))
        with wrapper.optim_context(layer):
            outputs = layer(inputs)
        assert layer(inputs).dtype == torch.float32, "only within the context"
        wrapper.update_params(outputs.float().pow(2).mean())
        return layer, outputs.dtype

    mixed, mixed_dtype = step(OPTIM_WRAPPERS.get("clipbert_mm.CpuAmpOptimWrapper"))
    plain, plain_dtype = step(OptimWrapper)
    assert (mixed_dtype, plain_dtype) == (torch.bfloat16, torch.float32)
    assert mixed.weight.dtype == torch.float32
    torch.testing.assert_close(mixed.weight, plain.weight, atol=2e-3, rtol=0)
    assert not torch.equal(mixed.weight, plain.weight)


def test_a_process_group_on_the_cpu(monkeypatch: pytest.MonkeyPatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name, value in dict(RANK=0, WORLD_SIZE=1, MASTER_ADDR="127.0.0.1", MASTER_PORT=port).items():
        monkeypatch.setenv(name, str(value))
    with pytest.raises(ValueError, match=r"Without a GPU only --launcher pytorch works, got mpi\."):
        compat.start_gloo("mpi")
    assert not torch.distributed.is_initialized()
    try:
        compat.start_gloo("pytorch")
        compat.start_gloo("pytorch")  # a second call changes nothing
        assert torch.distributed.get_backend() == "gloo"
        summed = torch.ones(2)
        torch.distributed.all_reduce(summed)
        assert summed.tolist() == [1, 1]
    finally:
        torch.distributed.destroy_process_group()


def test_a_vocabulary_alone_is_loaded_as_a_tokenizer(tmp_path: Path):
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "star", "##s"]))
    loaded = compat.load_tokenizer(str(tmp_path))
    assert loaded(["Red stars", "blue"])["input_ids"] == [[2, 5, 6, 7, 3], [2, 1, 3]]
    loaded.save_pretrained(tmp_path / "whole")
    assert compat.load_tokenizer(str(tmp_path / "whole"))("Red stars")["input_ids"] == [2, 5, 6, 7, 3]


@pytest.mark.parametrize(("length", "keys", "width", "values"), [(5, 5, 4, 4), (3, 7, 4, 6)])
def test_attention_is_counted(length: int, keys: int, width: int, values: int):
    class Attention(nn.Module):
        def forward(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
            return F.scaled_dot_product_attention(query, key, value)

    class WrittenOut(nn.Module):
        def forward(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
            return torch.matmul(torch.matmul(query, key.transpose(2, 3)).softmax(dim=3), value)

    tensors = (torch.zeros(2, 3, length, width), torch.zeros(2, 3, keys, width), torch.zeros(2, 3, keys, values))
    count = FlopCountAnalysis(Attention(), tensors).unsupported_ops_warnings(False)
    assert count.total() == 0, "fvcore knows it now, and the work-around can go"
    count = FlopCountAnalysis(Attention(), tensors).unsupported_ops_warnings(False)
    count.set_op_handle("aten::scaled_dot_product_attention", compat.count_attention)
    by_hand = 0
    for _ in range(2 * 3 * length * keys):
        by_hand += width  # query times key
        by_hand += values  # weight times value
    assert count.total() == by_hand
    written_out = FlopCountAnalysis(WrittenOut(), tensors).unsupported_ops_warnings(False)
    assert count.total() == written_out.total()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[12:00:01] /github/src/video_reader.cc:151: Check failed: st_nb >= 0\nStack", "Check failed: st_nb >= 0"),
        ("[1:2:3] /a/b.cc:292: [1:2:3] /a/c.cc:218: Check failed: send_packet", "Check failed: send_packet"),
        ("\nError reading a.mp4...\n", "not a video, or cut short"),
        ("\nSomething else...\n", "Something else"),
        ("cannot open a:12: b", "cannot open a:12: b"),
        ("", "ValueError"),
    ],
    ids=["decord", "decord in decord", "nothing read", "plain", "a path with a number", "nothing"],
)
def test_a_decoder_s_reason_is_its_first_line_without_paths(text: str, reason: str):
    assert compat.decoder_reason(ValueError(text)) == reason
