"""Right numbers: published counts, ties by their chance, the server's rules, texts that a model cannot tell apart or read."""

import itertools
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from clipbert_mm.errors import AnnotationError
from clipbert_mm.evaluation import retrieval_metrics
from clipbert_mm.evaluation.vqa import normalise_answer, vqa_accuracy


def lines_of(path: Path) -> list[dict[str, Any]]:
    """The records of a JSON-lines file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_didemo(path: Path, videos: int, twice: int, sentences: int) -> None:
    """Write a file as DiDeMo's publisher has it: so many videos, some under two names, and so many sentences in all."""
    rng = random.Random(videos)
    stems = [f"{i:08}@N0{i % 9}_{3_000_000_000 + i}_{rng.getrandbits(40):010x}" for i in range(videos)]
    names = [f"{stem}.mov" for stem in stems] + [f"{stem}.mp4" for stem in stems[:twice]]
    names += rng.choices(names, k=sentences - len(names))
    rng.shuffle(names)
    entries = [
        {"num_segments": 6, "description": f"it moves {i}", "times": [[1, 1]], "video": name, "annotation_id": i}
        for i, name in enumerate(names)
    ]
    path.write_text(json.dumps(entries))


def test_w5_didemo_s_videos_are_counted_once_however_many_names_they_have(
    tool: Callable[[str], ModuleType], tmp_path: Path, capsys: pytest.CaptureFixture
):
    published = {"train": (8_395, 200, 33_005), "val": (1_065, 29, 4_180), "test": (1_004, 33, 4_021)}
    command = []
    for split, sizes in published.items():
        write_didemo(tmp_path / f"{split}_data.json", *sizes)
        command += [f"--{split}", str(tmp_path / f"{split}_data.json")]
    tool("dataset_converters/didemo.py").main([*command, "--strict", str(tmp_path)])
    printed = capsys.readouterr().out
    assert [line for line in printed.splitlines() if "as published" in line] == [
        "train.jsonl: train videos: 8,395 (as published)",
        "train.jsonl: sentences: 33,005 (as published)",
        "val.jsonl: val videos: 1,065 (as published)",
        "val.jsonl: sentences: 4,180 (as published)",
        "test.jsonl: test videos: 1,004 (as published)",
        "test.jsonl: sentences: 4,021 (as published)",
    ]
    assert "val.jsonl: 29 videos have several names in the file, such as '" in printed
    told: dict[str, list[dict]] = {}
    for entry in json.loads((tmp_path / "val_data.json").read_text()):
        told.setdefault(entry["video"][:-4], []).append(entry)
    assert lines_of(tmp_path / "annotations" / "val.jsonl") == [
        {"video": own[0]["video"], "caption": " ".join(entry["description"] for entry in own)} for own in told.values()
    ]


TABLES = {
    "action": ("a1\ta2\ta3\ta4\ta5\tanswer\tvid_id", "sit\trun\tfly\tnod\teat\t{}\tACTION{}"),
    "count": ("answer\tvid_id", "{}\tCOUNT{}"),
}


def write_tgif(folder: Path, sizes: dict[str, tuple[int, int]], zeros: int = 0) -> None:
    """Write tables as TGIF-QA's publisher has them: training and test questions of each task, the first counts 0."""
    for task, both in sizes.items():
        header, row = TABLES[task]
        for split, size in zip(("Train", "Test"), both, strict=True):
            rows = [f"gif_name\tquestion\t{header}"]
            for i in range(size):
                answer = 0 if i < zeros else 1 + i % 4
                rows.append(f"gif{i % 99}\tWhat ?\t" + row.format(answer, i))
            (folder / f"{split}_{task}_question.csv").write_text("\n".join(rows) + "\n")


def test_w6_answers_of_no_times_count_as_one(
    tool: Callable[[str], ModuleType], tmp_path: Path, capsys: pytest.CaptureFixture
):
    write_tgif(tmp_path, {"count": (20, 12)}, zeros=5)
    tool("dataset_converters/tgif_qa.py").main([str(tmp_path), str(tmp_path / "out"), "--tasks", "count"])
    printed = capsys.readouterr().out
    for split, size in (("train", 20), ("test", 12)):
        counts = [record["count"] for record in lines_of(tmp_path / "out" / "annotations" / f"count_{split}.jsonl")]
        assert counts == [1] * 5 + [1 + i % 4 for i in range(5, size)]
        assert f"{split} questions of count: 5 answers of 0 are lifted to 1, as in the publisher's code" in printed


@pytest.mark.parametrize(("action", "count"), [(20_475, 26_843), (20_471, 26_839)])
def test_w7_both_versions_of_tgif_qa_are_as_published(
    tool: Callable[[str], ModuleType], tmp_path: Path, capsys: pytest.CaptureFixture, action: int, count: int
):
    write_tgif(tmp_path, {"action": (action, 2_274), "count": (count, 3_554)})
    tasks = ["--tasks", "action", "count"]
    tool("dataset_converters/tgif_qa.py").main([str(tmp_path), str(tmp_path / "out"), *tasks, "--strict"])
    printed = capsys.readouterr().out
    assert f"train questions of action: {action:,} (as published)" in printed
    assert f"train questions of count: {count:,} (as published)" in printed


def test_w8_ties_count_by_their_chance():
    assert retrieval_metrics(np.zeros((2, 2)), np.array([0, 1]))["t2v/R@1"] == 50
    # Every order of four videos, for texts with all kinds of ties; a second caption helps its video.
    scores = np.array([[1.0, 1, 0, 0], [2, 2, 2, 2], [0, 1, 1, 1], [3, 0, 0, 3], [0, 0, 0, 1]])
    text_video = np.array([0, 1, 2, 3, 3])
    found = retrieval_metrics(scores, text_video)
    hits, ranks = [], []
    for order in itertools.permutations(range(4)):
        for text, video in enumerate(text_video):
            ranks.append(sorted(order, key=lambda v: -scores[text, v]).index(video) + 1)
            hits.append(ranks[-1] == 1)
    assert found["t2v/R@1"] == pytest.approx(100 * np.mean(hits))
    assert found["t2v/MnR"] == pytest.approx(np.mean(ranks))
    firsts = []
    for order in itertools.permutations(range(5)):
        for video in range(4):
            firsts.append(text_video[sorted(order, key=lambda text: -scores[text, video])[0]] == video)
    assert found["v2t/R@1"] == pytest.approx(100 * np.mean(firsts))


def server_s_accuracy(predicted: str, answers: Sequence[str]) -> float:
    """The published procedure, step by step: each annotator is left out once."""

    def plain(text: str) -> str:
        return text.replace("\n", " ").replace("\t", " ").strip()

    predicted, said = plain(predicted), [plain(answer) for answer in answers]
    if len(set(said)) > 1:
        predicted, said = normalise_answer(predicted), [normalise_answer(answer) for answer in said]
    scores = []
    for left_out in range(len(said)):
        others = [answer for i, answer in enumerate(said) if i != left_out]
        scores.append(min(1.0, others.count(predicted) / 3))
    return sum(scores) / len(scores)


def test_w9_unanimous_answers_are_compared_as_they_are():
    assert vqa_accuracy("2", ["two"] * 10) == 0
    assert vqa_accuracy("two\n", ["two", " two"] * 5) == 1
    assert vqa_accuracy("2", ["two"] * 9 + ["Two"]) == 1
    rng = random.Random(0)
    forms = ("two", "Two", "2", " two", "the two", "a dog", "dog")
    for _ in range(2_000):
        answers = [rng.choice(rng.choice((forms[:1], forms[:2], forms))) for _ in range(10)]
        answers = answers[:1] * 10 if rng.random() < 0.3 else answers
        predicted = rng.choice(forms)
        assert vqa_accuracy(predicted, answers) == pytest.approx(server_s_accuracy(predicted, answers))


def test_w12_msvd_s_questions_are_no_questions_of_msrvtt(tool: Callable[[str], ModuleType], tmp_path: Path):
    command = ["qa"]
    for split, video in (("train", 1), ("val", 1201), ("test", 1301)):
        entry = {"answer": "dance", "id": video, "question": "what do they do?", "video_id": video}
        (tmp_path / f"{split}_qa.json").write_text(json.dumps([entry]))
        command += [f"--{split}", str(tmp_path / f"{split}_qa.json")]
    message = (
        r"val_qa\.json, entry 1: expected a video of MSRVTT's split val, video6513 to video7009 \(MSVD-QA's files look alike.*"
        r"got 'video1201'\."
    )
    with pytest.raises(AnnotationError, match=message):
        tool("dataset_converters/msrvtt.py").main([*command, str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
