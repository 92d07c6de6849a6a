"""A person with own videos: what misled, by the rows of a new user's trial."""

import copy
import json
import math
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import MMLogger

from clipbert_mm import visualization
from clipbert_mm.apis import VideoSearch
from clipbert_mm.apis.page.rendering import render_hits
from clipbert_mm.engine import ChanceLossHook
from clipbert_mm.engine.launch import build_runner
from clipbert_mm.errors import ClipBertError, OptionError
from clipbert_mm.index import VideoIndex
from clipbert_mm.structures import VideoTextSample


@pytest.fixture
def warned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a run warns of."""
    messages: list[str] = []
    monkeypatch.setattr(MMLogger, "warning", lambda self, message, *values: messages.append(str(message)))
    return messages


class Forbidden(Hook):
    """Fails at the first step."""

    def before_train(self, runner) -> None:
        raise AssertionError("it begins")


@pytest.mark.parametrize("more", [-1, 1])
@pytest.mark.parametrize("run", ["train", "test"])
def test_p1_the_head_is_checked_against_the_answer_file(runner_config: Config, world: Path, run: str, more: int):
    size = len(json.loads((world / "answers.json").read_text()))
    runner_config.model.head = dict(
        type="OpenEndedHead", in_channels=16, num_answers=size + more, hidden_channels=32, dropout=0.0
    )
    for split in ("train", "test"):
        dataset = runner_config[f"{split}_dataloader"].dataset
        dataset.update(type="OpenEndedDataset", ann_file=f"qa_{split}.jsonl", answer_file="answers.json")
    runner_config.test_cfg, runner_config.test_evaluator = dict(type="TestLoop"), dict(type="AnswerAccuracy")
    runner = build_runner(runner_config)
    runner.register_hook(Forbidden())
    expected = (
        rf"^The head has {size + more} answers, and the answer_file for \S*qa_{run}\.jsonl has {size}\. Set --cfg-options "
        rf"model\.head\.num_answers={size}, or another answer_file"
    )
    with pytest.raises(OptionError, match=expected):
        getattr(runner, run)()


def epoch_of(hook: ChanceLossHook, batches: list[tuple[dict, list]], epoch: int = 1, **settings: Any) -> list[str]:
    """Run an epoch of a hook; returns what it warns of."""
    said: list[str] = []
    wrapper = SimpleNamespace(param_groups=[dict(lr=1e-9, initial_lr=5e-5)])
    runner = SimpleNamespace(epoch=epoch, max_epochs=9, items_per_step=4, cfg={}, optim_wrapper=wrapper)
    runner.logger = SimpleNamespace(warning=said.append)
    for name, value in settings.items():
        setattr(runner, name, value)
    hook.before_train_epoch(runner)
    for i, (outputs, samples) in enumerate(batches):
        hook.after_train_iter(runner, i, {"data_samples": samples}, outputs)
    hook.after_train_epoch(runner)
    return said


def sample(field: str, labels: list[int], texts: int | None = None) -> VideoTextSample:
    item = VideoTextSample(metainfo=dict(texts=["a"] * (texts or len(labels))))
    item.set_field(np.array(labels), field)
    return item


@pytest.mark.parametrize(
    ("loss", "samples", "chance"),
    [
        ("loss_match", [sample("match_labels", [1, 0]), sample("match_labels", [1, 0])], math.log(2)),
        ("loss_match", [sample("match_labels", [1, 0, 0])], math.log(3) - 2 / 3 * math.log(2)),
        ("loss_answer", [sample("answer_labels", [i]) for i in (0, 0, 1, 2)], 1.5 * math.log(2)),
        ("loss_answer", [sample("answer_labels", [0, 0], 10), sample("answer_labels", [0], 5)], math.log(5)),
    ],
    ids=["a negative each", "two negatives each", "answers", "options"],
)
def test_p2_a_loss_at_chance_is_warned_of(loss: str, samples: list, chance: float):
    values = torch.tensor([[2.0, -1.0]])  # the oracle: the least cross entropy of one prediction for all
    if loss == "loss_match":
        labels = torch.from_numpy(np.concatenate([each.match_labels for each in samples]))
        shares = torch.bincount(labels) / len(labels)
        least = torch.nn.functional.cross_entropy(shares.log().expand(len(labels), -1), labels)
        assert least == pytest.approx(chance, abs=1e-6)
        assert torch.nn.functional.cross_entropy(values.expand(len(labels), -1), labels) > least
    hook = ChanceLossHook()

    def batches(share: float) -> list:
        return [({loss: torch.tensor(share * chance), "loss": torch.tensor(9.0)}, samples)] * 3

    (line,) = epoch_of(hook, batches(0.99))
    assert line.startswith(
        f"Epoch 2 has learned nothing: {loss} is {0.99 * chance:.3f}, and one prediction for all items has {chance:.3f}. The "
        "learning rate is 5e-05 for 4 items per step. Start from trained weights (load_from)"
    )
    assert epoch_of(hook, batches(0.97)) == []
    assert epoch_of(hook, batches(2.0), epoch=0) == []
    assert len(epoch_of(hook, batches(2.0), epoch=0, max_epochs=1)) == 1
    scaling = dict(auto_scale_lr=dict(enable=False, base_batch_size=128))
    (line,) = epoch_of(hook, batches(1.0), cfg=scaling)
    assert (
        "The learning rate is 5e-05 for 4 items per step; the config's is for 128, which is 1.6e-06 for 4 (--auto-scale-lr)."
        in line
    )


def test_p2_a_loss_of_which_chance_is_not_known_is_passed_over():
    soft = VideoTextSample(metainfo=dict(texts=["a"]))
    soft.set_field(np.ones((1, 3), np.float32), "answer_scores")
    assert epoch_of(ChanceLossHook(), [(dict(loss_answer=torch.tensor(9.0)), [soft])]) == []
    assert epoch_of(ChanceLossHook(), [(dict(loss_rank=torch.tensor(9.0)), [sample("match_labels", [1, 0])])]) == []


def test_p2_a_training_that_learns_nothing_ends_with_a_warning(runner_config: Config, warned: list[str]):
    runner_config.default_hooks.chance_loss = dict(type="ChanceLossHook")
    runner_config.optim_wrapper.optimizer.lr = 1e-12
    runner_config.train_cfg.max_epochs = 2
    build_runner(runner_config).train()
    (line,) = [each for each in warned if "has learned nothing" in each]
    assert line.startswith("Epoch 2 has learned nothing: loss_match is ")
    assert "one prediction for all items has 0.693. The learning rate is 1e-12 for 4 items per step." in line


def shared(warned: list[str]) -> list[str]:
    return [each.partition(". What")[0] for each in warned if "in several sets" in each]


def test_p7_files_of_several_sets_are_counted(
    runner_config: Config, world: Path, own_world: Path, warned: list[str], tmp_path: Path
):
    for split in ("train", "test"):
        runner_config[f"{split}_dataloader"].dataset.data_root = str(own_world)
    runner_config.train_cfg.max_epochs = 0
    build_runner(runner_config).train()
    assert shared(warned) == []
    train, test = ((own_world / f"{split}.jsonl").read_text() for split in ("train", "test"))
    rows = [json.loads(line) for line in train.splitlines()]
    names = list(dict.fromkeys(row["video"] for row in rows))
    for name, count in (("val", 2), ("test", 3)):
        path = own_world / f"{name}.jsonl"
        path.unlink(missing_ok=True)
        path.write_text(test + "".join(json.dumps(row) + "\n" for row in rows if row["video"] in names[:count]))
    runner_config.val_dataloader = json.loads(json.dumps(runner_config.test_dataloader.to_dict()))
    runner_config.val_dataloader.dataset.ann_file = "val.jsonl"
    runner_config.val_evaluator, runner_config.val_cfg = runner_config.test_evaluator, dict(type="RetrievalValLoop")
    runner_config.experiment_name += "-again"
    build_runner(runner_config).train()
    first = own_world / "videos" / names[0]
    tests = len({json.loads(line)["video"] for line in test.splitlines()})
    (line,) = shared(warned)
    assert line.startswith(
        f"The same files are in several sets: 2 are in train and val, such as {first}; 3 are in train and test,"
    )
    assert f"{tests + 2} are in val and test" in line
    warned.clear()
    shutil.move(own_world / "test.jsonl", tmp_path / "test.jsonl")  # it need not be there yet
    runner_config.experiment_name += "-more"
    build_runner(runner_config).train()
    assert shared(warned) == [f"The same files are in several sets: 2 are in train and val, such as {first}"]


def test_p6_what_is_no_match_is_called_none(write_checkpoint: Callable[..., Path], world: Path, tmp_path: Path):
    checkpoint = write_checkpoint()

    def search_with(bias: float) -> VideoSearch:
        content = torch.load(checkpoint, weights_only=False)
        content["state_dict"]["head.classifier.2.bias"] += torch.tensor([0.0, bias])
        torch.save(content, tmp_path / f"{bias}.pth")
        search = VideoSearch(tmp_path / f"{bias}.pth", index=tmp_path / f"index{bias}")
        search.index(world / "videos" / "test_00000.mp4", workers=0)
        return search

    video = world / "videos" / "test_00000.mp4"
    sure, unsure = search_with(20.0), search_with(-20.0)
    for text, expected, unknown in (
        ("a red circle", True, ()),
        ("a man cuts a red circle", True, ("man", "cuts")),  # words in no caption
        ("a Ω circle", True, ("Ω",)),  # letters in no caption
        ("Ω ψψ", False, ("Ω", "ψψ")),
    ):
        result = sure.search(text)
        assert result.good_match is result.to_dict()["good_match"] is expected
        assert result.unknown_words == unknown
        assert sure.rank(video, [text]).good_match is expected
    reason = "no good match: the best has 100.0%, but the model knows none of the words"
    assert str(result).splitlines()[2] == reason
    assert f"<p>{reason}</p>" in render_hits(result, sure.video_index.entries, {})
    result = unsure.search("a red circle")
    assert (
        result.good_match is result.to_dict()["good_match"] is unsure.rank(video, ["a red circle"]).good_match is False
    )
    reason = "no good match: the best has 0.0%, and a good match has 50% or more"
    assert str(result).splitlines()[1] == str(unsure.rank(video, ["a red circle"])).splitlines()[1] == reason
    assert f"<p>{reason}</p>" in render_hits(result, unsure.video_index.entries, {})
    unsure.predictor.log_odds = lambda logits: None  # as of a head of margins
    assert unsure.search("a red circle").good_match is None


def write_sound(path: Path) -> None:
    """Write a file with a second of sound alone."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)


def test_p13_videos_that_are_none_are_found_before_the_first_step(
    runner_config: Config, own_world: Path, break_file: Callable, warned: list[str], tmp_path: Path
):
    videos = own_world / "videos"
    runner_config.train_dataloader.dataset.data_root = str(own_world)
    runner_config.train_cfg.max_epochs = 0
    build_runner(runner_config).train()
    assert warned == []
    reasons = {}
    for i, how in enumerate(("empty", "text")):
        reasons[break_file(videos / f"train_0000{i}.mp4", how)] = "empty (0 bytes)" if i == 0 else "not a video"
    write_sound(tmp_path / "sound.mp4")
    (videos / "train_00003.mp4").unlink()
    shutil.move(tmp_path / "sound.mp4", videos / "train_00003.mp4")
    reasons[str(videos / "train_00003.mp4")] = "no video stream"
    runner_config.experiment_name += "-broken"
    runner = build_runner(runner_config)
    runner.register_hook(Forbidden(), "VERY_LOW")
    with pytest.raises(ClipBertError) as caught:
        runner.train()
    message = str(caught.value)
    assert message.startswith("9 of 24 items have a file that is no video; 3 files cannot be read:\n")
    for path, reason in reasons.items():
        assert re.search(rf"  {path}: .*{re.escape(reason)}", message)
    assert message.endswith("BrokenMediaHook allows a share of 0.05. Repair or remove the files, or raise max_share.")
    runner_config.default_hooks.broken_media.max_share = 0.4
    runner_config.experiment_name += "-allowed"
    build_runner(runner_config).train()
    (line,) = warned
    assert line.startswith("9 of 24 items have a file that is no video; 3 files")


def test_p14_equal_names_are_told_apart_by_their_folders(
    write_checkpoint: Callable[..., Path], world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    videos = tmp_path / "videos"
    for folder in ("cats", "dogs"):
        (videos / folder).mkdir(parents=True)
        shutil.copy(world / "videos" / "test_00000.mp4", videos / folder / "1.mp4")
    search = VideoSearch(write_checkpoint(), index=tmp_path / "index")
    search.index(videos, workers=0)
    drawn: list[str] = []
    monkeypatch.setattr(visualization, "draw_explanation", lambda title, name, *rest: drawn.append(name))

    def shown(search: VideoSearch, *arguments: Any) -> list[str]:
        result = search.search("a red circle")
        index = search.video_index
        page = render_hits(result, index.entries, *arguments, index.folders)
        names = re.findall(r'<div class="name">\d\. (.*?)</div>', page)
        drawn.clear()
        for hit in result.hits:
            search.explain("a red circle", hit.path, tmp_path / "why.png")
        assert [os.path.basename(name) for name in drawn] == ["1.mp4"] * len(drawn)
        return sorted(names)

    assert shown(search, {}) == sorted(drawn) == ["cats/1.mp4", "dogs/1.mp4"]
    assert str(tmp_path) not in "".join(drawn)
    assert shown(search, {str(videos / "cats" / "1.mp4"): "upload.mp4"}) == ["dogs/1.mp4", "upload.mp4"]
    reopened = copy.copy(search)
    reopened.video_index = VideoIndex(tmp_path / "index")
    assert shown(reopened, {}) == ["cats/1.mp4", "dogs/1.mp4"]
    search.index(videos / "cats", workers=0)  # which lies in the first: nothing changes
    assert shown(search, {}) == ["cats/1.mp4", "dogs/1.mp4"]
    assert search.video_index.manifest["folders"] == [str(videos), str(videos / "cats")]
    for damaged in (None, 3, [4]):  # what nobody vouches for
        search.video_index.table.set_facts({"folders": damaged})
        reopened.video_index = VideoIndex(tmp_path / "index")
        assert shown(reopened, {}) == sorted(drawn) == ["1.mp4", "1.mp4"]


def test_p14_pictures_of_a_dataset_name_files_below_its_folder(tool: Callable[[str], ModuleType], own_world: Path):
    item = dict(data_samples=VideoTextSample(metainfo=dict(path=str(own_world / "cats" / "1.mp4"))))
    item["inputs"] = dict(text_ids=[[1]], frames=np.zeros((1, 1, 2, 2, 3), np.uint8))

    class Videos(list):
        tokenizer, data_prefix = SimpleNamespace(decode=str), dict(media=str(own_world))

    describe = tool("analysis_tools/browse_dataset.py").describe
    assert describe(Videos([item]), 0, {})["title"] == "0: cats/1.mp4"
