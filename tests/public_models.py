"""Folders of public models of a few thousand random weights, as ``save_pretrained`` and processors write them."""

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    BlipConfig,
    BlipForImageTextRetrieval,
    CLIPConfig,
    CLIPModel,
    SiglipConfig,
    SiglipModel,
    ViltConfig,
)

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
BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
PIECES = [*BYTES, *(f"{each}</w>" for each in BYTES), "<|startoftext|>", "<|endoftext|>"]
"""CLIP's tokens without merges: each byte, within and at the end of a word."""
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


def write_clip(folder: Path) -> Any:
    """Write a CLIP for frames of 32 x 32 pixels; returns the library's model."""
    torch.manual_seed(0)
    sizes = dict(num_attention_heads=4, intermediate_size=64, num_hidden_layers=2)
    text = dict(
        vocab_size=len(PIECES),
        hidden_size=32,
        max_position_embeddings=40,
        bos_token_id=len(PIECES) - 2,
        eos_token_id=len(PIECES) - 1,
    )
    vision = dict(hidden_size=48, image_size=32, patch_size=8)
    model = CLIPModel(CLIPConfig(text_config=text | sizes, vision_config=vision | sizes, projection_dim=16)).eval()
    spread(model)
    write_weights(model, folder, safetensors=True)
    write_clip_tokenizer(folder)
    crop = dict(size=dict(shortest_edge=32), do_center_crop=True, crop_size=dict(height=32, width=32))
    write_image_processor(folder, "CLIPImageProcessor", image_mean=OPENAI_MEAN, image_std=OPENAI_STD, **crop)
    return model


def write_siglip(folder: Path) -> Any:
    """Write a SigLIP for frames of 32 x 32 pixels, with the tokenizer of SigLIP 2; returns the library's model."""
    torch.manual_seed(0)
    sizes = dict(num_attention_heads=4, intermediate_size=64, num_hidden_layers=2)
    text = dict(vocab_size=300, hidden_size=32, projection_size=48, max_position_embeddings=16)
    vision = dict(hidden_size=48, image_size=32, patch_size=8)
    model = SiglipModel(SiglipConfig(text_config=text | sizes, vision_config=vision | sizes)).eval()
    spread(model)
    write_weights(model, folder, safetensors=True)
    write_gemma_tokenizer(folder)
    half = dict(image_mean=[0.5] * 3, image_std=[0.5] * 3)
    write_image_processor(folder, "SiglipImageProcessor", size=dict(height=32, width=32), **half)
    return model


def write_pe(folder: Path, *, safetensors: bool = True) -> Any:
    """Write the smallest PE-Core with a tiny text tower, for frames of 384 x 384 pixels; returns open_clip's model."""
    import open_clip  # an extra

    torch.manual_seed(0)
    text = dict(context_length=32, vocab_size=49408, width=32, heads=4, layers=2)
    vision = dict(
        image_size=384,
        timm_model_name="vit_pe_core_tiny_patch16_384",
        timm_model_pretrained=False,
        timm_pool="map",
        timm_proj=None,
    )
    settings = dict(embed_dim=16, vision_cfg=vision, text_cfg=text, custom_text=True)
    model = open_clip.CustomTextCLIP(
        16,
        open_clip.CLIPVisionCfg(**vision),
        open_clip.CLIPTextCfg(**text),  # as create_model does
    ).eval()
    spread(model)
    folder.mkdir()
    if safetensors:
        save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    else:
        torch.save(model.state_dict(), folder / "open_clip_pytorch_model.bin")
    frames = dict(mean=[0.5] * 3, std=[0.5] * 3, interpolation="bilinear", resize_mode="squash")
    (folder / "open_clip_config.json").write_text(json.dumps(dict(model_cfg=settings, preprocess_cfg=frames)))
    return model


def write_vilt(folder: Path, kind: Any, **settings: Any) -> Any:
    """Write a ViLT whose shorter side is 64 pixels, in patches of 16; returns the library's model."""
    torch.manual_seed(0)
    config = ViltConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=64,
        image_size=64,
        patch_size=16,
        initializer_range=0.2,
        **settings,
    )
    model = kind(config).eval()
    write_weights(model, folder, safetensors=True)
    write_bert_tokenizer(folder)
    half = dict(image_mean=[0.5] * 3, image_std=[0.5] * 3)
    write_image_processor(
        folder, "ViltImageProcessor", size=dict(shortest_edge=64), size_divisor=16, do_pad=True, **half
    )
    return model


def spread(model: Any) -> None:
    """Scale weights so that scores of random models differ visibly."""
    with torch.no_grad():
        for value in model.parameters():
            if value.ndim > 1:
                value.mul_(5)


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


def write_clip_tokenizer(folder: Path) -> None:
    """Write CLIP's tokenizer without merges."""
    (folder / "vocab.json").write_text(json.dumps({piece: i for i, piece in enumerate(PIECES)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "tokenizer_config.json").write_text(json.dumps(dict(tokenizer_class="CLIPTokenizer")))


def write_gemma_tokenizer(folder: Path) -> None:
    """Write the tokenizer of a SigLIP 2, of letters."""
    names = ("pad", "eos", "bos", "unk", "mask")
    words = [*(f"<{name}>" for name in names), *(f"<0x{i:02X}>" for i in range(256)), "▁", *LETTERS]
    made = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, [], unk_token="<unk>", byte_fallback=True))
    made.normalizer = normalizers.Replace(" ", "▁")
    made.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    made.post_processor = processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
    made.save(str(folder / "tokenizer.json"))
    settings = dict(tokenizer_class="GemmaTokenizer", add_bos_token=False, add_eos_token=True)
    settings |= {f"{name}_token": f"<{name}>" for name in names}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


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
