"""Excluding files that could not be read from metrics, where the config allows it."""

from clipbert_mm.errors import ClipBertError
from clipbert_mm.log import logger


def readable(entries: list[dict]) -> tuple[list[dict], float]:
    """Exclude the entries whose file could not be read, and log their names.

    Args:
        entries: One per video, with ``path`` and ``broken`` (None, or why it could not be read).

    Returns:
        The readable entries, and their share in percent.

    Raises:
        ClipBertError: If none could be read.
    """
    kept = [entry for entry in entries if entry["broken"] is None]
    if not kept:
        raise ClipBertError(
            f"All {len(entries)} videos of the test are unreadable, the first because: {entries[0]['broken']}"
        )
    if len(kept) < len(entries):
        broken = [f"\n  {entry['path']}: {entry['broken']}" for entry in entries if entry["broken"] is not None]
        logger.warning(
            f"{len(broken)} of {len(entries)} videos could not be read and are excluded from the metrics:{''.join(broken)}"
        )
    return kept, len(kept) / len(entries) * 100
