"""The joint encoder: BERT written out, the embedding of grid cells written out, and what padding may not do."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModel, BertConfig, BertModel, ElectraConfig, RobertaConfig

from clipbert_mm.models import JointEncoder

SIZES = dict(
    vocab_size=50, hidden_size=16, num_layers=2, num_heads=4, intermediate_size=24, max_text_length=12, grid_size=5
)


@pytest.fixture
def build() -> Callable[..., JointEncoder]:
    """Build a small encoder with weights large enough to matter, in float64."""

    def make(**options) -> JointEncoder:
        encoder = JointEncoder(**(SIZES | dict(dropout=0.0, initializer_range=0.3) | options)).double().eval()
        for name, parameter in encoder.named_parameters():
            if name.endswith("bias") or "norm" in name.lower():
                parameter.data += 0.3 * torch.randn_like(parameter)
        return encoder

    return make


@pytest.fixture
def texts() -> tuple[torch.Tensor, torch.Tensor]:
    """Two texts, the second with three places of padding."""
    text_ids = torch.randint(1, 50, (2, 7))
    text_mask = torch.ones(2, 7, dtype=torch.long)
    text_ids[1, 4:], text_mask[1, 4:] = 0, 0
    return text_ids, text_mask


def bert_by_hand(encoder: JointEncoder, ids: list[int], cells: torch.Tensor) -> torch.Tensor:
    """BERT over one text without padding and the tokens (S, D) of one clip; returns the text's last states (L, D)."""
    bert = encoder.bert
    table = bert.embeddings
    rows = [table.word_embeddings.weight[i] + table.position_embeddings.weight[p] for p, i in enumerate(ids)]
    text = table.LayerNorm(torch.stack(rows) + table.token_type_embeddings.weight[0])
    states = torch.cat([text, cells])
    heads, width = 4, 4
    for layer in bert.encoder.layer:
        projections = (layer.attention.self.query, layer.attention.self.key, layer.attention.self.value)
        query, key, value = (projection(states) for projection in projections)
        mixed = torch.empty_like(states)
        for h in range(heads):
            own = slice(h * width, (h + 1) * width)
            weights = (query[:, own] @ key[:, own].T / np.sqrt(width)).softmax(dim=1)
            mixed[:, own] = weights @ value[:, own]
        attention = layer.attention.output
        states = attention.LayerNorm(attention.dense(mixed) + states)
        states = layer.output.LayerNorm(layer.output.dense(F.gelu(layer.intermediate.dense(states))) + states)
    return states[: len(ids)]


def test_each_text_and_clip_go_through_bert(build: Callable, texts: tuple):
    encoder = build()
    visual_tokens = torch.randn(2, 3, 6, 16, dtype=torch.float64)  # 2 texts, 3 clips, 6 cells
    states = encoder(*texts, visual_tokens)
    assert states.shape == (2, 3, 7, 16)
    pooled = encoder.pool(states)
    for m, length in ((0, 7), (1, 4)):
        for k in range(3):
            wanted = bert_by_hand(encoder, texts[0][m, :length].tolist(), visual_tokens[m, k])
            torch.testing.assert_close(states[m, k, :length], wanted)
            torch.testing.assert_close(pooled[m, k], torch.tanh(encoder.bert.pooler.dense(wanted[0])))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_padding_changes_nothing(build: Callable, texts: tuple, dtype: torch.dtype):
    encoder = build().to(dtype)
    visual_tokens = torch.randn(2, 3, 6, 16).to(dtype)
    text_ids, text_mask = texts
    longer_ids = F.pad(text_ids, (0, 5), value=33)  # whatever stands in the padding
    longer_mask = F.pad(text_mask, (0, 5))
    states = encoder(text_ids, text_mask, visual_tokens)
    padded = encoder(longer_ids, longer_mask, visual_tokens)[:, :, :7]
    real = text_mask.bool()[:, None].expand(states.shape[:3])
    tolerance = dict(atol=1e-5, rtol=1e-5) if dtype == torch.float32 else dict(atol=0.05, rtol=0.05)
    torch.testing.assert_close(padded[real], states[real], **tolerance)


def test_visual_tokens_of_an_index_take_the_precision_of_the_encoder(build: Callable, texts: tuple):
    encoder, visual_tokens = build().bfloat16(), torch.randn(2, 3, 6, 16)
    states = encoder(*texts, visual_tokens)
    assert states.dtype == torch.bfloat16
    assert torch.equal(states, encoder(*texts, visual_tokens.bfloat16()))


def test_grid_cells_are_told_apart_by_row_column_and_kind(build: Callable):
    encoder = build()
    features = torch.randn(2, 3, 16, 4, 5, dtype=torch.float64)
    tokens = encoder.embed_clips(features)
    assert tokens.shape == (2, 3, 20, 16)
    part = encoder.visual_embedding
    for y in range(4):
        for x in range(5):
            place = part.row_embeddings.weight[y] + part.column_embeddings.weight[x] + part.type_embedding.weight[0]
            torch.testing.assert_close(tokens[:, :, y * 5 + x], part.norm(features[:, :, :, y, x] + place))


def test_pixel_sampling_draws_once_for_the_batch_and_in_training_alone(build: Callable):
    encoder = build(pixel_sampling=7)
    features = torch.randn(3, 2, 16, 4, 5, dtype=torch.float64)
    whole = encoder.embed_clips(features)
    assert whole.shape[2] == 20
    encoder.train()
    drawn_ever = set()
    for _ in range(30):
        kept = encoder.embed_clips(features)
        same = (kept[:, :, :, None] == whole[:, :, None]).all(dim=-1)  # (B, K, S', S)
        places = same.float().argmax(dim=3)
        assert same.any(dim=3).all()
        assert (places == places[0, 0]).all(), "all clips keep the same cells"
        assert len(set(places[0, 0].tolist())) == 7, "without replacement"
        drawn_ever |= set(places[0, 0].tolist())
    assert drawn_ever == set(range(20))
    assert build(pixel_sampling=20).train().embed_clips(features).shape[2] == 20


@pytest.mark.parametrize("kind", ["bert", "roberta", "electra"])
def test_weights_start_as_asked(kind: str):
    sizes = SIZES | dict(hidden_size=64, intermediate_size=128, vocab_size=500)
    encoder = JointEncoder(**sizes, architecture=kind, initializer_range=0.08)
    for name, parameter in encoder.named_parameters():
        if parameter.ndim == 2 and parameter.numel() > 1000:
            assert parameter.std().item() == pytest.approx(0.08, rel=0.12), name
    assert encoder.visual_embedding.row_embeddings.weight.std().item() == pytest.approx(0.08, rel=0.2)


@pytest.mark.parametrize("kind", ["bert", "roberta", "electra", "distilbert"])
def test_dropout_reaches_each_architecture(kind: str):
    encoder = JointEncoder(**SIZES, architecture=kind, dropout=0.37)
    modules = [module for module in encoder.modules() if isinstance(module, torch.nn.Dropout)]
    assert len(modules) >= 6
    assert {module.p for module in modules} == {0.37}
    without = JointEncoder(**SIZES, architecture=kind, dropout=0.0).train()
    ids, mask, cells = torch.randint(5, 50, (2, 6)), torch.ones(2, 6), torch.randn(2, 1, 4, 16)
    assert torch.equal(without(ids, mask, cells), without(ids, mask, cells)), "attention has none, either"


def test_under_a_seed_the_weights_are_those_of_transformers():
    torch.manual_seed(7)
    found = JointEncoder(**SIZES).bert.state_dict()
    torch.manual_seed(7)
    sizes = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=24)
    wanted = BertModel(BertConfig(vocab_size=50, max_position_embeddings=12, **sizes)).state_dict()
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_visual_tokens_are_normalized_as_the_text_is(tmp_path: Path):
    sizes = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=20)
    RobertaConfig(vocab_size=50, layer_norm_eps=1e-5, **sizes).save_pretrained(tmp_path)
    assert JointEncoder(architecture=str(tmp_path)).visual_embedding.norm.eps == 1e-5
    assert JointEncoder(**SIZES, architecture="distilbert").visual_embedding.norm.eps == 1e-12, "it names none"


def test_unless_told_it_drops_and_starts_as_bert_does_and_takes_grids_of_a_hundred():
    sizes = dict(vocab_size=50, hidden_size=16, num_layers=1, num_heads=4, intermediate_size=24)
    encoder = JointEncoder(**sizes)
    assert {each.p for each in encoder.modules() if isinstance(each, torch.nn.Dropout)} == {0.1}
    part = encoder.visual_embedding
    assert part.row_embeddings.weight.shape == part.column_embeddings.weight.shape == (100, 16)
    assert part.type_embedding.weight.shape == (1, 16)
    for weight in (part.row_embeddings.weight, encoder.word_embeddings):
        assert weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert part.pixel_sampling is None
    assert encoder.max_text_length == 512
    assert encoder.bert.config._attn_implementation == "sdpa"


def test_attention_is_computed_as_asked(build: Callable, texts: tuple):
    visual_tokens = torch.randn(2, 3, 6, 16, dtype=torch.float64)
    encoder, eager = build(), build(attention="eager")
    assert (encoder.bert.config._attn_implementation, eager.bert.config._attn_implementation) == ("sdpa", "eager")
    eager.load_state_dict(encoder.state_dict())
    torch.testing.assert_close(eager(*texts, visual_tokens), encoder(*texts, visual_tokens))
    with pytest.raises(
        ValueError, match=r"JointEncoder cannot compute attention with 'quick': .* Set attention='sdpa'"
    ):
        build(attention="quick")


@pytest.fixture
def narrow_electra(tmp_path: Path) -> str:
    """A folder that holds no more than the config of an ELECTRA whose word embeddings are half as wide as its layers."""
    ElectraConfig(
        vocab_size=50,
        embedding_size=8,
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=20,
        max_position_embeddings=9,
    ).save_pretrained(tmp_path)
    return str(tmp_path)


@pytest.fixture
def build_kind(build: Callable, narrow_electra: str) -> Callable[[str], JointEncoder]:
    """Build a small encoder of one of the kinds of ``KINDS``."""

    def make(kind: str) -> JointEncoder:
        return build(architecture=narrow_electra if kind == "narrow electra" else kind)

    return make


KINDS = ["bert", "roberta", "electra", "narrow electra", "distilbert", "megatron-bert"]


@pytest.mark.parametrize("kind", KINDS)
def test_without_visual_tokens_it_is_the_model_of_transformers(build_kind: Callable, texts: tuple, kind: str):
    encoder = build_kind(kind)
    twin = AutoModel.from_config(encoder.bert.config, attn_implementation="eager").double().eval()
    layers = "transformer." if kind == "distilbert" else "encoder."
    weights = {name.replace("encoder.", layers): value for name, value in encoder.bert.state_dict().items()}
    twin.load_state_dict({name: weights[name] for name in twin.state_dict()})
    text_ids, text_mask = texts
    states = encoder(text_ids, text_mask, torch.zeros(2, 3, 0, 16, dtype=torch.float64))
    wanted = twin(input_ids=text_ids, attention_mask=text_mask).last_hidden_state
    for k in range(3):
        torch.testing.assert_close(states[:, k][text_mask.bool()], wanted[text_mask.bool()])
    # Alone, without padding and mask: what the twin says does not hang on either.
    torch.testing.assert_close(states[1, 0, :4], twin(input_ids=text_ids[1:, :4]).last_hidden_state[0])


@pytest.mark.parametrize("kind", KINDS[1:])
def test_padding_changes_nothing_in_other_kinds(build_kind: Callable, texts: tuple, kind: str):
    encoder = build_kind(kind)
    visual_tokens = torch.randn(2, 3, 6, 16, dtype=torch.float64)
    states = encoder(*texts, visual_tokens)
    padded = encoder(F.pad(texts[0], (0, 2), value=33), F.pad(texts[1], (0, 2)), visual_tokens)[:, :, :7]
    real = texts[1].bool()[:, None].expand(states.shape[:3])
    torch.testing.assert_close(padded[real], states[real])
    assert (states[0, 0] - states[0, 1]).abs().max() > 1e-3, "texts do look at their clip"


def test_the_pooled_state_of_a_kind_without_a_pooler_is_bert_s(build_kind: Callable, texts: tuple):
    encoder = build_kind("electra")
    states = encoder(*texts, torch.randn(2, 3, 6, 16, dtype=torch.float64))
    dense = encoder.bert.pooler.dense
    torch.testing.assert_close(encoder.pool(states), torch.tanh(states[:, :, 0] @ dense.weight.T + dense.bias))


def test_a_folder_gives_type_and_sizes(narrow_electra: str):
    encoder = JointEncoder(architecture=narrow_electra)
    shapes = {name: tuple(value.shape) for name, value in encoder.named_parameters()}
    assert encoder.bert.config.model_type == "electra"
    assert shapes["bert.embeddings.word_embeddings.weight"] == (50, 8)
    assert shapes["bert.embeddings_project.weight"] == (16, 8)
    assert shapes["bert.encoder.layer.2.intermediate.dense.weight"] == (20, 16)
    assert "bert.encoder.layer.3.intermediate.dense.weight" not in shapes
    assert encoder.max_text_length == 9


def test_sizes_given_are_laid_over_those_of_the_folder(narrow_electra: str):
    encoder = JointEncoder(architecture=narrow_electra, vocab_size=60, num_layers=1, max_text_length=11)
    shapes = {name: tuple(value.shape) for name, value in encoder.named_parameters()}
    assert shapes["bert.embeddings.word_embeddings.weight"] == (60, 8)
    assert shapes["bert.encoder.layer.0.intermediate.dense.weight"] == (20, 16)
    assert "bert.encoder.layer.1.intermediate.dense.weight" not in shapes
    assert encoder.max_text_length == 11


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("funnel", r"cannot use 'funnel' with the sizes \{'vocab_size': "),  # has another name for its depth
        ("fnet", "cannot use 'fnet' in place of BERT: "),
        ("albert", "takes models that consist of embeddings and an encoder, .* 'albert' has .*pooler_activation"),
        ("gpt2", "takes models that consist of embeddings and an encoder, .* 'gpt2' has .*wte"),
        ("deberta", "cannot use 'deberta' in place of BERT: its attention ignores the padding mask"),
    ],
)
def test_an_architecture_of_another_build_is_refused(kind: str, reason: str):
    with pytest.raises(ValueError, match=f"JointEncoder {reason}"):
        JointEncoder(**SIZES, architecture=kind)


@pytest.mark.parametrize("folder", [True, False])
def test_an_unknown_architecture_is_refused(folder: bool, tmp_path: Path):
    name = str(tmp_path) if folder else "bertt"
    with pytest.raises(ValueError, match=r"nor a folder with a config\.json") as caught:
        JointEncoder(architecture=name)
    assert f"The architecture '{name}' is neither a model type" in str(caught.value)


def test_dropout_is_that_of_all_parts(build: Callable):
    # BERT's own is 0.1, in embeddings, attention and layers alike.
    ids, tokens = torch.randint(5, 50, (1, 6)), torch.randn(1, 2, 9, 16, dtype=torch.float64)
    encoder = build(dropout=0.0)
    expected = encoder(ids, torch.ones_like(ids), tokens)
    assert torch.equal(encoder.train()(ids, torch.ones_like(ids), tokens), expected)
    assert {each.p for each in build(dropout=0.3).modules() if isinstance(each, torch.nn.Dropout)} == {0.3}


def test_a_folder_cannot_ask_for_a_model_that_no_machine_holds(tmp_path: Path):
    BertConfig(vocab_size=2**50, hidden_size=4, num_hidden_layers=1, num_attention_heads=1).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"JointEncoder cannot use 'bert': .*is larger than"):
        JointEncoder(architecture=str(tmp_path))


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_every_parameter(build_kind: Callable, texts: tuple, without_gradient: Callable, kind: str):
    encoder = build_kind(kind)
    tokens = encoder.embed_clips(torch.randn(2, 2, 16, 5, 5, dtype=torch.float64))
    encoder.pool(encoder(*texts, tokens)).pow(2).sum().backward()
    assert without_gradient(encoder) == []


def test_a_text_that_is_too_long_is_refused(build: Callable):
    ids = torch.ones(1, 13, dtype=torch.long)
    with pytest.raises(ValueError, match=r"texts of at most 12 tokens, got 13\. Lower max_length of Tokenize"):
        build()(ids, ids, torch.zeros(1, 1, 4, 16))


def test_a_text_that_is_too_long_for_roberta_is_refused(tmp_path: Path):
    # RoBERTa-base has 514 places; those of the numbers 0 and 1 (its padding's) stay empty.
    RobertaConfig(
        vocab_size=50, hidden_size=4, num_hidden_layers=1, num_attention_heads=1, max_position_embeddings=514
    ).save_pretrained(tmp_path)
    encoder = JointEncoder(architecture=str(tmp_path)).eval()
    ids = torch.full((1, 513), 5)
    with pytest.raises(ValueError, match="texts of at most 512 tokens, got 513"):
        encoder(ids, torch.ones_like(ids), torch.zeros(1, 1, 4, 4))
    longest = ids[:, :512]
    assert encoder(longest, torch.ones_like(longest), torch.zeros(1, 1, 4, 4)).isfinite().all()


def test_a_grid_that_is_too_large_is_refused(build: Callable):
    with pytest.raises(ValueError, match=r"position embeddings for a grid of 5 x 5, got 4 x 6\. Raise its grid_size"):
        build().embed_clips(torch.zeros(1, 1, 16, 4, 6))


def test_a_folder_in_half_precision_gives_an_encoder_in_float32(tmp_path: Path):
    sizes = dict(vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=20)
    BertModel(BertConfig(**sizes)).half().save_pretrained(tmp_path)
    encoder = JointEncoder(architecture=str(tmp_path))
    assert {value.dtype for value in encoder.parameters()} == {torch.float32}
