"""The numbers that the paper's released implementation printed, from the same weights.

golden.json holds what it computed on CPU in float32 and eval mode, with every parameter filled by seeded_weights.py;
state_dict.tsv lists its parameters.
"""

import json
from pathlib import Path
from runpy import run_path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.registry import DefaultScope

from clipbert_mm.checkpoint import check_fit, convert_official_state_dict
from clipbert_mm.models import LogSumExpAggregator, MaxAggregator, MeanAggregator
from clipbert_mm.registry import MODELS

HERE = Path(__file__).parent
CONFIG = HERE.parent.parent / "configs" / "_base_" / "models" / "clipbert_r50_bert-base.py"
GOLDEN = json.loads((HERE / "golden.json").read_text())
SEEDED = run_path(str(HERE / "seeded_weights.py"))

pytestmark = pytest.mark.parity


def official_state_dict(task: str) -> dict[str, torch.Tensor]:
    """Rebuild the released implementation's weights for a task; of several shapes the first is retrieval's."""
    weights = {}
    for line in (HERE / "state_dict.tsv").read_text().splitlines()[1:]:
        name, shapes, tasks = line.split("\t")
        if task in tasks.split(","):
            shape = tuple(map(int, shapes.split(" | ")[0].split("x")))
            weights[name] = torch.from_numpy(np.asarray(SEEDED["seeded_weight"](name, shape)))
    return weights


@pytest.fixture(scope="module")
def model():
    config = Config.fromfile(CONFIG).model
    config.head = dict(type="MatchingHead", in_channels=768, hidden_channels=1536)
    with DefaultScope.overwrite_default_scope("clipbert_mm"):
        model = MODELS.build(config).eval()
    weights = convert_official_state_dict(official_state_dict("retrieval"))
    check_fit(model, weights, whole=True)
    assert model.load_state_dict(weights, strict=False).unexpected_keys == []
    return model


@pytest.fixture(scope="module")
def inputs(model):
    frames, text_ids, text_mask = SEEDED["golden_inputs"](2, 2, 2, 128, 4, 12, seed=0)
    return dict(
        frames=model.data_preprocessor.normalize(torch.from_numpy(frames).movedim(3, -1)),
        text_ids=torch.from_numpy(text_ids),
        text_mask=torch.from_numpy(text_mask),
        video_index=torch.tensor([0, 0, 1, 1]),
    )


def agree(ours: torch.Tensor, golden: object) -> None:
    """Agree to 1e-4, relative to the largest of the golden numbers."""
    wanted = torch.tensor(golden)
    assert ours.shape == wanted.shape
    assert (ours.detach() - wanted).abs().max() <= 1e-4 * wanted.abs().max()


def test_grid_features(model, inputs):
    grid = model.projection(model.backbone(inputs["frames"].flatten(0, 2)))  # (B·K·T, D, h, w)
    grid = grid.unflatten(0, (2, 2, 2))[:, 0].movedim(2, -1)  # clip 0: (B, T, h, w, D)
    assert list(grid.shape) == GOLDEN["grid_shape"]
    agree(grid.mean(), GOLDEN["grid_mean"])
    agree(grid.std(), GOLDEN["grid_std"])
    agree(grid[0, 0, 0, 0, :8], GOLDEN["grid_first8"])


def test_fused_states(model, inputs):
    tokens = model.encode_video(inputs["frames"])
    states = model.fuse(tokens, inputs["text_ids"], inputs["text_mask"], inputs["video_index"])  # (M, K, L, D)
    agree(states[:, 0, 0, :8], GOLDEN["fusion_sequence_output_cls_first8"])
    agree(model.encoder.pool(states)[:, 0, :8], GOLDEN["fusion_pooled_first8"])


@pytest.mark.parametrize(
    ("name", "aggregator"), [("lse", LogSumExpAggregator), ("mean", MeanAggregator), ("max", MaxAggregator)]
)
def test_retrieval_probabilities_and_losses(model, inputs, name, aggregator):
    with torch.no_grad():
        clip_logits = model(inputs, mode="tensor")
    agree(clip_logits, GOLDEN["retrieval_clip_logits"])
    logits = aggregator()(clip_logits)
    agree(logits.softmax(dim=1)[:, 1], GOLDEN[f"retrieval_match_prob_{name}"])
    agree(F.cross_entropy(logits, torch.tensor([1, 0, 1, 0])), GOLDEN[f"retrieval_loss_{name}"])


def test_gradients_and_what_gets_none(model, inputs):
    model.zero_grad()
    logits = model.aggregator(model(inputs, mode="tensor"))
    F.cross_entropy(logits, torch.tensor([1, 0, 1, 0])).backward()
    parameters = dict(model.named_parameters())
    for name, norm in GOLDEN["retrieval_lse_grad_norms"].items():
        (ours,) = convert_official_state_dict({name: torch.empty(0)})
        agree(parameters[ours].grad.norm(), norm)
    without = {name for name, parameter in parameters.items() if not parameter.requires_grad}
    frozen = convert_official_state_dict(dict.fromkeys(GOLDEN["frozen_or_unused_parameters"], torch.empty(0)))
    assert set(frozen) <= without
    assert all((parameters[name].grad is None) == (name in without) for name in parameters)
