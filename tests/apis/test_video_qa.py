"""Questions of every kind; the oracle is the model itself, clip by clip."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from clipbert_mm.apis import VideoQA, VideoSearch
from clipbert_mm.checkpoint.archives import load_torch
from clipbert_mm.datasets.shapes.questions import ANSWERS

OPEN = dict(type="OpenEndedHead", in_channels=16, num_answers=len(ANSWERS), hidden_channels=None)
OPEN_DATASET = dict(type="OpenEndedDataset", ann_file="qa", answer_file="answers.json")
CHOICE = dict(type="MultipleChoiceHead", in_channels=16, hidden_channels=None)
COUNT = dict(type="CountHead", in_channels=16, hidden_channels=None)


@pytest.fixture
def open_ended(write_checkpoint: Callable[..., Path]) -> VideoQA:
    return VideoQA(write_checkpoint(OPEN, OPEN_DATASET))


@pytest.fixture
def choice(write_checkpoint: Callable[..., Path]) -> VideoQA:
    return VideoQA(write_checkpoint(CHOICE, dict(type="MultipleChoiceDataset", ann_file="choice")))


def clip_logits(qa: VideoQA, path: str, texts: list[str]) -> torch.Tensor:
    """Run the model itself: (M, K, C)."""
    model, media = qa.predictor.model, qa.predictor.read(path)
    ids = [torch.tensor(qa.predictor.tokenize.tokenizer(text)["input_ids"]) for text in texts]
    with torch.no_grad():
        tokens = model.encode_video(model.data_preprocessor.normalize(torch.from_numpy(media.frames[None])))
        each = [model.score(tokens, own[None], torch.ones_like(own)[None], torch.zeros(1, dtype=int)) for own in ids]
    return torch.cat(each)


def test_open_ended(open_ended: VideoQA, world: Path, tmp_path: Path):
    path, question = str(world / "videos" / "test_00000.mp4"), "what color is the circle"
    result = open_ended.ask(path, question, topk=4)
    logits = clip_logits(open_ended, path, [question])  # (1, K, C)
    expected = (logits.logsumexp(dim=1)).softmax(dim=1)[0]
    names = list(ANSWERS)
    assert {a.text: a.probability for a in result.answers} == pytest.approx(
        {names[i]: float(expected[i]) for i in expected.topk(4).indices}
    )
    best = result.answers[0]
    own = logits[0].log_softmax(dim=1)[:, names.index(best.text)]
    assert [moment.score for moment in best.moments] == pytest.approx(own.tolist(), abs=1e-5)
    assert json.loads(json.dumps(result.to_dict()))["answers"][0]["text"] == best.text
    lines = str(result).splitlines()
    assert lines[1].startswith("warning: the model does not know 'what', 'color'"), "its vocabulary is of captions"
    assert best.text in lines[2]
    why = open_ended.explain(path, question, picture=tmp_path / "why.png")
    assert why.answer == best.text
    assert why.best == int(own.argmax())
    assert (tmp_path / "why.png").is_file()


def test_multiple_choice(choice: VideoQA, world: Path):
    path, options = str(world / "videos" / "test_00001.mp4"), ["a red circle", "a blue square", "a green star"]
    result = choice.ask(path, "what is in the video", options)
    logits = clip_logits(choice, path, [f"what is in the video {option}" for option in options])  # (3, K, 1)
    expected = logits.logsumexp(dim=1).softmax(dim=0)[:, 0]
    assert {a.text: a.probability for a in result.answers} == pytest.approx(
        dict(zip(options, expected.tolist(), strict=True)), abs=1e-5
    )
    assert choice.explain(path, "what is in the video", options).answer == result.answers[0].text


def test_counting(write_checkpoint: Callable[..., Path], world: Path):
    qa = VideoQA(write_checkpoint(COUNT, dict(type="CountDataset", ann_file="count")))
    path = str(world / "videos" / "test_00001.mp4")
    (answer,) = qa.ask(path, "count the shapes").answers
    logits = clip_logits(qa, path, ["count the shapes"])
    pooled = qa.predictor.model.head.scores(qa.predictor.model.aggregator(logits))
    assert answer.text == f"{float(pooled):.1f}"
    assert answer.probability is None


def test_several_answers(write_checkpoint: Callable[..., Path], world: Path, tmp_path: Path):
    content = load_torch(write_checkpoint(OPEN, OPEN_DATASET), mmap=False)
    content["contents"]["model"]["head"]["type"] = "SoftAnswerHead"
    torch.save(content, tmp_path / "soft.pth")
    qa = VideoQA(tmp_path / "soft.pth")
    path, question = str(world / "videos" / "test_00001.mp4"), "what color is the circle"
    result = qa.ask(path, question, topk=3)
    logits = clip_logits(qa, path, [question])  # (1, K, C)
    expected = qa.predictor.model.aggregator(logits).sigmoid()[0]  # one each
    names = list(ANSWERS)
    best = expected.topk(3).indices
    assert [a.text for a in result.answers] == [names[i] for i in best]
    assert [a.probability for a in result.answers] == pytest.approx(expected[best].tolist(), abs=1e-5)
    own = logits[0, :, best[0]].sigmoid().log()
    assert [moment.score for moment in result.answers[0].moments] == pytest.approx(own.tolist(), abs=1e-5)
    why = qa.explain(path, question)
    assert (why.answer, why.text) == (result.answers[0].text, question)
    assert why.score == pytest.approx(float(qa.predictor.model.aggregator(logits)[0, best[0]]), abs=1e-5)


def test_a_choice_is_explained_by_its_own_text(choice: VideoQA, world: Path, tmp_path: Path):
    path, options = str(world / "videos" / "test_00001.mp4"), ("a red circle", "a blue square", "a green star")
    best = choice.ask(path, "what is in the video", options, topk=1).answers
    assert len(best) == 1
    why = choice.explain(path, "what is in the video", options, tmp_path / "why.png")
    logits = clip_logits(choice, path, [f"what is in the video {best[0].text}"])
    assert why.score == pytest.approx(float(logits.logsumexp(dim=1)) - np.log(3), abs=1e-5)
    assert [moment.score for moment in why.moments] == pytest.approx(logits.flatten().tolist(), abs=1e-5)
    assert why.text == "what is in the video"
    assert (tmp_path / "why.png").is_file()
    # A clip alone chooses among the options.
    alone = clip_logits(choice, path, [f"what is in the video {option}" for option in options]).log_softmax(dim=0)
    assert [moment.score for moment in best[0].moments] == pytest.approx(
        alone[options.index(best[0].text), :, 0].tolist(), abs=1e-5
    )


def test_words_and_answers_that_the_model_does_not_have_are_told(open_ended: VideoQA, world: Path):
    path = str(world / "videos" / "test_00001.mp4")
    known = open_ended.predictor.tokenize.training_words
    new = tuple(word for word in ("what", "color", "is", "the") if word not in known)
    assert 0 < len(new) < 4
    assert open_ended.ask(path, "what color is the 日").unknown_words == (*new, "日")
    found = open_ended.ask(path, "what color is the circle")
    assert (len(found.answers), found.unknown_words) == (5, new)
    for answers in (None, list(ANSWERS)[:-1]):
        open_ended.predictor.answers = answers
        with pytest.raises(
            ValueError, match=rf"The model has {len(ANSWERS)} answers, and its vocabulary {len(answers or ())}\. Use a"
        ):
            open_ended.ask(path, "what color is the circle")


def test_what_cannot_be_asked(open_ended: VideoQA, choice: VideoQA, checkpoint: Path, world: Path):
    path = str(world / "videos" / "test_00001.mp4")
    with pytest.raises(ValueError, match="The question is empty"):
        open_ended.ask(path, " ")
    with pytest.raises(ValueError, match="trained for open-ended questions, which has no options"):
        open_ended.ask(path, "what is it", ["a", "b"])
    expected = "trained for multiple choice and expects two or more different options, got"
    with pytest.raises(ValueError, match=f"{expected} none. Give each with --option on the command line"):
        choice.ask(path, "what is it")
    for options in ("ab", ["a"], ["a", "a"]):
        with pytest.raises(ValueError, match=expected):
            choice.ask(path, "what is it", options)
    with pytest.raises(ValueError, match="Multiple choice expects options that are not empty"):
        choice.ask(path, "what is it", ["a red circle", " "])
    with pytest.raises(ValueError, match="The options 'a red circle' and 'A red CIRCLE' have the same tokens"):
        choice.ask(path, "what is it", ["a red circle", "a blue circle", "A red CIRCLE"])
    with pytest.raises(ValueError, match=r"ask expects topk >= 1, got 0\."):
        open_ended.ask(path, "what is it", topk=0)
    with pytest.raises(
        ValueError, match=r"VideoQA needs a model trained for questions, and .* was trained for retrieval"
    ):
        VideoQA(checkpoint)
    with pytest.raises(
        ValueError,
        match=r"VideoSearch needs a model trained for retrieval, and .* was trained for open-ended questions",
    ):
        VideoSearch(open_ended.predictor.source)
