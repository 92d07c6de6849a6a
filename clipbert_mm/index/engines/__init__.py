"""Indexes in an engine for vectors, which several machines write to and read from; chosen by a URL."""

import os

from clipbert_mm.errors import OptionError, printable
from clipbert_mm.index.engines.engine import Engine, StoredVideo
from clipbert_mm.index.engines.remote_index import RemoteIndex
from clipbert_mm.index.video_index import VideoIndex

__all__ = ["Engine", "RemoteIndex", "StoredVideo", "is_url", "open_index"]

LANCE_SCHEMES = ("lancedb+file", "lancedb+s3", "lancedb+gs", "lancedb+az")
"""Schemes of the URLs of an index that LanceDB keeps, in a folder or in an object store."""


def is_url(location: str | os.PathLike) -> bool:
    """Whether an index is named by a URL and not by a folder.

    >>> is_url("lancedb+s3://bucket/videos"), is_url("work_dirs/index")
    (True, False)
    """
    return "://" in os.fspath(location)


def open_index(location: str | os.PathLike) -> VideoIndex:
    """Open an index: a folder, or one in an engine by its URL, which is connected to.

    Args:
        location: Folder, or ``lancedb+s3://bucket/path`` or ``lancedb+file:///path``.

    Raises:
        OptionError: If the URL names no engine.
        BackendError: If the engine's client is not installed.
        VideoIndexError: If the index cannot be reached, is damaged or of another format.
    """
    if not is_url(location):
        return VideoIndex(location)
    url = os.fspath(location)
    scheme, _, rest = url.partition("://")
    if scheme not in LANCE_SCHEMES or not rest.strip("/"):
        expected = ", ".join(f"{name}://..." for name in LANCE_SCHEMES)
        raise OptionError(f"--index expects a folder or a URL of {expected}, got {printable(url)}.")
    from clipbert_mm.index.engines.lance_engine import LanceEngine

    return RemoteIndex(LanceEngine(url))
