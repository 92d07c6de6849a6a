"""Visual tokens of the videos of an index: kept ones, its vectors, or tokens made again from the video files."""

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from clipbert_mm.apis.predictor import Predictor, indices_by_shape
from clipbert_mm.apis.reading import ReadResult, read_videos
from clipbert_mm.errors import VideoIndexError
from clipbert_mm.index import STORED_DTYPE, Entry, VideoIndex

CLIPS_AT_ONCE = 256
"""Clips whose visual tokens are read from the index at a time."""
VIDEOS_AT_ONCE = 8
"""Videos that are decoded and encoded in one batch."""
DECODING_PROCESSES, DECODING_SECONDS = 2, 60.0
"""Processes that decode a shortlist, and the most seconds that one of its videos may take."""
RECENT_BYTES = 2**30
"""Bytes of visual tokens made again that are kept in memory for the next search."""

Block = tuple[list[str], Tensor]
"""Paths of some videos, and their visual tokens, (v, K, S, D)."""


class VideoTokens:
    """Gives the visual tokens of videos of an index, wherever they come from.

    Args:
        predictor: The model that made the index.
        video_index: The index.
    """

    def __init__(self, predictor: Predictor, video_index: VideoIndex) -> None:
        self.predictor, self.video_index = predictor, video_index
        self._recent: OrderedDict[tuple[str, int, int], Tensor] = OrderedDict()
        self._recent_bytes = 0
        self._lock = threading.Lock()

    def blocks(self, entries: Sequence[Entry], left_out: dict[str, str]) -> Iterator[Block]:
        """Yield visual tokens of all clips in blocks of equal shape, each with the paths of its videos.

        Videos whose tokens cannot be had are added to ``left_out``, with the reason.
        """
        encoder = self.predictor.model.encoder
        if encoder.has_vectors and encoder.compares_vectors:
            return self._read(entries, left_out, "vectors")
        return (
            self._read(entries, left_out, "clips") if self.video_index.keeps_tokens else self._made(entries, left_out)
        )

    def coarse_blocks(self, entries: Sequence[Entry], left_out: dict[str, str]) -> Iterator[Block]:
        """Yield the coarse tokens of an index whose model has no vectors; as :meth:`blocks`."""
        return self._read(entries, left_out, "coarse")

    def of(self, entry: Entry) -> Tensor:
        """Return the visual tokens of a video, (K, S, D).

        Raises:
            VideoIndexError: If they cannot be had.
        """
        left_out: dict[str, str] = {}
        for _, tokens in self.blocks([entry], left_out):
            return tokens[0]
        raise VideoIndexError(left_out[entry.path])

    def _read(self, entries: Sequence[Entry], left_out: dict[str, str], which: str) -> Iterator[Block]:
        """Read tokens from the index."""
        width = self.predictor.model.encoder.visual_size
        block: list[str] = []
        held: list[Tensor] = []
        for entry in entries:
            try:
                if which == "vectors":
                    tokens = self.video_index.vectors(entry.path)[:, None]  # (K, 1, P)
                else:
                    tokens = self.video_index.tokens(entry.path, which)
                if tokens.shape[-1] != width:
                    raise VideoIndexError(f"expected visual tokens of width {width}, got {tuple(tokens.shape)}")
            except VideoIndexError as error:
                left_out[entry.path] = str(error)
                continue
            if block and (len(block) * len(tokens) >= CLIPS_AT_ONCE or tokens.shape != held[0].shape):
                yield block, torch.stack(held)
                block, held = [], []
            block.append(entry.path)
            held.append(tokens)
        if block:
            yield block, torch.stack(held)

    def _made(self, entries: Sequence[Entry], left_out: dict[str, str]) -> Iterator[Block]:
        """Decode and encode videos, unless it was done a short time ago."""
        todo = []
        for entry in entries:
            tokens = self._recent_tokens(entry)
            if tokens is not None:
                yield [entry.path], tokens[None]
            elif not entry.is_current():
                left_out[entry.path] = "the file is gone, or has changed since it was indexed; index it again"
            else:
                todo.append(entry)
        by_path = {entry.path: entry for entry in todo}
        batches = read_videos(
            self.predictor.media_steps,
            list(by_path),
            workers=DECODING_PROCESSES,
            batch_size=VIDEOS_AT_ONCE,
            timeout=DECODING_SECONDS,
            fork=self.video_index.safe_to_fork,
        )
        for batch in batches if todo else ():
            left_out |= {read.path: f"it cannot be read now: {read.reason}" for read in batch if read.media is None}
            yield from self._encoded([read for read in batch if read.media is not None], by_path)

    def _encoded(self, batch: Sequence[ReadResult], entries: dict[str, Entry]) -> Iterator[Block]:
        media = [read.media for read in batch if read.media is not None]
        for same in indices_by_shape([each.frames for each in media]):
            made = self.predictor.encode([media[i].frames for i in same], [media[i].content_shape for i in same])
            tokens = made.to(STORED_DTYPE).float().cpu()  # as kept ones are, so that scores are the same
            paths = [batch[i].path for i in same]
            for path, own in zip(paths, tokens, strict=True):
                self._keep(entries[path], own)
            yield paths, tokens

    def _recent_tokens(self, entry: Entry) -> Tensor | None:
        key = entry.path, entry.size, entry.mtime_ns
        with self._lock:
            if key in self._recent:
                self._recent.move_to_end(key)
            return self._recent.get(key)

    def _keep(self, entry: Entry, tokens: Tensor) -> None:
        key = entry.path, entry.size, entry.mtime_ns
        with self._lock:
            if key not in self._recent:  # another thread may have made them meanwhile
                self._recent[key] = tokens.clone()
                self._recent_bytes += tokens.nbytes
            while self._recent_bytes > RECENT_BYTES:
                self._recent_bytes -= self._recent.popitem(last=False)[1].nbytes
