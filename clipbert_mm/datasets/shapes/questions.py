"""Questions about the Shapes world, one kind for each task of the paper, and object labels of its images.

Both are derived from the description of the scenes that are drawn.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clipbert_mm.datasets.shapes.scenes import COLORS, SHAPES, Scene, ShapeObject

ANSWERS = {answer: i for i, answer in enumerate((*COLORS, *SHAPES))}
"""Vocabulary of open-ended questions."""
OPTIONS = 5
"""Options of multiple choice, as in TGIF-QA."""


def _objects(scenes: Sequence[Scene]) -> list[ShapeObject]:
    return [item for scene in scenes for item in scene.objects]


def open_ended(scenes: Sequence[Scene], count: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Ask for the color of a shape, or the shape of a color, that occurs once in the scenes; at most ``count`` questions."""
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
    shown = [item.describe() for item in _objects(scenes)]
    answer = str(rng.choice(shown))
    return dict(question="what is in the video", **_shuffle_in(answer, _absent_shapes(shown, OPTIONS - 1, rng), rng))


def order(scenes: Sequence[Scene], rng: np.random.Generator) -> dict[str, Any] | None:
    """Ask what follows a shape that occurs in one scene only, as TGIF-QA's transition does; None if there is no such shape.

    The options include a shape of a third scene, so that knowing which shapes the video shows does not always suffice.
    """
    named = [[item.describe() for item in scene.objects] for scene in scenes]
    scenes_with = Counter(name for names in named for name in set(names))
    pairs = [
        (index, one, two)
        for index in range(len(named) - 1)
        for one in named[index]
        for two in named[index + 1]
        if scenes_with[one] == scenes_with[two] == 1
    ]
    if not pairs:
        return None
    index, one, two = pairs[rng.integers(len(pairs))]
    elsewhere = [name for i, names in enumerate(named) if i not in (index, index + 1) for name in names]
    third = [name for name in elsewhere if scenes_with[name] == 1][:1]
    others = [*third, *_absent_shapes([name for names in named for name in names], OPTIONS - 1 - len(third), rng)]
    return dict(question=f"what follows {one}", **_shuffle_in(two, others, rng))


def counting(scenes: Sequence[Scene]) -> dict[str, Any]:
    """Ask how many shapes the video shows."""
    return dict(question="count the shapes", count=len(_objects(scenes)))


def paragraph(scenes: Sequence[Scene]) -> str:
    """Describe the scenes one after another, with their backgrounds, which captions leave out."""
    parts = []
    for scene in scenes:
        parts.append(f"{' and '.join(item.describe() for item in scene.objects)} on {scene.background}")
    return "first " + ", then ".join(parts)


def _absent_shapes(shown: Sequence[str], count: int, rng: np.random.Generator) -> list[str]:
    """Describe shapes that the video does not show."""
    found: dict[str, None] = {}
    while len(found) < count:
        item = ShapeObject(str(rng.choice(SHAPES)), str(rng.choice(list(COLORS))), "small", (0.0, 0.0), (0.0, 0.0))
        if item.describe() not in shown:
            found[item.describe()] = None
    return list(found)


def _shuffle_in(answer: str, others: Sequence[str], rng: np.random.Generator) -> dict[str, Any]:
    """Insert the answer at a random index among the other options."""
    options = [*others]
    index = int(rng.integers(len(options) + 1))
    options.insert(index, answer)
    return dict(options=options, answer=index)


def write_video_questions(
    folder: Path, split: str, stories: Mapping[str, Sequence[Scene]], rng: np.random.Generator
) -> None:
    """Write the annotation files of all kinds of questions, and of paragraphs, for the videos of a split.

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
    """Write ``image_qa_train.jsonl`` of nine tenths of the images, and ``image_qa_test.jsonl`` of the rest.

    As in VQA 2.0 the answers have scores: 1 for the correct one. ``answers.json`` is the vocabulary, also for videos.
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
    """Write ``objects_<split>.json``, for mmpretrain's MultiLabelDataset: the colors and shapes that each image shows."""
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
