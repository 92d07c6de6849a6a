"""MMAction2's transforms in our pipelines, and ours in theirs."""

import json
import pickle
import random
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.dataset import Compose
from mmengine.registry import DATASETS, DefaultScope
from sister_libraries import import_mmaction

from clipbert_mm.compat import seeded_generators
from clipbert_mm.datasets import RetrievalDataset
from clipbert_mm.datasets.transforms import (
    ClipBertTransforms,
    DecodeClips,
    LoadImage,
    MMActionTransforms,
    OpenVideo,
    ResizePad,
    SampleClips,
    collate_items,
)
from clipbert_mm.datasets.transforms.mmaction_adapters import join_images
from clipbert_mm.errors import AnnotationError, BrokenMediaError, CheckpointError, OptionError
from clipbert_mm.trusted import check_pipeline

pytest.importorskip("decord", reason="mmaction2 needs decord, which has wheels for x86-64 only")
import_mmaction()

AUGMENTATION = [
    dict(type="Resize", scale=(-1, 72)),
    dict(type="RandomResizedCrop", area_range=(0.5, 1.0)),
    dict(type="Resize", scale=(64, 64), keep_ratio=False),
    dict(type="Flip", flip_ratio=0.5),
    dict(type="ColorJitter", hue=0),
]
CLASSES = ["jumping", "running", "walking the dog"]
READING = [dict(type="DecordInit"), dict(type="SampleFrames", clip_len=3, num_clips=2), dict(type="DecordDecode")]


@pytest.fixture(scope="module")
def videos(world: Path) -> list[str]:
    return sorted(map(str, (world / "videos").glob("*.mp4")))


def clips(frames: np.ndarray, seed: int | None = 5) -> dict[str, Any]:
    rng = {} if seed is None else dict(rng=np.random.default_rng(seed))
    return dict(path="a.mp4", frames=frames.copy(), **rng)


@pytest.fixture
def frames() -> np.ndarray:
    """2 clips of 3 frames of noise."""
    return np.random.default_rng(0).integers(0, 256, (2, 3, 90, 120, 3), np.uint8)


def apart(steps: list[dict], results: dict[str, Any], seed: int) -> dict[str, Any]:
    """Run MMAction2's own pipeline."""
    from mmaction.registry import TRANSFORMS as theirs

    with DefaultScope.overwrite_default_scope("mmaction"):
        with seeded_generators(0):
            built = Compose([theirs.build(step) for step in steps])
        random.seed(seed)
        np.random.seed(seed)
        return built(results)


def test_frames_are_those_of_mmaction2s_own_pipeline(frames: np.ndarray):
    seed = int(np.random.default_rng(5).integers(2**32))
    images = [image.copy() for image in frames.reshape(-1, *frames.shape[2:])]
    expected = apart(AUGMENTATION, dict(imgs=images, modality="RGB", num_clips=2, clip_len=3), seed)
    done = MMActionTransforms(transforms=AUGMENTATION)(clips(frames))
    assert done["frames"].dtype == np.uint8
    assert np.array_equal(done["frames"], np.stack(expected["imgs"]).reshape(2, 3, 64, 64, 3))
    assert done["content_shape"] == (64, 64)
    assert not {"imgs", "filename", "img_shape"} & set(done)
    assert not np.array_equal(done["frames"], MMActionTransforms(transforms=AUGMENTATION)(clips(frames, 6))["frames"])


def test_all_frames_of_all_clips_share_the_draws(frames: np.ndarray):
    same = np.broadcast_to(frames[:1, :1], frames.shape)
    steps = MMActionTransforms(
        transforms=[*AUGMENTATION, dict(type="TorchVisionWrapper", op="RandomRotation", degrees=30)]
    )
    done = steps(clips(same))["frames"]
    assert (done == done[:1, :1]).all()


def test_draws_depend_on_the_item_alone_and_leave_the_process_as_it_was(frames: np.ndarray):
    steps = [*AUGMENTATION, dict(type="TorchVisionWrapper", op="RandomRotation", degrees=30)]
    found = []
    for seed in (1, 2):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        np.random.randn()  # numpy keeps the second of two normal numbers
        before = random.getstate(), np.random.get_state(), torch.get_rng_state()
        found.append(MMActionTransforms(transforms=steps)(clips(frames))["frames"])
        after = random.getstate(), np.random.get_state(), torch.get_rng_state()
        assert before[0] == after[0]
        assert all(np.array_equal(one, other) for one, other in zip(before[1], after[1], strict=True))
        assert torch.equal(before[2], after[2])
    assert np.array_equal(*found)


def test_spawned_processes_draw_alike(frames: np.ndarray, monkeypatch: pytest.MonkeyPatch):
    from mmaction.datasets.transforms import ColorJitter

    steps = MMActionTransforms(transforms=[*AUGMENTATION[:4], dict(type="ColorJitter", hue=(-0.1, -0.1))])
    expected, sent = steps(clips(frames))["frames"], pickle.dumps(steps)
    monkeypatch.setattr(ColorJitter, "adjust_hue", None)  # as where MMAction2 was not imported by our work-around
    assert np.array_equal(pickle.loads(sent)(clips(frames))["frames"], expected)


def test_a_checkpoint_may_not_name_them():
    steps = [dict(type="MMActionTransforms", transforms=[dict(type="TorchVisionWrapper", op="Lambda")])]
    with pytest.raises(CheckpointError, match=r"it names the type 'TorchVisionWrapper'\..* give your config \(\.py\)"):
        check_pipeline(steps, "a.pth")


def test_without_a_generator_draws_are_the_same_every_time(frames: np.ndarray):
    steps = MMActionTransforms(transforms=AUGMENTATION)
    first, second = (steps(clips(frames, None))["frames"] for _ in range(2))
    assert np.array_equal(first, second)


def test_an_item_is_drawn_by_seed_epoch_and_index(world: Path):
    pipeline = [
        dict(type="OpenVideo"),
        dict(type="SampleClips", num_clips=2, num_frames=2),
        dict(type="DecodeClips"),
        dict(type="MMActionTransforms", transforms=AUGMENTATION),
        dict(type="PackInputs"),
    ]
    other = [*pipeline[:3], *pipeline[4:]]

    def item(steps: list[dict], epoch: int, index: int = 3) -> Any:
        dataset = RetrievalDataset(ann_file="train.jsonl", data_root=str(world), media_folder="videos", pipeline=steps)
        dataset.pipeline.transforms[-1] = lambda results: results | dict(data_samples=dataset)
        dataset.set_metainfo = lambda values: None  # stands for the sample
        dataset.set_draw(7, epoch)
        dataset[index - 1]  # what was read before makes no difference
        return dataset[index]

    first, again, later = item(pipeline, 1), item(pipeline, 1), item(pipeline, 2)
    assert np.array_equal(first["frames"], again["frames"])
    assert first["frames"].tobytes() != later["frames"].tobytes()
    without = item(other, 1)  # the clips and negatives are those of the pipeline without augmentation
    assert without["texts"] == first["texts"]
    assert np.array_equal(without["frame_inds"], first["frame_inds"])


def test_frames_are_passed_as_views(frames: np.ndarray, videos: list[str]):
    results = clips(frames)
    done = MMActionTransforms(transforms=[dict(type="Flip", flip_ratio=1.0)])(results)["frames"]
    assert np.shares_memory(done, results["frames"])
    assert np.array_equal(done, frames[..., ::-1, :])
    images = list(frames.reshape(-1, *frames.shape[2:]))
    assert np.shares_memory(join_images(images), frames)
    for others in (images[::-1], images[:-1], [image.copy() for image in images]):
        assert not np.shares_memory(join_images(others), frames)
        assert np.array_equal(join_images(others), np.stack(others))
    square = list(frames[..., :90, :].copy().reshape(-1, 90, 90, 3))
    for turned in ([image.transpose(1, 0, 2) for image in group] for group in (images, square)):
        assert np.array_equal(join_images(turned), np.stack(turned))
    read = MMActionTransforms(transforms=READING)(dict(path=videos[0]))["frames"]
    assert read.base is not None  # decord's own array
    crop = MMActionTransforms(transforms=[dict(type="CenterCrop", crop_size=(120, 90))])(clips(frames))["frames"]
    assert np.array_equal(crop, frames)


def test_sampling_is_the_same_where_the_docs_say_so():
    for total in (1, 2, 7, 30, 99, 100, 250):
        for fps in (8.0, 30000 / 1001):
            pairs = [
                (dict(clip_len=1, num_clips=n), dict(num_clips=1, num_frames=n, clip_seconds=1e6)) for n in (1, 2, 5, 8)
            ] + [
                (dict(clip_len=n, num_clips=k), dict(num_clips=k, num_frames=n, clip_seconds=n / fps))
                for n in (2, 3, 16)
                for k in (2, 4, 8)
                if n <= total
            ]
            for theirs, ours in pairs:
                opened = dict(path="a.mp4", total_frames=total, avg_fps=fps)
                expected = MMActionTransforms(transforms=[dict(type="SampleFrames", test_mode=True, **theirs)])(opened)
                found = SampleClips(mode="uniform", **ours)(dict(opened))
                assert found["frame_inds"].tolist() == expected["frame_inds"].tolist()


@pytest.mark.parametrize("backend", ["pyav", "decord"])
def test_both_read_the_same_frames_where_both_mean_the_same(videos: list[str], backend: str):
    for path in videos:
        fps = OpenVideo()(dict(path=path))["avg_fps"]
        for theirs, ours in (
            # N segments' middle frames are one clip of N frames, as long as the video.
            (dict(clip_len=1, num_clips=6), dict(num_clips=1, num_frames=6, clip_seconds=1e6)),
            # Clips of T frames in a row last T / fps seconds.
            (dict(clip_len=4, num_clips=4), dict(num_clips=4, num_frames=4, clip_seconds=4 / fps)),
        ):
            steps = [
                dict(type="DecordInit"),
                dict(type="SampleFrames", test_mode=True, **theirs),
                dict(type="DecordDecode"),
            ]
            expected = apart(steps, dict(filename=path, start_index=0, modality="RGB"), 0)
            opened = OpenVideo(backend=backend)(dict(path=path))
            found = DecodeClips()(SampleClips(mode="uniform", **ours)(opened))
            assert found["frame_inds"].tolist() == expected["frame_inds"].tolist()
            images = found["frames"].reshape(-1, *found["frames"].shape[2:])
            assert np.array_equal(images, np.stack(expected["imgs"]))
            through = MMActionTransforms(transforms=steps)(dict(path=path))
            assert np.array_equal(through["frames"].reshape(images.shape), images)


def test_ours_and_theirs_mix_in_one_pipeline(videos: list[str]):
    sample = dict(type="SampleFrames", clip_len=3, num_clips=2, test_mode=True)
    together = MMActionTransforms(transforms=[dict(type="DecordInit"), sample, dict(type="DecordDecode")])
    mixed = Compose([OpenVideo(), MMActionTransforms(transforms=[sample]), DecodeClips(), ResizePad(size=48)])
    expected, found = together(dict(path=videos[0])), mixed(dict(path=videos[0]))
    assert np.array_equal(ResizePad(size=48)(expected)["frames"], found["frames"])
    inds, fps = expected["frame_inds"].reshape(2, 3), expected["avg_fps"]
    times = np.stack([inds[:, 0] / fps, (inds[:, -1] + 1) / fps], axis=1)
    assert expected["clip_times"] == pytest.approx(times)
    assert found["clip_times"] == pytest.approx(times)


def test_times_are_those_of_uneven_frames():
    step = MMActionTransforms(transforms=[dict(type="SampleFrames", clip_len=2, num_clips=2, test_mode=True)])
    times = np.array([0.0, 1.0, 5.0, 6.0])
    done = step(dict(path="a.mp4", total_frames=4, avg_fps=0.5, frame_times=times, duration=9.0))
    assert done["clip_times"].tolist() == [[0.0, 5.0], [5.0, 9.0]]
    assert "clip_times" not in step(dict(path="a.mp4", total_frames=4))


def test_images_are_augmented_too(world: Path):
    path = str(next((world / "images").glob("*.jpg")))
    done = MMActionTransforms(transforms=AUGMENTATION)(LoadImage()(dict(path=path)))
    assert done["frames"].shape == (1, 1, 64, 64, 3)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (dict(type="Flipp"), "no transform 'Flipp'. Did you mean Flip"),
        (dict(type="mmaction.Resize", scale=[64, 64]), "cannot build Resize with {'scale': \\[64, 64\\]}: .*tuple"),
        (dict(type="Flip", ratio=1), "cannot build Flip .*ratio"),
        (dict(type="ImgAug", transforms="default"), "ImgAug draws from generators of its own library"),
        (dict(type="SampleFrames", clip_len=0), r"^MMAction2's SampleFrames expects clip_len >= 1, got 0\.$"),
        (dict(type="mmaction.SampleFrames", clip_len=2, num_clips=-1), "SampleFrames expects num_clips >= 1, got -1"),
        (dict(type="UniformSample", clip_len="8"), "UniformSample expects clip_len >= 1, got '8'"),
        (
            dict(type="SampleFrames", clip_len=2, frame_interval=1.5),
            "SampleFrames expects frame_interval >= 0, got 1.5",
        ),
        (dict(type="DecordInit", num_threads="a"), "DecordInit expects num_threads >= 0, got 'a'"),
        (
            dict(type="DecordInit", io_backend="nix"),
            "DecordInit expects io_backend disk, memcached, lmdb, petrel, http, got",
        ),
        (dict(type="PyAVDecode", mode="q"), "cannot build PyAVDecode with {'mode': 'q'}: AssertionError"),
        (
            dict(type="SampleFrames", clip_len=2, num_clip=2),
            r"^MMAction2's SampleFrames has no setting 'num_clip'\. Did you mean num_clips\?$",
        ),
        (
            dict(type="DenseSampleFrames", clip_len=2, frame_intervall=2),
            "'frame_intervall'. Did you mean frame_interval",
        ),
        (dict(type="DecordInit", num_thread=3), "DecordInit has no setting 'num_thread'. Did you mean num_threads"),
        (dict(type="PyAVInit", threads=3), "PyAVInit has no setting 'threads'. It has io_backend."),
        (dict(type="RawFrameDecode", decode_backend="cv2"), "'decode_backend'. Did you mean decoding_backend"),
        (dict(type="Fuse", lazy=True), "cannot build Fuse with {'lazy': True}"),
        (dict(type="TorchVisionWrapper", op="RandomRotation", degree=30), "cannot build TorchVisionWrapper .*'degree'"),
        (
            dict(type="UniformSample", clip_len=2, num_clips=2),
            r"UniformSample draws one clip unless test_mode=True, got num_clips=2\. Use its SampleFrames, or SampleClips",
        ),
        (dict(scale=3), "Expected configs of transforms"),
        ("Flip", "Expected configs of transforms"),
    ],
)
def test_transforms_that_cannot_be_built(step: Any, message: str):
    with pytest.raises(OptionError, match=message):
        MMActionTransforms(transforms=[step])


def test_settings_that_something_reads_are_taken(videos: list[str]):
    from mmaction.datasets.transforms import SampleFrames

    class OwnSampling(SampleFrames):
        """Reads a setting of its own."""

        def __init__(self, **settings: Any) -> None:
            super().__init__(clip_len=settings.pop("frames"), **settings)

    steps = [dict(type="DecordInit", num_threads=2), dict(type=OwnSampling, frames=2), dict(type="DecordDecode")]
    assert MMActionTransforms(transforms=steps)(dict(path=videos[0]))["frames"].shape[:2] == (1, 2)
    MMActionTransforms(transforms=[dict(type="DecordInit", io_backend="petrel", path_mapping=dict(a="b"))])
    MMActionTransforms(transforms=[dict(type="UniformSample", clip_len=2, num_clips=2, test_mode=True)])


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([dict(type="SampleFrames", clip_len=1)], "SampleFrames needs the key 'total_frames'.*have clip_len, filename"),
        (
            [dict(type="ThreeCrop", crop_size=90)],
            "ThreeCrop returned .* expected 6, the 3 of each of 2 .*got 18 of",
        ),
        ([dict(type="FormatShape", input_format="NCTHW")], r"FormatShape returned .*got 2 of '\(3, 3, 90, 120\)"),
        ([dict(type="RandomCrop", size=100)], "RandomCrop failed on 6 frames of 90 x 120 x 3 of a.mp4: AssertionError"),
        ([dict(type="Flip", lazy=True)], "lazy transforms without their end. Add dict"),
        (
            [dict(type="PackActionInputs")],
            "PackActionInputs expects to return results with the key 'imgs', got data_sam",
        ),
    ],
)
def test_transforms_that_do_not_fit(frames: np.ndarray, steps: list[dict], message: str):
    with pytest.raises(OptionError, match=message):
        MMActionTransforms(transforms=steps)(clips(frames))


def test_padded_frames_are_refused(frames: np.ndarray):
    with pytest.raises(OptionError, match=r"padded, .*Put it before ResizePad"):
        MMActionTransforms(transforms=[dict(type="Flip")])(ResizePad(size=64)(clips(frames)))


def test_what_reading_lacks(videos: list[str]):
    def run(*steps: dict) -> None:
        MMActionTransforms(transforms=steps)(dict(path=videos[0]))

    with pytest.raises(OptionError, match=r"chose 8 frames, expected 4, .*twice_sample"):
        run(READING[0], dict(type="SampleFrames", clip_len=2, num_clips=2, twice_sample=True, test_mode=True))
    with pytest.raises(OptionError, match=r"SampleFrames failed on .*ZeroDivisionError"):
        run(READING[0], dict(type="SampleFrames", clip_len=2, twice_sample=True, test_mode=True))
    with pytest.raises(OptionError, match=r"returned frames without num_clips and clip_len"):
        MMActionTransforms(transforms=READING[::2])(dict(path=videos[0], frame_inds=np.array([0])))


@pytest.mark.parametrize("library", ["Decord", "PyAV", "OpenCV"])
def test_faults_of_a_file_are_told_from_those_of_a_setting(
    library: str, tmp_path: Path, videos: list[str], monkeypatch: pytest.MonkeyPatch
):
    steps = [dict(type=f"{library}Init"), READING[1], dict(type=f"{library}Decode")]
    read = MMActionTransforms(transforms=steps)
    (tmp_path / "a.mp4").write_bytes(b"no video")
    with pytest.raises(BrokenMediaError, match=r"a\.mp4: (not a video|damaged), or cut short$"):
        read(dict(path=str(tmp_path / "a.mp4")))
    with pytest.raises(BrokenMediaError, match=r"none\.mp4: "):
        read(dict(path=str(tmp_path / "none.mp4")))
    assert read(dict(path=videos[0]))["frames"].ndim == 5

    def fail(results: dict) -> dict:
        raise ValueError(f"a setting that cannot be, with {results['total_frames']} frames")

    monkeypatch.setattr(read.steps[1][1], "transform", fail)
    with pytest.raises(
        OptionError, match=r"SampleFrames failed on .*: ValueError 'a setting that .* Change its settings\.$"
    ):
        read(dict(path=videos[0]))
    with pytest.raises(BrokenMediaError, match=r"a\.mp4: it has no frames"):
        MMActionTransforms(transforms=[dict(type="UniformSample", clip_len=2)])(dict(path="a.mp4", total_frames=0))


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (
            [*READING[:2]],
            r"^ResizePad needs the key 'frames', .*have avg_fps, clip_len, .*such as DecordDecode, before it",
        ),
        ([], r"^ResizePad needs the key 'frames', .*have path\. Put DecodeClips or LoadImage, or one of MMAction2's"),
        (
            [*READING[:2], "DecodeClips"],
            "DecodeClips reads what OpenVideo or OpenFrames opened, got a VideoReader of decord",
        ),
        (
            [dict(type="OpenCVInit"), READING[1], "DecodeClips"],
            r"got a VideoReader of mmcv\. Decode by the transform that",
        ),
        ([dict(type="PyAVInit"), READING[1], "DecodeClips"], r"got a InputContainer of av\. Decode"),
        (["OpenVideo", *READING[1:]], r"DecordDecode failed on .*AttributeError .*get_batch.* Change its settings\.$"),
        (["OpenVideo", "DecodeClips"], r"^DecodeClips needs the key 'frame_inds', .* Put SampleClips before it"),
        ([READING[1]], "SampleFrames needs the key 'total_frames'"),
        (
            ["DecodeClips"],
            r"^DecodeClips needs the key 'video_reader', .*have path\. Put OpenVideo or OpenFrames before it",
        ),
        (
            ["SampleClips"],
            r"^SampleClips needs the key 'total_frames', .* Put OpenVideo or OpenFrames before it in the pip",
        ),
    ],
)
def test_steps_that_are_missing_or_do_not_belong_together(videos: list[str], steps: list, message: str):
    ours = dict(
        OpenVideo=OpenVideo, DecodeClips=DecodeClips, SampleClips=lambda: SampleClips(num_clips=1, num_frames=1)
    )
    pipeline = [ours[step]() if isinstance(step, str) else MMActionTransforms(transforms=[step]) for step in steps]
    with pytest.raises(OptionError, match=message):
        Compose([*pipeline, ResizePad(size=32)])(dict(path=videos[0]))


# Ours in theirs


@contextmanager
def mmaction_dataset(**options: Any) -> Any:
    with DefaultScope.overwrite_default_scope("mmaction"):
        yield DATASETS.build(dict(options))


def labels_file(folder: Path, videos: list[str]) -> str:
    path = folder / "labels.txt"
    path.write_text("".join(f"{video} {i % 3}\n" for i, video in enumerate(videos)))
    return str(path)


def test_mmaction2s_dataset_gives_items_of_a_clipbert(videos: list[str], tmp_path: Path, tokenizer: str):
    ours = [
        dict(type="ResizePad", size=48),
        dict(type="Tokenize", tokenizer=tokenizer, max_length=20),
        dict(type="PackInputs"),
    ]
    adapter = dict(type="clipbert_mm.ClipBertTransforms", transforms=ours, question="what is shown?", answers=CLASSES)
    pipeline = [*READING, adapter]
    with mmaction_dataset(type="VideoDataset", ann_file=labels_file(tmp_path, videos), pipeline=pipeline) as dataset:
        np.random.seed(3)
        items = [dataset[0], dataset[1]]
        np.random.seed(3)
        read = MMActionTransforms(transforms=READING).steps
        results = dict(filename=videos[0], start_index=0, modality="RGB")
        for _, step in read:
            results = step(results)
    batch = collate_items(items)
    assert batch["inputs"]["frames"].shape == (2, 2, 3, 48, 48, 3)
    expected = ResizePad(size=48)(dict(frames=np.stack(results["imgs"]).reshape(2, 3, *results["imgs"][0].shape)))
    assert np.array_equal(batch["inputs"]["frames"][0], expected["frames"])
    sample = items[1]["data_samples"]
    assert (sample.path, sample.texts, sample.answer_labels.tolist()) == (videos[1], ["what is shown?"], [1])


def test_our_reading_in_mmaction2s_pipeline(videos: list[str]):
    opening = [
        dict(type="OpenVideo"),
        dict(type="SampleClips", num_clips=2, num_frames=3, mode="random"),
        dict(type="DecodeClips"),
    ]
    steps = ClipBertTransforms(transforms=opening)
    found = []
    for _ in range(2):
        np.random.seed(4)
        found.append(steps(dict(filename=videos[0], label=1)))
    done = found[0]
    assert done["frame_inds"].tolist() == found[1]["frame_inds"].tolist()  # seeded by numpy's generator, as theirs
    assert not {"path", "rng", "frames"} & set(done)
    assert (len(done["imgs"]), done["num_clips"], done["clip_len"]) == (6, 2, 3)
    tail = [dict(type="CenterCrop", crop_size=64), dict(type="FormatShape", input_format="NCTHW")]
    packed = apart([*tail, dict(type="PackActionInputs")], done, 0)
    assert packed["inputs"].shape == (2, 3, 3, 64, 64)
    assert packed["data_samples"].gt_label.item() == 1


def test_texts_of_mmaction2s_videos(tokenizer: str, frames: np.ndarray):
    steps = [dict(type="Tokenize", tokenizer=tokenizer, max_length=20)]
    results = dict(filename="a.mp4", imgs=list(frames[0]), num_clips=1, clip_len=3)
    done = ClipBertTransforms(transforms=steps)(results | dict(text="a red circle"))
    assert done["texts"] == ["a red circle"]
    assert len(done["text_ids"][0]) == 5
    with pytest.raises(OptionError, match=r"Tokenize in ClipBertTransforms needs the key 'texts'.*set question"):
        ClipBertTransforms(transforms=steps)(dict(results))
    with pytest.raises(OptionError, match=r"The pipeline before ClipBertTransforms returned .*expected 4"):
        ClipBertTransforms(transforms=steps)(results | dict(num_clips=2, clip_len=2))
    with pytest.raises(
        OptionError, match=r"^ClipBertTransforms needs the key 'label', .*have clip_len, filename, imgs"
    ):
        ClipBertTransforms(transforms=steps, question="what is shown?", answers=CLASSES)(results)
    with pytest.raises(
        OptionError, match=r"^ClipBertTransforms needs the key 'filename', .*Use it with a VideoDataset"
    ):
        ClipBertTransforms(transforms=steps)(dict(frame_dir="a"))


@pytest.mark.parametrize("kind", ["list", "label_map.txt", "names.json", "indices.json"])
def test_labels_stand_for_answers(tmp_path: Path, frames: np.ndarray, kind: str):
    path = tmp_path / kind
    if kind == "label_map.txt":
        path.write_bytes(b"\xef\xbb\xbfjumping\r\nrunning\r\nwalking the dog\r\n\r\n")
    else:
        path.write_text(
            json.dumps(CLASSES if kind == "names.json" else {name: 2 - i for i, name in enumerate(CLASSES[::-1])})
        )
    step = ClipBertTransforms(
        transforms=[], question="what is shown?", answers=CLASSES if kind == "list" else str(path)
    )
    assert step.answers == {"jumping": 0, "running": 1, "walking the dog": 2}
    results = dict(filename="a.mp4", imgs=list(frames[0]), num_clips=1, clip_len=3)
    for label in (0, np.int64(2)):
        done = step(results | dict(label=label))
        assert (done["texts"], done["answer_labels"].tolist()) == (["what is shown?"], [label])
    for label in (3, -1, 1.0, True, "running", torch.tensor([0.0, 1.0, 1.0])):
        with pytest.raises(
            OptionError, match=r"^ClipBertTransforms expects a label of 0 to 2, of its 3 .*a\.mp4, got "
        ) as told:
            step(results | dict(label=label))
        assert ("a line has no label" in str(told.value)) == (label == -1 if isinstance(label, int) else False)


def test_question_and_answers_belong_together():
    with pytest.raises(OptionError, match=r"got question without answers\. Set answers to the names of the classes"):
        ClipBertTransforms(transforms=[], question="what is shown?")
    with pytest.raises(OptionError, match="got answers without question"):
        ClipBertTransforms(transforms=[], answers=CLASSES)


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ("nowhere.txt", r"There is no answer vocabulary .*nowhere\.txt\. .* or answers of ClipBertTransforms"),
        ([], "The answers, number 0: expected the name of an answer, got none"),
        (["a", 3], "The answers, number 1: expected the name of an answer, got 3"),
        (b"a\n\nb\n", r"answers\.txt, line 2: expected the name of an answer, got ''"),
        (b"", r"answers\.txt, line 1: expected the name of an answer, got ''"),
        (
            b"salto\njump\nsalto\n",
            r"answers\.txt, line 3: expected each answer once, and 'salto' is also line 1\. Give them",
        ),
        (b"\xff\xfea\0", r"answers\.txt: expected UTF-8, got UTF-16"),
    ],
)
def test_answers_that_are_no_vocabulary(tmp_path: Path, answers: Any, message: str):
    if isinstance(answers, bytes):
        (tmp_path / "answers.txt").write_bytes(answers)
        answers = str(tmp_path / "answers.txt")
    with pytest.raises(AnnotationError, match=message):
        ClipBertTransforms(transforms=[], question="what is shown?", answers=answers)
