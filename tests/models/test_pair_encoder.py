"""The encoder of pairs against the joint encoder, each pair on its own: any build, precision and size of a pass."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from clipbert_mm.models import JointEncoder, PairEncoder

SIZES = dict(
    vocab_size=50, hidden_size=16, num_layers=3, num_heads=4, intermediate_size=24, max_text_length=12, grid_size=5
)
SHARING = ("bert", "roberta", "electra")
KINDS = (*SHARING, "distilbert")


@pytest.fixture
def build() -> Callable[..., JointEncoder]:
    """Build a small encoder with weights and biases large enough to matter, in eval mode."""

    def make(**options) -> JointEncoder:
        encoder = JointEncoder(**(SIZES | dict(initializer_range=0.3) | options)).eval()
        for name, parameter in encoder.named_parameters():
            if name.endswith("bias") or "norm" in name.lower():
                parameter.data += 0.3 * torch.randn_like(parameter)
        return encoder

    return make


@pytest.fixture
def texts() -> list[torch.Tensor]:
    """Six texts of three lengths, in no order."""
    return [torch.randint(5, 50, (length,)) for length in (7, 3, 12, 3, 7, 7)]


@pytest.fixture
def tokens() -> torch.Tensor:
    """Four videos of two clips of five cells."""
    return torch.randn(4, 2, 5, 16)


PAIRS = (torch.tensor([0, 1, 2, 3, 4, 5, 0, 1, 5, 3]), torch.tensor([3, 3, 2, 0, 1, 0, 0, 1, 2, 3]))


@torch.no_grad()
def one_by_one(encoder: JointEncoder, texts: list[torch.Tensor], tokens: torch.Tensor) -> torch.Tensor:
    """Pooled [CLS] states of PAIRS, each pair in a forward pass of its own through the whole encoder, (P, K, D)."""
    found = []
    for text, video in zip(*PAIRS, strict=True):
        ids = texts[text][None]
        found.append(encoder.pool(encoder(ids, torch.ones_like(ids), tokens[video][None]))[0])
    return torch.stack(found)


@pytest.mark.parametrize("kind", SHARING)
@pytest.mark.parametrize("tokens_per_pass", [40, None])
def test_gradients_are_those_of_the_joint_encoder(
    build: Callable, texts, tokens, kind: str, tokens_per_pass: int | None
):
    encoder = build(architecture=kind, dropout=0.0).double().train()
    tokens = tokens.double().requires_grad_()
    gradients = []
    for packed in (True, False):
        if packed:
            pairs = PairEncoder(encoder, tokens_per_pass=tokens_per_pass)
            states = pairs(pairs.encode_texts(texts), tokens, *PAIRS)
        else:
            states = one_by_one.__wrapped__(encoder, texts, tokens)
        states.square().sum().backward()
        named = {name: value for name, value in encoder.named_parameters() if not name.startswith("visual_embedding")}
        gradients.append([tokens.grad, *(value.grad for value in named.values())])
        assert [name for name, value in named.items() if value.grad is None] == []
        tokens.grad = None
        encoder.zero_grad()
    for found, wanted in zip(*gradients, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-7, atol=1e-9)


def test_in_eval_mode_there_are_no_gradients(build: Callable, texts, tokens):
    pairs = PairEncoder(build())
    assert not pairs(pairs.encode_texts(texts), tokens.requires_grad_(), *PAIRS).requires_grad


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tokens_per_pass", [1, 40, None])
@torch.no_grad()
def test_pairs_are_those_of_the_joint_encoder(build: Callable, texts, tokens, kind: str, tokens_per_pass: int | None):
    encoder = build(architecture=kind)
    pairs = PairEncoder(encoder, tokens_per_pass=tokens_per_pass)
    assert pairs.shares_layers == (kind in SHARING)
    found = pairs(pairs.encode_texts(texts), tokens, *PAIRS)
    wanted = one_by_one(encoder, texts, tokens)
    assert wanted.std(dim=0).mean() > 0.05
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def test_a_pass_is_as_large_as_the_device_takes(build: Callable):
    # With other numbers, scores would differ in their last bits from those of before.
    encoder = build()
    assert PairEncoder(encoder).tokens_per_pass == 1024
    assert PairEncoder(encoder, tokens_per_pass=7).tokens_per_pass == 7
    assert PairEncoder(encoder.to("meta")).tokens_per_pass == 2**16


@pytest.mark.parametrize(
    ("lengths", "passes"),
    [([5, 5], [[0, 1]]), ([6, 5], [[1], [0]]), ([9, 2, 2, 2, 2, 2], [[1, 2, 3, 4, 5], [0]]), ([30, 4, 4], [[1, 2], [0]]),
     ([5, 5, 5, 5, 1], [[4, 0], [1, 2], [3]]), ([], [])],
)  # fmt: skip
def test_sequences_are_passed_by_length_each_where_it_ends(
    build: Callable, lengths: list[int], passes: list[list[int]]
):
    pairs = PairEncoder(build(), tokens_per_pass=10)
    found = pairs._passes(torch.tensor(lengths, dtype=torch.long))
    assert [indices.tolist() for indices in found] == passes


def test_layers_are_shared_where_positions_are_absolute(build: Callable):
    encoder = build()
    assert PairEncoder(encoder).shares_layers
    encoder.bert.config.position_embedding_type = "relative_key"  # which its attention would have to see
    assert not PairEncoder(encoder).shares_layers


@pytest.mark.parametrize("layers", [1, 2])
@torch.no_grad()
def test_a_first_layer_may_be_the_last(build: Callable, texts, tokens, layers: int):
    encoder = build(num_layers=layers)
    pairs = PairEncoder(encoder)
    torch.testing.assert_close(
        pairs(pairs.encode_texts(texts), tokens, *PAIRS), one_by_one(encoder, texts, tokens), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@torch.no_grad()
def test_half_precision_is_near_and_leaves_the_weights_alone(build: Callable, texts, tokens, kind: str, precision: str):
    encoder = build(architecture=kind)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    pairs = PairEncoder(encoder, precision=precision)
    found = pairs(pairs.encode_texts(texts), tokens, *PAIRS)
    assert found.dtype == torch.float32
    wanted = one_by_one(encoder, texts, tokens)
    error = (found - wanted).abs().mean().item()
    assert 1e-6 < error < 0.03
    after = encoder.state_dict()
    assert all(torch.equal(after[name], value) and after[name].dtype == value.dtype for name, value in before.items())


@torch.no_grad()
def test_what_does_not_depend_on_the_pair_is_computed_once(build: Callable, texts, tokens):
    encoder = build()
    rows: dict[str, int] = {}

    def count(name: str) -> Callable:
        def hook(module: nn.Module, inputs: tuple, outputs: torch.Tensor) -> None:
            rows[name] = rows.get(name, 0) + outputs.numel() // outputs.shape[-1]

        return hook

    for name, module in encoder.named_modules():
        if isinstance(module, (nn.Linear, nn.Embedding)):
            module.register_forward_hook(count(name.removeprefix("bert.")))
    pairs = PairEncoder(encoder)
    encoded = pairs.encode_texts(texts)
    pairs(encoded, tokens, *PAIRS)
    joint = sum(len(texts[i]) + 5 for i in PAIRS[0]) * 2  # tokens of all pairs of a text and a clip
    once = sum(map(len, texts)) + tokens.shape[0] * tokens.shape[1] * tokens.shape[2]
    assert rows["embeddings.word_embeddings"] == sum(map(len, texts))
    assert rows["encoder.layer.0.attention.self.query"] == once
    assert rows["encoder.layer.0.output.dense"] == joint
    assert rows["encoder.layer.1.attention.self.key"] == joint
    assert rows["encoder.layer.2.output.dense"] == len(PAIRS[0]) * 2, "[CLS] alone"
    assert "encoder.layer.2.attention.self.key" not in rows


@torch.no_grad()
def test_no_pairs_give_none(build: Callable, texts, tokens):
    pairs = PairEncoder(build())
    nothing = torch.empty(0, dtype=torch.long)
    assert pairs(pairs.encode_texts(texts), tokens, nothing, nothing).shape == (0, 2, 16)


def test_what_it_cannot_do_is_refused(build: Callable):
    with pytest.raises(ValueError, match="expects a precision of fp32, bf16, fp16, got 'half'"):
        PairEncoder(build(), precision="half")
    with pytest.raises(ValueError, match="needs an encoder in eval mode"):
        PairEncoder(build().train())
    with pytest.raises(ValueError, match="texts of at most 12 tokens, got 13"):
        PairEncoder(build()).encode_texts([torch.ones(13, dtype=torch.long)])


@pytest.mark.parametrize("architecture", ["bert", "distilbert"])
def test_text_states_are_those_of_the_joint_encoder(build: Callable, architecture: str):
    # 12 texts of 1 to 9 tokens, in several passes, by BERT's layers and by another architecture's own.
    mask = (torch.arange(9) < torch.arange(12)[:, None] % 9 + 1).long()
    ids, video = torch.randint(5, 50, mask.shape) * mask, torch.tensor([2, 0, 1] * 4)
    encoder = build(architecture=architecture, dropout=0.0).double().train()
    tokens = torch.randn(3, 2, 4, 16, dtype=torch.float64)
    found = PairEncoder(encoder, tokens_per_pass=40).text_states(ids, mask, tokens, video)
    wanted = encoder(ids, mask, tokens[video])
    assert found.requires_grad
    real = mask.bool()[:, None].expand(found.shape[:3])
    torch.testing.assert_close(found[real], wanted[real])
    assert not found[~real].any()
