"""What the tests share: a small Shapes world, a tokenizer for it, and a model of some thousand parameters."""

import os

# Before torch and transformers are imported. The suite runs on the CPU and asks no server for anything.
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import copy
import functools
import gc
import importlib.util
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import av
import mmengine
import mmengine.dataset.base_dataset
import mmengine.runner
import numpy as np
import pytest
import torch
from forking import ForkingProcess
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from sharing import Once, once_in, trained_once
from torch import Tensor, nn

from clipbert_mm import compat
from clipbert_mm.datasets import train_vocabulary
from clipbert_mm.datasets.shapes.scenes import Scene, ShapeObject, write_video
from clipbert_mm.datasets.shapes.world import ShapesWorld
from clipbert_mm.registry import MODELS
from clipbert_mm.structures import VideoTextSample

ROOT = Path(__file__).resolve().parents[1]
VOCAB_SIZE = 200


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the long tests of faults out unless they are asked for by ``-m faults``."""
    if "faults" not in config.option.markexpr:
        skipped = [item for item in items if item.get_closest_marker("faults")]
        config.hook.pytest_deselected(items=skipped)
        items[:] = [item for item in items if item not in skipped]


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One worker more than there are cores, since a fifth of the tests' time is waiting for other processes."""
    return (os.cpu_count() or 1) + 1


@MODELS.register_module(force=True)
class TinyBackbone(nn.Module):
    """One convolution: any registered 2D module may be a backbone."""

    def __init__(self, *, channels: int = 8) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, channels, kernel_size=4, stride=4)

    def forward(self, frames: Tensor) -> tuple[Tensor]:
        return (torch.relu(self.conv(frames)),)


@pytest.fixture(scope="session", autouse=True)
def quick() -> Iterator[None]:
    """Spare the suite about a minute."""
    torch.set_num_threads(1)  # the models are that small
    torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL = 0.5  # how long a loader that goes away waits for its workers
    # Each runner lays its whole config out several times.
    compat.layout_module().FormatCode = lambda text, **style: (text, False)
    mmengine.runner.runner.collect_env = functools.cache(mmengine.runner.runner.collect_env)  # it starts compilers
    # Each of MMEngine's datasets searches all that is there for garbage.
    mmengine.dataset.base_dataset.gc = SimpleNamespace(collect=int)
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def clean_state() -> Iterator[None]:
    """Look names up where the Runner does, start every test from the same random state, and leave no logger behind."""
    torch.manual_seed(0)
    np.random.seed(0)
    with DefaultScope.overwrite_default_scope("clipbert_mm"):
        yield
    MMLogger._instance_dict.clear()  # a logger keeps the standard output of its test, which is closed by now


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def tool() -> Callable[[str], ModuleType]:
    """Import a script of tools/ as a module, by its path."""

    def load(path: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location("tool_" + Path(path).stem, ROOT / "tools" / path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="session")
def with_torch() -> Iterator[ForkingProcess]:
    """A process with the libraries that nearly every task uses, whose forks run code without anything of pytest's."""
    with ForkingProcess("import numpy, torch, mmengine") as process:
        yield process


@pytest.fixture(scope="session")
def with_libraries() -> Iterator[ForkingProcess]:
    """A process with most of the libraries that tasks use."""
    with ForkingProcess(
        "import mmengine.runner, mmengine.hooks, mmengine.visualization, mmcv.cnn, transformers, av, cv2, lmdb\n"
        "import matplotlib.figure, PIL.Image, torch._dynamo, transformers.models.bert.modeling_bert"
    ) as process:
        yield process


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """Compute what a costly fixture gives once for all workers."""
    return once_in(tmp_path_factory)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory, once: Once) -> Path:
    """A Shapes world of 40 + 6 images, 8 training videos of 3 captions and 7 held-out ones of 2; not to be written to."""

    def write() -> Path:
        folder = tmp_path_factory.mktemp("shapes") / "world"
        ShapesWorld(
            seed=3, images=40, test_images=6, train_videos=8, test_videos=7, test_captions=2, partial_captions=False
        ).write(folder)
        return folder

    return once("world", write)


@pytest.fixture(scope="session")
def link_world(world: Path) -> Callable[[Path], Path]:
    """Make another folder of the same world, of links, so that it may be added to and broken."""

    def link(folder: Path) -> Path:
        for source in world.rglob("*.*"):
            target = folder / source.relative_to(world)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(source)
        return folder

    return link


@pytest.fixture
def own_world(link_world: Callable[[Path], Path], tmp_path: Path) -> Path:
    """The same world as a folder of this test."""
    return link_world(tmp_path / "world")


@pytest.fixture(scope="session")
def captions(world: Path) -> list[str]:
    """All captions of the world that are there to train on."""
    lines = [line for name in ("pretrain", "train") for line in (world / f"{name}.jsonl").read_text().splitlines()]
    return [json.loads(line)["caption"] for line in lines]


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory, captions: list[str], once: Once) -> str:
    """Folder of a tokenizer trained on the world's captions."""
    folder = tmp_path_factory.mktemp("tokenizer") / "trained"
    return once("tokenizer", lambda: str(train_vocabulary(captions, folder, VOCAB_SIZE)))


@pytest.fixture
def model_config() -> dict[str, Any]:
    """A ClipBert of about 10,000 parameters for 32 x 32 pixels, 4 x 4 visual tokens, with both heads and no dropout."""
    return dict(
        type="ClipBert",
        data_preprocessor=dict(
            type="VideoTextPreprocessor", mean=[120.0, 110.0, 100.0], std=[60.0, 55.0, 50.0], vocab_size=VOCAB_SIZE
        ),
        backbone=dict(type="TinyBackbone"),
        projection=dict(type="GridProjection", in_channels=8, out_channels=16),
        temporal_fusion=dict(type="MeanFusion"),
        encoder=dict(
            type="JointEncoder",
            vocab_size=VOCAB_SIZE,
            hidden_size=16,
            num_layers=2,
            num_heads=2,
            intermediate_size=32,
            max_text_length=40,
            dropout=0.0,
            grid_size=8,
            initializer_range=0.2,
        ),
        head=dict(type="MatchingHead", in_channels=16, hidden_channels=32, dropout=0.0),
        mlm_head=dict(type="MaskedLanguageHead", in_channels=16, vocab_size=VOCAB_SIZE),
        aggregator=dict(type="LogSumExpAggregator"),
    )


@pytest.fixture
def joined_config() -> dict[str, Any]:
    """A ClipBert like BLIP for 32 x 32 pixels: frames of 5 tokens, all of which are joined before scoring, and vectors."""
    return dict(
        type="ClipBert",
        data_preprocessor=dict(
            type="VideoTextPreprocessor", mean=[120.0, 110.0, 100.0], std=[60.0, 55.0, 50.0], vocab_size=VOCAB_SIZE
        ),
        backbone=dict(
            type="BlipVision",
            image_size=32,
            patch_size=16,
            hidden_size=16,
            num_layers=1,
            num_heads=2,
            intermediate_size=32,
            initializer_range=0.2,
        ),
        projection=None,
        temporal_fusion=dict(type="ConcatFusion"),
        clip_fusion=dict(type="ConcatClips"),
        encoder=dict(
            type="CrossEncoder",
            vocab_size=VOCAB_SIZE,
            hidden_size=16,
            num_layers=2,
            num_heads=2,
            intermediate_size=32,
            max_text_length=40,
            visual_size=16,
            frame_tokens=5,
            vector_size=8,
            joint_token=VOCAB_SIZE - 1,
            initializer_range=0.2,
        ),
        head=dict(type="SimilarityMatchingHead", in_channels=16),
        aggregator=dict(type="LogSumExpAggregator"),
    )


@pytest.fixture
def towers_config() -> dict[str, Any]:
    """A ClipBert like CLIP for 32 x 32 pixels, whose vectors of frames are averaged over a video."""
    sizes = dict(hidden_size=16, num_layers=1, num_heads=2, intermediate_size=32, vector_size=8)
    return dict(
        type="ClipBert",
        data_preprocessor=dict(
            type="VideoTextPreprocessor", mean=[120.0, 110.0, 100.0], std=[60.0, 55.0, 50.0], vocab_size=VOCAB_SIZE
        ),
        backbone=dict(type="CLIPVision", image_size=32, patch_size=16, **sizes),
        projection=None,
        temporal_fusion=dict(type="MeanFusion"),
        clip_fusion=dict(type="MeanClips"),
        encoder=dict(type="CLIPText", vocab_size=VOCAB_SIZE, max_text_length=40, **sizes),
        head=dict(type="SimilarityHead"),
        aggregator=dict(type="MeanAggregator"),
    )


@pytest.fixture
def make_batch() -> Callable[..., dict[str, Any]]:
    """Make a collated batch of random frames and texts."""

    def make(
        texts: Sequence[int] = (2, 2), clips: int = 2, length: int = 2, size: int = 32, seed: int = 0
    ) -> dict[str, Any]:
        rng = np.random.default_rng(seed)
        text_ids = [[rng.integers(5, VOCAB_SIZE, rng.integers(4, 12)) for _ in range(count)] for count in texts]
        labels = [[np.where(rng.random(len(ids)) < 0.4, ids, -100) for ids in item] for item in text_ids]
        samples = []
        for i, count in enumerate(texts):
            sample = VideoTextSample(metainfo=dict(sample_idx=i, path=f"{i}.mp4", texts=["a"] * count, broken=None))
            sample.match_labels = np.arange(count) % 2
            samples.append(sample)
        frames = torch.from_numpy(rng.integers(0, 256, (len(texts), clips, length, size, size, 3), np.uint8))
        return {"inputs": dict(frames=frames, text_ids=text_ids, mlm_labels=labels), "data_samples": samples}

    return make


@pytest.fixture
def runner_config(world: Path, tokenizer: str, model_config: dict[str, Any], tmp_path: Path) -> Config:
    """A whole config, as the tools have it after reading: retrieval with the tiny model, 6 steps an epoch."""
    del model_config["mlm_head"]

    def dataloader(split: str, sampling: dict[str, Any], **options: Any) -> dict[str, Any]:
        return dict(
            batch_size=4,
            num_workers=0,
            collate_fn=dict(type="clipbert_mm.collate_items"),
            sampler=dict(type="DefaultSampler", shuffle=split == "train"),
            dataset=dict(
                type="RetrievalDataset",
                data_root=str(world),
                ann_file=f"{split}.jsonl",
                media_folder="videos",
                pipeline=[
                    dict(type="OpenVideo"),
                    dict(type="SampleClips", num_frames=2, **sampling),
                    dict(type="DecodeClips"),
                    dict(type="ResizePad", size=32),
                    dict(type="Tokenize", tokenizer=tokenizer, max_length=40),
                    dict(type="PackInputs"),
                ],
                **options,
            ),
        )

    return Config(
        dict(
            default_scope="clipbert_mm",
            experiment_name=tmp_path.name,  # runners of one name share their state
            work_dir=str(tmp_path / "work"),
            launcher="none",
            log_level="WARNING",
            randomness=dict(seed=5),
            model=model_config,
            train_dataloader=dataloader("train", dict(num_clips=2, mode="random")),
            test_dataloader=dataloader("test", dict(num_clips=3, mode="uniform"), test_mode=True),
            train_cfg=dict(type="ResumableEpochTrainLoop", max_epochs=1),
            test_cfg=dict(type="RetrievalTestLoop"),
            test_evaluator=dict(type="RetrievalMetric"),
            optim_wrapper=dict(type="AccumulatingOptimWrapper", optimizer=dict(type="AdamW", lr=1e-3)),
            default_hooks=dict(
                checkpoint=dict(type="FaultTolerantCheckpointHook", interval=-1, save_last=False),
                epoch_seed=dict(type="EpochSeedHook"),
                broken_media=dict(type="BrokenMediaHook"),
                checkpoint_fit=dict(type="CheckpointCompatibilityHook"),
            ),
            visualizer=dict(type="Visualizer"),
        )
    )


@pytest.fixture
def write_checkpoint(
    runner_config: Config, once: Once, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """Write the checkpoint of a training of one epoch; the head and the dataset may be another task's.

    What has been trained by the same config is copied, from another test too.
    """

    def write(head: dict[str, Any] | None = None, dataset: dict[str, Any] | None = None) -> Path:
        config, name = copy.deepcopy(runner_config), "model" if head is None else head["type"]
        if head is not None:
            config.model.head = head
            for split in ("train", "test"):
                own = config[f"{split}_dataloader"].dataset
                own.update(dataset)
                if "ann_file" in dataset:
                    own.ann_file = f"{dataset['ann_file']}_{split}.jsonl"
            config.test_cfg, config.test_evaluator = dict(type="TestLoop"), dict(type="AnswerAccuracy")
        config.default_hooks.checkpoint = dict(type="FaultTolerantCheckpointHook", interval=1)
        config.train_cfg.max_epochs = 1
        shutil.copytree(trained_once(config, once, tmp_path_factory), tmp_path / name, dirs_exist_ok=True)
        torch.manual_seed(0)  # as much is left to chance where it was trained
        np.random.seed(0)
        return next((tmp_path / name).glob("*.pth"))

    return write


@pytest.fixture
def checkpoint(write_checkpoint: Callable[..., Path]) -> Path:
    """A checkpoint for retrieval."""
    return write_checkpoint()


@pytest.fixture(scope="session")
def without_gradient() -> Callable[[nn.Module], list[str]]:
    """Name the trainable parameters that a backward pass did not reach."""

    def names(module: nn.Module) -> list[str]:
        parameters = [(name, value) for name, value in module.named_parameters() if value.requires_grad]
        assert parameters, "nothing is trainable"
        return [name for name, value in parameters if value.grad is None or not value.grad.any()]

    return names


@pytest.fixture(scope="session")
def decode_with_pyav() -> Callable[[Path], np.ndarray]:
    """Decode a whole video from its first frame to its last with PyAV, (frames, H, W, 3)."""

    def decode(path: Path) -> np.ndarray:
        with av.open(str(path)) as container:
            return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])

    return decode


@pytest.fixture(scope="session")
def break_file() -> Callable[[Path, str], str]:
    """Break a video or image in place, in one of the ways files are broken; returns its path."""

    def to_front(path: Path) -> bytes:
        """Return an H.264 file with its index in front of its data, as files for the web have it."""
        fast = path.with_suffix(".fast.mp4")
        with av.open(str(path)) as source, av.open(str(fast), "w", options={"movflags": "faststart"}) as target:
            stream = target.add_stream_from_template(source.streams.video[0])
            for packet in source.demux(video=0):
                if packet.dts is not None:
                    packet.stream = stream
                    target.mux(packet)
        data = fast.read_bytes()
        fast.unlink()
        return data

    def break_it(path: Path, how: str) -> str:
        data = to_front(path) if how in ("cut in the data", "zeros in the data") else path.read_bytes()
        half = len(data) // 2
        broken = {
            "empty": b"",
            "text": b"this is no video\n" * 20,
            "cut": data[:half],
            "cut in the data": data[:half],
            "zeros in the data": data[:half] + bytes(400) + data[half + 400 :],
            "no head": data[1000:],
        }[how]
        path.unlink()  # it may be a link
        path.write_bytes(broken)
        return str(path)

    return break_it


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """An H.264 file with several key frames, in which something moves all the time."""
    first = ShapeObject("star", "red", "large", (0.2, 0.5), (0.3, 0.2))
    second = ShapeObject("ring", "blue", "small", (0.8, 0.1), (-0.2, 0.3))
    scenes = (Scene((first,), "black", 4.0), Scene((second,), "white", 3.92))
    write_video(tmp_path / "a.mp4", scenes, (176, 144), 12.5)
    return tmp_path / "a.mp4"
