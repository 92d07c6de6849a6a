"""Adapters between MMAction2's transforms and ours: theirs in our pipelines, and ours in theirs."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.registry import DefaultScope

from clipbert_mm import compat
from clipbert_mm.datasets.transforms.mmaction_settings import build_transform, name_of
from clipbert_mm.datasets.transforms.other_libraries import check_transforms
from clipbert_mm.errors import BrokenMediaError, ClipBertError, OptionError, printable, quoted
from clipbert_mm.media.images import describe_decode_error
from clipbert_mm.registry import TRANSFORMS
from clipbert_mm.structures import read_answers

THEIRS = ("filename", "imgs", "img_shape", "modality", "original_shape", "start_index")
"""Keys of MMAction2's results that ours do not have, since ``frames`` and ``path`` say the same."""
SETTINGS = (ArithmeticError, AssertionError, AttributeError, TypeError)
"""Errors of a transform that are not the file's fault."""


@TRANSFORMS.register_module()
class MMActionTransforms(BaseTransform):
    """Apply transforms of MMAction2 inside a pipeline of ours.

    They may augment decoded frames (``Flip``, ``RandomResizedCrop``, ``ColorJitter``, ...), or also choose and read them
    (``DecordInit``, ``SampleFrames``, ``DecordDecode``), with steps of ours before, between and after. Frames are passed as
    views, and copied once if the transforms make new ones.

    MMAction2's transforms draw once for all of the images that they get, which are those of all K clips: a video is flipped
    as a whole. The draws are seeded by the generator of the item, so they depend on (seed, epoch, item) only; the
    generators of the process, from which MMAction2 draws, stay as they were. In a test they are the same every time.

    Required Keys:
        path; frames (uint8, (K, T, H, W, 3)), unless the transforms read them; rng, in training

    Modified Keys:
        frames, and what the transforms add or change

    Added Keys:
        clip_times (start and end in seconds, (K, 2)), if the transforms sampled the frames and the rate is known; content_shape

    Args:
        transforms: Configs of the transforms, by the names of MMAction2, with or without its scope.

    Raises:
        OptionError: If MMAction2 has no such transform, or cannot build it.
        BackendError: If MMAction2 is not installed.
    """

    def __init__(self, *, transforms: Sequence[Mapping[str, Any]]) -> None:
        compat.import_mmaction_transforms()
        self.steps = [(name_of(config), build_transform(config)) for config in transforms]

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Import MMAction2 in a process that is spawned as in this one, with its work-arounds."""
        compat.import_mmaction_transforms()
        self.__dict__.update(state)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Apply the transforms, and return their images as frames.

        Raises:
            BrokenMediaError: If the transforms read the file and cannot.
            OptionError: If a transform fails, leaves out a key, or returns other than uint8 frames, as many as it got.
        """
        theirs = dict(results)  # decodes the frames, if that was not done yet
        frames = theirs.pop("frames", None)
        theirs |= dict(filename=results["path"], modality="RGB", start_index=0)
        if frames is not None:
            theirs |= self._as_images(frames, results)
        rng = results.get("rng")
        with compat.seeded_generators(0 if rng is None else int(rng.integers(2**32))):
            for name, step in self.steps:
                theirs = self._apply(name, step, theirs)
        return self._as_ours(theirs, results, frames)

    def _as_images(self, frames: np.ndarray, results: Mapping[str, Any]) -> dict[str, Any]:
        shape = frames.shape[2:4]
        if results.get("content_shape", shape) != shape:
            raise OptionError(
                f"MMActionTransforms got frames that are padded, {shape} with a content of {results['content_shape']} pixels. "
                "Put it before ResizePad, so that a flip or a crop does not move the padding."
            )
        return dict(
            imgs=list(frames.reshape(-1, *frames.shape[2:])),  # K·T views of (H, W, 3)
            img_shape=shape,
            original_shape=shape,
            num_clips=frames.shape[0],
            clip_len=frames.shape[1],
        )

    def _apply(self, name: str, step: BaseTransform, theirs: dict[str, Any]) -> dict[str, Any]:
        """Apply one transform, and check what it returns."""
        images, path = theirs.get("imgs"), theirs["filename"]
        try:
            done = step(theirs)
        except ClipBertError:
            raise
        except KeyError as error:
            raise OptionError(
                f"MMAction2's {name} needs the key {error}, which the results do not have; they have "
                f"{', '.join(sorted(map(str, theirs)))}. Put the transform that adds it before it."
            ) from error
        except Exception as error:  # of any library
            reads = images is None and "Sample" not in name  # which computes with the number of frames alone
            if reads and not isinstance(error, SETTINGS):
                raise BrokenMediaError(path, describe_decode_error(error)) from error
            if images is None and theirs.get("total_frames", 1) < 1:
                raise BrokenMediaError(path, "it has no frames") from error
            what = f"{len(images)} frames of {' x '.join(map(str, images[0].shape))} of " if images else ""
            reason = f"{type(error).__name__} {quoted(str(error))}"
            advice = "Change its settings, or resize the frames first." if images else "Change its settings."
            raise OptionError(f"MMAction2's {name} failed on {what}{printable(path)}: {reason}. {advice}") from error
        if not isinstance(done, dict) or (images is not None and "imgs" not in done):
            got = ", ".join(sorted(map(str, done))) if isinstance(done, dict) else quoted(done)
            raise OptionError(
                f"MMAction2's {name} expects to return results with the key 'imgs', got {got}. Remove it."
            )
        if "imgs" in done:
            _check_images(f"MMAction2's {name}", done)
        return done

    def _as_ours(self, theirs: dict[str, Any], results: Mapping[str, Any], frames: np.ndarray | None) -> dict[str, Any]:
        """Return the results in our keys."""
        ours = {key: value for key, value in theirs.items() if key not in THEIRS}
        if "lazy" in ours:
            raise OptionError(
                "MMActionTransforms has lazy transforms without their end. Add dict(type='Fuse') after them."
            )
        sampled = ours.get("frame_inds")
        if sampled is not None and sampled is not results.get("frame_inds"):
            clips = _check_indices(ours)
            if (times := _clip_times(ours, sampled.reshape(clips))) is not None:
                ours["clip_times"] = times
        if (images := theirs.get("imgs")) is not None:
            ours["frames"] = join_images(images).reshape(ours["num_clips"], ours["clip_len"], *images[0].shape)
            ours["content_shape"] = ours["frames"].shape[2:4]
        return ours


@TRANSFORMS.register_module()
class ClipBertTransforms(BaseTransform):
    """Apply transforms of ours inside a pipeline of MMAction2, as ``dict(type="clipbert_mm.ClipBertTransforms", ...)``.

    If the last is :class:`~clipbert_mm.datasets.transforms.PackInputs`, the item is one of a ClipBert, for
    :func:`~clipbert_mm.datasets.transforms.collate_items`. Otherwise the frames are passed on to MMAction2's next transform.
    What ours draw is seeded from numpy's generator of the process, from which MMAction2's transforms draw.

    Required Keys:
        filename; imgs, num_clips and clip_len, unless the transforms read the frames

    Optional Keys:
        text (of a VideoTextDataset): it becomes ``texts``; label (of a VideoDataset), for a ``question``

    Args:
        transforms: Configs of our transforms.
        question: Question that is asked of every video, to which the label is the answer (``answer_labels``), for an
            OpenEndedHead with as many answers as there are classes. None asks none.
        answers: What the labels 0, 1, ... stand for, with a question: the names of the classes, or a file of them that
            :func:`~clipbert_mm.structures.read_answers` takes, such as MMAction2's ``label_map.txt``.

    Raises:
        AnnotationError: If the answers are no vocabulary.
        OptionError: If a transform has no name or is another library's, or there is a question without answers or answers
            without a question.
    """

    def __init__(
        self,
        *,
        transforms: Sequence[Mapping[str, Any]],
        question: str | None = None,
        answers: str | Sequence[str] | None = None,
    ) -> None:
        if (question is None) != (answers is None):
            given, missing = ("answers", "question") if question is None else ("question", "answers")
            raise OptionError(
                f"ClipBertTransforms expects question and answers together, got {given} without {missing}. Set answers to "
                "the names of the classes in the order of their labels, as a list or a file such as label_map.txt, and "
                "question to what they answer."
            )
        with DefaultScope.overwrite_default_scope("clipbert_mm"):
            self.steps = [(name_of(config), TRANSFORMS.build(dict(config))) for config in transforms]
        check_transforms("ClipBertTransforms", [step for _, step in self.steps])
        self.question = question
        self.answers = None if answers is None else read_answers(answers)
        """Index of each answer, as of a dataset of ours."""

    @property
    def tokenizer(self) -> Any:  # noqa: ANN401
        """The tokenizer of the transforms; None if they have none."""
        return next((step.tokenizer for _, step in self.steps if hasattr(step, "tokenizer")), None)

    @property
    def training_words(self) -> Any:  # noqa: ANN401
        """The words of the texts that the vocabulary was trained on; None if they are not known."""
        return next((step.training_words for _, step in self.steps if hasattr(step, "training_words")), None)

    def check_label(self, label: Any, path: str) -> int:  # noqa: ANN401
        """Return the label of a video as the index of its answer.

        Raises:
            OptionError: If no answer has this index.
        """
        answers = self.answers or {}
        if isinstance(label, (int, np.integer)) and not isinstance(label, bool) and 0 <= label < len(answers):
            return int(label)
        without = ", as MMAction2 has it where a line has no label" if isinstance(label, int) and label == -1 else ""
        raise OptionError(
            f"ClipBertTransforms expects a label of 0 to {len(answers) - 1}, of its {len(answers)} answers, for "
            f"{printable(path)}, got {quoted(label)}{without}. Correct the annotation file, or set answers to the names of all "
            "classes."
        )

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Apply the transforms.

        Raises:
            OptionError: If a transform needs a key that the results do not have, they lack frames, or no answer has the label.
        """
        for key in ("filename", *["label"] * (self.question is not None)):
            if key not in results:
                raise OptionError(
                    f"ClipBertTransforms needs the key '{key}', which the results do not have; they have "
                    f"{', '.join(sorted(map(str, results)))}. Use it with a VideoDataset or a VideoTextDataset of MMAction2."
                )
        ours: dict[str, Any] = {key: value for key, value in results.items() if key != "imgs"}
        ours["path"] = results["filename"]
        ours["rng"] = np.random.default_rng(np.random.randint(2**32, dtype=np.uint64))
        if "text" in results:
            ours["texts"] = [results["text"]] if isinstance(results["text"], str) else list(results["text"])
        if self.question is not None:
            ours |= dict(
                texts=[self.question], answer_labels=np.array([self.check_label(results["label"], ours["path"])])
            )
        if "imgs" in results:
            _check_images("The pipeline before ClipBertTransforms", results)
            images = results["imgs"]
            ours["frames"] = join_images(images).reshape(results["num_clips"], results["clip_len"], *images[0].shape)
        for name, step in self.steps:
            try:
                ours = step(ours)
            except KeyError as error:
                raise OptionError(
                    f"{name} in ClipBertTransforms needs the key {error}, which the results do not have; they have "
                    f"{', '.join(sorted(map(str, ours)))}. For texts, use a VideoTextDataset, or set question."
                ) from error
        if "data_samples" in ours:
            return ours
        ours = dict(ours)  # decodes the frames, if that was not done yet
        for key in ("rng", "path"):
            ours.pop(key)
        if (frames := ours.pop("frames", None)) is not None:
            shape = frames.shape[2:4]
            ours |= dict(num_clips=frames.shape[0], clip_len=frames.shape[1], img_shape=shape, original_shape=shape)
            ours["imgs"] = list(frames.reshape(-1, *frames.shape[2:]))  # K·T views of (H, W, 3)
        return ours


def join_images(images: Sequence[np.ndarray]) -> np.ndarray:
    """Join images into one array, without a copy if they are the consecutive rows of one.

    Args:
        images: N images, (H, W, 3) each.

    Returns:
        The array, (N, H, W, 3).
    """
    base = images[0].base
    size = images[0].nbytes
    if (
        isinstance(base, np.ndarray)
        and base.nbytes == size * len(images)
        and base.dtype == images[0].dtype
        and all(each.flags.c_contiguous for each in (base, *images))
    ):
        start = base.__array_interface__["data"][0]
        if all(image.__array_interface__["data"][0] == start + i * size for i, image in enumerate(images)):
            return base.reshape(len(images), *images[0].shape)
    return np.stack(images)


def _check_images(who: str, results: Mapping[str, Any]) -> None:
    """Check that results have as many frames as they say, of one size, as (H, W, 3) uint8."""
    missing = [key for key in ("num_clips", "clip_len") if key not in results]
    if missing:
        raise OptionError(
            f"{who} returned frames without {' and '.join(missing)}, expected them, since ClipBert needs to know "
            "the clips. Sample the frames by SampleFrames or SampleClips."
        )
    images, clips, length = results["imgs"], results["num_clips"], results["clip_len"]
    shapes = {np.shape(image) for image in images}
    dtypes = {getattr(image, "dtype", type(image)) for image in images}
    are_frames = len(shapes) == 1 and all(shape[2:] == (3,) for shape in shapes) and dtypes == {np.dtype(np.uint8)}
    if len(images) == clips * length and are_frames:
        return
    got = f"{', '.join(sorted(map(str, shapes)))} ({', '.join(sorted(map(str, dtypes)))})"
    raise OptionError(
        f"{who} returned frames that a ClipBert does not take: expected {clips * length}, the {length} of each of {clips} "
        f"clips, as uint8 (H, W, 3) of one size, got {len(images)} of {quoted(got)}. Leave out transforms that add crops or "
        "clips, normalize, or change the layout; the model does the last two itself."
    )


def _check_indices(ours: Mapping[str, Any]) -> tuple[int, int]:
    """Check that there are as many frame indices as clips times frames; returns these two."""
    clips, length, count = ours["num_clips"], ours["clip_len"], ours["frame_inds"].size
    if count != clips * length:
        raise OptionError(
            f"MMAction2's sampling chose {count} frames, expected {clips * length}, the {length} of each of {clips} clips. "
            "Leave out twice_sample, and set num_clips."
        )
    return clips, length


def _clip_times(ours: Mapping[str, Any], indices: np.ndarray) -> np.ndarray | None:
    """Return start and end of each clip in seconds, (K, 2), from its first frame to the end of its last, (K, T) indices."""
    if not ours.get("avg_fps"):
        return None
    spans = np.stack([indices.min(axis=1), indices.max(axis=1) + 1], axis=1)  # (K, 2)
    times = ours.get("frame_times")
    if times is None:
        return spans / ours["avg_fps"]
    return np.append(times, ours["duration"])[spans]
