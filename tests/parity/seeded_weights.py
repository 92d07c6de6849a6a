"""Weights that anyone can rebuild from a parameter's name alone, used for the golden numbers in golden.json.

Every tensor of the released implementation's state dict (state_dict.tsv) is filled by `seeded_weight(name, shape)`;
the golden numbers are what that implementation printed with those weights, on CPU, in float32, in eval mode.
"""

import zlib

import numpy as np

# The decoder of the masked-language head shares its two tensors with others.
TIED = {
    "transformer.cls.predictions.decoder.weight": "transformer.bert.embeddings.word_embeddings.weight",
    "transformer.cls.predictions.decoder.bias": "transformer.cls.predictions.bias",
}


def seeded_weight(name: str, shape: tuple) -> np.ndarray:
    """Return the float32 array of `shape` that stands for the parameter called `name`."""
    name = TIED.get(name, name)
    noise = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)
    if name.endswith("running_var"):
        return 1 + 0.1 * np.abs(noise)
    if name.endswith("running_mean"):
        return 0.1 * noise
    if name.endswith("bias"):
        return 0.05 * noise
    if len(shape) == 1:  # the scale of a normalization layer
        return 1 + 0.1 * noise
    if "embeddings" in name:
        return 0.1 * noise
    gain = ((2.0 if len(shape) == 4 else 1.0) / np.prod(shape[1:])) ** 0.5
    if name.endswith("stem.conv1.weight"):
        gain /= 64  # pixels are in [0, 255]
    if name.endswith("conv3.weight"):
        gain *= 0.3  # keeps the residual sum near unit scale
    return noise * np.float32(gain)


def golden_inputs(n_videos, n_clips, n_frames, size, n_texts, text_len, seed=0, vocab_size=30522):
    """Return (frames, ids, mask).

    frames: float32 in [0, 255], RGB, (n_videos, n_clips, n_frames, 3, size, size), not yet normalized.
    ids, mask: int64, (n_texts, text_len); [CLS]=101 first, [SEP]=102 last, 0 is padding.
    """
    rs = np.random.RandomState(seed)
    cells = rs.randint(0, 256, size=(n_videos, n_clips, n_frames, 3, 8, 8))
    frames = cells.repeat(size // 8, axis=-1).repeat(size // 8, axis=-2).astype(np.float32)
    ids = rs.randint(1000, vocab_size, size=(n_texts, text_len))
    ids[:, 0] = 101
    mask = np.ones((n_texts, text_len), dtype=np.int64)
    for i in range(n_texts):
        n = text_len - (i * 2) % (text_len // 2)
        mask[i, n:] = 0
        ids[i, n - 1] = 102
        ids[i, n:] = 0
    return frames, ids.astype(np.int64), mask
