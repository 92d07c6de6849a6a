"""Generated unit vectors of videos that are clustered as real ones are, and queries near them."""

from pathlib import Path

import numpy as np
import torch

from benchmarks.vector_engines import CLIPS, WIDTH

CENTRES = 2000
"""Topics that videos are about."""
VIDEO_NOISE, CLIP_NOISE, QUERY_NOISE = 0.8, 0.5, 1.0
"""Length of the noise by which a video differs from its topic, a clip from its video, and a query from a clip: the cosines are
0.78, 0.89 and 0.71 in the mean."""
BLOCK = 4000


def write_vectors(path: Path, videos: int, seed: int = 0) -> None:
    """Write float16 vectors of videos, CLIPS rows each."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.nn.functional.normalize(torch.randn(CENTRES, WIDTH, generator=generator), dim=-1)
    with open(path, "wb") as file:
        for start in range(0, videos, BLOCK):
            count = min(BLOCK, videos - start)
            topics = centres[torch.randint(CENTRES, (count,), generator=generator)]
            means = near(topics, VIDEO_NOISE, generator)
            clips = near(means[:, None].expand(count, CLIPS, WIDTH), CLIP_NOISE, generator)  # (count, CLIPS, P)
            file.write(clips.half().numpy().tobytes())


def near(vectors: torch.Tensor, noise: float, generator: torch.Generator) -> torch.Tensor:
    """Return unit vectors at a distance from the given ones before they are normalized."""
    added = torch.nn.functional.normalize(torch.randn(vectors.shape, generator=generator), dim=-1)
    return torch.nn.functional.normalize(vectors + noise * added, dim=-1)


def make_queries(vectors: np.ndarray, count: int, seed: int = 1) -> np.ndarray:
    """Return queries near clips of as many videos, float32 (count, P)."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(len(vectors), (count,), generator=generator).numpy()
    return near(torch.from_numpy(np.asarray(vectors[rows], np.float32)), QUERY_NOISE, generator).numpy()
