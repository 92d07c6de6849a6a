#!/usr/bin/env python
"""Convert tables of captions and questions on your own videos: python tools/dataset_converters/own_csv.py TABLE.csv ... OUT.

Each table is a CSV file as spreadsheets save it (UTF-8; columns separated by commas, semicolons or tabs) with a header. Its
columns say what it is; other columns are left out, and upper case in the header does not matter:

- ``video, caption``: retrieval, OUT/{train,val,test}.jsonl
- ``image, caption``: pre-training, OUT/pretrain.jsonl, OUT/pretrain_{val,test}.jsonl
- ``video, question, answer``: open-ended questions, OUT/qa_{train,val,test}.jsonl, and OUT/answers.json, the vocabulary: the
  most frequent answers of training. Answers are written in lower case
- ``video, question, answer, option1, option2, ...``: multiple choice, OUT/choice_{train,val,test}.jsonl. ``answer`` is the text
  of the correct option, ``question`` may be left out, and the options may stand in one column ``options`` with | between them

``answer_type`` and ``question_id`` of questions are kept. A video is in OUT/videos, an image in OUT/images. It is in one of
training, validation and test with all that the tables say of it; which, ``--seed`` says. Several tables at once are split
alike. Of fewer than 100 videos none validates, since fewer than ten tell too little to select by. Every bad line is named, and
nothing is written until none is left.
"""

import argparse
import csv
import difflib
import hashlib
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from answer_vocabulary import describe_coverage
from conversion import most_common_answers, read_text
from writing import write_answers

from clipbert_mm.command_options import at_least
from clipbert_mm.engine.run_tool import run_tool
from clipbert_mm.engine.tool_flags import seed_number
from clipbert_mm.errors import AnnotationError, quoted
from clipbert_mm.json_text import is_blank, write_records
from clipbert_mm.media.listing import list_names

Records = list[dict[str, Any]]
NAMES = {
    "captions": {"train": "train", "val": "val", "test": "test"},
    "image captions": {"train": "pretrain", "val": "pretrain_val", "test": "pretrain_test"},
    "questions": {"train": "qa_train", "val": "qa_val", "test": "qa_test"},
    "multiple choice": {"train": "choice_train", "val": "choice_val", "test": "choice_test"},
}
"""Files of each kind of table, without ``.jsonl``."""
KEPT = ("answer_type", "question_id")
VAL_SHARE, MIN_TO_VALIDATE = 0.1, 100
"""Share of the videos to validate on if nothing is said, and from how many videos on; fewer than ten tell too little."""
SHOWN = 20
"""Bad lines that an error names."""


def read_rows(path: str) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Read a table: its header in lower case, and its rows with the number of their last line; empty rows are left out.

    Raises:
        AnnotationError: If there is no such file, it is not UTF-8, or a quotation mark is not closed.
    """
    lines = read_text(path)
    header = next((line for line in lines if line.strip()), "")
    separator = max(",;\t", key=header.count)
    reader = csv.reader(io.StringIO("\n".join(lines)), delimiter=separator, strict=True)
    rows: list[tuple[int, list[str]]] = []
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                rows.append((reader.line_num, [" ".join(cell.split()) for cell in cells]))
    except csv.Error as error:
        last = rows[-1][0] + 1 if rows else 1
        raise AnnotationError(
            f"{path}, line {last}: expected a row of cells, got {error}. Check its quotation marks."
        ) from None
    if len(rows) < 2:
        raise AnnotationError(
            f"{path}: expected a header and one row or more, got {quoted(header) if header else 'nothing'}."
        )
    return [name.lower() for name in rows[0][1]], rows[1:]


def kind_of(path: str, names: list[str]) -> str:
    """Return the kind of a table by its header.

    Raises:
        AnnotationError: If the header is of none of them, or has a column twice.
    """
    columns = set(names)
    if duplicate := next((name for name in names if name and names.count(name) > 1), None):
        raise AnnotationError(f"{path}, line 1: expected each column once, got {quoted(duplicate)} twice.")
    if {"video", "image"} & columns and "caption" in columns:
        return "captions" if "video" in columns else "image captions"
    if {"video", "answer"} <= columns and any(map(is_option, names)):
        return "multiple choice"
    if {"video", "question", "answer"} <= columns:
        return "questions"
    raise AnnotationError(
        f"{path}, line 1: expected the columns video and caption; image and caption; video, question and answer; or video, "
        f"answer and option1, option2, ..., separated by commas, semicolons or tabs, got {quoted(names)}."
    )


def is_option(name: str) -> bool:
    """Whether a column has options.

    >>> [is_option(name) for name in ("options", "option1", "option b", "optional")]
    [True, True, True, False]
    """
    return name == "options" or (name.startswith("option") and not name.startswith("optional"))


def record_of(kind: str, row: Mapping[str, str]) -> tuple[dict[str, Any], str]:
    """Return a row as our record, and what is wrong with it; "" if nothing is."""
    media = "image" if kind == "image captions" else "video"
    needed = {"captions": ("caption",), "image captions": ("caption",), "questions": ("question", "answer")}
    for name in (media, *needed.get(kind, ("answer",))):
        if is_blank(row[name]):
            return {}, f"expected text in the column {name}, got nothing"
    if kind in ("captions", "image captions"):
        return {media: row[media], "caption": row["caption"]}, ""
    kept = {name: row[name] for name in KEPT if row.get(name)}
    if kind == "questions":
        return {"video": row["video"], "question": row["question"], "answer": row["answer"].lower(), **kept}, ""
    options = [part.strip() for name in row if is_option(name) for part in row[name].split("|") if not is_blank(part)]
    if len(options) < 2 or len(set(options)) < len(options):
        return {}, f"expected two or more different options, got {quoted(options)}"
    if row["answer"] not in options:
        return {}, f"expected one of the options {quoted(options)} as the answer, got {quoted(row['answer'])}"
    question = {"question": row["question"]} if row.get("question") else {}
    return {"video": row["video"], **question, "options": options, "answer": options.index(row["answer"]), **kept}, ""


def nearest_name(name: str, present: Sequence[str], stems: Mapping[str, str]) -> str | None:
    """Return the file that a name without a file may stand for; None if no name is near.

    Args:
        name: The name.
        present: The files. To compare it with thousands takes a tenth of a second.
        stems: The files by their names without ending, as tables often have them, which takes no time.

    >>> nearest_name("deep/a", ["deep/a.mp4"], {"deep/a": "deep/a.mp4"})
    'deep/a.mp4'
    """
    known = stems.get(name) or stems.get(os.path.splitext(name)[0])
    return known or next(iter(difflib.get_close_matches(name, present, n=1)), None)


def read_table(path: str, folder: Path, num_options: dict[str, int], faults: list[str]) -> tuple[str, Records]:
    """Read a table; returns its kind and its records.

    Args:
        path: The table.
        folder: Folder with videos/ or images/, in which the files of the table have to be.
        num_options: Gets how many options the questions of a video have, which has to be the same for all.
        faults: Gets a sentence for each bad line; of the first :data:`SHOWN`, it names the nearest file.

    Raises:
        AnnotationError: If the table has no rows or columns of this kind, or the folder has no files.
    """
    names, rows = read_rows(path)
    kind = kind_of(path, names)
    media = "image" if kind == "image captions" else "video"
    present = list_names(str(folder / f"{media}s"))
    if not present:
        raise AnnotationError(
            f"There are no files in {folder / f'{media}s'}, which {path} is about. Put the {media}s there."
        )
    known, stems = set(present), {os.path.splitext(name)[0]: name for name in present}
    records: Records = []
    for line, cells in rows:
        cells = cells + [""] * (len(names) - len(cells))  # spreadsheets leave out what is empty at the end
        record, fault = {}, f"expected {len(names)} cells, got {len(cells)}"
        if len(cells) == len(names):
            record, fault = record_of(kind, dict(zip(names, cells, strict=True)))
        if not fault and record[media] not in known:
            near = nearest_name(record[media], present, stems) if len(faults) < SHOWN else None
            hint = f" (the nearest name is {quoted(near)})" if near else ""
            fault = f"there is no {media} {quoted(record[media])} in {folder / f'{media}s'}{hint}"
        size = len(record.get("options", ()))
        if not fault and size and num_options.setdefault(record["video"], size) != size:
            other = num_options[record["video"]]
            fault = f"expected {other} options, as in the other questions of {quoted(record['video'])}, got {size}"
        if fault:
            faults.append(f"{path}, line {line}: {fault}")
        records.append(record)
    return kind, records


def split_media(names: set[str], val_share: float | None, test_share: float, seed: int) -> dict[str, str]:
    """Return the split of each video or image, the same on every machine.

    Args:
        names: The videos or images.
        val_share: Share to validate on; None for a tenth if there are enough for it to select by.
        test_share: Share to test on. A share above 0 gets one at least.
        seed: Another seed gives another split.

    Raises:
        AnnotationError: If fewer than two are left to train on.

    >>> split_media({"a", "b", "c", "d"}, None, 0.25, seed=0)
    {'b': 'test', 'a': 'train', 'c': 'train', 'd': 'train'}
    """
    order = sorted(names, key=lambda name: hashlib.sha256(f"{seed} {name}".encode(errors="surrogateescape")).digest())
    if val_share is None:
        val_share = VAL_SHARE if len(order) >= MIN_TO_VALIDATE else 0.0
    val, test = (max(1, round(share * len(order))) if share else 0 for share in (val_share, test_share))
    if len(order) - val - test < 2:
        raise AnnotationError(
            f"{len(order)} videos or images leave {len(order) - val - test} to train on, with {val} for validation and {test} "
            "for the test. Add some, or lower --val-share and --test-share."
        )
    splits = ["val"] * val + ["test"] * test
    return {name: splits[i] if i < len(splits) else "train" for i, name in enumerate(order)}


def digest_of(path: Path) -> bytes:
    """Return a digest of a file's content, which is read in parts: a video may be larger than the memory."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.digest()


def group_equal(folder: Path, names: set[str]) -> dict[str, str]:
    """Return for each file the first one with the same content, so that copies go to the same split."""
    by_size: dict[int, list[str]] = {}
    for name in sorted(names):
        by_size.setdefault(os.path.getsize(folder / name), []).append(name)
    first: dict[str, str] = {}
    for same in by_size.values():
        seen: dict[bytes, str] = {}
        for name in same:
            content = b"" if len(same) == 1 else digest_of(folder / name)
            first[name] = seen.setdefault(content, name)
    return first


def collect(tables: list[str], out: Path) -> dict[str, Records]:
    """Read all tables; returns the records of each kind.

    Raises:
        AnnotationError: If a table cannot be used; it names the bad lines.
    """
    found: dict[str, Records] = {}
    faults: list[str] = []
    num_options: dict[str, int] = {}
    for path in tables:
        kind, records = read_table(path, out, num_options, faults)
        found.setdefault(kind, []).extend(records)
    if faults:
        more = f"\nand {len(faults) - SHOWN:,} more" if len(faults) > SHOWN else ""
        lines = "\n".join(f"{each}." for each in faults[:SHOWN])
        count = f"{len(faults):,} bad lines, nothing is written:\n" if len(faults) > 1 else ""
        raise AnnotationError(f"{count}{lines}{more}")
    return found


def media_of(record: Mapping[str, Any]) -> str:
    """Return the path of a record's file below the data folder."""
    return f"videos/{record['video']}" if "video" in record else f"images/{record['image']}"


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Convert CSV tables of captions and questions on your own videos")
    parser.add_argument("tables", nargs="+", metavar="TABLE.csv", help="tables with a header")
    parser.add_argument("out", help="data folder, with videos/ or images/ in it; the files are written there")
    parser.add_argument(
        "--val-share", type=float, help="share of the videos to validate on (default: 0.1 from 100 videos on, else 0)"
    )
    parser.add_argument("--test-share", type=float, default=0.2, help="share of the videos to test on (default: 0.2)")
    parser.add_argument("--seed", type=seed_number, default=42, help="says which videos (default: 42)")
    parser.add_argument(
        "--num-answers", type=at_least(1), default=1500, help="size of the vocabulary, at most (default: 1500)"
    )
    args = parser.parse_args(argv)
    val_share = args.val_share or 0.0
    if not (val_share >= 0 and args.test_share >= 0 and val_share + args.test_share < 1):  # nor NaN
        parser.error(
            "--val-share and --test-share: expected shares from 0 to below 1, together below 1, got "
            f"{val_share:g} and {args.test_share:g}"
        )
    return args


def main(argv: list[str] | None = None) -> None:
    """Convert: everything is read and checked before anything is written."""
    args = parse_args(argv)
    out = Path(args.out)
    found = collect(args.tables, out)
    first = group_equal(out, {media_of(record) for records in found.values() for record in records})
    splits = {}
    for folder in ("videos/", "images/"):
        names = {name for name in first.values() if name.startswith(folder)}
        if names:
            splits |= split_media(names, args.val_share, args.test_share, args.seed)
    files = {
        NAMES[kind][split]: [record for record in records if splits[first[media_of(record)]] == split]
        for kind, records in found.items()
        for split in ("train", "val", "test")
    }
    answers = most_common_answers((record["answer"] for record in files.get("qa_train", ())), args.num_answers)
    if "questions" in found and not answers:
        raise AnnotationError(
            f"None of the {len(found['questions']):,} questions is about a video to train on, so there is no answer to learn. "
            "Add questions, or split by another --seed."
        )
    report = []
    for name, records in files.items():
        path = out / f"{name}.jsonl"
        if records:
            count = write_records(records, path)
            report.append(f"{path}: {count:,} lines on {len(set(map(media_of, records))):,} files")
        else:
            path.unlink(missing_ok=True)  # of an earlier conversion
    if answers:
        write_answers(answers, out / "answers.json")
        report += describe_coverage(answers, {name: files[f"qa_{name}"] for name in ("train", "val", "test")})
    for folder in sorted({media_of(record).partition("/")[0] for records in found.values() for record in records}):
        unused = {f"{folder}/{name}" for name in list_names(str(out / folder))} - set(first)
        if unused:
            report.append(
                f"warning: {len(unused):,} files in {out / folder} are in no table, such as {quoted(min(unused))}"
            )
    copies = sorted(name for name, other in first.items() if name != other)
    if copies:
        report.append(
            f"warning: {len(copies):,} files are copies of others, such as {quoted(copies[0])} of {quoted(first[copies[0]])}; "
            "copies are in the same split"
        )
    print(*report, sep="\n")


if __name__ == "__main__":
    run_tool(main)
