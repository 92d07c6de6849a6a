"""MMEngine's dataset wrappers, and the arguments of its BaseDataset."""

import copy
import json
from pathlib import Path
from typing import Any

import mmengine.dataset
import numpy as np
import pytest
from cut_runs import by_iterations, cut_and_resume, last, train
from faulty_runs import assert_same_training
from mmengine.config import Config
from sister_libraries import import_mmaction

from clipbert_mm.checkpoint.metadata import KEY
from clipbert_mm.datasets import OpenEndedDataset, RetrievalDataset
from clipbert_mm.datasets.wrappers import draw_item, leaves, set_draw
from clipbert_mm.engine.launch import build_runner
from clipbert_mm.errors import OptionError


def wrap(config: Config, kind: str) -> Config:
    """Put the training set into a wrapper; it has 24 items in all."""
    config, own = copy.deepcopy(config), copy.deepcopy(config.train_dataloader.dataset)
    own.captions_per_item = 3  # 8 items
    if kind == "RepeatDataset":
        config.train_dataloader.dataset = dict(type=kind, dataset=own, times=3)
    elif kind == "ConcatDataset":
        config.train_dataloader.dataset = dict(
            type=kind, datasets=[own, dict(type="RepeatDataset", dataset=own, times=2)]
        )
    config.train_dataloader.num_workers = 1
    return config


@pytest.mark.parametrize("kind", ["RepeatDataset", "ConcatDataset"])
def test_h6_wrappers_draw_each_repetition_and_resume_exactly(config: Config, kind: str):
    config = wrap(config, kind)
    whole = train(config, "-whole")
    drawn = [item for step in whole.items for item in step]
    assert len(drawn) == 48
    assert len(set(drawn)) > 44, "negatives are drawn anew in each repetition and epoch, in each dataset"
    assert cut_and_resume(config, "-cut", 8) == whole.items
    assert_same_training(last(config, "-cut"), last(config, "-whole"))
    assert last(config, "-whole")[KEY]["pipelines"]["train"][0] == dict(type="OpenVideo"), "of the dataset within"


def test_augmentation_by_mmaction2_resumes_exactly(config: Config):
    import_mmaction()
    augment = [dict(type="RandomResizedCrop", area_range=(0.5, 1.0)), dict(type="Flip"), dict(type="ColorJitter")]
    config.train_dataloader.dataset.pipeline.insert(3, dict(type="MMActionTransforms", transforms=augment))
    config.train_dataloader.num_workers = 1
    whole = train(config, "-whole")
    assert cut_and_resume(config, "-cut", 8) == whole.items
    assert_same_training(last(config, "-cut"), last(config, "-whole"))


def test_h6_a_wrapped_set_by_iterations_trains_as_by_epochs(config: Config):
    config = wrap(config, "RepeatDataset")
    assert train(by_iterations(config), "-iterations").items == train(config, "-epochs").items


def test_h12_num_batch_per_epoch_keeps_to_its_part_by_iterations(config: Config):
    config.train_dataloader.num_batch_per_epoch = 2
    passes = train(by_iterations(config, steps=4), "-part").items
    first, second = ({item[0] for step in half for item in step} for half in (passes[:2], passes[2:4]))
    assert first == second == set(range(2 * config.train_dataloader.batch_size))
    assert passes[:2] != passes[2:4], "each pass draws anew"


@pytest.fixture
def questions(world: Path, tokenizer: str) -> dict[str, Any]:
    """The options of a dataset of questions."""
    steps = [dict(type="OpenVideo"), dict(type="SampleClips", num_clips=1, num_frames=1, mode="random")]
    steps += [dict(type="DecodeClips"), dict(type="ResizePad", size=32)]
    steps += [dict(type="Tokenize", tokenizer=tokenizer, max_length=40), dict(type="PackInputs")]
    return dict(
        data_root=str(world),
        ann_file="qa_train.jsonl",
        answer_file="answers.json",
        media_folder="videos",
        pipeline=steps,
    )


def test_h6_rare_answers_are_repeated(questions: dict[str, Any]):
    dataset = OpenEndedDataset(**questions)
    balanced = mmengine.dataset.ClassBalancedDataset(dataset, oversample_thr=0.2)
    answers = [dataset.get_cat_ids(i)[0] for i in range(len(dataset))]
    shares = {answer: answers.count(answer) / len(answers) for answer in answers}
    wanted = [i for i, each in enumerate(answers) for _ in range(int(np.ceil(max(1, np.sqrt(0.2 / shares[each])))))]
    assert balanced.repeat_indices == wanted
    assert len(wanted) > len(answers)
    set_draw(balanced, 1, 0)
    assert list(leaves(balanced)) == [dataset]
    twice = next(i for i in range(len(wanted)) if wanted[i] == wanted[i + 1])
    first, again = (draw_item(balanced, i) for i in (twice, twice + 1))
    assert first["data_samples"].sample_idx == again["data_samples"].sample_idx == wanted[twice]
    assert not np.array_equal(first["inputs"]["frames"], again["inputs"]["frames"])


def test_h6_retrieval_is_tested_without_a_wrapper(config: Config):
    config.test_dataloader.dataset = dict(type="ConcatDataset", datasets=[config.test_dataloader.dataset])
    with pytest.raises(
        OptionError, match=r"expects a RetrievalDataset, got a ConcatDataset\. .* set ann_file .* to a list"
    ):
        build_runner(config).test()


def test_h6_captions_are_no_classes(config: Config):
    config.train_dataloader.dataset = dict(
        type="ClassBalancedDataset", oversample_thr=0.1, dataset=config.train_dataloader.dataset
    )
    with pytest.raises(
        OptionError, match=r"needs items of classes, .* RetrievalDataset have none\. Use RepeatDataset\.$"
    ):
        build_runner(config).train()


@pytest.fixture
def captions_of(config: Config) -> dict[str, Any]:
    """The options of a RetrievalDataset."""
    return {key: value for key, value in config.train_dataloader.dataset.items() if key != "type"}


def items(dataset: RetrievalDataset) -> list[tuple[str, list[str]]]:
    return [(info["path"], info["captions"]) for info in map(dataset.get_data_info, range(len(dataset)))]


def test_h6_several_annotation_files_are_read_as_one(captions_of: dict[str, Any], own_world: Path):
    lines = (own_world / "train.jsonl").read_text().splitlines(keepends=True)
    for name, part in (("a", lines[:9]), ("b", lines[9:])):
        (own_world / f"{name}.jsonl").write_text("".join(part))
    captions_of["data_root"] = str(own_world)
    whole = RetrievalDataset(**captions_of)
    parts = RetrievalDataset(**captions_of | dict(ann_file=["a.jsonl", str(own_world / "b.jsonl")]))
    assert items(parts) == items(whole)
    assert parts.ann_file == f"{own_world}/a.jsonl, {own_world}/b.jsonl"


@pytest.mark.parametrize("prefix", ["videos", dict(video="videos")])
def test_h6_base_dataset_s_arguments(captions_of: dict[str, Any], prefix: str | dict):
    whole = RetrievalDataset(**captions_of)
    captions_of.pop("media_folder")
    theirs = RetrievalDataset(
        **captions_of,
        data_prefix=prefix,
        metainfo=dict(task="t2v"),
        serialize_data=False,
        lazy_init=True,
        indices=[0, 5],
    )
    assert not theirs._fully_initialized
    assert items(theirs) == [items(whole)[0], items(whole)[5]]
    assert theirs.metainfo == dict(task="t2v")
    assert len(theirs.path_hashes) == 2
    subset = whole.get_subset([0, 5])
    assert items(subset) == items(theirs)
    subset.set_draw(7, 1)
    assert subset._draw.is_shared()
    assert whole._draw.tolist() == [0, 0]
    assert RetrievalDataset(**captions_of | dict(indices=5), data_prefix=prefix).path_hashes.size


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(data_prefix="videos"), r"one folder of files, media_folder or data_prefix, got media_folder='videos'"),
        (dict(filter_cfg=dict(min_size=3)), r"^filter_cfg of RetrievalDataset has no effect: .* filter_data"),
    ],
)
def test_h6_what_contradicts_or_does_nothing_is_refused(captions_of: dict[str, Any], options: dict, message: str):
    with pytest.raises(OptionError, match=message):
        RetrievalDataset(**captions_of, **options)


def test_h6_unreadable_files_in_a_row(captions_of: dict[str, Any], own_world: Path, break_file):
    for line in (own_world / "train.jsonl").read_text().splitlines():
        break_file(own_world / "videos" / json.loads(line)["video"], "text")
    dataset = RetrievalDataset(**captions_of | dict(data_root=str(own_world)), max_refetch=2)
    with pytest.raises(Exception, match=r"^3 files in a row could not be read"):
        dataset[0]
