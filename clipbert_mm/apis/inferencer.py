"""ClipBertInferencer, by MMEngine's protocol; and ``init_model`` and ``inference_model``, as MMAction2 and MMPretrain have."""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.infer import BaseInferencer
from mmengine.visualization import Visualizer
from torch import nn

from clipbert_mm.apis.predictor import ModelSource, Predictor, indices_by_shape
from clipbert_mm.apis.ranking import TextsToRank
from clipbert_mm.apis.results import AnswerResult
from clipbert_mm.apis.search_results import Ranking
from clipbert_mm.apis.video_qa import TASKS as QUESTION_TASKS
from clipbert_mm.apis.video_qa import Question
from clipbert_mm.apis.video_search import TASKS as SEARCH_TASKS
from clipbert_mm.errors import OptionError, is_count, printable, quoted
from clipbert_mm.fileio import atomic_write, temporary_folder
from clipbert_mm.registry import INFERENCERS
from clipbert_mm.structures import VideoTextSample

Request = TextsToRank | Question
TASKS = {
    "video-retrieval": SEARCH_TASKS,
    "image-retrieval": SEARCH_TASKS,
    "video-qa": QUESTION_TASKS,
    "image-qa": QUESTION_TASKS,
}
"""What a model is used for, with the tasks that it may have been trained for."""
SCOPE = "clipbert_mm"
"""The scope of the package's registries."""
FAMILIES = ("clipbert", "blip", "clip", "siglip", "vilt")
"""How names of configs of a ClipBert begin; configs are named by their model."""


@INFERENCERS.register_module()
class ClipBertInferencer(BaseInferencer):
    """Rank texts for videos, or answer questions about them, by MMEngine's protocol of inferencers.

    :class:`~clipbert_mm.apis.VideoSearch` and :class:`~clipbert_mm.apis.VideoQA` do the same with fewer words.

    Args:
        task: "video-retrieval", "image-retrieval", "video-qa" or "image-qa"; None for that of the model.
        model: Checkpoint of ours, which contains its config; work folder of a training; a config, as its file or as MMEngine's
            object; or the name of a config, as :meth:`list_models` gives.
        weights: With a config, its checkpoint.
        device: Device of the model; None for a GPU if there is one.
        scope: Scope of the registries in which the model is built, as in MMEngine's inferencers; only clipbert_mm.
        show_progress: Whether to show a progress bar.

    Raises:
        CheckpointError: If the checkpoint cannot be read or does not fit.
        OptionError: If there is no such task, model, device or scope, or the model was trained for another task.

    Example:
        >>> inferencer = ClipBertInferencer("video-retrieval", "epoch_4.pth")  # doctest: +SKIP
        >>> inferencer(
        ...     ["a.mp4", "b.mp4"], texts=["a red circle", "a blue ring"], batch_size=2, out_dir="out"
        ... )  # doctest: +SKIP
    """

    preprocess_kwargs = {"texts", "question", "options", "topk"}  # noqa: RUF012  (MMEngine asks for sets)
    visualize_kwargs = {"show", "wait_time", "draw"}  # noqa: RUF012

    def __init__(
        self,
        task: str | None = None,
        model: ModelSource | dict[str, Any] | None = None,
        weights: str | os.PathLike | None = None,
        device: str | torch.device | None = None,
        scope: str | None = SCOPE,
        show_progress: bool = True,
    ) -> None:
        if task is not None and task not in TASKS:
            raise OptionError(f"ClipBertInferencer: task is {', '.join(TASKS)}, got {quoted(task)}.")
        _check_scope(scope)
        if model is None:
            if weights is None:
                raise OptionError(
                    "ClipBertInferencer needs model=, a checkpoint, a config file or the name of a config; "
                    "ClipBertInferencer.list_models() gives the names."
                )
            model, weights = weights, None
        if isinstance(model, (str, os.PathLike)):
            model = self.find_config(os.fspath(model))
        elif isinstance(model, dict) and not isinstance(model, Config):
            model = Config(model)
        self.predictor = Predictor(model, weights=weights, device=device)
        reads_images = any(type(step).__name__ == "LoadImage" for step in self.predictor.media_steps)
        known = [name for name, tasks in TASKS.items() if self.predictor.task in tasks]
        fitting = [name for name in known if name.startswith("image") == reads_images]
        if task is None and fitting:
            task = fitting[0]
        if task not in fitting:
            raise OptionError(
                f"ClipBertInferencer: {self.predictor.source} was trained for {self.predictor.task} on "
                f"{'images' if reads_images else 'videos'}: expected task {' or '.join(fitting)}, got {quoted(task)}."
            )
        self.task, self.scope, self.show_progress = task, SCOPE, show_progress
        self.model: nn.Module = self.predictor.model
        self.cfg = self.model.cfg = self.predictor.cfg  # as other inferencers do
        self.visualizer: Visualizer | None = None

    @staticmethod
    def list_models(scope: str | None = SCOPE, patterns: str = ".*") -> list[str]:
        """Return the names of the configs of a ClipBert, from the package's metafiles, that match a regular expression.

        Raises:
            OptionError: If the scope is another one.
        """
        _check_scope(scope)
        folder = BaseInferencer._get_repo_or_mim_dir(SCOPE)
        names = (model["Name"] for model in BaseInferencer._get_models_from_metafile(folder))
        return [name for name in names if name.startswith(FAMILIES) and re.match(patterns, name)]

    @staticmethod
    def find_config(model: str) -> str:
        """Return the path of a config of the package, by its name; a path stays as it is."""
        if os.path.exists(model):
            return model
        from clipbert_mm.engine.config import find_config

        with suppress(FileNotFoundError):  # the predictor says what it expects
            return find_config(model)
        return model

    def _inputs_to_list(self, inputs: Any) -> list[Any]:  # noqa: ANN401
        """Return the inputs as a list; of a folder, its videos or images."""
        if isinstance(inputs, (list, tuple)) and not inputs:
            raise OptionError(f"ClipBertInferencer for {self.task} expects one or more inputs, got {inputs}.")
        reads_folders = any(type(step).__name__ == "OpenFrames" for step in self.predictor.media_steps)
        if isinstance(inputs, Mapping) or (isinstance(inputs, (str, os.PathLike)) and reads_folders):
            return [inputs]
        given = os.fspath(inputs) if isinstance(inputs, os.PathLike) else inputs
        listed = super()._inputs_to_list(given)
        if not isinstance(given, str) or listed == [given]:
            return listed
        from clipbert_mm.media.listing import IMAGES, VIDEOS

        kind, suffixes = ("image", IMAGES) if self.task.startswith("image") else ("video", VIDEOS)
        found = sorted(path for path in listed if Path(path).suffix.lower() in suffixes)
        if not found:
            raise OptionError(
                f"ClipBertInferencer: there is no {kind} in the folder {printable(given)}, expected files in "
                f"{', '.join(suffixes)}. Give the folder that has them, or a list of files."
            )
        return found

    def _dispatch_kwargs(self, out_dir: str | os.PathLike | None = None, **kwargs: Any) -> tuple[dict, ...]:  # noqa: ANN401
        """Check and distribute the options of a call, before an input is looked at."""
        known = self.preprocess_kwargs | self.visualize_kwargs
        for name in kwargs.keys() - known:
            raise OptionError(
                f"ClipBertInferencer has no option {name}. There are: return_datasamples, batch_size, out_dir, "
                f"{', '.join(sorted(known))}."
            )
        out_dir = "" if out_dir is None else out_dir
        try:
            if os.fspath(out_dir):
                os.makedirs(out_dir, exist_ok=True)
        except (OSError, TypeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no path"
            raise OptionError(
                f"ClipBertInferencer expects out_dir to be a folder, or a path where one can be made, got {quoted(out_dir)}: "
                f"{reason}. Give another out_dir."
            ) from error
        parts = super()._dispatch_kwargs(**kwargs)
        for part in parts[2:]:  # pictures and predictions go there
            part["out_dir"] = out_dir
        return parts

    def preprocess(self, inputs: Sequence[Any], batch_size: int = 1, **asked: Any) -> Iterator[list[tuple]]:  # noqa: ANN401
        """Check what is asked of each input, before any of them is read; then read them, in batches.

        Args:
            inputs: Videos or images; or dicts with one as "video" or "image", and with what is asked of it alone.
            batch_size: Number of videos that the model encodes at a time.
            **asked: For all of them: ``texts`` to rank; or ``question``, ``options`` and ``topk``.

        Raises:
            OptionError: If there is no input, or something else is asked than the model answers.
        """
        if not is_count(batch_size):
            raise OptionError(f"ClipBertInferencer expects batch_size >= 1, got {quoted(batch_size)}.")
        requests = [self._request(each, asked) for each in inputs]
        yield from self._get_chunk_data(((each, self.predictor.read(each.path)) for each in requests), batch_size)

    def _request(self, each: Any, asked: Mapping[str, Any]) -> Request:  # noqa: ANN401
        own = dict(each) if isinstance(each, Mapping) else {"video": each}
        path = next((own.pop(key) for key in ("video", "image", "path", "filename") if key in own), None)
        given = {**asked, **own}
        needs, takes = ("question", {"question", "options", "topk"}) if "qa" in self.task else ("texts", {"texts"})
        if not isinstance(path, (str, os.PathLike)) or needs not in given or not given.keys() <= takes:
            more = "".join(f", {name}" for name in sorted(takes - {needs}))
            raise OptionError(
                f"ClipBertInferencer for {self.task} expects a path, or a dict with it as 'video' or 'image', together with "
                f"{needs}{more and f' (also{more[1:]})'}; got {quoted(each)} and {', '.join(sorted(given)) or 'nothing'}."
            )
        if needs == "texts":
            return TextsToRank(self.predictor, os.fspath(path), given["texts"])
        options = {key: given[key] for key in ("options", "topk") if key in given}
        return Question(self.predictor, os.fspath(path), given["question"], **options)

    def forward(self, inputs: Sequence[tuple]) -> list[tuple[Request, Ranking | AnswerResult]]:
        """Encode a batch of videos at once, and answer what is asked of each."""
        answers: dict[int, tuple[Request, Ranking | AnswerResult]] = {}
        for same in indices_by_shape([media.frames for _, media in inputs]):
            media = [inputs[i][1] for i in same]
            shapes = [each.content_shape for each in media]
            tokens = self.predictor.encode([each.frames for each in media], shapes)  # (B, K, S, D)
            for row, i in enumerate(same):
                request = inputs[i][0]
                answers[i] = request, request.answer(media[row], tokens[row : row + 1])
        return [answers[i] for i in range(len(inputs))]

    def visualize(
        self,
        inputs: Sequence[Any],
        preds: Sequence[tuple[Request, Any]],
        show: bool = False,
        wait_time: float = 0,
        draw: bool = True,
        out_dir: str | os.PathLike = "",
    ) -> list[np.ndarray]:
        """Draw for each input why the best text or answer is the best: scores by clip, and a heat map of the best clip.

        Args:
            inputs: The inputs.
            preds: What :meth:`forward` returned for them.
            show: Whether to show the pictures in a window.
            wait_time: Seconds that each is shown; 0 waits for a key.
            draw: Whether to write them to ``out_dir``, where that is given.
            out_dir: Folder whose ``vis/`` gets a PNG file for each input; none if empty.

        Returns:
            The pictures, uint8 RGB (H, W, 3); none if they are neither shown nor written.
        """
        if not show and not (out_dir and draw):
            return []
        if show:
            from clipbert_mm.visualization.windows import check_display

            check_display("show=True", "out_dir=DIR writes the pictures instead.")
        pictures = []
        with temporary_folder() as scratch:
            folder = os.path.join(out_dir, "vis") if out_dir and draw else scratch
            os.makedirs(folder, exist_ok=True)
            for number, (request, result) in enumerate(preds):
                path = os.path.join(folder, f"{_name(number, request)}.png")
                request.explain(result).draw(path)
                pictures.append(np.asarray(cv2.imread(path))[..., ::-1])
        if show:
            self.visualizer = self.visualizer or Visualizer.get_instance("clipbert_mm_inferencer")
            for (request, _), picture in zip(preds, pictures, strict=True):
                self.visualizer.show(picture, win_name=os.path.basename(request.path), wait_time=wait_time)
        return pictures

    def postprocess(
        self,
        preds: Sequence[tuple[Request, Any]],
        visualization: list[np.ndarray],
        return_datasamples: bool = False,
        out_dir: str | os.PathLike = "",
    ) -> dict[str, list]:
        """Return predictions and pictures; write the predictions as JSON.

        Args:
            preds: What :meth:`forward` returned.
            visualization: The pictures.
            return_datasamples: Whether predictions are VideoTextSamples: path and texts, best first, as meta information, and
                their ``scores``, and ``score_kind``: "probability" for answers that have one, otherwise the kind of the
                result, such as "log-odds" or "count". Otherwise they are dicts.
            out_dir: Folder whose ``preds/`` gets a JSON file for each input; none if empty.
        """
        if out_dir:
            folder = os.path.join(out_dir, "preds")
            os.makedirs(folder, exist_ok=True)
            for number, (request, result) in enumerate(preds):
                with atomic_write(os.path.join(folder, f"{_name(number, request)}.json")) as file:
                    json.dump(result.to_dict(), file, indent=1)
        results = [result for _, result in preds]
        predictions = [_as_sample(each) if return_datasamples else each.to_dict() for each in results]
        return dict(predictions=predictions, visualization=visualization)

    def _init_pipeline(self, cfg: Config) -> None:
        """Part of MMEngine's protocol; the transforms are those of the predictor."""


def _check_scope(scope: str | None) -> None:
    """Check that a scope, which MMEngine's inferencers take, is ours, or None."""
    if scope not in (None, SCOPE):
        raise OptionError(
            f"ClipBertInferencer expects scope {SCOPE}, got {quoted(scope)}. Leave it out; in a config, a part of another "
            "library has its scope before its name, as in 'mmpretrain.ResNet'."
        )


def _name(number: int, request: Request) -> str:
    """Return a file name for an input; inputs of one base name get different ones."""
    return f"{number:04d}_{os.path.splitext(os.path.basename(request.path))[0]}"


def _as_sample(result: Ranking | AnswerResult) -> VideoTextSample:
    kind = result.score_kind
    if isinstance(result, Ranking):
        texts, scores = [each.text for each in result.texts], [each.score for each in result.texts]
    else:
        texts, scores = [each.text for each in result.answers], [each.score for each in result.answers]
        probabilities = [each.probability for each in result.answers if each.probability is not None]
        if len(probabilities) == len(texts):
            kind, scores = "probability", probabilities
    return VideoTextSample(metainfo=dict(path=result.path, texts=texts, score_kind=kind), scores=torch.tensor(scores))


def init_model(
    config: ModelSource | dict[str, Any],
    checkpoint: str | os.PathLike | None = None,
    device: str | torch.device | None = None,
) -> nn.Module:
    """Open a trained model for :func:`inference_model`, as MMAction2's ``init_recognizer`` does.

    Args:
        config: A config, as its file, its name or MMEngine's object; or a checkpoint of ours, which contains its config.
        checkpoint: The checkpoint of a config.
        device: Device of the model; None for a GPU if there is one.

    Returns:
        The model, in eval mode, with its config as attribute ``cfg`` and its inferencer as ``inferencer``.
    """
    inferencer = ClipBertInferencer(None, config, checkpoint, device, show_progress=False)
    inferencer.model.__dict__["inferencer"] = inferencer  # no part of its state
    return inferencer.model


def inference_model(
    model: nn.Module | str | os.PathLike,
    video: str | os.PathLike,
    test_pipeline: None = None,
    **asked: Any,  # noqa: ANN401
) -> VideoTextSample:
    """Rank texts for a video, or answer a question about it, as MMAction2's ``inference_recognizer`` does.

    Args:
        model: What :func:`init_model` returned, or its first argument.
        video: The video or image.
        test_pipeline: MMAction2's third argument, only None: videos are read by the pipeline of the model's config.
        **asked: ``texts``; or ``question``, ``options`` and ``topk``.

    Returns:
        Path and texts, best first, as meta information, with their ``scores``; see :meth:`ClipBertInferencer.postprocess`.

    Raises:
        OptionError: If the model is not one of :func:`init_model`, ``video`` is not one file, or there is a ``test_pipeline``.
    """
    if test_pipeline is not None:
        raise OptionError(
            "inference_model reads a video by the test_pipeline of the model's config, got another one. Set it in the config "
            "that init_model gets, and give texts or a question by name."
        )
    opened = model if isinstance(model, nn.Module) else init_model(model)
    inferencer = getattr(opened, "inferencer", None)
    if inferencer is None:
        raise OptionError("inference_model expects a model that init_model returned, or the path of a checkpoint.")
    if not isinstance(video, (str, os.PathLike)) or os.path.isdir(video):
        raise OptionError(
            f"inference_model takes one video or image, got {quoted(video)}. For several, call a ClipBertInferencer with them."
        )
    return inferencer(video, return_datasamples=True, **asked)["predictions"][0]
