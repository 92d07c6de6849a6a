"""Right numbers: published counts, ties by their chance, the server's rules, texts that a model cannot tell apart or read."""

import html
import itertools
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
from mmengine.dataset import BaseDataset
from transformers import PreTrainedTokenizerFast

from clipbert_mm.apis import VideoSearch
from clipbert_mm.apis.page.rendering import render_hits
from clipbert_mm.datasets import CountDataset, MultipleChoiceDataset, OpenEndedDataset, RetrievalDataset, text_check
from clipbert_mm.datasets.transforms import Tokenize
from clipbert_mm.errors import AnnotationError, OptionError
from clipbert_mm.evaluation import AnswerAccuracy, CountError, retrieval_metrics
from clipbert_mm.evaluation.vqa_accuracy import normalize_answer, vqa_accuracy
from clipbert_mm.structures import read_answers


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


def test_w6_counts_that_rounding_cannot_give_are_said(caplog: pytest.LogCaptureFixture):
    metric = CountError(low=1, high=10)
    metric.process(
        {}, [dict(path="a.gif", broken=None, scores=torch.tensor([0.2, 3.4, 9.9]), counts=np.array([0, 3, 12]))]
    )
    assert metric.evaluate(1)["accuracy"] == pytest.approx(100 / 3)
    assert [record.getMessage()[:92] for record in caplog.records if record.name == "clipbert_mm"] == [
        "2 of 3 counts in the annotations are outside of 1 to 10, which rounding can never predict. S"
    ]


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
        predicted, said = normalize_answer(predicted), [normalize_answer(answer) for answer in said]
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


QUESTION = "what color is the small circle that moves to the right of the blue square"
COLORS = ["red", "green", "blue", "pink", "cyan"]


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the check of texts says in the log."""
    said: list[str] = []
    for level in ("info", "warning"):
        monkeypatch.setattr(text_check.logger, level, said.append)
    return said


@pytest.fixture
def search(checkpoint: Path, world: Path, tmp_path: Path) -> VideoSearch:
    """A search over some of the world's videos."""
    search = VideoSearch(checkpoint, index=tmp_path / "gallery")
    search.index([str(world / "videos" / f"test_0000{i}.mp4") for i in range(3)], workers=0)
    return search


def write_lines(path: Path, *records: dict[str, Any]) -> str:
    """Write a JSON-lines file of records on videos that are there."""
    for record in records:
        if "video" in record:
            (path.parent / record["video"]).touch()
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def dataset_of(
    kind: type, path: str, tokenizer: str | None = None, max_length: int = 40, **options: Any
) -> BaseDataset:
    """Build a dataset of an annotation file, with a tokenizer at most."""
    steps = [] if tokenizer is None else [dict(type="Tokenize", tokenizer=tokenizer, max_length=max_length)]
    return kind(ann_file=path, media_folder=str(Path(path).parent), pipeline=steps, **options)


def test_w10_options_that_become_the_same_are_counted(tmp_path: Path, tokenizer: str, logged: list[str]):
    long = dict(video="a.mp4", question=QUESTION, options=COLORS, answer=1)
    short = dict(video="b.mp4", question="a circle", options=COLORS, answer=0)
    same = dict(video="c.mp4", options=["Red", "red", "a blue square"], answer=0)
    path = write_lines(tmp_path / "a.jsonl", long, short, same)
    step = Tokenize(tokenizer=tokenizer, max_length=12)
    for record in (long, short, same):  # the oracle: what the transform makes of each question's options
        texts = [f"{record.get('question', '')} {option}".strip() for option in record["options"]]
        ids = step.transform(dict(texts=texts))["text_ids"]
        assert (len({tuple(each) for each in ids}) < len(ids)) == (record is not short)
    dataset_of(MultipleChoiceDataset, path, tokenizer, max_length=12, test_mode=True)
    (said,) = [text for text in logged if "questions have options" in text]
    assert said.startswith(
        f"{path}: 2 of 3 questions have options that are the same to the model, 1 of them with texts that are cut at 12 tokens "
        "(max_length of Tokenize). Such options tie, and a correct one among t counts 1/t. The first: ['what color is"
    )
    logged.clear()
    dataset_of(MultipleChoiceDataset, write_lines(tmp_path / "b.jsonl", long, short), tokenizer, test_mode=True)
    assert not [text for text in logged if "questions have options" in text]


def test_w11_words_that_a_tokenizer_does_not_know_are_counted(tmp_path: Path, tokenizer: str, logged: list[str]):
    records = [
        dict(video=f"{i}.mp4", caption=text)
        for i, text in enumerate(("a red circle", "a 猫 and a 犬", "犬", "red " * 99))
    ]
    dataset_of(RetrievalDataset, write_lines(tmp_path / "a.jsonl", *records), tokenizer)
    unknown, cut = logged
    assert unknown.endswith("does not know the words '犬', '猫'; the model reads each as [UNK], in 2 of 4 texts.")
    assert cut.endswith("1 of 4 texts are longer than 40 tokens (max_length of Tokenize) and are cut.")


def test_w11_words_of_a_query_that_the_model_does_not_know_are_named(search: VideoSearch, world: Path):
    video = str(world / "videos" / "test_00000.mp4")
    warning = "warning: the model does not know '猫', '犬'; these words do not help it"
    found, ranked = search.search("a 猫 and a 犬"), search.rank(video, ["a red circle", "猫 犬"])
    for result in (found, ranked):
        assert result.unknown_words == ("猫", "犬")
        assert result.to_dict()["unknown_words"] == ("猫", "犬")
        assert str(result).splitlines()[1] == warning
    assert f"<p>{html.escape(warning)}</p>" in render_hits(found, search.video_index.entries, {})
    assert search.search("a red circle").unknown_words == ()
    assert "warning" not in str(search.search("a red circle"))


@pytest.mark.parametrize("text", ["\u200b", "\ufeff\u2060", " \x07\t"])
def test_w11_a_text_of_which_nothing_is_to_be_seen_is_empty(tmp_path: Path, text: str):
    path = write_lines(tmp_path / "a.jsonl", dict(video="a.mp4", caption=text))
    with pytest.raises(AnnotationError, match='line 1: expected text under the key "caption", got'):
        dataset_of(RetrievalDataset, path)


def test_w11_a_query_of_which_nothing_is_to_be_seen_is_empty(search: VideoSearch):
    for text in ("\u200b", "\ufeff\u2060", " \x07\t", "\u0301"):  # the last, an accent alone, this tokenizer drops
        with pytest.raises(OptionError, match="The text is empty"):
            search.search(text)
    with pytest.raises(OptionError, match=r"The text 'a \\ud83d' contains an unpaired surrogate"):
        search.search("a \ud83d")  # of the row of errors


def test_w11_a_tokenizer_without_cls_is_refused(tmp_path: Path):
    model = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0, "a": 1, "red": 2}, unk_token="[UNK]"))
    model.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    for name, options in (("bare", {}), ("named", dict(cls_token="[UNK]", sep_token="a"))):
        PreTrainedTokenizerFast(tokenizer_object=model, unk_token="[UNK]", **options).save_pretrained(tmp_path / name)
        with pytest.raises(
            OptionError, match=r"model expects \[CLS\] before each text.*turns the text 'a' into \['a'\]"
        ):
            Tokenize(tokenizer=str(tmp_path / name), max_length=9)


def test_e_a_margin_trained_model_is_searched(write_checkpoint: Callable[..., Path], world: Path, tmp_path: Path):
    head = dict(type="MarginRankingHead", in_channels=16, hidden_channels=32)
    search = VideoSearch(write_checkpoint(head, dict(type="RetrievalDataset")), index=tmp_path / "gallery")
    search.index([str(world / "videos" / f"test_0000{i}.mp4") for i in range(3)], workers=0)
    found = search.search("a red circle")
    predictor = search.predictor
    for hit in found.hits:
        with torch.no_grad():
            logits = predictor.score(
                predictor.encode([predictor.read(hit.path).frames]), predictor.token_ids(["a red circle"])
            )
            score = float(predictor.model.head.scores(predictor.model.aggregator(logits[0]))[0])
        assert hit.score == pytest.approx(score, abs=2e-3)
    assert len(found.hits) == 3


def test_e_types_of_questions_that_are_numbers_or_missing(tmp_path: Path):
    records = [dict(video="a.mp4", options=["a", "b"], answer=0, answer_type=kind) for kind in (3, "who")]
    records += [dict(video=video, options=["a", "b"], answer=1) for video in ("a.mp4", "b.mp4")]
    dataset = dataset_of(MultipleChoiceDataset, write_lines(tmp_path / "a.jsonl", *records), test_mode=True)
    metric = AnswerAccuracy()
    for i in range(2):
        info = dataset.prepare_test(i)
        scores = torch.tensor([[2.0, 1.0]] * len(info["answer_labels"])).flatten()
        metric.process({}, [dict(broken=None, scores=scores, **info)])
    found = metric.evaluate(2)
    assert found == {"accuracy": 50.0, "accuracy/3": 100.0, "accuracy/who": 100.0, "ceiling": 100.0, "coverage": 100.0}
    for bad in (["who"], 1.5, True):
        path = write_lines(tmp_path / "b.jsonl", records[0] | dict(answer_type=bad))
        with pytest.raises(
            AnnotationError, match='line 1: expected text or a whole number under the key "answer_type", got'
        ):
            dataset_of(MultipleChoiceDataset, path)


@pytest.mark.parametrize(
    ("kind", "record"),
    [
        (RetrievalDataset, dict(caption="half \ud83d of it")),
        (MultipleChoiceDataset, dict(options=["a", "\udc00"], answer=0)),
        (CountDataset, dict(question="how \ud83d?", count=1)),
    ],
)
def test_e_half_a_surrogate_pair_is_named(tmp_path: Path, kind: type, record: dict[str, Any]):
    path = write_lines(tmp_path / "a.jsonl", dict(video="a.mp4") | record)
    with pytest.raises(
        AnnotationError, match=r"a\.jsonl, line 1: expected text, got an unpaired surrogate .* in '.*\\ud"
    ):
        dataset_of(kind, path)


@pytest.mark.parametrize(
    "content",
    [
        json.dumps([{"video": f"{i}.mp4", "caption": "a" * 90} for i in range(10_000)]),
        "x" * 1_100_000,
        json.dumps({"video": "a.mp4", "text": "a" * 1_000_000}),
        json.dumps({"video": "a.mp4", "caption": ["a"] * 100_000}),
        json.dumps({"video": ["a.mp4"] * 100_000, "caption": "a"}),
        json.dumps({f"key {i}": i for i in range(100_000)}),
        json.dumps({"video": "a.mp4", "caption": "a"})[:-1]
        + ', "'
        + "k" * 1_000_000
        + '": 1, "'
        + "k" * 1_000_000
        + '": 2}',
        '{"video": "a.mp4", "caption": ' + "9" * 100_000 + "}",
        '{"video": "a.mp4", "caption": ' + "[" * 100_000 + "]" * 100_000 + "}",
    ],
    ids=["array", "no json", "no caption", "list", "names", "keys", "key twice", "digits", "nested"],
)
def test_e_no_error_repeats_a_file(tmp_path: Path, content: str):
    (tmp_path / "a.jsonl").write_text(content)
    with pytest.raises(AnnotationError, match=r"a\.jsonl, line 1: expected") as caught:
        dataset_of(RetrievalDataset, str(tmp_path / "a.jsonl"))
    assert len(str(caught.value)) < 500 + len(str(tmp_path))


def test_e_no_error_repeats_a_long_name(tmp_path: Path):
    record = json.dumps(dict(video="word " * 100_000, caption="a"))
    (tmp_path / "a.jsonl").write_text(f"{record}\n" * 2)
    with pytest.raises(
        AnnotationError, match=r"1 of 1 files named in .*a\.jsonl are missing; the first is '"
    ) as caught:
        dataset_of(RetrievalDataset, str(tmp_path / "a.jsonl"), test_mode=True)
    assert len(str(caught.value)) < 600 + 2 * len(str(tmp_path))


def test_e_a_byte_order_mark_is_no_part_of_a_file(tmp_path: Path):
    for name in "ab":
        (tmp_path / f"{name}.mp4").touch()
    lines = [
        json.dumps(dict(video=f"{name}.mp4", question="what?", answer="käse"), ensure_ascii=False) for name in "ab"
    ]
    (tmp_path / "qa.jsonl").write_text("\n".join(lines), encoding="utf-8-sig")
    (tmp_path / "answers.json").write_text('{"käse": 0}', encoding="utf-8-sig")
    dataset = dataset_of(OpenEndedDataset, str(tmp_path / "qa.jsonl"), answer_file=str(tmp_path / "answers.json"))
    assert [dataset.prepare_test(i)["answer_labels"].tolist() for i in range(2)] == [[0], [0]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{}", "whose numbers are 0 to the number of answers - 1"),
        (b'{"yes": 0, "yes": 1}', "expected each key of an object once, got 'yes' again"),
        (b'{"yes": 0, "no": true}', "whose numbers are 0 to"),
        (b'{"yes": 0, "no": 1e0}', "whose numbers are 0 to"),
        (b'{"yes": 0, "no": ' + b"1" * 5000 + b"}", r"expected a JSON object .* got .* \(Exceeds the limit"),
        (b"[" * 100_000, "it is nested too deep"),
        ('{"yes": 0}'.encode("utf-16"), "expected UTF-8, got UTF-16"),
        (b'{"yes": 0, "\\ud83d": 1}', r"got an unpaired surrogate \(half a character\) in '\\ud83d'"),
        (b'"yes"', "expected a JSON object such as"),
        (b'{"yes": 0', r"got '\{\"yes\": 0' \(Expecting"),
        (b"", r"got nothing \(Expecting value\)"),
    ],
)
def test_e_damaged_vocabularies_are_named(tmp_path: Path, content: bytes, message: str):
    (tmp_path / "answers.json").write_bytes(content)
    with pytest.raises(AnnotationError, match=rf"answers\.json: .*{message}"):
        read_answers(str(tmp_path / "answers.json"))
