"""What may happen to an index of format 1, and what somebody may forge of it."""

import json
import random
from pathlib import Path
from typing import Any

from damage.index_damages import FORGERIES, NOT_JSON, ODD, PRECIOUS, Damage


def _change_manifest(rng: random.Random, index: Path, folder: Path) -> str:
    """Put an odd value somewhere into the manifest, or take one out."""
    file = index / "manifest.json"
    manifest = json.loads(file.read_text())
    place: Any = manifest
    trail = []
    while True:
        key = rng.choice(list(place) if isinstance(place, dict) else range(len(place)))
        trail.append(str(key))
        if not isinstance(place[key], (dict, list)) or not place[key] or rng.random() < 0.2:
            break
        place = place[key]
    odd = rng.choice([*ODD, "gone"])
    if odd == "gone":
        del place[key]
    else:
        place[key] = odd
    file.write_text(json.dumps(manifest))
    return f"{'.'.join(trail)} is {str(odd)[:20]!a}"


def _other_text(rng: random.Random, index: Path, folder: Path) -> str:
    text = rng.choice([*NOT_JSON, '{"format": 2, "videos": 3}'])
    (index / "manifest.json").write_text(text)
    return f"the manifest is {text[:20]!r}"


def _more_in_manifest(rng: random.Random, index: Path, folder: Path) -> str:
    """List a file in the manifest that is no video of the index."""
    file = index / "manifest.json"
    manifest = json.loads(file.read_text())
    path = rng.choice(
        [str(folder / PRECIOUS), "/etc/passwd", f"{index}/../../{PRECIOUS}", "relative.mp4", "/", "/dev/zero"]
    )
    manifest["videos"].append(manifest["videos"][0] | dict(path=path))
    manifest["unreadable"].append(dict(path=path, size=1, mtime_ns=1, reason="odd", rules=1))
    file.write_text(json.dumps(manifest))
    return f"a video {path}"


def _other_model(rng: random.Random, index: Path, folder: Path) -> str:
    file = index / "manifest.json"
    changes = [
        dict(identity="0" * 16),
        dict(format=99, version="a" * 10**6),
        dict(source="evil.py"),
        dict(weights="/dev/zero"),
    ]
    change = rng.choice(changes)
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    return f"the manifest has {str(change)[:60]}"


MANIFEST_FORGERIES: dict[str, Damage] = {
    "value": _change_manifest,
    "other value": _change_manifest,
    "text": _other_text,
    "videos": _more_in_manifest,
    "model": _other_model,
    "tensors": FORGERIES["tensors"],
    "odd record": FORGERIES["odd record"],
}
"""What somebody may make of an index of format 1."""
