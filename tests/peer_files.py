"""Small files of the data sets that peers carry, in their publishers' formats, and the commands that convert them.

Each data set has six videos or images to train on, three to validate on and three to test on; two captions or questions each.
"""

import csv
import json
import pickle
from collections.abc import Callable, Iterator, Sequence
from itertools import count, cycle
from pathlib import Path
from typing import Any, NamedTuple

SIZES = {"train": 6, "val": 3, "test": 3}
PER_VIDEO = 2


class Item(NamedTuple):
    """A video or image of a split, from 1, with its texts."""

    number: int
    split: str
    texts: list[str]


def items_of(texts: Sequence[str]) -> list[Item]:
    """All items, with texts in turn."""
    numbers, words = count(1), cycle(texts)
    return [
        Item(next(numbers), split, [next(words) for _ in range(PER_VIDEO)])
        for split, size in SIZES.items()
        for _ in range(size)
    ]


def split_items(texts: Sequence[str]) -> Iterator[tuple[str, list[Item]]]:
    """The items of each split."""
    items = items_of(texts)
    for split in SIZES:
        yield split, [item for item in items if item.split == split]


def answer_of(text: str) -> str:
    """What is asked for in open-ended questions."""
    return text.split()[1]


def write_table(path: Path, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content))


def msvd_number(item: Item) -> int:
    """The number of a video in MSVD, by which its split goes."""
    return item.number + {"train": 0, "val": 1200, "test": 1300}[item.split]


def msvd_name(item: Item) -> str:
    return f"-a_b{item.number}_{item.number}_19"


def write_msvd_mapping(folder: Path, texts: Sequence[str]) -> None:
    lines = [f"{msvd_name(item)} vid{msvd_number(item)}\n" for item in items_of(texts)]
    (folder / "youtube_mapping.txt").write_text("".join(lines))


def write_msvd(folder: Path, texts: Sequence[str]) -> list[str]:
    write_msvd_mapping(folder, texts)
    columns = ["VideoID", "Start", "End", "WorkerID", "Source", "AnnotationTime", "Language", "Description"]
    rows = []
    for item in items_of(texts):
        name = msvd_name(item).rsplit("_", 2)
        rows += [[*name, 1, "clean", 5, "English", text] for text in item.texts] + [
            [*name, 1, "clean", 5, "Slovene", "a"]
        ]
    write_table(folder / "corpus.csv", columns, rows)
    captions = {msvd_name(item): [text.split() for text in item.texts] for item in items_of(texts)}
    (folder / "raw-captions.pkl").write_bytes(pickle.dumps(captions))
    for split, items in split_items(texts):
        (folder / f"{split}_list.txt").write_text("".join(f"{msvd_name(item)}\n" for item in items))
    return ["retrieval", str(folder / "corpus.csv"), "--mapping", str(folder / "youtube_mapping.txt")]


def write_msvd_qa(folder: Path, texts: Sequence[str]) -> list[str]:
    write_msvd_mapping(folder, texts)
    for split, items in split_items(texts):
        questions = [
            {
                "id": 10 * item.number + k,
                "video_id": msvd_number(item),
                "question": f"{text} ?",
                "answer": answer_of(text),
            }
            for item in items
            for k, text in enumerate(item.texts)
        ]
        write_json(folder / f"{split}_qa.json", questions)
    return ["qa", str(folder), "--mapping", str(folder / "youtube_mapping.txt")]


def write_lsmdc(folder: Path, texts: Sequence[str]) -> list[str]:
    names = dict(train="annos_training", val="annos_val", test="challenge_1000_publictect")
    for split, items in split_items(texts):
        lines = [
            f"000{item.number % 2}_A_Movie_00.00.{item.number:02d}.926-00.00.54.129"
            + "\t00.00.01.000" * 4
            + f"\t{text}\n"
            for item in items
            for text in (item.texts[:1] if split == "test" else item.texts)
        ]
        (folder / f"LSMDC16_{names[split]}.csv").write_text("".join(lines))
    return [str(folder)]


def vatex_name(item: Item) -> str:
    return f"-A_b{item.number}_000047_000057"


def write_vatex(folder: Path, texts: Sequence[str]) -> list[str]:
    files = dict(train="training_v1.0", val="validation_v1.0")
    entries = {
        split: [{"videoID": vatex_name(item), "enCap": item.texts, "chCap": ["一个人"]} for item in items]
        for split, items in split_items(texts)
    }
    write_json(folder / f"vatex_{files['train']}.json", entries["train"])
    write_json(folder / f"vatex_{files['val']}.json", entries["val"] + entries["test"])
    for split in ("val", "test"):
        (folder / f"{split}.txt").write_text("".join(f"{entry['videoID']}\n" for entry in entries[split]))
    captions = [
        f"--{split}" if i == 0 else str(folder / f"vatex_{files[split]}.json") for split in files for i in range(2)
    ]
    return [*captions, "--val-list", str(folder / "val.txt"), "--test-list", str(folder / "test.txt")]


def write_activitynet_qa(folder: Path, texts: Sequence[str]) -> list[str]:
    for split, items in split_items(texts):
        questions, answers = [], []
        for item in items:
            for k, text in enumerate(item.texts):
                question_id = f"v_a-{item.number}_{k + 1}"
                questions.append({"video_name": f"a-{item.number}", "question": text, "question_id": question_id})
                answers.append({"answer": answer_of(text), "type": (item.number + k) % 9, "question_id": question_id})
        write_json(folder / f"{split}_q.json", questions)
        write_json(folder / f"{split}_a.json", answers[::-1])
    return [str(folder)]


NEXTQA_COLUMNS = ["video", "frame_count", "width", "height", "question", "answer", "qid", "type"]


def write_nextqa(folder: Path, texts: Sequence[str], kinds: Sequence[str], answer: Callable[[str], list[Any]]) -> None:
    """Write NExT-QA's tables; ``answer`` returns the answer to a text and what stands in the last columns."""
    for split, items in split_items(texts):
        rows = []
        for item in items:
            for k, text in enumerate(item.texts):
                first, *last = answer(text)
                kind = kinds[(item.number + k) % len(kinds)]
                rows.append([24000 + item.number, 369, 640, 480, text, first, k, kind, *last])
        options = ["a0", "a1", "a2", "a3", "a4"] if last else []
        write_table(folder / f"{split}.csv", NEXTQA_COLUMNS + options, rows)


def write_nextqa_mc(folder: Path, texts: Sequence[str]) -> list[str]:
    kinds = ["CW", "CH", "TN", "TP", "TC", "DC", "DL", "DO"]
    write_nextqa(
        folder, texts, kinds, lambda text: [1, "a star", answer_of(text), "two, or three", "a red ring", "blue"]
    )
    write_json(folder / "map.json", {str(24000 + item.number): f"11/{24000 + item.number}" for item in items_of(texts)})
    return ["multiple-choice", str(folder), "--map", str(folder / "map.json")]


def write_nextqa_oe(folder: Path, texts: Sequence[str]) -> list[str]:
    write_nextqa(folder, texts, ["CW", "TP", "DC", "DB"], lambda text: [answer_of(text)])
    references = {str(24000 + item.number): {"0": "a ring"} for item in items_of(texts)}
    write_json(folder / "add_reference_answer_test.json", references)
    return ["open-ended", str(folder)]


def write_ssv2(folder: Path, texts: Sequence[str]) -> list[str]:
    entries: dict[str, list[dict[str, Any]]] = {"train": [], "validation": []}
    for item in items_of(texts):
        template = f"Moving [something] {'near' if item.number % 2 else 'to'} [something]"
        entry = {"id": str(item.number), "label": item.texts[0], "template": template, "placeholders": ["a", "b"]}
        entries["train" if item.split == "train" else "validation"].append(entry)
    for split, own in entries.items():
        write_json(folder / f"something-something-v2-{split}.json", own)
    return [str(folder)]


def write_karpathy(folder: Path, texts: Sequence[str], data_set: str) -> list[str]:
    images = []
    for item in items_of(texts):
        sentences = [{"tokens": text.split(), "raw": f"{text}\n", "sentid": k} for k, text in enumerate(item.texts)]
        image = {"filename": f"{item.number}.jpg", "split": item.split, "sentences": sentences, "sentids": [0]}
        if data_set == "coco":
            split = "restval" if item.number == 1 else item.split
            image |= {"filepath": "val2014", "cocoid": item.number, "split": split}
        images.append(image)
    write_json(folder / f"dataset_{data_set}.json", {"dataset": data_set, "images": images})
    return [str(folder / f"dataset_{data_set}.json")]


class Peer(NamedTuple):
    """A data set: what writes its files, the converter, and the environment variable of its folder."""

    write: Callable[[Path, Sequence[str]], list[str]]
    converter: str
    variable: str
    media: str = "videos"


PEERS = {
    "msvd": Peer(write_msvd, "msvd", "MSVD"),
    "msvd-qa": Peer(write_msvd_qa, "msvd", "MSVD"),
    "lsmdc": Peer(write_lsmdc, "lsmdc", "LSMDC"),
    "vatex": Peer(write_vatex, "vatex", "VATEX"),
    "activitynet-qa": Peer(write_activitynet_qa, "activitynet_qa", "ACTIVITYNET"),
    "nextqa-mc": Peer(write_nextqa_mc, "nextqa", "NEXTQA"),
    "nextqa-oe": Peer(write_nextqa_oe, "nextqa", "NEXTQA"),
    "ssv2-label": Peer(write_ssv2, "ssv2", "SSV2"),
    "ssv2-template": Peer(write_ssv2, "ssv2", "SSV2"),
    "coco": Peer(lambda folder, texts: write_karpathy(folder, texts, "coco"), "image_retrieval", "COCO", "images"),
    "flickr30k": Peer(
        lambda folder, texts: write_karpathy(folder, texts, "flickr30k"), "image_retrieval", "FLICKR30K", "images"
    ),
}
"""By the last word of the names of their configs."""
