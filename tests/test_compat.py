"""Each work-around does its work."""

import json
import logging
import os
import pickle
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from forking import ForkingProcess
from fvcore.nn import FlopCountAnalysis
from mmengine.config import Config
from mmengine.hooks import EarlyStoppingHook, LoggerHook
from mmengine.logging import HistoryBuffer
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from ports import free_port
from torch import nn
from yapf.yapflib.yapf_api import FormatCode

from clipbert_mm import compat
from clipbert_mm.checkpoint import CheckpointError
from clipbert_mm.checkpoint.archives import load_torch
from clipbert_mm.checkpoint.arrays import STAND_INS
from clipbert_mm.compat import optim
from clipbert_mm.datasets.transforms.text import load_tokenizer
from clipbert_mm.engine.launch import build_runner
from clipbert_mm.registry import HOOKS


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


def test_the_text_of_a_config_is_laid_out_once(monkeypatch: pytest.MonkeyPatch):
    texts = []

    def lay_out(text: str, style_config: dict) -> tuple[str, bool]:
        texts.append(text)
        return FormatCode(text, style_config=style_config)

    module = compat.layout_module()
    monkeypatch.setattr(module, "FormatCode", FormatCode)
    config = Config(dict(model=dict(type="ClipBert", sizes=[1, 2])))
    plain = config.pretty_text
    monkeypatch.setattr(module, "FormatCode", lay_out)
    compat.remember_config_layouts()
    compat.remember_config_layouts()
    assert config.pretty_text == config.pretty_text == plain
    assert len(texts) == 1
    assert Config(dict(other=1)).pretty_text == "other = 1\n"
    assert len(texts) == 2


def test_a_checkpoint_of_the_runner_is_resumed(trained: tuple[Config, Path]):
    config, path = trained
    checkpoint = load_torch(path, mmap=False)
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
    with pytest.raises(pickle.UnpicklingError, match="HistoryBuffer"):
        torch.load(trained[1], weights_only=True)
    with compat.allowing_mmengine_checkpoints(STAND_INS):
        assert "message_hub" in torch.load(trained[1], weights_only=True)


def test_what_the_user_allows_stays_allowed():
    before = set(torch.serialization.get_safe_globals())
    with torch.serialization.safe_globals([HistoryBuffer, SimpleNamespace]):
        with compat.allowing_mmengine_checkpoints(STAND_INS):
            assert set(torch.serialization.get_safe_globals()) > {*before, HistoryBuffer, SimpleNamespace}
        assert set(torch.serialization.get_safe_globals()) == {*before, HistoryBuffer, SimpleNamespace}
    assert set(torch.serialization.get_safe_globals()) == before


def test_threads_load_at_the_same_time(tmp_path: Path):
    history = HistoryBuffer([0.5], [1])
    torch.save({"history": history}, tmp_path / "a.pth")
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(load_torch, [tmp_path / "a.pth"] * 100))
    assert all(each["history"].mean() == 0.5 for each in found)


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
    found = load_torch(renamed, mmap=False)
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


def test_weights_that_a_part_of_the_model_starts_from_run_no_code(runner_config: Config, tmp_path: Path):
    command = Command(os.system, f"touch {tmp_path / 'it-ran'}")
    torch.save({"state_dict": command}, tmp_path / "evil.pth")
    runner_config.model.head.init_cfg = dict(type="Pretrained", checkpoint=str(tmp_path / "evil.pth"))
    with pytest.raises(pickle.UnpicklingError, match=r"posix\.system"):
        build_runner(runner_config).train()
    assert not (tmp_path / "it-ran").exists()


@pytest.mark.parametrize(
    ("owner", "name"),
    [(HistoryBuffer, "__subclasses__"), (HistoryBuffer, "_set_default_statistics"), (np.ndarray, "tofile")],
)
def test_getattr_gives_nothing_but_four_statistics(tmp_path: Path, owner: type, name: str):
    torch.save({"message_hub": Command(getattr, owner, name)}, tmp_path / "evil.pth")
    with compat.allowing_mmengine_checkpoints(STAND_INS):
        with pytest.raises(
            (pickle.UnpicklingError, ValueError), match=rf"\.{name}, which no checkpoint of MMEngine needs"
        ):
            torch.load(tmp_path / "evil.pth", weights_only=True)
        for good in ("current", "max", "mean", "min"):
            torch.save({"a": Command(getattr, HistoryBuffer, good)}, tmp_path / "good.pth")
            assert torch.load(tmp_path / "good.pth", weights_only=True)["a"] is getattr(HistoryBuffer, good)


def test_mmpretrain_is_imported_also_beside_pycocotools(tmp_path: Path, with_libraries: ForkingProcess):
    # Where it is installed, mmpretrain imports its multi-modal models, which fail with newer transformers.
    (tmp_path / "pycocotools").mkdir()
    (tmp_path / "pycocotools" / "__init__.py").touch()
    (tmp_path / "pycocotools-2.0.8.dist-info").mkdir()
    (tmp_path / "pycocotools-2.0.8.dist-info" / "METADATA").write_text("Name: pycocotools\nVersion: 2.0.8\n")
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
from mmpretrain.utils import dependency
assert dependency.WITH_MULTIMODAL
from clipbert_mm.models.backbones import build_backbone
print(type(build_backbone(dict(type="mmpretrain.ResNet", depth=18))).__module__)
assert dependency.WITH_MULTIMODAL, "it was put back"
"""
    assert with_libraries.run(code).stdout.strip() == "mmpretrain.models.backbones.resnet"


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

    mixed, mixed_dtype = step(OPTIM_WRAPPERS.get("clipbert_mm.AmpAccumulatingOptimWrapper"))
    plain, plain_dtype = step(OptimWrapper)
    assert (mixed_dtype, plain_dtype) == (torch.bfloat16, torch.float32)
    assert mixed.weight.dtype == torch.float32
    torch.testing.assert_close(mixed.weight, plain.weight, atol=2e-3, rtol=0)
    assert not torch.equal(mixed.weight, plain.weight)


def test_early_stopping_goes_on_counting():
    def validate(hook: EarlyStoppingHook, scores: list[float]) -> bool:
        runner = SimpleNamespace(train_loop=SimpleNamespace(stop_training=False), logger=logging.getLogger("stopping"))
        for score in scores:
            hook.after_val_epoch(runner, {"accuracy": score})
        return runner.train_loop.stop_training

    settings = dict(type="ResumableEarlyStoppingHook", monitor="accuracy", patience=3, min_delta=1.0)
    first = HOOKS.build(settings)
    assert not validate(first, [50.0, 50.5, 50.2])
    resumed, anew = HOOKS.build(settings), HOOKS.build(settings)
    resumed.load_state_dict(first.state_dict())
    assert validate(resumed, [50.1])
    assert not validate(anew, [50.1]), "as MMEngine's"


def test_one_process_writes_the_metrics_of_a_test(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    log = SimpleNamespace(get_log_after_epoch=lambda *given, **more: ({"accuracy": 50.0}, "accuracy: 50"))
    logger = logging.getLogger("metrics")
    runner = SimpleNamespace(log_processor=log, test_dataloader=[], logger=logger, log_dir=str(tmp_path), timestamp="t")
    for rank, hook in enumerate((HOOKS.build(dict(type="MainProcessLoggerHook")), LoggerHook())):
        hook.json_log_path = f"{rank}.json"
        monkeypatch.setattr(optim, "is_main_process", lambda: False)
        hook.after_test_epoch(runner, {})
    assert [path.name for path in tmp_path.iterdir()] == ["1.json"], "MMEngine's writes in each process"
    monkeypatch.setattr(optim, "is_main_process", lambda: True)
    hook = HOOKS.build(dict(type="MainProcessLoggerHook"))
    hook.json_log_path = "0.json"
    hook.after_test_epoch(runner, {})
    assert json.loads((tmp_path / "0.json").read_text()) == {"accuracy": 50.0}


class Gpu:
    """Stands for a GPU where there is none."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, bfloat16: bool) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: bfloat16)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla V100")


def test_mixed_precision_is_of_a_type_that_the_machine_has(monkeypatch: pytest.MonkeyPatch):
    assert compat.half_precision("auto") == compat.half_precision("bf16") == torch.bfloat16
    with pytest.raises(ValueError, match=r"is float16 \(fp16\) or bfloat16 \(bf16\), got 'float32'\."):
        compat.half_precision("float32")
    with pytest.raises(ValueError, match=r"in float16 needs a GPU, and there is none\. Use bfloat16"):
        optim.AmpAccumulatingOptimWrapper(torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1), dtype="float16")
    Gpu(monkeypatch, bfloat16=True)
    assert compat.half_precision("auto") == compat.half_precision("float16") == torch.float16
    assert compat.half_precision("bfloat16") == torch.bfloat16
    Gpu(monkeypatch, bfloat16=False)
    with pytest.raises(ValueError, match=r"a GPU that computes in it, and Tesla V100 does not\. Use float16"):
        compat.half_precision("bf16")


def test_losses_are_scaled_in_float16_alone(monkeypatch: pytest.MonkeyPatch):
    Gpu(monkeypatch, bfloat16=True)

    def scaler(**options: object) -> object:
        optimizer = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1)
        return optim.AmpAccumulatingOptimWrapper(optimizer, **options).loss_scaler

    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    assert scaler().get_scale() == 2.0**16
    assert scaler(loss_scale=512.0).get_scale() == 512
    assert not scaler(dtype="bfloat16").is_enabled()


@pytest.fixture
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without the variables of any launcher, restored after the test."""
    for name in (*compat.TORCH_VARIABLES, "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "")  # so that it is restored
        monkeypatch.delenv(name)
    for name in list(os.environ):
        if name.startswith(("SLURM_", "OMPI_")):
            monkeypatch.delenv(name)
    return monkeypatch


def started(launcher: str) -> dict[str, str]:
    """What torch is told of the processes, without starting their group."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.distributed, "is_initialized", lambda: True)
        compat.start_processes(launcher)
    return {name: os.environ[name] for name in (*compat.TORCH_VARIABLES, "MASTER_ADDR", "MASTER_PORT")}


def test_slurm_s_variables_become_torch_s(no_launcher: pytest.MonkeyPatch):
    variables = dict(PROCID=5, NTASKS=8, LOCALID=1, JOB_ID=123456, STEP_NODELIST="gpu[07-09,12],login1")
    for name, value in variables.items():
        no_launcher.setenv(f"SLURM_{name}", str(value))
    wanted = dict(RANK="5", WORLD_SIZE="8", LOCAL_RANK="1", MASTER_ADDR="gpu07", MASTER_PORT="23456")
    assert started("slurm") == wanted
    no_launcher.setenv("MASTER_ADDR", "10.0.0.1")
    no_launcher.setenv("MASTER_PORT", "1234")
    assert started("slurm") == wanted | dict(MASTER_ADDR="10.0.0.1", MASTER_PORT="1234")


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("n1", "n1"),
        ("a,b", "a"),
        ("rack[2,5]", "rack2"),
        ("x[009-011]-ib,y3", "x009-ib"),
        ("r[1-2]n[3-4]", "r1n3"),
        ("a-b.c[01]", "a-b.c01"),
    ],
)
def test_the_first_of_slurm_s_machines(nodes: str, first: str):
    assert compat.first_host(nodes) == first


def test_mpi_s_variables_become_torch_s(no_launcher: pytest.MonkeyPatch):
    for name, value in dict(RANK=1, SIZE=4, LOCAL_RANK=1, LOCAL_SIZE=4).items():
        no_launcher.setenv(f"OMPI_COMM_WORLD_{name}", str(value))
    assert started("mpi") == dict(
        RANK="1", WORLD_SIZE="4", LOCAL_RANK="1", MASTER_ADDR="127.0.0.1", MASTER_PORT="29500"
    )
    no_launcher.setenv("OMPI_COMM_WORLD_LOCAL_SIZE", "2")
    no_launcher.delenv("MASTER_ADDR")
    with pytest.raises(ValueError, match="mpi over several machines needs MASTER_ADDR"):
        started("mpi")


@pytest.mark.parametrize(
    ("launcher", "said"),
    [
        (
            "pytorch",
            r"is for processes started by torchrun \(.*dist_train\.sh.*\); RANK, WORLD_SIZE, LOCAL_RANK is not set",
        ),
        ("slurm", r"started by srun \(.*slurm_train\.sh.*\); SLURM_PROCID, SLURM_NTASKS, SLURM_LOCALID is not set"),
        ("mpi", r"started by Open MPI's mpirun; OMPI_COMM_WORLD_RANK"),
        ("ray", r"--launcher is none, pytorch, slurm, mpi, got ray\."),
    ],
)
def test_a_process_that_no_launcher_started(no_launcher: pytest.MonkeyPatch, launcher: str, said: str):
    with pytest.raises(ValueError, match=said):
        compat.start_processes(launcher)
    assert not torch.distributed.is_initialized()


def test_a_process_group_on_the_cpu(no_launcher: pytest.MonkeyPatch):
    where = dict(MASTER_ADDR="127.0.0.1", MASTER_PORT=free_port())
    for name, value in dict(RANK=0, WORLD_SIZE=1, LOCAL_RANK=0, **where).items():
        no_launcher.setenv(name, str(value))
    try:
        compat.start_processes("pytorch")
        compat.start_processes("pytorch")  # a second call changes nothing
        assert torch.distributed.get_backend() == "gloo"
        summed = torch.ones(2)
        torch.distributed.all_reduce(summed)
        assert summed.tolist() == [1, 1]
    finally:
        torch.distributed.destroy_process_group()


def test_a_vocabulary_alone_is_loaded_as_a_tokenizer(tmp_path: Path):
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "star", "##s"]))
    loaded = load_tokenizer(str(tmp_path))
    assert loaded(["Red stars", "blue"])["input_ids"] == [[2, 5, 6, 7, 3], [2, 1, 3]]
    loaded.save_pretrained(tmp_path / "whole")
    assert load_tokenizer(str(tmp_path / "whole"))("Red stars")["input_ids"] == [2, 5, 6, 7, 3]


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
