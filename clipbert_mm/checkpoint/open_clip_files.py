"""Files of open_clip: its settings of frames as transforms of ours, and its tokenizer as one of transformers."""

import json
import os
from collections.abc import Mapping
from typing import Any

from clipbert_mm.checkpoint.image_processor import image_transforms
from clipbert_mm.checkpoint.preprocessing import InputSpec
from clipbert_mm.errors import CheckpointError, quoted
from clipbert_mm.fileio import atomic_path, cache_folder

SETTINGS = "open_clip_config.json"
DEFAULTS = dict(
    mean=[0.48145466, 0.4578275, 0.40821073],
    std=[0.26862954, 0.26130258, 0.27577711],
    interpolation="bicubic",
    resize_mode="shortest",
)
RESAMPLE = {"bilinear": 2, "bicubic": 3}
START, END = "<|startoftext|>", "<|endoftext|>"
WORDS = rf"{START}|{END}".replace("|>", r"\|>").replace("<|", r"<\|") + (
    r"""|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""
)
CLEANED = {
    "\u2018": "'",
    "\u2019": "'",
    "\u201c": '"',
    "\u201d": '"',
    "&amp;": "&",
    "&lt;": "<",
    "&gt;": ">",
    "&quot;": '"',
}
"""What open_clip replaces in texts by ftfy and by html, of what captions have."""


def open_clip_transforms(settings: Mapping[str, Any], path: str) -> tuple[list[dict[str, Any]], InputSpec]:
    """Return the transforms of frames, and the normalization, that equal open_clip's for evaluation.

    Args:
        settings: Contents of an ``open_clip_config.json``.
        path: The file, for errors.

    Raises:
        CheckpointError: If a setting is unknown.
    """
    given = settings.get("preprocess_cfg", {})
    model = settings.get("model_cfg", {})
    vision = model.get("vision_cfg", {}) if isinstance(model, Mapping) else {}
    if not isinstance(given, Mapping) or not isinstance(vision, Mapping):
        raise CheckpointError(
            f"{path} is damaged: expected JSON objects as preprocess_cfg and vision_cfg. Take another copy."
        )
    values = DEFAULTS | {key: value for key, value in given.items() if value is not None}
    side, mode = vision.get("image_size", 224), values["resize_mode"]
    for key, expected in dict(interpolation=tuple(RESAMPLE), resize_mode=("squash", "shortest")).items():
        if values[key] not in expected:
            raise CheckpointError(
                f"{path} is refused: its {key} is {quoted(values[key])}; expected {' or '.join(expected)}."
            )
    square = dict(height=side, width=side)
    processor = dict(
        image_processor_type="CLIPImageProcessor", crop_size=square, resample=RESAMPLE[values["interpolation"]]
    )
    processor |= dict(size=square if mode == "squash" else dict(shortest_edge=side), do_center_crop=mode == "shortest")
    return image_transforms(processor | dict(image_mean=values["mean"], image_std=values["std"]), path)


def open_clip_tokenizer() -> str:
    """Return a folder with the tokenizer that open_clip has for models that name none; it is written the first time.

    Raises:
        BackendError: If open_clip is not installed.
    """
    from clipbert_mm.extras import require_extra

    require_extra("open_clip", "open-clip", "The tokenizer of open_clip")
    from open_clip.tokenizer import SimpleTokenizer
    from open_clip.version import __version__

    folder = cache_folder() / f"open_clip_tokenizer_{__version__}"
    if not folder.is_dir():
        theirs = SimpleTokenizer()
        vocabulary = [*list(theirs.encoder)[:-2], START, END]
        merges = sorted(theirs.bpe_ranks, key=theirs.bpe_ranks.__getitem__)
        os.makedirs(folder.parent, exist_ok=True)
        with atomic_path(folder, folder=True) as part:
            _fast_tokenizer(vocabulary, merges).save(str(part / "tokenizer.json"))
            names = dict(bos_token=START, eos_token=END, unk_token=END, pad_token=END)
            settings = dict(tokenizer_class="PreTrainedTokenizerFast", **names)
            (part / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return str(folder)


def _fast_tokenizer(vocabulary: list[str], merges: list[tuple[str, str]]) -> Any:  # noqa: ANN401
    """Return a tokenizer of the library tokenizers with CLIP's rules."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    ids = {token: i for i, token in enumerate(vocabulary)}
    made = Tokenizer(models.BPE(ids, merges, unk_token=END, end_of_word_suffix="</w>", fuse_unk=False))
    made.normalizer = normalizers.Sequence(
        [
            *(normalizers.Replace(old, new) for old, new in CLEANED.items()),
            normalizers.NFC(),
            normalizers.Replace(Regex(r"\s+"), " "),
            normalizers.Strip(),
            normalizers.Lowercase(),
        ]
    )
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    made.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(START, ids[START]), (END, ids[END])]
    )
    made.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in (START, END)])
    return made
