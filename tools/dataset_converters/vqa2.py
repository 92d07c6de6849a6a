#!/usr/bin/env python
"""Convert VQA 2.0 as published to JSON lines: python tools/dataset_converters/vqa2.py FOLDER OUT.

FOLDER has the publisher's files: v2_OpenEnded_mscoco_{train2014,val2014,test2015,test-dev2015}_questions.json and
v2_mscoco_{train2014,val2014}_annotations.json. ``--no-test`` does without the test questions. In OUT/annotations:

- vqa_train.jsonl, vqa_val.jsonl: ``{"image", "question", "question_id", "labels": {answer: score}, "answer_type"}``
- vqa_test.jsonl, vqa_test-dev.jsonl: the same without labels and types, which only the test server has
- vqa_answers.json: the vocabulary, from each answer to its place

Images are named as in COCO's folders, ``train2014/COCO_train2014_000000000009.jpg``; test2015 has those of both test splits.

The vocabulary holds the answers that are the most common one (the publisher's multiple_choice_answer) of more than 8 questions
of train and val together, after the test server's normalization: 3,129, as in the preprocessing for bottom-up attention that
later work took over. The empty answer, which is what is left of "a" or "the", may be one of them. ``--min-count`` sets another
limit. A label is an answer of the vocabulary with the server's soft score: 0.3, 0.6, 0.9 and 1 for 1, 2, 3 and 4 or more of
the 10 annotators. Their answers are normalized before they are counted, but where all 10 say the very same, which the server
compares as it is. A question without any of the vocabulary has no label.

``--genome FOLDER`` adds Visual Genome's questions (question_answers.json, image_data.json) to vqa_train.jsonl, with score 1 for
their answers. Left out are those whose normalized answer is not in the vocabulary or empty, and those on images that VQA
validates or tests on, by the coco_id of image_data.json. They have no answer_type, ids such as "vg986768", and images named as
in Visual Genome's folders, ``VG_100K/1.jpg``, which belong next to train2014.
"""

import argparse
import gc
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from conversion import (
    Count,
    compare_counts,
    expect,
    expect_once,
    most_common_answers,
    number_entries,
    read_entries,
    read_json,
    text_in,
    whole_number_in,
)
from image_files import genome_image_id, read_genome_images
from writing import write_answers

from clipbert_mm.engine.run_tool import run_tool
from clipbert_mm.evaluation.vqa_accuracy import normalize_answer, soft_scores
from clipbert_mm.json_text import write_records

SUBSETS = {"train": "train2014", "val": "val2014", "test": "test2015", "test-dev": "test-dev2015"}
"""What the publisher calls the splits."""
FOLDERS = SUBSETS | {"test-dev": "test2015"}
"""Where COCO has the images of the splits."""
LABELLED = ("train", "val")
QUESTIONS = {"train": 443_757, "val": 214_354, "test": 447_793, "test-dev": 107_394}
NUM_ANSWERS = 3129
MIN_COUNT = 9
ANNOTATORS = 10
ANSWER_TYPES = ("yes/no", "number", "other")


class Question(NamedTuple):
    """A question of a split."""

    image_id: int
    text: str


class Truth(NamedTuple):
    """The answers of the annotators to a question: the kind of answer, their most common one, and all with their scores."""

    kind: str
    common: str
    scores: dict[str, float]


def question_file(folder: str, split: str) -> str:
    """Return the path of the questions of a split."""
    return str(Path(folder) / f"v2_OpenEnded_mscoco_{SUBSETS[split]}_questions.json")


def read_subset(path: str, key: str, subset: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read a file of the publisher; yields where each entry stands, and the entry.

    Args:
        path: The file.
        key: Where its list is: questions or annotations.
        subset: The split that it has to be of.
    """
    content = read_json(path)
    keys = sorted(content) if isinstance(content, dict) else content
    whole = isinstance(content, dict) and {key, "data_subtype"} <= set(content)
    expect(whole, path, f'a JSON object with "{key}" and "data_subtype"', keys)
    expect(content["data_subtype"] == subset, path, f'the data_subtype "{subset}"', content["data_subtype"])
    yield from number_entries(content[key], f"{path}, {key}")


def read_questions(path: str, split: str) -> dict[int, Question]:
    """Read the questions of a split, by id."""
    questions: dict[int, Question] = {}
    seen: set[int] = set()
    for where, entry in read_subset(path, "questions", SUBSETS[split]):
        question_id = whole_number_in(entry, "question_id", where)
        expect_once(question_id, seen, where, "question_id")
        questions[question_id] = Question(whole_number_in(entry, "image_id", where), text_in(entry, "question", where))
    return questions


def read_said(entry: dict[str, Any], where: str) -> list[str]:
    """Return the answers of the annotators to a question."""
    answers: Any = entry.get("answers")
    try:
        given = [answer["answer"] for answer in answers]
    except (KeyError, TypeError):
        given = []
    right = len(given) == ANNOTATORS and set(map(type, given)) == {str}
    expect(right, where, f'{ANNOTATORS} objects with "answer" under the key "answers"', answers)
    return given


def read_truths(path: str, split: str, questions: dict[int, Question], asked: str) -> dict[int, Truth]:
    """Read the annotations of a split, by the id of their question.

    Args:
        path: The file.
        split: The split that it has to be of.
        questions: The questions of that split.
        asked: The file that they are from.
    """
    truths: dict[int, Truth] = {}
    seen: set[int] = set()
    for where, entry in read_subset(path, "annotations", SUBSETS[split]):
        question_id = whole_number_in(entry, "question_id", where)
        expect(question_id in questions, where, f"a question_id of {asked}", question_id)
        expect_once(question_id, seen, where, "question_id")
        image_id, wanted = whole_number_in(entry, "image_id", where), questions[question_id].image_id
        expect(image_id == wanted, where, f"the image_id of question {question_id} in {asked}, {wanted}", image_id)
        kind = text_in(entry, "answer_type", where)
        expect(kind in ANSWER_TYPES, where, f"an answer_type of {', '.join(ANSWER_TYPES)}", kind)
        common = normalize_answer(text_in(entry, "multiple_choice_answer", where, may_be_blank=True))
        truths[question_id] = Truth(kind, common, soft_scores(read_said(entry, where)))
    missing = next((question_id for question_id in questions if question_id not in truths), None)
    expect(missing is None, path, f"an annotation for each question of {asked}", f"none for question {missing}")
    return truths


def make_vocabulary(truths: list[dict[int, Truth]], min_count: int) -> dict[str, int]:
    """Return the answers that are the most common one of so many questions, those of most questions first."""
    counts = Counter(truth.common for own in truths for truth in own.values())
    answers = most_common_answers(counts.elements(), sum(count >= min_count for count in counts.values()))
    expect(bool(answers), "--min-count", "a number that at least one answer reaches", min_count)
    return answers


def make_records(
    split: str, questions: dict[int, Question], truths: dict[int, Truth] | None, answers: dict[str, int]
) -> Iterator[dict[str, Any]]:
    """Make our records of a split; without ``truths`` they have no labels."""
    for question_id, question in questions.items():
        image = f"{FOLDERS[split]}/COCO_{FOLDERS[split]}_{question.image_id:012d}.jpg"
        record = {"image": image, "question": question.text, "question_id": question_id}
        if truths is not None:
            truth = truths[question_id]
            labels = {answer: score for answer, score in truth.scores.items() if answer in answers}
            record |= {"labels": labels, "answer_type": truth.kind}
        yield record


def read_genome(folder: str, answers: dict[str, int], tested: set[int]) -> tuple[list[dict[str, Any]], list[str]]:
    """Read Visual Genome's questions into our records; returns them, and what to say of those that are left out.

    Args:
        folder: Where question_answers.json and image_data.json are.
        answers: The vocabulary.
        tested: COCO ids of images not to train on.
    """
    images = read_genome_images(Path(folder) / "image_data.json")
    records: list[dict[str, Any]] = []
    seen: set[int] = set()
    on_tested = unknown = 0
    for place, image in read_entries(Path(folder) / "question_answers.json"):
        image_id = genome_image_id(image, place)
        expect(image_id in images, place, "the id of an image in image_data.json", image_id)
        name, about = images[image_id]
        pairs = image.get("qas")
        expect(isinstance(pairs, list), place, 'a list under the key "qas"', pairs)
        for where, pair in number_entries(pairs, f"{place}, qas") if pairs else ():
            qa_id = whole_number_in(pair, "qa_id", where)
            expect_once(qa_id, seen, where, "qa_id")
            question, answer = text_in(pair, "question", where, may_be_blank=True), text_in(pair, "answer", where, True)
            answer = normalize_answer(answer)
            if about["coco_id"] in tested:
                on_tested += 1
            elif not (question and answer and answer in answers):
                unknown += 1
            else:
                record = {"image": name, "question": question, "question_id": f"vg{qa_id}", "labels": {answer: 1.0}}
                records.append(record)
    return records, [
        f"Visual Genome: {len(records):,} of {len(seen):,} questions are added to vqa_train.jsonl",
        f"Visual Genome: {on_tested:,} are left out as VQA validates or tests on their images, {unknown:,} for their answers",
    ]


def say_ceiling(split: str, truths: dict[int, Truth], answers: dict[str, int]) -> str:
    """Say what limit the vocabulary sets."""
    best = (
        max((score for answer, score in truth.scores.items() if answer in answers), default=0.0)
        for truth in truths.values()
    )
    return f"{split}: the best answers of the vocabulary score {sum(best) / len(truths):.2%}: no accuracy can be higher"


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Convert VQA 2.0 as published to JSON lines")
    parser.add_argument("folder", help="folder with the publisher's v2_*.json")
    parser.add_argument("out", help="folder of the data set; the files go to its folder annotations")
    parser.add_argument("--no-test", action="store_true", help="do without the questions of the test splits")
    parser.add_argument("--genome", help="folder with Visual Genome's question_answers.json and image_data.json")
    parser.add_argument("--min-count", type=int, default=MIN_COUNT, help="questions that an answer needs (default: 9)")
    parser.add_argument("--strict", action="store_true", help="refuse counts that are not the published ones")
    args = parser.parse_args(argv)
    if args.genome and args.no_test:
        parser.error("--genome needs the test questions: no training on their images")
    return args


def main(argv: list[str] | None = None) -> None:
    """Convert: everything is read and checked before anything is written."""
    args = parse_args(argv)
    questions, truths = {}, {}
    for split in LABELLED if args.no_test else SUBSETS:
        asked = question_file(args.folder, split)
        questions[split] = read_questions(asked, split)
        if split in LABELLED:
            path = str(Path(args.folder) / f"v2_mscoco_{SUBSETS[split]}_annotations.json")
            truths[split] = read_truths(path, split, questions[split], asked)
    answers = make_vocabulary(list(truths.values()), args.min_count)
    counts: list[Count] = [
        (f"vqa_{split}.jsonl: {split} questions", len(own), QUESTIONS[split]) for split, own in questions.items()
    ]
    counts.append(("vqa_answers.json: answers", len(answers), NUM_ANSWERS if args.min_count == MIN_COUNT else None))
    report = compare_counts(counts, args.strict)
    report += [say_ceiling(split, own, answers) for split, own in truths.items()]
    added: list[dict[str, Any]] = []
    if args.genome:
        tested = {question.image_id for split in ("val", "test", "test-dev") for question in questions[split].values()}
        added, genome_report = read_genome(args.genome, answers, tested)
        report += genome_report
    folder = Path(args.out) / "annotations"
    for split, own in questions.items():
        records = make_records(split, own, truths.get(split), answers)
        write_records(chain(records, added) if split == "train" else records, folder / f"vqa_{split}.jsonl")
    write_answers(answers, folder / "vqa_answers.json")
    print(*report, f"written to {folder}", sep="\n")


if __name__ == "__main__":
    gc.disable()  # no cycles among millions of objects: searching for them takes a third of the time
    run_tool(main)
