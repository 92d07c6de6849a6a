"""A checkpoint alone is enough to test it or to search with it; where a config disagrees, that is said."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from transformers import BertConfig

from clipbert_mm.checkpoint import CheckpointError, CheckpointMetadata, read_metadata, read_source
from clipbert_mm.checkpoint.metadata import differences, metadata_of
from clipbert_mm.datasets.transforms import collate_items
from clipbert_mm.engine.launch import build_runner
from clipbert_mm.evaluation import read_rankings
from clipbert_mm.registry import MODELS


@pytest.fixture
def trained(runner_config: Config) -> str:
    """A checkpoint of one epoch."""
    runner_config.default_hooks.checkpoint.interval = 1
    build_runner(runner_config).train()
    return f"{runner_config.work_dir}/epoch_1.pth"


def test_a_checkpoint_alone_scores_as_its_test_does(runner_config: Config, tokenizer: str, tmp_path: Path):
    own = shutil.copytree(tokenizer, tmp_path / "own")
    for split in ("train", "test"):
        pipeline = runner_config[f"{split}_dataloader"].dataset.pipeline
        next(step for step in pipeline if step.type == "Tokenize").tokenizer = str(own)
    runner_config.default_hooks.checkpoint.interval = 1
    build_runner(runner_config).train()
    trained = f"{runner_config.work_dir}/epoch_1.pth"
    runner_config.update(load_from=trained, experiment_name=tmp_path.name + "-test")
    runner_config.test_evaluator.rankings_file = str(tmp_path / "rankings.json")
    build_runner(runner_config).test()
    rankings = read_rankings(tmp_path / "rankings.json")
    shutil.rmtree(own)  # nothing but the file is there
    contents = read_metadata(trained)
    assert (contents.task, contents.answers, contents.pipelines.keys()) == ("retrieval", None, {"train", "test"})
    folder = contents.write_text_files(tmp_path / "text")
    model = MODELS.build(contents.model_config(folder)).eval()
    model.load_state_dict(read_source(trained).tensors)
    pipeline = Compose(contents.pipeline(folder))
    item = pipeline(dict(path=rankings["videos"][0], texts=rankings["texts"], sample_idx=0))
    with torch.no_grad():
        (sample,) = model(**model.data_preprocessor(collate_items([item])), mode="predict")
    scores = rankings["scores"][:, 0]
    assert sample.scores.numpy() == pytest.approx(scores, abs=1e-5)


def test_an_encoder_that_was_built_from_a_folder_is_built_without_it(runner_config: Config, tmp_path: Path):
    sizes = dict(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, max_position_embeddings=40
    )
    BertConfig(vocab_size=200, layer_norm_eps=1e-5, **sizes).save_pretrained(tmp_path / "bert")
    runner_config.model.encoder = dict(
        type="JointEncoder", architecture=str(tmp_path / "bert"), grid_size=8, dropout=0.0
    )
    runner_config.default_hooks.checkpoint.interval = 1
    build_runner(runner_config).train()
    shutil.rmtree(tmp_path / "bert")
    contents = read_metadata(tmp_path / "work" / "epoch_1.pth")
    model = MODELS.build(contents.model_config(contents.write_text_files(tmp_path / "text")))
    model.load_state_dict(read_source(str(tmp_path / "work" / "epoch_1.pth")).tensors)
    assert model.encoder.bert.config.layer_norm_eps == 1e-5
    assert model.encoder.bert.encoder.layer[0].intermediate.dense.out_features == 24


def test_the_model_is_as_it_followed_the_weights(runner_config: Config, tmp_path: Path):
    first = build_runner(runner_config)
    torch.save(
        {
            "state_dict": first.model.state_dict(),
            "convention": dict(mean=(1.0,) * 3, std=(2.0,) * 3, to_bgr=True, style=None),
        },
        tmp_path / "a.pth",
    )
    runner_config.update(load_from=str(tmp_path / "a.pth"), experiment_name=tmp_path.name + "-next")
    runner_config.default_hooks.checkpoint.interval = 1
    build_runner(runner_config).train()
    frames = read_metadata(tmp_path / "work" / "epoch_1.pth").model["data_preprocessor"]
    assert (frames["mean"], frames["std"], frames["to_bgr"]) == ([1.0] * 3, [2.0] * 3, True)


def test_files_of_others_carry_nothing(tmp_path: Path):
    torch.save({"state_dict": {"head.weight": torch.ones(3)}}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"a\.pth does not say how its model is built"):
        read_metadata(tmp_path / "a.pth")


@pytest.mark.parametrize(
    "name", ["../outside.txt", "/outside.txt", "a/b.json", ".hidden.json", "tokenizer.py", "x" * 200]
)
def test_names_of_files_lead_nowhere_else(name: str, tmp_path: Path):
    contents = CheckpointMetadata(
        "1", "retrieval", {}, {}, {"vocab.txt": "[UNK]", name: "from a forged checkpoint"}, None
    )
    with pytest.raises(CheckpointError, match="is refused: a file of its tokenizer is named"):
        contents.write_text_files(tmp_path / "text")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def changed(
    trained: str, runner_config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> Callable[..., str]:
    """Test the checkpoint with a config that is changed; returns what was warned of."""

    def test_with(change: Callable[[Config], Any]) -> str:
        change(runner_config)
        runner_config.update(load_from=trained, experiment_name=runner_config.experiment_name + "-next")
        runner = build_runner(runner_config)
        caplog.clear()
        runner.logger.addHandler(caplog.handler)
        runner.test()
        return "\n".join(record.getMessage() for record in caplog.records if "differs from" in record.getMessage())

    return test_with


def test_a_test_with_the_config_of_the_training_says_nothing(changed: Callable):
    assert changed(lambda config: config.model.encoder.update(dropout=0.3)) == "", "which does not matter in a test"


def test_a_rounding_to_float32_is_no_difference(trained: str):
    saved = read_metadata(trained).to_dict()
    mean = [123.675, 116.28, 103.53]

    def of(mean: list[float]) -> CheckpointMetadata:
        return metadata_of({"contents": saved | dict(model=dict(data_preprocessor=dict(mean=mean)))}, "a")

    rounded = torch.tensor(mean, dtype=torch.float32).tolist()
    assert rounded != mean
    assert differences(of(mean), of(rounded)) == ([], [])
    for other in ([123.676, *mean[1:]], mean[:2], 123.675):
        assert len(differences(of(mean), of(other))[1]) == 1


def test_a_test_leaves_the_config_that_the_training_wrote(runner_config: Config, tmp_path: Path):
    runner_config.default_hooks.checkpoint.interval = 1
    runner_config.dump(tmp_path / "mine.py")
    trained, tested = (Config.fromfile(str(tmp_path / "mine.py")) for _ in range(2))
    build_runner(trained).train()
    kept = Path(runner_config.work_dir) / "mine.py"
    before = kept.read_bytes()
    tested.model.aggregator.type = "MeanAggregator"
    tested.update(load_from=f"{runner_config.work_dir}/epoch_1.pth", experiment_name=tmp_path.name + "-test")
    build_runner(tested).test()
    assert kept.read_bytes() == before
    tested.work_dir = str(tmp_path / "tests")  # a folder of tests alone has the config of the last one
    for aggregator in ("MeanAggregator", "MaxAggregator"):
        tested.model.aggregator.type = aggregator
        tested.experiment_name += aggregator
        build_runner(tested).test()
        assert aggregator in (tmp_path / "tests" / "mine.py").read_text()


def test_a_test_says_where_model_and_clips_differ(changed: Callable, trained: str):
    def change(config: Config) -> None:
        config.model.aggregator.type = "MeanAggregator"
        config.test_dataloader.dataset.pipeline[1].num_frames = 1
        config.test_dataloader.dataset.pipeline[3].size = 64
        config.test_dataloader.dataset.pipeline[4].max_length = 5

    assert changed(change).splitlines() == [
        f"The config differs from that of the checkpoint {trained}:",
        "  ResizePad.size: checkpoint 32, config 64",
        "  SampleClips.num_frames: checkpoint 2, config 1",
        "  Tokenize.max_length: checkpoint 40, config 5",
        "  model.aggregator.type: checkpoint 'LogSumExpAggregator', config 'MeanAggregator'",
    ]


def question_config(config: Config, answers: Path, **head: Any) -> None:
    """Make a config one for open-ended questions."""
    config.model.head = dict(type="OpenEndedHead", in_channels=16, hidden_channels=32, dropout=0.0, **head)
    for split in ("train", "test"):
        own = dict(type="OpenEndedDataset", ann_file=f"qa_{split}.jsonl", answer_file=str(answers))
        config[f"{split}_dataloader"].dataset.update(own)
    config.test_cfg = dict(type="TestLoop")
    config.test_evaluator = dict(type="AnswerAccuracy")


def test_answers_in_other_places_are_refused(runner_config: Config, world: Path, tmp_path: Path):
    answers = json.loads((world / "answers.json").read_text())
    question_config(runner_config, world / "answers.json", num_answers=len(answers))
    runner_config.default_hooks.checkpoint.interval = 1
    build_runner(runner_config).train()
    trained = f"{runner_config.work_dir}/epoch_1.pth"
    names = sorted(answers, key=answers.get)
    assert read_metadata(trained).answers == names
    names[2], names[4] = names[4], names[2]
    (tmp_path / "other.json").write_text(json.dumps({name: place for place, name in enumerate(names)}))
    runner_config.test_dataloader.dataset.answer_file = str(tmp_path / "other.json")
    runner_config.update(load_from=trained, experiment_name=tmp_path.name + "-next")
    runner_config.pop("train_dataloader"), runner_config.pop("train_cfg"), runner_config.pop("optim_wrapper")
    with pytest.raises(CheckpointError) as caught:
        build_runner(runner_config).test()
    assert str(caught.value) == (
        f"The checkpoint {trained} was trained for something else than the config. answer 2: checkpoint {names[4]!r}, "
        f"config {names[2]!r}. Use the config that it was trained with, or the answer_file of that training."
    )


def test_another_task_of_the_same_shape_is_refused(trained: str):
    saved = read_metadata(trained)
    now = metadata_of({"contents": saved.to_dict() | dict(task="counting")}, "a")
    assert differences(saved, now) == (["task: checkpoint retrieval, config counting"], [])
