"""Questions about the Shapes world, one kind for each task of the paper, and the names of what its images show.

Both come from the same description that is drawn.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clipbert_mm.datasets.shapes.scenes import COLORS, SHAPES, Scene, ShapeObject

ANSWERS = {answer: place for place, answer in enumerate((*COLORS, *SHAPES))}
"""Vocabulary of open-ended questions."""
OPTIONS = 5
"""Options of multiple choice, as in TGIF-QA."""


def _objects(scenes: Sequence[Scene]) -> list[ShapeObject]:
    return [item for scene in scenes for item in scene.objects]


def open_ended(scenes: Sequence[Scene], count: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Ask for the color of a kind of shape, or the kind of a color, that the scenes have once; at most ``count``."""
    items = _objects(scenes)
    shapes, colors = Counter(item.shape for item in items), Counter(item.color for item in items)
    asked = [
        dict(question=f"what color is the {item.shape}", answer=item.color, answer_type="color")
        for item in items
        if shapes[item.shape] == 1
    ]
    asked += [
        dict(question=f"which shape is {item.color}", answer=item.shape, answer_type="shape")
        for item in items
        if colors[item.color] == 1
    ]
    return [asked[i] for i in rng.permutation(len(asked))[:count]]


def multiple_choice(scenes: Sequence[Scene], rng: np.random.Generator) -> dict[str, Any]:
    """Ask which of five shapes is in the video."""
    there = [item.describe() for item in _objects(scenes)]
    right = str(rng.choice(there))
    return dict(question="what is in the video", **_among(right, _strangers(there, OPTIONS - 1, rng), rng))


def order(scenes: Sequence[Scene], rng: np.random.Generator) -> dict[str, Any] | None:
    """Ask what comes after a shape that one scene alone has, as TGIF-QA's transition does; None if no scene has such a one.

    A shape of a third scene is among the options, so that seeing what the video shows does not always suffice.
    """
    named = [[item.describe() for item in scene.objects] for scene in scenes]
    scenes_with = Counter(name for names in named for name in set(names))
    pairs = [
        (place, one, two)
        for place in range(len(named) - 1)
        for one in named[place]
        for two in named[place + 1]
        if scenes_with[one] == scenes_with[two] == 1
    ]
    if not pairs:
        return None
    place, one, two = pairs[rng.integers(len(pairs))]
    away = [name for i, names in enumerate(named) if i not in (place, place + 1) for name in names]
    third = [name for name in away if scenes_with[name] == 1][:1]
    others = [*third, *_strangers([name for names in named for name in names], OPTIONS - 1 - len(third), rng)]
    return dict(question=f"what follows {one}", **_among(two, others, rng))


def counting(scenes: Sequence[Scene]) -> dict[str, Any]:
    """Ask how many shapes the video shows."""
    return dict(question="count the shapes", count=len(_objects(scenes)))


def paragraph(scenes: Sequence[Scene]) -> str:
    """Tell the scenes one after another, with more than a caption says: the background."""
    told = []
    for scene in scenes:
        told.append(f"{' and '.join(item.describe() for item in scene.objects)} on {scene.background}")
    return "first " + ", then ".join(told)


def _strangers(there: Sequence[str], count: int, rng: np.random.Generator) -> list[str]:
    """Describe shapes that are not there."""
    found: dict[str, None] = {}
    while len(found) < count:
        item = ShapeObject(str(rng.choice(SHAPES)), str(rng.choice(list(COLORS))), "small", (0.0, 0.0), (0.0, 0.0))
        if item.describe() not in there:
            found[item.describe()] = None
    return list(found)


def _among(right: str, others: Sequence[str], rng: np.random.Generator) -> dict[str, Any]:
    options = [*others]
    place = int(rng.integers(len(options) + 1))
    options.insert(place, right)
    return dict(options=options, answer=place)


def write_video_questions(
    folder: Path, split: str, stories: Mapping[str, Sequence[Scene]], rng: np.random.Generator
) -> None:
    """Write the annotation files of every kind of question, and of paragraphs, for the videos of a split.

    They are ``qa_``, ``choice_``, ``order_``, ``count_`` and ``paragraph_<split>.jsonl``.
    """
    kinds: dict[str, list[dict[str, Any]]] = {kind: [] for kind in ("qa", "choice", "order", "count", "paragraph")}
    for name, scenes in stories.items():
        kinds["qa"] += [dict(video=name, **asked) for asked in open_ended(scenes, 4, rng)]
        kinds["choice"] += [dict(video=name, **multiple_choice(scenes, rng)) for _ in range(2)]
        kinds["order"] += [dict(video=name, **asked) for asked in (order(scenes, rng), order(scenes, rng)) if asked]
        kinds["count"].append(dict(video=name, **counting(scenes)))
        kinds["paragraph"].append(dict(video=name, caption=paragraph(scenes)))
    for kind, records in kinds.items():
        _write(folder / f"{kind}_{split}.jsonl", records)


def write_image_questions(folder: Path, scenes: Mapping[str, Scene], rng: np.random.Generator) -> None:
    """Write ``image_qa_train.jsonl``, of nine tenths of the images, and ``image_qa_test.jsonl``, of the rest.

    Like those of VQA 2.0 the answers have scores: 1 for the right one. The vocabulary is ``answers.json``, for videos too.
    """
    records = [
        dict(image=name, question_id=f"{name}-{i}", **asked, labels={asked["answer"]: 1.0})
        for name, scene in scenes.items()
        for i, asked in enumerate(open_ended((scene,), 2, rng))
    ]
    names = list(scenes)
    held_out = set(names[len(names) * 9 // 10 :])
    _write(folder / "image_qa_train.jsonl", [record for record in records if record["image"] not in held_out])
    _write(folder / "image_qa_test.jsonl", [record for record in records if record["image"] in held_out])
    (folder / "answers.json").write_text(json.dumps(ANSWERS))


def write_object_labels(folder: Path, split: str, scenes: Mapping[str, Scene]) -> None:
    """Write ``objects_<split>.json``, for mmpretrain's MultiLabelDataset: the colors and kinds that each image shows."""
    images = [
        dict(
            img_path=name,
            gt_label=sorted({ANSWERS[word] for item in scene.objects for word in (item.color, item.shape)}),
        )
        for name, scene in scenes.items()
    ]
    labels = dict(metainfo=dict(classes=list(ANSWERS)), data_list=images)
    (folder / f"objects_{split}.json").write_text(json.dumps(labels))


def _write(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
