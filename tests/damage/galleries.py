"""Damaged and hostile galleries: their manifests, their files of visual tokens, and links that lead out of them."""

import copy
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from benchmarks.bench_search import random_weights
from mmengine.config import Config
from safetensors.torch import load, save

from clipbert_mm.apis import VideoIndex, VideoSearch
from clipbert_mm.datasets import train_vocabulary
from clipbert_mm.datasets.shapes.world import ShapesWorld

PRECIOUS = "precious.txt"
"""A file beside the gallery that nothing may touch."""
ODD = (
    None,
    True,
    -1,
    0,
    10**30,
    1e308,
    float("nan"),
    "",
    "a" * 10**5,
    "../../x",
    "\ud800",
    "a\0b",
    [],
    [[]],
    {},
    [1, 2],
    {"a": 1},
)
"""Values that a manifest may have in any place."""
_searches: list[VideoSearch] = []


def prepare(folder: Path) -> None:
    """Write three videos, and a gallery of them by a tiny model."""
    torch.set_num_threads(1)
    ShapesWorld(seed=1, images=2, test_images=1, train_videos=2, test_videos=1).write(folder / "world")
    tokenizer = train_vocabulary(["a red circle", "a blue square"], folder / "tokenizer", 40)
    (folder / PRECIOUS).write_text("precious")
    config = _config(str(tokenizer))
    config.dump(folder / "config.py")
    weights = random_weights(config, folder / "weights.pth")
    search = VideoSearch(folder / "config.py", "cpu", weights=weights, index=folder / "gallery")
    search.index(folder / "world" / "videos", workers=1)
    _searches.append(search)


def damage(rng: random.Random, folder: Path, target: Path) -> str:
    """Copy the gallery and do one of many things to it."""
    shutil.copytree(folder / "gallery", target)
    tokens = sorted((target / "tokens").iterdir())
    name = rng.choice(sorted(DAMAGES))
    return f"{target}: {name}: {DAMAGES[name](rng, target, rng.choice(tokens), folder)}"


def use(path: Path) -> None:
    """Open a gallery, search it, index the videos into it, take them out."""
    search = copy.copy(_searches[-1])
    videos = search.video_index.folder.parent / "world" / "videos"
    search.video_index = VideoIndex(path)
    if search.video_index.exists:
        search.video_index.check_identity(search.predictor.identity, search.predictor.source)
        str(search.search("a red circle", 3))
        str(search.search("a blue square", 1, shortlist=1))
    str(search.index(videos, workers=1, prune=True))
    assert len(search.search("a red circle", 3).hits) > 0
    search.remove(list(search.video_index.entries))


def _config(tokenizer: str) -> Config:
    kind = dict(type="mmpretrain.ResNet", depth=18, stem_channels=8, base_channels=8, strides=(1, 2, 2, 1))
    encoder = dict(vocab_size=40, hidden_size=16, num_layers=1, num_heads=2, intermediate_size=32, max_text_length=20)
    model = dict(
        type="ClipBert",
        data_preprocessor=dict(type="VideoTextPreprocessor", mean=[0.0] * 3, std=[255.0] * 3, vocab_size=40),
        backbone=kind,
        projection=dict(type="GridProjection", in_channels=64, out_channels=16),
        temporal_fusion=dict(type="MeanFusion"),
        encoder=dict(type="JointEncoder", dropout=0.0, grid_size=8, **encoder),
        head=dict(type="MatchingHead", in_channels=16, hidden_channels=32, dropout=0.0),
        aggregator=dict(type="LogSumExpAggregator"),
    )
    pipeline = [
        dict(type="OpenVideo"),
        dict(type="SampleClips", num_clips=2, num_frames=2, mode="uniform"),
        dict(type="DecodeClips"),
        dict(type="ResizePad", size=32),
        dict(type="Tokenize", tokenizer=tokenizer, max_length=20),
        dict(type="PackInputs"),
    ]
    return Config(dict(default_scope="clipbert_mm", model=model, test_dataloader=dict(dataset=dict(pipeline=pipeline))))


def _flip(rng: random.Random, file: Path) -> str:
    """Change some bytes of a file."""
    data = bytearray(file.read_bytes())
    places = [rng.randrange(len(data)) for _ in range(rng.choice([1, 1, 3, 50]))]
    for place in places:
        data[place] ^= 1 << rng.randrange(8)
    file.write_bytes(data)
    return f"{len(places)} bits of {file.name}"


def _cut(rng: random.Random, file: Path) -> str:
    data = file.read_bytes()
    kept = rng.choice([0, 1, 8, rng.randrange(len(data)), len(data) - 1])
    file.write_bytes(data[:kept] + bytes(rng.choice([0, len(data) - kept])))
    return f"{file.name} cut or blank after {kept} bytes"


def _change_manifest(rng: random.Random, gallery: Path, *_: Path) -> str:
    """Put an odd value somewhere into the manifest, or take one out."""
    file = gallery / "manifest.json"
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


def _other_text(rng: random.Random, gallery: Path, *_: Path) -> str:
    """Write something else where the manifest should be."""
    text = rng.choice(
        [
            "",
            "null",
            "[]",
            "{}",
            '"a"',
            "[" * 10**5,
            '{"a":' * 10**5,
            "9" * 5000,
            "\0" * 100,
            '{"format": 2, "videos": 3}',
        ]
    )
    (gallery / "manifest.json").write_text(text)
    return f"the manifest is {text[:20]!r}"


def _more_videos(rng: random.Random, gallery: Path, token: Path, folder: Path) -> str:
    """List a file that is no video of the gallery."""
    file = gallery / "manifest.json"
    manifest = json.loads(file.read_text())
    path = rng.choice(
        [str(folder / PRECIOUS), "/etc/passwd", f"{gallery}/../../{PRECIOUS}", "relative.mp4", "/", "/dev/zero"]
    )
    manifest["videos"].append(manifest["videos"][0] | dict(path=path))
    manifest["unreadable"].append(dict(path=path, size=1, mtime_ns=1, reason="odd"))
    file.write_text(json.dumps(manifest))
    return f"a video {path}"


def _other_model(rng: random.Random, gallery: Path, *_: Path) -> str:
    file = gallery / "manifest.json"
    change = rng.choice(
        [
            dict(identity="0" * 16),
            dict(format=99, version="a" * 10**6),
            dict(source="evil.py"),
            dict(weights="/dev/zero"),
        ]
    )
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    return f"the manifest has {str(change)[:60]}"


def _other_tokens(rng: random.Random, gallery: Path, token: Path, *_: Path) -> str:
    """Write other tensors, without checksums, as releases before had none."""
    clips, coarse = (load(token.read_bytes())[name] for name in ("clips", "coarse"))
    record = _searches[-1].video_index.store.record(token.name.removesuffix(".safetensors"))
    kinds: dict[str, Callable[[], dict[str, torch.Tensor]]] = {
        "NaN": lambda: dict(clips=clips * float("nan"), coarse=coarse),
        "wide": lambda: dict(clips=clips.repeat(1, 1, 3), coarse=coarse),
        "long": lambda: dict(clips=clips.repeat(1, 7, 1), coarse=coarse),
        "many clips": lambda: dict(clips=clips.repeat(50, 1, 1), coarse=coarse.repeat(50, 1, 1)),
        "flat": lambda: dict(clips=clips.flatten(), coarse=coarse.flatten()),
        "empty": lambda: dict(clips=clips[:0], coarse=coarse[:0]),
        "whole numbers": lambda: dict(clips=clips.int(), coarse=coarse.int()),
        "complex": lambda: dict(clips=clips.to(torch.complex64), coarse=coarse),
        "no coarse tokens": lambda: dict(clips=clips),
        "no clips": lambda: dict(coarse=coarse),
        "nothing": dict,
    }
    kind = rng.choice(sorted(kinds))
    tensors = {name: value.contiguous() for name, value in kinds[kind]().items()}
    token.write_bytes(save(tensors, dict(record=json.dumps(record))))
    return f"{token.name} has {kind}"


def _odd_record(rng: random.Random, gallery: Path, token: Path, folder: Path) -> str:
    """Add a file of tokens that no manifest lists and that says odd things of its video."""
    record = _searches[-1].video_index.store.record(token.name.removesuffix(".safetensors"))
    change = {rng.choice(sorted(record)): rng.choice([*ODD, str(folder / PRECIOUS)])}
    name = rng.choice(["0" * 32, "..", "a\nb", "x" * 200])
    metadata = dict(record=json.dumps(record | change)) if rng.random() < 0.8 else None
    (token.parent / f"{name}.safetensors").write_bytes(save(load(token.read_bytes()), metadata))
    return f"another file of tokens, {name!r}: {str(change)[:60]!a}"


def _swapped(rng: random.Random, gallery: Path, token: Path, *_: Path) -> str:
    other = rng.choice([each for each in token.parent.iterdir() if each != token])
    shutil.copy(other, token)
    return f"{token.name} is {other.name}"


def _link(rng: random.Random, gallery: Path, token: Path, folder: Path) -> str:
    """Put a link in the place of a part of the gallery."""
    name = rng.choice(["tokens", "manifest.json", ".lock", token.relative_to(gallery)])
    place = gallery / name
    leads = rng.choice([folder / "gallery" / name, folder / PRECIOUS, Path("/dev/zero"), place, folder / "nothing"])
    _clear(place)
    place.symlink_to(leads)
    return f"{name} is a link to {leads}"


def _odd_file(rng: random.Random, gallery: Path, token: Path, *_: Path) -> str:
    """Put a pipe, a folder, a huge file or nothing in the place of a part of the gallery."""
    name = rng.choice(["tokens", "manifest.json", ".lock", token.relative_to(gallery)])
    place, kind = gallery / name, rng.choice(["a pipe", "a folder", "an empty file", "a huge file", "gone"])
    _clear(place)
    if kind == "a pipe":
        os.mkfifo(place)
    elif kind == "a folder":
        place.mkdir()
    elif kind != "gone":
        with open(place, "wb") as file:
            file.truncate(2**40 if kind == "a huge file" else 0)
    return f"{name} is {kind}"


def _clear(place: Path) -> None:
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)


DAMAGES: dict[str, Callable[..., str]] = {
    "bits of the manifest": lambda rng, gallery, token, folder: _flip(rng, gallery / "manifest.json"),
    "bits of tokens": lambda rng, gallery, token, folder: _flip(rng, token),
    "manifest cut": lambda rng, gallery, token, folder: _cut(rng, gallery / "manifest.json"),
    "tokens cut": lambda rng, gallery, token, folder: _cut(rng, token),
    "value": _change_manifest,
    "another value": _change_manifest,
    "a third value": _change_manifest,
    "text": _other_text,
    "videos": _more_videos,
    "model": _other_model,
    "tensors": _other_tokens,
    "record": _odd_record,
    "swapped": _swapped,
    "link": _link,
    "odd file": _odd_file,
}
"""What may be done to a gallery; each takes the generator, the gallery, one of its files of tokens, and the sound files."""
