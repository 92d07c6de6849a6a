"""Folders of public models of a few thousand random weights, as ``save_pretrained`` and processors write them."""

import json
import os
from pathlib import Path
from typing import Any

import torch
from transformers import BlipConfig, BlipForImageTextRetrieval

WORDS = [
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    *(
        "a",
        "the",
        "two",
        "dog",
        "cat",
        "man",
        "people",
        "red",
        "blue",
        "circle",
        "square",
        "moves",
        "runs",
        "run",
        "talk",
    ),
    *("is", "are", "on", "in", "what", "who", "which", "color", "one", "of", "yes", "no"),
]
LETTERS = [chr(ord("a") + i) for i in range(26)]
VOCABULARY = list(dict.fromkeys([*WORDS, *LETTERS, *(f"##{letter}" for letter in LETTERS)]))
OPENAI_MEAN, OPENAI_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]


def write_blip(
    folder: Path, kind: Any = BlipForImageTextRetrieval, *, visual_size: int = 48, safetensors: bool = True
) -> Any:
    """Write a BLIP for frames of 32 x 32 pixels; returns the library's model."""
    torch.manual_seed(0)
    words = len(VOCABULARY)
    sizes = dict(num_attention_heads=4, intermediate_size=64, initializer_range=0.2)
    vision = dict(hidden_size=visual_size, num_hidden_layers=2, image_size=32, patch_size=8)
    text = dict(
        vocab_size=words + 2,  # [DEC] and [ENC] come after the tokenizer's
        bos_token_id=words,
        sep_token_id=VOCABULARY.index("[SEP]"),
        eos_token_id=VOCABULARY.index("[SEP]"),
        hidden_size=32,
        encoder_hidden_size=visual_size,
        num_hidden_layers=3,
        max_position_embeddings=40,
    )
    config = BlipConfig(text_config=text | sizes, vision_config=vision | sizes, image_text_hidden_size=16)
    model = kind(config).eval()
    write_weights(model, folder, safetensors=safetensors)
    write_bert_tokenizer(folder)
    write_image_processor(
        folder, "BlipImageProcessor", size=dict(height=32, width=32), image_mean=OPENAI_MEAN, image_std=OPENAI_STD
    )
    return model


def write_weights(model: Any, folder: Path, *, safetensors: bool) -> None:
    """Write a model's config and weights, the latter as model.safetensors or as pytorch_model.bin."""
    model.save_pretrained(folder)
    if not safetensors:
        (folder / "model.safetensors").unlink()
        torch.save(model.state_dict(), folder / "pytorch_model.bin")


def write_bert_tokenizer(folder: Path) -> None:
    """Write a BERT tokenizer of some words and all letters."""
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps(dict(do_lower_case=True, tokenizer_class="BertTokenizer")))


def write_image_processor(folder: Path, kind: str, **settings: Any) -> None:
    """Write the file of an image processor."""
    values = dict(image_processor_type=kind, do_resize=True, resample=3, do_rescale=True, rescale_factor=1 / 255)
    (folder / "preprocessor_config.json").write_text(json.dumps(values | dict(do_normalize=True) | settings))


def edit_settings(folder: Path, **changes: Any) -> None:
    """Change values of a folder's config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def without(folder: Path, *names: str) -> None:
    """Remove files of a folder."""
    for name in names:
        os.remove(folder / name)
