"""The smaller tools: what they print and draw is so."""

import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from torch import nn

from clipbert_mm.datasets.shapes.world import ShapesWorld
from clipbert_mm.engine.config import load_config
from clipbert_mm.registry import DATASETS, MODELS

ROOT = Path(__file__).resolve().parents[2]
OBJECTS = str(ROOT / "configs/shapes/resnet_tiny_1xb32-5e_shapes-objects.py")
PRETRAIN = str(ROOT / "configs/shapes/clipbert_tiny_1xb32-4e_shapes-pretrain.py")
RETRIEVAL = next(str(path) for path in (ROOT / "configs/shapes").glob("*-retrieval.py"))


@pytest.fixture(autouse=True)
def shapes_root(own_world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lead the configs to the small world."""
    monkeypatch.setenv("SHAPES_ROOT", str(own_world))


def test_a_printed_config_is_a_config_of_its_own(tool: Callable, tmp_path: Path, capsys: pytest.CaptureFixture):
    tool("analysis_tools/print_config.py").main([RETRIEVAL, "--cfg-options", "test_cfg.clips_per_tile=7"])
    (tmp_path / "printed.py").write_text(capsys.readouterr().out)
    printed = Config.fromfile(tmp_path / "printed.py")
    assert printed.to_dict() == load_config(RETRIEVAL, {"test_cfg.clips_per_tile": 7}).to_dict()
    assert printed.test_cfg.clips_per_tile == 7


def multiply_adds_by_hand(model: nn.Module, arguments: tuple[torch.Tensor, ...]) -> dict[str, int]:
    """Count what convolutions, linear layers and attention multiply, from the shapes of what they return."""
    counts = dict(conv=0, linear=0, scaled_dot_product_attention=0)

    def convolution(module: nn.Conv2d, inputs: tuple, outputs: torch.Tensor) -> None:
        counts["conv"] += outputs.numel() * module.weight[0].numel()

    def linear(module: nn.Linear, inputs: tuple, outputs: torch.Tensor) -> None:
        counts["linear"] += outputs.numel() * module.in_features

    def attention(module: nn.Module, inputs: tuple, outputs: tuple) -> None:
        batch, length, width = inputs[0].shape
        counts["scaled_dot_product_attention"] += 2 * batch * length * length * width

    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(convolution)
        elif isinstance(module, nn.Linear):
            module.register_forward_hook(linear)
    for layer in model.encoder.bert.encoder.layer:
        layer.register_forward_hook(attention)
    frames, *texts = arguments
    model.predict_clips(frames, *texts)
    return counts


@pytest.mark.parametrize(("clips", "frames"), [(1, 1), (3, 2)])
def test_flops_are_those_counted_by_hand(
    tool: Callable, monkeypatch: pytest.MonkeyPatch, capsys, clips: int, frames: int
):
    module: ModuleType = tool("analysis_tools/get_flops.py")
    counted = []
    table = module.ModuleFlops.table
    monkeypatch.setattr(
        module.ModuleFlops, "table", lambda flops, depth: counted.append(flops.analysis) or table(flops, depth)
    )
    sizes = ["--clips", str(clips), "--frames", str(frames), "--size", "96", "--text-length", "11"]
    module.main([RETRIEVAL, *sizes])
    model = MODELS.build(load_config(RETRIEVAL).model).eval()
    text_ids = torch.zeros(1, 11, dtype=torch.long)
    arguments = (torch.zeros(1, clips, frames, 3, 96, 96), text_ids, torch.ones_like(text_ids), text_ids[0, :1])
    by_hand = multiply_adds_by_hand(model, arguments)
    found = counted[0].by_operator()
    assert {name: found[name] for name in by_hand} == by_hand
    printed = capsys.readouterr().out
    total = float(re.search(r"([\d.]+) G multiply-adds for", printed).group(1))
    assert total == pytest.approx(sum(found.values()) / 1e9, abs=6e-4)
    assert f"for {clips} x {frames} frames of 96 x 96 pixels and 11 tokens" in printed


@pytest.mark.parametrize("split", ["train", "test"])
def test_browsing_draws_what_the_model_is_fed(
    tool: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys, split: str
):
    module: ModuleType = tool("analysis_tools/browse_dataset.py")
    drawn: list[dict] = []
    draw = module.draw_items
    monkeypatch.setattr(module, "draw_items", lambda items, out: drawn.extend(items) or draw(items, out))
    out = tmp_path / "new" / "a.png"
    module.main([RETRIEVAL, "--split", split, "--number", "3", "--epoch", "2", "--out", str(out)])
    assert cv2.imread(str(out)).std() > 5
    config = load_config(RETRIEVAL)
    dataset = DATASETS.build(config[f"{split}_dataloader"].dataset)
    dataset.set_draw(config.randomness.seed, 2)
    chosen = {"train": (0, 4, 7), "test": (0, 3, 6)}[split]
    assert f"drew 3 of {len(dataset)} items: {out}" in capsys.readouterr().out
    for idx, shown in zip(chosen, drawn, strict=True):
        item = dataset[idx]
        assert np.array_equal(shown["frames"], item["inputs"]["frames"])
        sample = item["data_samples"]
        marks = {1: "+  ", 0: "-  "}
        labels = [marks[label] for label in sample.match_labels] if split == "train" else [""] * len(sample.texts)
        wanted = [f"{mark}[CLS] {text} [SEP]" for mark, text in zip(labels, sample.texts, strict=True)]
        assert [text.replace(" ,", ",") for text in shown["texts"]] == wanted
        assert shown["title"] == f"{idx}: {Path(sample.path).name}"
        times = [
            tuple(map(float, re.fullmatch(r"([\d.]+)-([\d.]+) s", title).groups())) for title in shown["clip_titles"]
        ]
        assert len(times) == (2 if split == "train" else 8)
        assert all(end - start == pytest.approx(1, abs=0.11) for start, end in times)
        assert times == sorted(times)


def test_browsing_shows_masks(tool: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    module: ModuleType = tool("analysis_tools/browse_dataset.py")
    drawn: list[dict] = []
    monkeypatch.setattr(module, "draw_items", lambda items, out: drawn.extend(items))
    module.main([PRETRAIN, "--number", "8", "--out", str(tmp_path / "a.png")])
    texts = [text for item in drawn for text in item["texts"]]
    assert len(texts) == 16
    assert any("[MASK]" in text for text in texts if text.startswith("+"))
    assert any("[MASK]" in text for text in texts if text.startswith("-"))


def test_the_shapes_world_is_written_by_its_tool(tool: Callable, tmp_path: Path, capsys: pytest.CaptureFixture):
    sizes = dict(seed=4, images=2, test_images=1, train_videos=2, test_videos=1, test_captions=2)
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in sizes.items()]
    main = tool("dataset_converters/shapes.py").main
    main([str(tmp_path / "a"), *arguments])
    ShapesWorld(**sizes).write(tmp_path / "b")
    files = sorted(path.relative_to(tmp_path / "b") for path in (tmp_path / "b").rglob("*.*"))
    assert len(files) == 3 + 3 + 6 + 13 + 2, (
        "images, videos, captions and queries with world.json, questions, object labels"
    )
    for path in files:
        assert (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes()
    capsys.readouterr()
    main([str(tmp_path / "a"), *arguments])
    assert "holds this very world already" in capsys.readouterr().out
    with pytest.raises(FileExistsError, match="exists and is not the Shapes world"):
        main([str(tmp_path / "a"), "--seed=5"])


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("get_flops.py", [OBJECTS]),
        ("browse_dataset.py", [OBJECTS]),
        ("scan_videos.py", [OBJECTS]),
        ("benchmark.py", ["retrieval", OBJECTS]),
        ("benchmark.py", ["search", OBJECTS, "videos"]),
        ("benchmark.py", ["start", OBJECTS]),
    ],
)
def test_a_model_of_another_library_is_refused(tool: Callable, name: str, arguments: list[str]):
    said = rf"^{name} needs the config of a ClipBert, got one with a model of type mmpretrain\.ImageClassifier\."
    with pytest.raises(ValueError, match=said):
        tool(f"analysis_tools/{name}").main(arguments)
