"""Videos of a test say what its metric counts, and mark the clip that the model scores best."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
import torch
from mmengine.config import Config

from clipbert_mm.apis import answer_drawings
from clipbert_mm.apis.answer_drawings import AnswerVideoHook, TestedModel, answers_questions
from clipbert_mm.datasets.shapes.questions import ANSWERS
from clipbert_mm.datasets.transforms import OpenVideo, collate_items
from clipbert_mm.engine.launch import build_runner
from clipbert_mm.errors import OptionError
from clipbert_mm.evaluation import read_rankings
from clipbert_mm.visualization.answer_video import Drawing

SINGLE = dict(in_channels=16, hidden_channels=None)
TASKS: dict[str, Any] = {
    "qa": (
        dict(type="OpenEndedHead", num_answers=len(ANSWERS)),
        dict(type="OpenEndedDataset", answer_file="answers.json"),
    ),
    "choice": (dict(type="MultipleChoiceHead"), dict(type="MultipleChoiceDataset")),
    "count": (dict(type="CountHead"), dict(type="CountDataset")),
}


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Drawing]:
    """What is drawn, in place of its being drawn."""
    drawings: list[Drawing] = []
    monkeypatch.setattr(answer_drawings, "draw_answer", lambda drawing, *others: drawings.append(drawing))
    monkeypatch.setattr(answer_drawings, "add_video", lambda *others: None)
    return drawings


@torch.no_grad()
def test_queries_are_drawn_with_rank_score_and_best_clip(runner_config: Config, tmp_path: Path, drawn: list[Drawing]):
    file = tmp_path / "rankings.json"
    runner_config.test_evaluator.rankings_file = str(file)
    runner = build_runner(runner_config)
    runner.register_hook(AnswerVideoHook(tmp_path, file))
    runner.test()
    rankings = read_rankings(file)
    assert len({drawing.lines[0] for drawing in drawn}) == 4
    items = {item["data_samples"].path: item for item in runner.test_dataloader.dataset}
    for drawing in drawn:
        query, video = rankings["texts"].index(drawing.lines[0]), rankings["videos"].index(drawing.path)
        scores, right = rankings["scores"][query], rankings["relevant"][query]
        rank = int((scores > scores[video]).sum()) + 1
        assert drawing.name == f"query_{query:05d}_rank_{rank}"
        assert drawing.is_right == right[video]
        first = min(int((scores > scores[own]).sum()) + 1 for own in np.flatnonzero(right))
        outcome = "right" if right[video] else f"not right, the first right one has rank {first}"
        assert drawing.lines[1] == f"rank {rank} of 7, log-odds {scores[video]:.2f}: {outcome}"
        assert rank in (1, first)
        # A clip's score is that of a video of this clip alone.
        inputs, sample = items[drawing.path]["inputs"], items[drawing.path]["data_samples"]
        starts = np.linspace(0, OpenVideo()(dict(path=drawing.path))["duration"] - 1, 3)
        assert np.array(drawing.spans)[:, :2] == pytest.approx(np.stack([starts, starts + 1], axis=1))
        own = next((i for i, text in enumerate(sample.texts) if text == drawing.lines[0]), None)
        if own is not None:
            for clip, (_, _, score) in enumerate(drawing.spans):
                alone = inputs | dict(frames=inputs["frames"][clip : clip + 1])
                (found,) = runner.model.test_step(collate_items([dict(inputs=alone, data_samples=sample.clone())]))
                assert score == pytest.approx(float(found.scores[own]), abs=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("task", list(TASKS))
def test_questions_are_drawn_with_answers(runner_config: Config, tmp_path: Path, drawn: list[Drawing], task: str):
    head, dataset = TASKS[task]
    runner_config.model.head = head | SINGLE
    for split in ("train", "test"):
        runner_config[f"{split}_dataloader"].dataset.update(dataset, ann_file=f"{task}_{split}.jsonl")
    metric = dict(type="CountError", low=1, high=10) if task == "count" else dict(type="AnswerAccuracy")
    runner_config.test_cfg, runner_config.test_evaluator = dict(type="TestLoop"), metric
    assert answers_questions(runner_config.model)
    runner = build_runner(runner_config)
    runner.register_hook(AnswerVideoHook(tmp_path))
    runner.test()
    dataset = runner.test_dataloader.dataset
    assert len(drawn) == len(dataset) == 7
    for index, drawing in enumerate(drawn):
        record, item = dataset.get_data_info(index)["questions"][0], dataset[index]
        (sample,) = runner.model.test_step(collate_items([item]))
        scores = sample.scores.numpy()
        assert drawing.lines[0] == record["question"]
        if task == "qa":
            best = scores[0].argmax()
            answer, right = list(dataset.answers)[list(dataset.answers.values()).index(best)], record["answer"]
            assert drawing.lines[1].startswith(f"answer: {answer} {np.exp(scores[0, best]):.1%}, ")
        elif task == "choice":
            own = scores[: len(record["options"])]
            answer, right = record["options"][own.argmax()], record["options"][record["answer"]]
            assert drawing.lines[1].startswith(f"answer: {answer} (logit {own.max():.2f}), ")
        else:
            answer, right = f"{np.floor(round(float(scores[0]), 1) + 0.5):g}", f"{record['count']:g}"
            assert drawing.lines[1] == f"answer: {scores[0]:.1f}"
        assert drawing.lines[2] == f"right: {right}"
        assert drawing.is_right == (answer == right)
        assert len(drawing.spans) == 3


def test_a_test_writes_videos_of_questions(runner_config: Config, write_checkpoint: Any, tmp_path: Path, tool: Any):
    head, dataset = TASKS["qa"][0] | SINGLE, TASKS["qa"][1]
    checkpoint = write_checkpoint(head, dataset | dict(ann_file="qa"))
    runner_config.model.head = head
    for split in ("train", "test"):
        runner_config[f"{split}_dataloader"].dataset.update(dataset, ann_file=f"qa_{split}.jsonl")
    runner_config.test_dataloader.dataset.indices = 2
    if importlib.util.find_spec("mmaction") is not None:  # its visualizer knows our backends, and gives them videos too
        runner_config.visualizer = dict(
            type="mmaction.ActionVisualizer", vis_backends=[dict(type="mmaction.LocalVisBackend")]
        )
    else:
        runner_config.visualizer.vis_backends = [dict(type="LocalVisBackend")]
    runner_config.test_cfg, runner_config.test_evaluator = dict(type="TestLoop"), dict(type="AnswerAccuracy")
    runner_config.dump(tmp_path / "config.py")
    shown = tmp_path / "shown"
    tool("test.py").main([str(tmp_path / "config.py"), str(checkpoint), "--show-dir", str(shown)])
    names = ["question_00000.mp4", "question_00001.mp4"]
    assert sorted(path.name for path in shown.rglob("*.*")) == names
    copies = Path(runner_config.work_dir).glob("*/vis_data/vis_video/*.mp4")
    assert sorted(path.name for path in copies) == [f"test_question_0000{i}_0.mp4" for i in range(2)]
    with av.open(str(shown / "videos" / names[0])) as container:
        assert container.streams.video[0].codec_context.name == "h264"


def test_what_cannot_be_drawn(runner_config: Config, tmp_path: Path, tool: Any):
    runner_config.test_evaluator = dict(type="PretrainingAccuracy")
    runner_config.dump(tmp_path / "config.py")
    with pytest.raises(OptionError, match=r"--show-dir also draws questions and needs a head for them\. .*Pretraining"):
        tool("test.py").main([str(tmp_path / "config.py"), "none.pth", "--show-dir", str(tmp_path)])
    dataset = SimpleNamespace(pipeline=SimpleNamespace(transforms=[]))
    with pytest.raises(OptionError, match="a test pipeline with Tokenize"):
        TestedModel(None, dataset)
