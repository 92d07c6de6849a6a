"""The inferencer says what VideoSearch and VideoQA say, in MMEngine's protocol."""

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from mmengine.config import Config
from mmengine.infer import BaseInferencer
from mmengine.visualization import Visualizer

from clipbert_mm.apis import ClipBertInferencer, VideoQA, VideoSearch, inference_model, init_model
from clipbert_mm.datasets.shapes.questions import ANSWERS
from clipbert_mm.errors import BrokenMediaError, CheckpointError, OptionError
from clipbert_mm.registry import INFERENCERS

TEXTS = ["a red circle", "a blue square moving sideways"]
OPEN = dict(type="OpenEndedHead", in_channels=16, num_answers=len(ANSWERS), hidden_channels=None)
OPEN_DATASET = dict(type="OpenEndedDataset", ann_file="qa", answer_file="answers.json")


@pytest.fixture
def videos(world: Path) -> list[str]:
    return [str(world / "videos" / f"test_0000{i}.mp4") for i in range(3)]


def test_texts_are_ranked_as_by_the_search_in_batches_and_with_files(
    checkpoint: Path, videos: list[str], tmp_path: Path
):
    search = VideoSearch(checkpoint, index=tmp_path / "index")
    wanted = [search.rank(path, TEXTS).to_dict() for path in videos]
    inferencer = INFERENCERS.build(
        dict(type="clipbert_mm.ClipBertInferencer", task="video-retrieval", model=str(checkpoint), show_progress=False)
    )
    assert isinstance(inferencer, BaseInferencer)
    found = inferencer(videos, texts=TEXTS, batch_size=2, out_dir=tmp_path / "out")
    for own, other in zip(found["predictions"], wanted, strict=True):
        assert own["path"] == other["path"]
        assert [text["text"] for text in own["texts"]] == [text["text"] for text in other["texts"]]
        scores = [[text["score"] for text in each["texts"]] for each in (own, other)]
        assert scores[0] == pytest.approx(scores[1], abs=1e-5)
    names = [f"{i:04d}_test_0000{i}" for i in range(3)]
    for name, own, picture in zip(names, found["predictions"], found["visualization"], strict=True):
        assert json.loads((tmp_path / "out" / "preds" / f"{name}.json").read_text()) == json.loads(json.dumps(own))
        drawn = cv2.imread(str(tmp_path / "out" / "vis" / f"{name}.png"))
        assert np.array_equal(drawn[..., ::-1], picture)
        assert drawn.std() > 5
    assert inferencer(videos[0], texts=TEXTS)["visualization"] == []


def test_each_input_may_ask_for_itself_and_samples_are_returned(
    write_checkpoint: Callable[..., Path], videos: list[str], monkeypatch: pytest.MonkeyPatch
):
    path = write_checkpoint(OPEN, OPEN_DATASET)
    qa, inferencer = VideoQA(path), ClipBertInferencer(model=path, show_progress=False)
    assert inferencer.task == "video-qa", "as the model's"
    questions = ["what color is the circle", "what color is the square"]
    inputs = [dict(video=video, question=text) for video, text in zip(videos, questions, strict=False)]
    shown = []
    with pytest.raises(OptionError, match=r"^show=True opens windows, and there is no display .* out_dir=DIR writes"):
        inferencer(inputs, show=True)
    monkeypatch.setattr("matplotlib.pyplot.get_backend", lambda: "TkAgg")
    monkeypatch.setattr(Visualizer, "show", lambda self, picture, **options: shown.append((picture.shape, options)))
    found = inferencer(inputs, topk=3, return_datasamples=True, show=True, wait_time=2)
    for each, sample in zip(inputs, found["predictions"], strict=True):
        answers = qa.ask(each["video"], each["question"], topk=3).answers
        assert sample.path == each["video"]
        assert sample.texts == [answer.text for answer in answers]
        assert sample.scores.tolist() == pytest.approx([answer.probability for answer in answers])
    assert [options["wait_time"] for _, options in shown] == [2, 2]
    assert [shape for shape, _ in shown] == [picture.shape for picture in found["visualization"]]


def test_init_model_and_inference_model_as_the_sisters_have_them(checkpoint: Path, videos: list[str], tmp_path: Path):
    model = init_model(checkpoint, device="cpu")
    assert isinstance(model, torch.nn.Module)
    assert not model.training
    assert not any("inferencer" in name for name in model.state_dict())
    ranked = VideoSearch(checkpoint, index=tmp_path / "index").rank(videos[1], TEXTS).texts
    for opened in (model, checkpoint):
        sample = inference_model(opened, videos[1], texts=TEXTS)
        assert sample.texts == [text.text for text in ranked]
        assert sample.scores.tolist() == pytest.approx([text.score for text in ranked], abs=1e-5)
    with pytest.raises(OptionError, match="expects a model that init_model returned"):
        inference_model(torch.nn.Linear(1, 1), videos[1], texts=TEXTS)
    for asked in (dict(test_pipeline=[]), {}):
        with pytest.raises(
            OptionError, match=r"^inference_model reads a video by the test_pipeline of the model's config"
        ):
            inference_model(model, videos[1], *[TEXTS] * (not asked), **asked)


def test_models_are_listed_and_found_by_name(root: Path):
    names = ClipBertInferencer.list_models(patterns=r"clipbert_r50_.*_msrvtt$")
    assert len(names) == 2
    for name in names:
        assert Path(ClipBertInferencer.find_config(name)).resolve() == root / "configs" / "retrieval" / f"{name}.py"
    with pytest.raises(CheckpointError, match=r"There is no checkpoint .*nowhere\.pth"):
        ClipBertInferencer("video-retrieval", names[0], "nowhere.pth")


def test_the_models_that_are_listed_are_those_that_it_opens(root: Path):
    named = [
        model["Name"]
        for path in yaml.safe_load((root / "model-index.yml").read_text())["Import"]
        for model in yaml.safe_load((root / path).read_text())["Models"]
    ]
    listed = ClipBertInferencer.list_models()
    assert [name for name in named if name in listed] == listed
    for name in named:
        path = Path(ClipBertInferencer.find_config(name))
        if name in listed:
            assert "ImageClassifier" not in path.read_text()
        else:
            assert Config.fromfile(path).model.type == "mmpretrain.ImageClassifier"


@pytest.mark.parametrize("scope", ["nonsense", "mmaction", ""])
def test_another_scope_is_refused(checkpoint: Path, scope: str):
    message = (
        rf"^ClipBertInferencer expects scope clipbert_mm, got '{scope}'\. Leave it out; .* 'mmpretrain\.ResNet'\.$"
    )
    with pytest.raises(OptionError, match=message):
        ClipBertInferencer(model=checkpoint, scope=scope)
    with pytest.raises(OptionError, match=message):
        ClipBertInferencer.list_models(scope)
    assert ClipBertInferencer(model=checkpoint, scope=None).scope == "clipbert_mm"


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ("video-search", "task is video-retrieval, image-retrieval, video-qa, image-qa, got 'video-search'"),
        ("video-qa", "trained for retrieval on videos: expected task video-retrieval, got 'video-qa'"),
        ("image-retrieval", "expected task video-retrieval, got 'image-retrieval'"),
    ],
)
def test_a_task_that_is_not_the_model_s(checkpoint: Path, task: str, said: str):
    with pytest.raises(OptionError) as error:
        ClipBertInferencer(task, checkpoint)
    assert said in str(error.value)


ASKED_WRONGLY = [
    ("a.mp4", {}, "together with texts; got 'a.mp4' and nothing"),
    ("a.mp4", dict(question="what"), "; got 'a.mp4' and question"),
    (dict(texts=TEXTS), {}, "a path, or a dict with it as 'video'"),
    (dict(video="a.mp4", texts=[]), {}, "one or more texts"),
    ("a.mp4", dict(texts=[["a red circle"]]), "list of one or more texts, got [['a red circle']]"),
    ("a.mp4", dict(texts=["a red circle", None]), "list of one or more texts, got ['a red circle', None]"),
    ("a.mp4", dict(texts=None), "list of one or more texts, got None"),
    ("a.mp4", dict(texts=TEXTS, batch_size=0), "expects batch_size >= 1, got 0"),
    ("a.mp4", dict(texts=TEXTS, batch_size=-2), "expects batch_size >= 1, got -2"),
    ("a.mp4", dict(texts=TEXTS, batch_size="2"), "expects batch_size >= 1, got '2'"),
    ("a.mp4", dict(texts=TEXTS, out_dir=__file__), "expects out_dir to be a folder, or a path where one can be"),
    ("a.mp4", dict(texts=TEXTS, out_dir=f"{__file__}/a/b"), "/a/b': Not a directory. Give another out_dir"),
    ("a.mp4", dict(texts=TEXTS, out_dir=3), "got 3: it is no path"),
    ("a.mp4", dict(text=TEXTS), "has no option text. There are: return_datasamples, batch_size, out_dir, draw"),
    ([], dict(texts=TEXTS), "for video-retrieval expects one or more inputs, got []"),
    (None, dict(texts=TEXTS), "expects a path, or a dict with it as 'video' or 'image'"),
]


def test_what_is_asked_wrongly_is_said_before_a_video_is_read(checkpoint: Path):
    inferencer = ClipBertInferencer(model=checkpoint, show_progress=False)
    for inputs, asked, said in ASKED_WRONGLY:
        with pytest.raises(OptionError) as error:
            inferencer(inputs, **asked)
        assert said in str(error.value)


def test_questions_and_options_that_are_none(write_checkpoint: Callable[..., Path]):
    inferencer = ClipBertInferencer(model=write_checkpoint(OPEN, OPEN_DATASET), show_progress=False)
    for asked, said in (
        (
            dict(question=["what", "why"]),
            r"is one text, got \['what', 'why'\]\. .*\[dict\(video=\.\.\., question=\.\.\.\) for",
        ),
        (dict(question=None), "The question is one text, got None"),
        (dict(question="what", topk="3"), "topk >= 1, got '3'"),
        (dict(question="what", options=["a", "b"]), "trained for open-ended questions, which has no options"),
    ):
        with pytest.raises(OptionError, match=said):
            inferencer("a.mp4", **asked)
    head = dict(type="MultipleChoiceHead", in_channels=16, hidden_channels=None)
    qa = VideoQA(write_checkpoint(head, dict(type="MultipleChoiceDataset", ann_file="choice")))
    for options in ([["a", "b"], ["c", "d"]], ["a", None], dict(a=1, b=2)):
        with pytest.raises(OptionError, match="expects two or more different options, got"):
            qa.ask("a.mp4", "what", options)


def test_texts_and_counts_of_a_search_and_an_index_are_told_the_same_way(checkpoint: Path, tmp_path: Path):
    search = VideoSearch(checkpoint, index=tmp_path / "index")
    for wrong in (None, ["a ring"], 3):
        with pytest.raises(OptionError, match=r"A text for the model is a str, got "):
            search.search(wrong)
    for wrong in (dict(topk="3"), dict(topk=2.0), dict(shortlist="all")):
        with pytest.raises(OptionError, match=r"topk >= 1 and shortlist 0 or >= topk, got "):
            search.search("a ring", **wrong)
    for wrong in (dict(batch_size="4"), dict(workers=1.5), dict(timeout="10")):
        with pytest.raises(OptionError, match=r"batch_size >= 1 and timeout > 0, got "):
            search.index("nowhere", **wrong)


@pytest.mark.parametrize("device", ["cuda", "cuda:3", "gpu", "xpu", "", -1, 1.5, torch.device("cuda")], ids=str)
@pytest.mark.parametrize("opened", [ClipBertInferencer, VideoSearch, VideoQA], ids=lambda each: each.__name__)
def test_a_device_that_is_not_there_is_told_before_a_model_is_looked_for(opened: type, device: object):
    options = dict(model="nowhere.pth") if opened is ClipBertInferencer else dict(config_or_checkpoint="nowhere.pth")
    with pytest.raises(OptionError) as error:
        opened(**options, device=device)
    assert str(error.value).startswith("The device of a model is cpu, cuda, cuda:1, ...; got ")
    assert "this machine has no GPU that torch can use (" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_folder_is_its_videos(checkpoint: Path, own_world: Path, tmp_path: Path):
    inferencer = ClipBertInferencer(model=checkpoint, show_progress=False)
    folder = own_world / "videos"
    for name in ("notes.txt", ".hidden.mp4", "Thumbs.db"):
        (folder / name).write_text("no video")
    names = sorted(str(path) for path in folder.glob("[!.]*.mp4"))
    for given in (folder, str(folder)):
        found = inferencer(given, texts=TEXTS, batch_size=5)["predictions"]
        assert [each["path"] for each in found] == names
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("no video")
    for given in (tmp_path / "empty", str(tmp_path / "other")):
        with pytest.raises(OptionError, match=r"there is no video in the folder .*, expected files in \.mp4, "):
            inferencer(given, texts=TEXTS)
    with pytest.raises(OptionError, match="takes one video or image"):
        inference_model(init_model(checkpoint), folder, texts=TEXTS)
    for given in (dict(video=folder), [folder]):
        with pytest.raises(BrokenMediaError, match=r"cannot read .*videos: "):
            inferencer(given, texts=TEXTS)


def test_a_model_is_needed():
    with pytest.raises(OptionError, match="needs model="):
        ClipBertInferencer("video-qa")
    for opened in (ClipBertInferencer, VideoSearch, VideoQA):
        with pytest.raises(OptionError, match=r"opened by a checkpoint, a work folder or a config, .*got 3\."):
            opened(**{"model" if opened is ClipBertInferencer else "config_or_checkpoint": 3})
