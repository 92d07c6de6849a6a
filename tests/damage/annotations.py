"""Annotation files, answer vocabularies and publishers' files, damaged; read by the datasets, metrics and converters."""

import contextlib
import copy
import csv
import importlib.util
import io
import json
import os
import random
import shutil
import string
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

os.environ["TOKENIZERS_PARALLELISM"] = "false"  # each file is read in a fork

import numpy as np
import torch
from mmengine.registry import DefaultScope

from clipbert_mm.datasets import (
    CountDataset,
    MultipleChoiceDataset,
    OpenEndedDataset,
    PretrainingDataset,
    RetrievalDataset,
    SoftAnswerDataset,
    train_vocabulary,
)
from clipbert_mm.datasets.vocabulary import read_texts
from clipbert_mm.evaluation import AnswerAccuracy, CountError, VQAAccuracy
from clipbert_mm.structures import read_answers

TOOLS = Path(__file__).resolve().parents[2] / "tools" / "dataset_converters"
ROWS = 12
DATASETS = {
    "retrieval": (RetrievalDataset, lambda i: dict(caption=f"a red circle {i}", spans=[[0, i + 1.5], [20, 21]])),
    "pretraining": (PretrainingDataset, lambda i: dict(caption=f"a blue square {i}")),
    "open": (
        OpenEndedDataset,
        lambda i: dict(question=f"what is {i}?", answer="yn"[i % 2], answer_type="what", question_id=i),
    ),
    "choice": (MultipleChoiceDataset, lambda i: dict(question="what?", options=["a", "b", f"c {i}"], answer=i % 3)),
    "count": (CountDataset, lambda i: dict(question="how often?", count=i, question_id=f"q{i}")),
    "soft": (
        SoftAnswerDataset,
        lambda i: dict(question="what?", labels={"y": 1.0, "n": 0.3}, answer_type="other", question_id=i),
    ),
}
"""The datasets by the names of their cases, with what a record has beside its video."""
METRICS: dict[str, Callable[[], Any]] = {
    "open": AnswerAccuracy,
    "choice": AnswerAccuracy,
    "count": lambda: CountError(low=1, high=10),
    "soft": VQAAccuracy,
}
CONVERSIONS: dict[str, list[str]] = {
    "didemo": ["didemo", "--train", "@/train.json", "--val", "@/val.json"],
    "activitynet": ["activitynet_captions", "--train", "@/train.json", "--val", "@/val.json"],
    "tgif": ["tgif_qa", "@"],
    "msrvtt": ["msrvtt", "retrieval", "--test-csv", "@/test.csv", "--annotations", "@/all.json", "--seed", "3"],
    "msrvtt-qa": ["msrvtt", "qa", "--train", "@/train.json", "--val", "@/val.json", "--test", "@/test.json"],
    "msrvtt-table": ["msrvtt", "multiple-choice", "@/choices.tsv"],
    "msrvtt-lines": ["msrvtt", "multiple-choice", "@/choices.jsonl"],
    "captions": [
        "image_captions",
        "--coco",
        "@",
        "--genome",
        "@",
        "--leave-out",
        "@/ids.txt",
        "--karpathy",
        "@/karpathy.json",
    ],
    "vqa": ["vqa2", "@", "--genome", "@", "--min-count", "1"],
}
"""The converters' command lines by the names of their cases; ``@`` stands for the folder of the publisher's files."""


def load_tool(name: str) -> ModuleType:
    """Import a converter."""
    spec = importlib.util.spec_from_file_location(f"converter_{name}", TOOLS / f"{name}.py")
    assert spec is not None, name
    assert spec.loader is not None, name
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CONVERTERS = {name: load_tool(name) for name in sorted({command[0] for command in CONVERSIONS.values()})}


def prepare(folder: Path) -> None:
    """Write a folder of small sound files for each case, and a tokenizer."""
    for name, (_, record_of) in DATASETS.items():
        (folder / name).mkdir(parents=True)
        records = [{"video": f"{i % 5}.mp4"} | record_of(i) for i in range(ROWS)]
        (folder / name / "a.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in records))
        (folder / name / "answers.json").write_text(json.dumps({"y": 0, "n": 1}))
    for name, files in _published().items():
        (folder / name).mkdir(parents=True)
        for file, content in files.items():
            text = content if isinstance(content, str) else json.dumps(content)
            (folder / name / file).write_text(text)
    train_vocabulary(["a red circle what is how often", string.ascii_lowercase], folder / "tokenizer", 100)


def _published() -> dict[str, dict[str, Any]]:
    """Return small files as their publishers have them, by case."""
    numbers = range(ROWS)
    tables = {}
    options_and_answer = "a1 a2 a3 a4 a5 answer"
    columns_of = dict(action=options_and_answer, transition=options_and_answer, frameqa="answer type", count="answer")
    for task, columns in columns_of.items():
        prefix = {"transition": "TRANS"}.get(task, task.upper())
        rows = ["\t".join(["gif_name", "question", *columns.split(), "vid_id"])]
        rows += [
            "\t".join([f"g{i}", "what ?", *(str(i % 4) for _ in columns.split()), f"{prefix}{i}"]) for i in numbers
        ]
        tables |= {f"{split}_{task}_question.csv": "\n".join(rows) for split in ("Train", "Test")}
    didemo = [dict(annotation_id=i, video=f"{i % 3}@N_{i}.mov", description=f"it {i}", times=[[0, 1]]) for i in numbers]
    net = {f"v_{i}": dict(duration=9.5, timestamps=[[0, 3.5], [2, 9]], sentences=["one", "two"]) for i in numbers}
    videos = (0, 6513, 7010, 7011, 9999)
    msrvtt = dict(
        videos=[dict(video_id=f"video{i}") for i in videos],
        sentences=[dict(video_id=f"video{i}", sen_id=i, caption="a man") for i in videos],
    )
    asked = {
        f"{split}.json": [dict(id=first + i, video_id=first, question="what?", answer="yn"[i % 2]) for i in range(4)]
        for split, first in (("train", 0), ("val", 6513), ("test", 7010))
    }
    options = ["a", "b", "c", "d", "e"]
    table = ["\t".join(["key", "vid_key", "a1", "a2", "a3", "a4", "a5", "answer"])]
    table += ["\t".join([f"MC{i}", f"msr{7010 + i}", *options, str(i % 5)]) for i in numbers]
    choices = [dict(qid=i, clip_name=f"video{7010 + i}", options=options, answer=i % 5) for i in numbers]
    coco = {
        f"captions_{split}.json": dict(
            images=[
                dict(id=first + i, file_name=f"COCO_{split}_{first + i:012}.jpg", flickr_url=f"http://f/{i}_o.jpg")
                for i in range(4)
            ],
            annotations=[dict(id=first + i, image_id=first + i, caption="a cat") for i in range(4)],
        )
        for split, first in (("train2014", 0), ("val2014", 10))
    }
    genome = {
        "image_data.json": [
            dict(image_id=i, url=f"https://x/VG_100K/{i}.jpg", coco_id=i if i % 2 else None, flickr_id=i)
            for i in numbers
        ],
        "region_descriptions.json": [dict(id=i, regions=[dict(phrase="a dog")]) for i in numbers],
        "question_answers.json": [dict(id=i, qas=[dict(qa_id=i, question="what?", answer="yes")]) for i in numbers],
    }
    karpathy = dict(
        dataset="coco",
        images=[dict(cocoid=i, split="train" if i < 10 else "val") for i in (0, 1, 2, 3, 10, 11, 12, 13)],
    )
    vqa = dict(genome)
    for split, first in (("train2014", 0), ("val2014", 10), ("test2015", 20), ("test-dev2015", 20)):
        questions = [dict(question_id=first + i, image_id=first + i, question="what?") for i in range(3)]
        vqa[f"v2_OpenEnded_mscoco_{split}_questions.json"] = dict(data_subtype=split, questions=questions)
        said = [dict(answer="yes", answer_id=k) for k in range(10)]
        annotations = [
            dict(
                question_id=first + i,
                image_id=first + i,
                answer_type="yes/no",
                multiple_choice_answer="yes",
                answers=said,
            )
            for i in range(3)
        ]
        if first < 20:
            vqa[f"v2_mscoco_{split}_annotations.json"] = dict(data_subtype=split, annotations=annotations)
    test = "key,vid_key,video_id,sentence\nret0,msr7010,video7010,a man\nret1,msr9999,video9999,a dog\n"
    return {
        "didemo": {"train.json": didemo, "val.json": didemo},
        "activitynet": {"train.json": net, "val.json": net},
        "tgif": tables,
        "msrvtt": {"all.json": msrvtt, "test.csv": test},
        "msrvtt-qa": asked,
        "msrvtt-table": {"choices.tsv": "\n".join(table)},
        "msrvtt-lines": {"choices.jsonl": "\n".join(map(json.dumps, choices))},
        "captions": coco | genome | {"karpathy.json": karpathy, "ids.txt": "7\nCOCO_train2014 11\n"},
        "vqa": vqa,
    }


def damage(rng: random.Random, folder: Path, target: Path) -> str:
    """Copy a case, damage one or two of its files, and say how."""
    name = rng.choice([*DATASETS, *CONVERSIONS])
    shutil.copytree(folder / name, target)
    shutil.copytree(folder / "tokenizer", target / "tokenizer")
    (target / "case").write_text(name)
    done = []
    for _ in range(rng.choice((1, 1, 1, 2))):
        file = rng.choice(sorted(path for path in target.iterdir() if path.is_file() and path.name != "case"))
        ways = [_change_bytes, _change_lines, *[_change_values] * 3]
        done.append(f"{file.name} {rng.choice(ways)(rng, file)}")
    return f"{target}: {name}, {', then '.join(done)}"


def _change_bytes(rng: random.Random, file: Path) -> str:
    """Damage a file as bytes."""
    data = file.read_bytes()
    place = rng.randrange(len(data) + 1)
    noise = rng.randbytes(rng.choice((1, 2, 40)))
    text = data.decode(errors="replace")
    ways = {
        "with a byte-order mark": lambda: b"\xef\xbb\xbf" + data,
        "in UTF-16": lambda: text.encode("utf-16"),
        "in UTF-32": lambda: text.encode("utf-32"),
        "in Latin-1": lambda: text.replace("a", "é", 3).encode("latin-1", errors="replace"),
        "cut": lambda: data[:place],
        "empty": lambda: b"",
        "without its head": lambda: data[place:],
        "twice": lambda: data + data,
        "with NUL bytes": lambda: data[:place] + bytes(rng.choice((1, 100))) + data[place:],
        "with noise": lambda: data[:place] + noise + data[place + len(noise) :],
        "nothing but noise": lambda: rng.randbytes(2000),
        "a picture": lambda: b"\x89PNG\r\n\x1a\n" + rng.randbytes(500),
        "with line ends of old": lambda: data.replace(b"\n", rng.choice((b"\r", b"\r\n", "\u2028".encode(), b"\x0b"))),
        "in one line": lambda: data.replace(b"\n", b" "),
        "of 20 MiB in a line": lambda: data[:place] + b" " * (20 * 2**20) + data[place:],
        "of a megabyte of digits": lambda: data[:place] + b"7" * 1_000_000 + data[place:],
        "of 100,000 brackets": lambda: data[:place] + rng.choice((b"[", b"{", b'{"a":', b"]")) * 100_000 + data[place:],
        "without commas": lambda: data.replace(b",", b"", rng.randint(1, 3)),
        "without quotation marks": lambda: data.replace(b'"', b"", rng.randint(1, 3)),
        "with half a character": lambda: data.replace(b"a", b"\\ud83d", rng.randint(1, 9)),
    }
    how = rng.choice(list(ways))
    file.write_bytes(ways[how]())
    return how


def _change_lines(rng: random.Random, file: Path) -> str:
    """Damage a file as lines."""
    lines = file.read_bytes().split(b"\n")
    place = rng.randrange(len(lines))
    ways: dict[str, Callable[[], list[bytes]]] = {
        "without a line": lambda: lines[:place] + lines[place + 1 :],
        "with a line twice": lambda: [*lines[:place], lines[place], *lines[place:]],
        "with lines in another order": lambda: rng.sample(lines, len(lines)),
        "as a list in one line": lambda: [
            b"[" + b",".join(line for line in lines if line) * rng.choice((1, 5000)) + b"]"
        ],
        "with empty lines": lambda: [*lines[:place], b"", b"  ", *lines[place:]],
        "with text in a line": lambda: [*lines[:place], b"# a remark", *lines[place:]],
    }
    how = rng.choice(list(ways))
    file.write_bytes(b"\n".join(ways[how]()))
    return how


RAW = {
    "NaN": "NaN",
    "infinity": "-Infinity",
    "5,000 digits": "9" * 5000,
    "400 digits": "9" * 400,
    "1e400": "1e400",
    "null": "null",
    "true": "true",
    "minus one": "-1",
    "a fraction": "0.5",
    "a large number": str(2**63),
    "nothing": '""',
    "a space": '" "',
    "invisible text": '"\\u200b\\ufeff"',
    "half a character": '"\\ud83d"',
    "a low half": '"\\udce9"',
    "a NUL": '"a\\u0000b"',
    "a path upwards": '"../../../etc/passwd"',
    "an address": '"http://[::1]:x/y.mp4"',
    "a megabyte": '"' + "a" * 1_000_000 + '"',
    "long words": '"' + "word " * 100_000 + '"',
    "many words": '"' + " ".join(f"w{i}" for i in range(50_000)) + '"',
    "a list": "[]",
    "an object": "{}",
    "a list of lists": "[" * 50 + "]" * 50,
    "too deep": "[" * 5000 + "]" * 5000,
    "a long list": "[" + "0," * 100_000 + "0]",
    "keys twice": '{"a": 1, "a": 2}',
    "strange keys": '{"": 1, "\\ud83d": 0.5, " ": 0.1}',
}
"""Values of JSON that are sound or not."""


def _change_values(rng: random.Random, file: Path) -> str:
    """Damage a file as what it holds: cells of a table, or values of JSON."""
    if file.suffix in (".csv", ".tsv", ".txt"):
        return _change_cells(rng, file)
    try:
        text = file.read_text()
        values = [json.loads(line) for line in text.splitlines()] if file.suffix == ".jsonl" else [json.loads(text)]
    except (ValueError, RecursionError):
        return _change_bytes(rng, file)
    changed, mark = copy.deepcopy(values), "@raw@"
    how, what = rng.choice(("value", "value", "value", "key", "without", "twice")), rng.choice(list(RAW))
    holders = [each for each in _holders(changed) if each]
    holder = rng.choice(holders)
    place = rng.choice(list(holder)) if isinstance(holder, dict) else rng.randrange(len(holder))
    if how == "without":
        del holder[place]
    elif how == "key" and isinstance(holder, dict):
        holder[mark] = holder.pop(place)
    elif how == "twice" and isinstance(holder, dict):
        holder[mark] = holder[place]
    else:
        how, holder[place] = "value", mark
    separator = "\n" if file.suffix == ".jsonl" else ""
    whole = separator.join(map(json.dumps, changed))
    key = json.dumps(place) if how == "twice" else RAW[what] if RAW[what].startswith('"') else '"other"'
    file.write_text(whole.replace(f'"{mark}"', RAW[what] if how == "value" else key))
    return f"{place!r}: {how}, {what}"


def _holders(value: Any) -> list[Any]:
    """Return all lists and objects in a value."""
    if not isinstance(value, (dict, list)):
        return []
    inner = value.values() if isinstance(value, dict) else value
    return [value, *(each for one in inner for each in _holders(one))]


def _change_cells(rng: random.Random, file: Path) -> str:
    """Damage a table."""
    separator = "," if file.suffix == ".csv" and file.name == "test.csv" else "\t"
    try:
        rows = [line.split(separator) for line in file.read_text().split("\n")]
    except UnicodeDecodeError:
        return _change_bytes(rng, file)
    row = rng.choice(rows)
    place = rng.randrange(len(row))
    what = rng.choice(list(RAW))
    value = RAW[what].strip('"')
    how = rng.choice(("cell", "cell", "cell", "more", "fewer", "header", "quotes", "separator"))
    if how == "more":
        row.insert(place, value)
    elif how == "fewer":
        del row[place]
    elif how == "header":
        rows[0][rng.randrange(len(rows[0]))] = value
    elif how == "quotes":
        row[place] = f'"{row[place]}'
    else:
        row[place] = value
    other = rng.choice((";", "|", "  ")) if how == "separator" else separator
    with contextlib.closing(io.StringIO()) as text:
        if rng.random() < 0.2:
            csv.writer(text, delimiter=separator).writerows(rows)
        else:
            text.write("\n".join(other.join(each) for each in rows))
        file.write_bytes(text.getvalue().encode(errors="surrogatepass"))
    return f"cell {place}: {how}, {what}"


def use(path: Path) -> None:
    """Read a case as its users do."""
    name = (path / "case").read_text()
    if name in CONVERSIONS:
        tool, *command = CONVERSIONS[name]
        CONVERTERS[tool].main([*(part.replace("@", str(path), 1) for part in command), str(path / "out")])
        return
    for i in range(5):
        (path / f"{i}.mp4").touch()
    read_answers(str(path / "answers.json"))
    with DefaultScope.overwrite_default_scope("clipbert_mm"):
        for test_mode in (False, True):
            _read_all(name, path, test_mode)
    train_vocabulary(read_texts([str(path / "a.jsonl")]), path / "new", 100)


def _read_all(name: str, path: Path, test_mode: bool) -> None:
    """Make every item of a dataset, tokenize it, and measure made-up predictions."""
    kind, _ = DATASETS[name]
    steps = [dict(type="Tokenize", tokenizer=str(path / "tokenizer"), max_length=12)]
    options = dict(answer_file=str(path / "answers.json")) if name in ("open", "soft") else {}
    dataset = kind(
        ann_file=str(path / "a.jsonl"), media_folder=str(path), pipeline=steps, test_mode=test_mode, **options
    )
    metric = METRICS.get(name, lambda: None)()
    for i in range(len(dataset)):
        info = dataset.prepare_test(i) if test_mode else dataset.prepare(i, np.random.default_rng(i))
        item = dataset.pipeline(info)
        if metric is not None:
            texts = len(item["texts"])
            scores = torch.zeros(texts, len(dataset.answers)) if name in ("open", "soft") else torch.zeros(texts)
            metric.process({}, [item | dict(broken=None, scores=scores)])
    if metric is not None:
        metric.evaluate(len(dataset))
