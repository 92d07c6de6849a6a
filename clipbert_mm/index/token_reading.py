"""Reading the visual tokens of a video from a store that nobody vouches for."""

import os
import stat

from torch import Tensor

from clipbert_mm.errors import VideoIndexError, printable
from clipbert_mm.index.records import Entry
from clipbert_mm.retrieval.feature_store import FeatureStore

MAX_TOKEN_BYTES = 2**28
"""Bytes of the largest file of visual tokens that is read."""


def read_tokens(store: FeatureStore, entry: Entry, which: str, seen: dict[str, tuple[int, int]]) -> Tensor:
    """Read the visual tokens of a video, float32 (K, S, D), and check that they are its own.

    Args:
        store: The store.
        entry: The video.
        which: ``clips`` or ``coarse``.
        seen: Versions of the files whose owner was checked, by the key of the video; added to.

    Raises:
        VideoIndexError: If they are not kept, or their file is missing or damaged.
    """
    path, file = entry.path, store.path_of(entry.key)
    try:
        status = os.stat(file)
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_TOKEN_BYTES:
            raise VideoIndexError(f"{file} is not a file of at most {MAX_TOKEN_BYTES / 2**20:.0f} MiB")
        version = status.st_mtime_ns, status.st_ino
        if seen.get(entry.key) != version and store.record(entry.key).get("path") != path:
            raise VideoIndexError(f"{file} belongs to another video")
        seen[entry.key] = version
        tokens = store.read([entry.key], which)[0]
        if tokens.ndim != 3 or not tokens.is_floating_point() or tokens.numel() == 0:
            raise VideoIndexError(
                f"{file}: expected floats of shape (K, S, D), got {tokens.dtype} {tuple(tokens.shape)}"
            )
        if which == "clips" and entry.clip_times is not None and len(entry.clip_times) != len(tokens):
            raise VideoIndexError(f"{file}: expected {len(entry.clip_times)} clips, got {len(tokens)}")
        return tokens.float()
    except FileNotFoundError as error:
        raise VideoIndexError(f"The visual tokens of {printable(path)} are missing. Index it again.") from error
    except (OSError, VideoIndexError, RuntimeError, AttributeError) as error:
        raise VideoIndexError(
            f"Cannot read the visual tokens of {printable(path)}: {_reason(error).rstrip('.')}. Delete their file if it "
            "exists, and index the video again."
        ) from error


def _reason(error: Exception) -> str:
    """Describe an error in at most 200 characters."""
    reason = str(error) if isinstance(error, VideoIndexError) else f"{type(error).__name__}: {error}"
    return reason if len(reason) <= 200 else f"{reason[:200]}..."
