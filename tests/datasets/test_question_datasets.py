"""Questions: what an item holds, answers outside the vocabulary, and files that cannot be used."""

import copy
import json
import multiprocessing
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch.utils.data import DataLoader
from warm_python import processes

from clipbert_mm.datasets import CountDataset, MultipleChoiceDataset, OpenEndedDataset, SoftAnswerDataset
from clipbert_mm.errors import AnnotationError
from clipbert_mm.registry import DATASETS
from clipbert_mm.structures import IGNORED

ASKED = [
    ("train_00000.mp4", "how many shapes?", "two"),
    ("train_00001.mp4", "what is red?", "circle"),
    ("train_00000.mp4", "what is blue?", "zebra"),
    ("train_00000.mp4", "what is green?", "circle"),
]


@pytest.fixture
def folder(own_world: Path) -> Path:
    """The small world with four questions, of whose answers two are in the vocabulary."""
    lines = [json.dumps(dict(video=video, question=question, answer=answer)) for video, question, answer in ASKED]
    (own_world / "qa.jsonl").write_text("\n".join(lines))
    (own_world / "vocabulary.json").write_text(json.dumps({"circle": 1, "two": 0}))
    return own_world


def questions(folder: Path, **options: Any) -> OpenEndedDataset:
    """The dataset of these questions."""
    named = dict(data_root=str(folder), ann_file="qa.jsonl", answer_file="vocabulary.json", media_folder="videos")
    return OpenEndedDataset(**(named | dict(pipeline=[]) | options))


def test_training_has_a_question_an_item_and_leaves_out_what_cannot_be_learnt(folder: Path):
    dataset = questions(folder)
    items = [dataset.prepare(i, np.random.default_rng(0)) for i in range(len(dataset))]
    found = [(Path(item["path"]).name, *item["texts"], *item["answer_labels"]) for item in items]
    assert found == [
        ("train_00000.mp4", "how many shapes?", 0),
        ("train_00000.mp4", "what is green?", 1),
        ("train_00001.mp4", "what is red?", 1),
    ]


def test_testing_has_a_video_an_item_and_keeps_every_question(folder: Path):
    items = [questions(folder, test_mode=True).prepare_test(i) for i in range(2)]
    assert [item["texts"] for item in items] == [
        ["how many shapes?", "what is blue?", "what is green?"],
        ["what is red?"],
    ]
    assert [item["answer_labels"].tolist() for item in items] == [[0, IGNORED, 1], [1]]


def test_testing_has_all_correct_answers_of_a_question(folder: Path, tokenizer: str):
    lines = [json.loads(line) for line in (folder / "qa.jsonl").read_text().splitlines()]
    lines[0]["references"] = ["a pair", "2"]
    (folder / "qa.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    steps = [
        dict(type="OpenVideo"),
        dict(type="SampleClips", num_clips=1, num_frames=1, clip_seconds=1.0, mode="middle"),
    ]
    steps += [
        dict(type="DecodeClips"),
        dict(type="Tokenize", tokenizer=tokenizer, max_length=40),
        dict(type="PackInputs"),
    ]
    sample = questions(folder, test_mode=True, pipeline=steps)[0]["data_samples"]
    assert sample.references == [["two", "a pair", "2"], ["zebra"], ["circle"]]
    assert "references" not in questions(folder, pipeline=steps)[0]["data_samples"]
    lines[0]["references"] = "2"
    (folder / "qa.jsonl").write_text(json.dumps(lines[0]))
    with pytest.raises(
        AnnotationError, match=r'line 1: expected a list of answers under the key "references", got \'2\'\.'
    ):
        questions(folder)


def test_an_item_reaches_the_model_with_its_labels(folder: Path, tokenizer: str):
    pipeline = [
        dict(type="OpenVideo"),
        dict(type="SampleClips", num_clips=2, num_frames=1, mode="random"),
        dict(type="DecodeClips"),
        dict(type="ResizePad", size=32),
        dict(type="Tokenize", tokenizer=tokenizer, max_length=40),
        dict(type="PackInputs"),
    ]
    item = questions(folder, pipeline=pipeline)[2]
    assert item["inputs"]["frames"].shape == (2, 1, 32, 32, 3)
    assert item["data_samples"].texts == ["what is red?"]
    np.testing.assert_array_equal(item["data_samples"].answer_labels, [1])


@pytest.mark.parametrize(
    ("vocabulary", "message"),
    [
        ("not json", r"vocabulary\.json: expected a JSON object such as .*, got .* \(Expecting value\)"),
        ("[1, 2]", r"vocabulary\.json, number 0: expected the name of an answer, got 1"),
        (
            '["circle", "two", "circle"]',
            r"vocabulary\.json, number 2: expected each answer once, and 'circle' is also number 0",
        ),
        ('{"circle": 1, "two": 2}', r"numbers are 0 to the number of answers - 1, each once"),
        ('{"circle": 0, "two": 0}', r"each once"),
        ('{"circle": "0", "two": 1}', r"each once"),
        (
            '{"zebroid": 0}',
            r"none of the answers is in the vocabulary of 1 answers\. The first question is 'how many shapes\?'\. Set",
        ),
    ],
)
def test_a_vocabulary_that_cannot_be_used_is_named(folder: Path, vocabulary: str, message: str):
    (folder / "vocabulary.json").write_text(vocabulary)
    with pytest.raises(AnnotationError, match=message):
        questions(folder)


def test_missing_files_are_named(folder: Path):
    with pytest.raises(AnnotationError, match=r"There is no answer vocabulary .*nowhere\.json\. Set answer_file"):
        questions(folder, answer_file="nowhere.json")
    (folder / "videos" / "train_00001.mp4").unlink()
    with pytest.raises(AnnotationError, match=r"1 of 2 files named in .*qa\.jsonl are missing"):
        questions(folder)


def test_a_misspelt_option_is_refused(folder: Path):
    config = dict(type="OpenEndedDataset", ann_file="qa.jsonl", answer_file="vocabulary.json", data_root=str(folder))
    with pytest.raises(TypeError, match="unexpected keyword argument 'media_fold'"):
        DATASETS.build(config | dict(pipeline=[], media_fold="videos"))


def written(folder: Path, *records: dict[str, Any]) -> dict[str, Any]:
    """Write an annotation file of two videos; the options that name it."""
    (folder / "more.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return dict(data_root=str(folder), ann_file="more.jsonl", media_folder="videos", media_suffix=".mp4", pipeline=[])


def test_questions_of_a_video_may_share_a_visual_pass_in_training(folder: Path):
    items = questions(folder, questions_per_item=2)
    found = [items.prepare(i, np.random.default_rng(0))["texts"] for i in range(len(items))]
    assert found == [["how many shapes?", "what is green?"], ["what is red?"]]


def test_each_option_is_a_text(folder: Path):
    options = dict(question="what moves ?", options=["a ring", "a star"])
    asked = dict(gif_name="train_00000", **options, answer=1, question_id="q7")
    bare = dict(clip_name="train_00001", options=["a man", "a dog", "a cat"], answer=2)
    dataset = MultipleChoiceDataset(
        **written(folder, asked, asked | dict(answer=0, question_id=8), bare), test_mode=True
    )
    first, second = dataset.prepare_test(0), dataset.prepare_test(1)
    assert first["texts"] == ["what moves ? a ring", "what moves ? a star"] * 2
    assert (first["answer_labels"].tolist(), first["question_ids"]) == ([1, 0], ["q7", 8])
    assert (second["texts"], second["answer_labels"].tolist()) == (["a man", "a dog", "a cat"], [2])
    assert "question_ids" not in second


@pytest.mark.parametrize("wrong", [dict(answer=2), dict(answer=-1), dict(options=["alone"]), dict(options=["a", ""])])
def test_options_and_answers_have_to_go_together(folder: Path, wrong: dict[str, Any]):
    record = dict(video="train_00000", options=["a", "b"], answer=0)
    with pytest.raises(
        AnnotationError,
        match=r"more\.jsonl, line 2: expected two or more options and the index of the correct one, as in",
    ):
        MultipleChoiceDataset(**written(folder, record, record | wrong))


def test_an_id_that_two_questions_have_is_refused_in_testing(folder: Path):
    asked = dict(video="train_00000", question="what moves?", options=["a ring", "a star"], answer=1, question_id=7)
    named = written(folder, asked, asked | dict(video="train_00001"), asked | dict(question_id=8))
    with pytest.raises(
        AnnotationError, match=r"more\.jsonl: expected each question_id once, 1 occur several times.* 7\."
    ):
        MultipleChoiceDataset(**named, test_mode=True)
    assert len(MultipleChoiceDataset(**named)) == 3


def test_a_video_s_questions_need_as_many_options_each(folder: Path):
    records = [dict(video="train_00000", options=list("abc")[:count], answer=0) for count in (2, 3)]
    with pytest.raises(AnnotationError, match=r"same number of options in all questions of 'train_00000', got 2 and 3"):
        MultipleChoiceDataset(**written(folder, *records))


def test_counts_are_numbers(folder: Path):
    dataset = CountDataset(**written(folder, dict(video="train_00000", question="how often?", count=3)))
    counts = dataset.prepare(0, np.random.default_rng(0))["counts"]
    assert (counts.tolist(), counts.dtype) == ([3.0], np.float32)
    with pytest.raises(AnnotationError, match=r'line 1: expected a number under the key "count", got the keys'):
        CountDataset(**written(folder, dict(video="train_00000", question="how often?")))
    for wrong in (-1, float("nan"), float("inf")):
        with pytest.raises(AnnotationError, match=rf"line 1: expected a count of 0 to 1,000,000,000, got {wrong}"):
            CountDataset(**written(folder, dict(video="train_00000", question="how often?", count=wrong)))


def test_soft_answers_are_laid_out_over_the_vocabulary(folder: Path):
    labels = ({"circle": 0.3, "zebra": 1.0}, {"two": 1.0}, {"zebra": 0.6})
    records = [dict(video="train_00000", question="what?", labels=own) for own in labels]
    options = written(folder, *records) | dict(answer_file="vocabulary.json")
    wanted = np.array([[0, 0.3], [1, 0], [0, 0]], np.float32)
    np.testing.assert_array_equal(SoftAnswerDataset(**options, test_mode=True).prepare_test(0)["answer_scores"], wanted)
    trained = SoftAnswerDataset(**options, questions_per_item=3).prepare(0, np.random.default_rng(0))
    np.testing.assert_array_equal(trained["answer_scores"], wanted[:2])


def test_questions_for_a_server_have_no_labels(folder: Path):
    options = written(folder, dict(video="train_00000", question="what?", question_id=7)) | dict(
        answer_file="vocabulary.json"
    )
    item = SoftAnswerDataset(**options, test_mode=True).prepare_test(0)
    assert item["question_ids"] == [7]
    assert "answer_scores" not in item
    with pytest.raises(
        AnnotationError, match=r"expected labels in every line, .* got 1 of 1 questions without; .*'what"
    ):
        SoftAnswerDataset(**options)
    asked = dict(video="train_00000", question="what?")
    for labels in ({"circle": 1.5}, {"circle": "1"}, ["circle"], {"circle": float("nan")}):
        options |= written(folder, asked | dict(labels={"circle": 1.0}), asked | dict(labels=labels))
        with pytest.raises(
            AnnotationError, match=r"more\.jsonl, line 2: expected labels from answers to scores in \[0, 1\]"
        ):
            SoftAnswerDataset(**options)
    options |= written(folder, asked | dict(labels={"circle": 1.0}), asked)
    with pytest.raises(AnnotationError, match=r"got 1 of 2 questions without"):
        SoftAnswerDataset(**options, test_mode=True)


def own_megabytes() -> float:
    """Memory that this process shares with no other."""
    lines = [line.split() for line in Path("/proc/self/smaps_rollup").read_text().splitlines()]
    return sum(int(line[1]) for line in lines if line[0].startswith("Private_")) / 1024


def read_every_record(dataset: OpenEndedDataset, answer: Connection) -> None:
    """Read all records in a process of its own; answers by how much its own memory grows."""
    before = own_megabytes()
    length = sum(len(dataset.get_data_info(i)["questions"][0]["question"]) for i in range(len(dataset)))
    answer.send((length, own_megabytes() - before))


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="memory is read as Linux tells it")
def test_a_worker_that_reads_all_records_copies_none(folder: Path):
    record = dict(video="train_00000.mp4", answer="two")
    lines = (json.dumps(record | dict(question=f"{i:06d} {'word ' * 200}")) + "\n" for i in range(20_000))
    (folder / "qa.jsonl").write_text("".join(lines))
    dataset = questions(folder)
    assert dataset.data_bytes.nbytes > 20e6
    ours, theirs = multiprocessing.Pipe()
    worker = multiprocessing.get_context("fork").Process(target=read_every_record, args=(dataset, theirs), daemon=True)
    worker.start()
    assert ours.poll(120)
    length, grown = ours.recv()
    worker.join()
    assert length == 20_000 * 1007
    assert grown < 5, "megabytes; the records are 20"


def test_workers_that_are_no_forks_of_this_process_read_its_very_records(folder: Path):
    dataset = questions(folder, test_mode=True)
    kept = copy.deepcopy(dataset)
    how = dict(num_workers=2, multiprocessing_context=processes(), persistent_workers=True, timeout=120)
    loader = DataLoader(dataset, batch_size=None, **how)

    def asked() -> list[str]:
        return [item["texts"][-1] for item in loader]

    assert asked() == ["what is green?", "what is red?"]
    for old, new in ((b"green", b"white"), (b"red?", b"blue")):
        place = dataset.data_bytes.tobytes().index(old)
        dataset.data_bytes[place : place + len(old)] = np.frombuffer(new, np.uint8)
    assert asked() == ["what is white?", "what is blue"], "neither of the two has a copy of its own"
    assert kept[1]["texts"] == ["what is red?"]


def test_a_ledger_leaves_files_out_and_the_log_says_so(folder: Path, caplog: pytest.LogCaptureFixture):
    gone = folder / "videos" / "train_00001.mp4"
    gone.unlink()
    line = dict(path=str(gone), status="missing", reason="no such file", frames=None, fps=None, seconds=None)
    (folder / "ledger.jsonl").write_text(json.dumps(line | dict(width=None, height=None, size=None, mtime=None)) + "\n")
    dataset = questions(folder, ledger="ledger.jsonl")
    assert {Path(dataset.get_data_info(i)["path"]).name for i in range(len(dataset))} == {"train_00000.mp4"}
    said = next(record.getMessage() for record in caplog.records if "the ledger excludes" in record.getMessage())
    assert said.endswith(f"qa.jsonl: the ledger excludes 1 of 2 files:\n  {gone}: missing: no such file")
