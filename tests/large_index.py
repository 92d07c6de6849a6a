"""An index of as many videos as wanted, whose files do not exist, beside some real ones."""

from pathlib import Path

import torch
from torch import Tensor

from clipbert_mm.apis import VideoSearch
from clipbert_mm.index import EncodedVideo, Entry

FOLDER = "/srv/videos"
WORDS = ("cat", "dog", "beach", "street", "kitchen", "concert", "match", "train", "garden", "river")
AT_ONCE = 1000


def add_unreal_videos(search: VideoSearch, count: int, *, clips: int = 4) -> None:
    """Add videos of random vectors to the index of a search, named ``cat/2001/cat_000010.mp4`` and so on."""
    index, predictor = search.video_index, search.predictor
    size = predictor.model.encoder.vector_size
    index.start(predictor.identity, predictor.source, predictor.source, vector_size=size, keeps_tokens=False)
    index.note_folders([FOLDER])
    generator = torch.Generator().manual_seed(0)
    for first in range(0, count, AT_ONCE):
        some = range(first, min(first + AT_ONCE, count))
        index.add([EncodedVideo(_entry(i, clips), _unit_vectors(clips, size, generator)) for i in some])


def _entry(i: int, clips: int) -> Entry:
    word, seconds = WORDS[i % len(WORDS)], 5.0 + i % 600
    times = tuple((k * seconds / clips, (k + 1) * seconds / clips) for k in range(clips))
    return Entry(f"{FOLDER}/{word}/{2000 + i % 24}/{word}_{i:06}.mp4", 1000 + i, 10**18 + i, seconds, times, (32, 32))


def _unit_vectors(count: int, size: int, generator: torch.Generator) -> Tensor:
    return torch.nn.functional.normalize(torch.randn(count, size, generator=generator), dim=-1)


def open_clip_search(model: Path, index: Path) -> VideoSearch:
    """Open a CLIP of random weights in a folder, which is written if it does not exist, with an index."""
    from public_models import write_clip

    if not model.is_dir():
        write_clip(model)
    return VideoSearch(model, "cpu", index=index)
