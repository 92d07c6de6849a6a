"""Taking over an index of format 1, a manifest in JSON and a file of visual tokens a video, without decoding a video."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipbert_mm.errors import VideoIndexError
from clipbert_mm.fileio import scratch
from clipbert_mm.index.folders import OLD_MANIFEST, RECORDS, lock_index
from clipbert_mm.index.records import Entry, entry_from, expect, shown, unreadable_from
from clipbert_mm.index.video_index import EncodedVideo, VideoIndex
from clipbert_mm.index.video_vectors import file_name
from clipbert_mm.retrieval.feature_store import FeatureStore
from clipbert_mm.version import __version__

if TYPE_CHECKING:
    from clipbert_mm.apis.predictor import Predictor

OLD_FORMAT = 1
"""The only format before."""
MAX_MANIFEST_BYTES = 2**30
"""Bytes of the largest manifest that is read."""
VIDEOS_AT_ONCE = 256
"""Videos that are recorded in one transaction."""


def read_old_manifest(folder: str | os.PathLike) -> dict[str, Any]:
    """Read the manifest of an index of format 1: facts, and records of ``videos`` and ``unreadable`` files.

    Raises:
        VideoIndexError: If there is none, or it is damaged or of another format.
    """
    file = Path(folder) / OLD_MANIFEST
    if (Path(folder) / RECORDS).is_file():
        raise VideoIndexError(f"The index {folder} has been taken over already.")
    if not file.is_file():
        raise VideoIndexError(f"There is no index of format {OLD_FORMAT} in {folder}: {file} is missing.")
    try:
        if file.stat().st_size > MAX_MANIFEST_BYTES:
            raise ValueError(f"expected a file of at most {MAX_MANIFEST_BYTES / 2**30:.0f} GiB")
        manifest = json.loads(file.read_text(encoding="utf-8"))
        if manifest["format"] != OLD_FORMAT:
            raise VideoIndexError(
                f"The index {folder} was made by clipbert_mm {shown(manifest.get('version'))} in format "
                f"{shown(manifest.get('format'))}, and clipbert_mm {__version__} takes over format {OLD_FORMAT}. Index the "
                "videos into a new folder."
            )
        for name in ("version", "identity", "source", "weights"):
            expect(manifest[name], str, name)
        videos = [entry_from(values) for values in manifest["videos"]]
        unreadable = [unreadable_from(values) for values in manifest.get("unreadable", [])]
        folders = [each for each in manifest.get("folders", []) if isinstance(each, str)]
        return {**manifest, "videos": videos, "unreadable": unreadable, "folders": folders}
    except VideoIndexError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError, OverflowError) as error:
        reason = f"{type(error).__name__}: {error}"[:200]
        raise VideoIndexError(f"{file} is damaged or not the manifest of an index: {reason}.") from error


def take_over(folder: str | os.PathLike, predictor: "Predictor") -> int:
    """Make the records and vectors of an index of format 1 in its folder, from its manifest and its visual tokens.

    Until the last step the folder is an index of format 1, which the release before can read; a killed take-over starts anew.

    Args:
        folder: The folder.
        predictor: The model that made the index.

    Returns:
        The number of videos taken over. Videos without readable tokens are not, and indexing adds them again.

    Raises:
        VideoIndexError: If it is no index of format 1, is damaged, or was made by another model.
        BusyFolderError: If another process is changing it.
    """
    path, encoder = Path(folder), predictor.model.encoder
    with lock_index(path):
        manifest = read_old_manifest(path)
        for name in (RECORDS, file_name(0)):
            if (path / name).is_dir():
                raise VideoIndexError(f"{path / name} is a folder, expected a file or nothing. Delete it.")
        with scratch(path) as part:
            new = VideoIndex(part)
            new.start(
                manifest["identity"],
                manifest["source"],
                manifest["weights"],
                vector_size=encoder.vector_size if encoder.has_vectors else None,
                keeps_tokens=not (encoder.has_vectors and encoder.compares_vectors),
            )
            new.check_identity(predictor.identity, predictor.source)
            new.note_folders(manifest["folders"])
            new.store = FeatureStore(path / "tokens")
            videos = _videos(manifest["videos"], new.store)
            count = 0
            for first in range(0, len(videos), VIDEOS_AT_ONCE):
                encoded = list(_encoded(predictor, new, videos[first : first + VIDEOS_AT_ONCE]))
                new.add(encoded)
                count += len(encoded)
            listed = {entry.path for entry in videos}
            new.note_unreadable([each for each in manifest["unreadable"] if each.path not in listed])
            vectors = new.manifest["vectors"]
            new.table.close()
            if encoder.has_vectors:
                os.replace(part / vectors, path / vectors)
            os.replace(part / RECORDS, path / RECORDS)
        (path / OLD_MANIFEST).unlink()
    return count


def _videos(listed: list[Entry], store: FeatureStore) -> list[Entry]:
    """Return the videos of a manifest, and those that were added after it was written, by the records in their tokens."""
    videos = {entry.path: entry for entry in listed}
    for key in set(store.names()) - {entry.key for entry in listed}:
        try:
            entry = entry_from(store.record(key))
        except (KeyError, TypeError, ValueError, OSError, RuntimeError):  # damaged files
            continue
        if entry.key == key:
            videos[entry.path] = entry
    return sorted(videos.values(), key=lambda entry: entry.path)


def _encoded(predictor: "Predictor", index: VideoIndex, videos: list[Entry]) -> Iterator[EncodedVideo]:
    """Yield the videos whose tokens can be read, with the vectors of their clips if the model has any."""
    encoder = predictor.model.encoder
    for entry in videos:
        try:
            tokens = index.tokens_of(entry)
        except VideoIndexError:
            continue
        vectors = encoder.clip_vectors(tokens.to(predictor.device)) if encoder.has_vectors else None
        yield EncodedVideo(entry, None if vectors is None else vectors.cpu())
