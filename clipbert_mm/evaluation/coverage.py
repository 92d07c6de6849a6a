"""Testing goes on without files that cannot be read, where it was told to, and says so."""

import logging

from mmengine.logging import print_log

from clipbert_mm.errors import ClipBertError


def readable(entries: list[dict]) -> tuple[list[dict], float]:
    """Leave out the entries whose file could not be read, and name them in the log.

    Args:
        entries: One a video, with ``path`` and ``broken`` (None, or why it could not be read).

    Returns:
        The others, and the share that they are, in percent.

    Raises:
        ClipBertError: If none could be read.
    """
    kept = [entry for entry in entries if entry["broken"] is None]
    if not kept:
        raise ClipBertError(f"None of the {len(entries)} videos of the test could be read.")
    if len(kept) < len(entries):
        broken = [f"\n  {entry['path']}: {entry['broken']}" for entry in entries if entry["broken"] is not None]
        print_log(
            f"{len(broken)} of {len(entries)} videos could not be read and are left out:{''.join(broken)}",
            logger="current",
            level=logging.WARNING,
        )
    return kept, len(kept) / len(entries) * 100
