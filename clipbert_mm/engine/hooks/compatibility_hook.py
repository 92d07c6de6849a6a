"""Check that checkpoints fit the run that loads them."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, Runner

from clipbert_mm.checkpoint import CheckpointMetadata, InputSpec, LoadedCheckpoint, check_fit
from clipbert_mm.checkpoint.compatibility import within
from clipbert_mm.checkpoint.metadata import KEY, differences, metadata_of, plain
from clipbert_mm.datasets.vocabulary import WORDS_FILE
from clipbert_mm.datasets.wrappers import first_value
from clipbert_mm.deprecation import warn_renamed
from clipbert_mm.engine.bare_model import bare_model, expect_clipbert_runner
from clipbert_mm.engine.config import foreign_model, without_folders
from clipbert_mm.errors import CheckpointError, OptionError
from clipbert_mm.fileio import temporary_folder
from clipbert_mm.registry import HOOKS
from clipbert_mm.version import __version__


def datasets_of(runner: Runner) -> list[Any]:
    """Return the datasets that the run has built, the training set first."""
    loops = (runner._train_loop, runner._val_loop, runner._test_loop)  # configs until they begin
    return [loop.dataloader.dataset for loop in loops if isinstance(loop, BaseLoop)]


def tokenizer_of(runner: Runner) -> Any:  # noqa: ANN401
    """Return the tokenizer of the run's data; None if the data has no text."""
    found = (first_value(dataset, "tokenizer") for dataset in datasets_of(runner))
    return next((tokenizer for tokenizer in found if tokenizer is not None), None)


def vocabulary_digest(runner: Runner) -> str | None:
    """Return a digest of the vocabulary of the run's tokenizer; None if the data has no text."""
    tokenizer = tokenizer_of(runner)
    if tokenizer is None:
        return None
    return hashlib.sha256(json.dumps(sorted(tokenizer.get_vocab().items())).encode()).hexdigest()[:16]


def run_contents(runner: Runner) -> CheckpointMetadata:
    """Return what a checkpoint of the run carries besides weights."""
    model, datasets = bare_model(runner.model), datasets_of(runner)
    vocabularies = (first_value(dataset, "answers") for dataset in datasets)
    answers = next((vocabulary for vocabulary in vocabularies if vocabulary is not None), None)
    pipelines = {}
    for split in ("train", "val", "test"):
        dataset = (runner.cfg.get(f"{split}_dataloader") or {}).get("dataset")
        if isinstance(dataset, Mapping):
            pipelines[split] = without_folders(plain(_pipeline_of(dataset)))
    if runner.cfg.get("test_pipeline"):  # what a trained model is used by, in OpenMMLab's libraries
        pipelines["test"] = without_folders(plain(runner.cfg.test_pipeline))
    return CheckpointMetadata(
        version=__version__,
        task=getattr(model.head, "task", type(model.head).__name__),
        model=without_folders(plain(runner.cfg.model)),
        pipelines=pipelines,
        text_files=_text_files(runner),
        answers=None if answers is None else sorted(answers, key=answers.__getitem__),
    )


def _pipeline_of(dataset: Mapping[str, Any]) -> Any:  # noqa: ANN401
    """Return the pipeline of a dataset's config; of a wrapper, that of the first dataset within."""
    while "pipeline" not in dataset and (dataset.get("datasets") or dataset.get("dataset")):
        dataset = dataset["datasets"][0] if dataset.get("datasets") else dataset["dataset"]
    return dataset.get("pipeline", [])


def _text_files(runner: Runner) -> dict[str, str]:
    """Return the tokenizer's files, and the config of an encoder whose architecture is read from a folder or a name."""
    from transformers import CONFIG_MAPPING

    tokenizer = tokenizer_of(runner)
    if tokenizer is None:
        return {}
    with temporary_folder() as folder:
        tokenizer.save_pretrained(folder)
        files = {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.iterdir())}
    found = (first_value(dataset, "training_words") for dataset in datasets_of(runner))
    if words := next((words for words in found if words), None):
        files[WORDS_FILE] = "\n".join(sorted(words))
    if runner.cfg.model.encoder.get("architecture", "bert") not in CONFIG_MAPPING:
        files["config.json"] = bare_model(runner.model).encoder.text_config.to_json_string(use_diff=False)
    return files


@HOOKS.register_module()
class CheckpointCompatibilityHook(Hook):
    """Check that checkpoints fit the model before their weights are loaded, and report what is loaded.

    Testing and resuming need every weight. Training from ``load_from`` may leave parts initialized; the report names them. Our
    checkpoints carry a digest of the vocabulary that they were trained with, since their weights mean nothing with another one,
    the preprocessing of their frames, and all else that it takes to test them
    (:class:`~clipbert_mm.checkpoint.CheckpointMetadata`); a test reports where its config differs. A model of another library,
    such as mmpretrain's ImageClassifier, is compared by its tensors alone.

    Args:
        min_share: Smallest share of the tensors of each module that a checkpoint of ``load_from`` must have, 0 to 1.
        reinit: Modules that load nothing from ``load_from``, such as "head" to train on other answers.
        own_input: Whether mean, std, channel order and strides of the config count, not those that the weights of
            ``load_from`` were trained with.
        fresh: The deprecated name of ``reinit``.
    """

    def __init__(
        self,
        *,
        min_share: float = 0.95,
        reinit: Sequence[str] = (),
        own_input: bool = False,
        fresh: Sequence[str] | None = None,
    ) -> None:
        if fresh is not None:
            warn_renamed("fresh of CheckpointCompatibilityHook", "reinit")
            reinit = fresh
        if isinstance(reinit, str) or not 0 <= min_share <= 1:
            raise OptionError(
                f"CheckpointCompatibilityHook expects min_share in [0, 1] and reinit a list, got {min_share} and {reinit!r}."
            )
        self.min_share = min_share
        self.reinit = tuple(reinit)
        self.own_input = own_input
        self._contents: dict[str, Any] | None = None

    def before_run(self, runner: Runner) -> None:
        """Check that the runner tells this hook what it loads.

        Raises:
            OptionError: If it does not.
        """
        expect_clipbert_runner(runner, type(self).__name__)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add the vocabulary, the preprocessing of frames, and all else that a test takes; only for a ClipBert."""
        if foreign_model(runner.cfg) is not None:
            return
        if self._contents is None:  # the same for the whole run
            self._contents = run_contents(runner).to_dict()
        checkpoint[KEY] = self._contents
        checkpoint["vocabulary"] = vocabulary_digest(runner)
        checkpoint["convention"] = InputSpec.of_model(bare_model(runner.model)).to_dict()
        checkpoint["attention_heads"] = bare_model(runner.model).encoder.text_config.num_attention_heads

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare, log the report, and remove the weights of modules in ``reinit``.

        Raises:
            CheckpointError: If a checkpoint does not fit, or was trained with another vocabulary or other preprocessing.
        """
        model, now = bare_model(runner.model), vocabulary_digest(runner)
        sources = checkpoint["sources"]
        for source in sources:
            trained_with = source.rest.get("vocabulary")
            if None not in (trained_with, now) and trained_with != now:
                raise CheckpointError(
                    f"The checkpoint {source.path} was trained with another vocabulary (digest {str(trained_with)[:60]}) than "
                    f"the data's tokenizer has (digest {now}). Set `tokenizer` of Tokenize to the tokenizer of that training."
                )
            expected = source.input_spec if foreign_model(runner.cfg) is None else None
            if expected is not None and not expected.agrees(InputSpec.of_model(model)):
                found = (
                    f"{source.path} ({source.title}) expects frames as {expected}, the model has "
                    f"{InputSpec.of_model(model)}."
                )
                if not self.own_input:
                    raise CheckpointError(
                        f"{found} Set mean, std and to_bgr of the data_preprocessor and style of the backbone."
                    )
                runner.logger.warning(f"{found} The config's count, by own_input=True of CheckpointCompatibilityHook.")
        trains = isinstance(runner._train_loop, BaseLoop)  # a config until training begins
        needs_all = not trains or runner._resume
        if needs_all:
            self._compare(runner, sources)
        reinit = () if needs_all else self.reinit
        report = check_fit(model, sources, whole=needs_all, min_share=self.min_share, reinit=reinit)
        runner.logger.info(str(report))
        for name in list(checkpoint["state_dict"]):
            if within(name, reinit):
                del checkpoint["state_dict"][name]

    @staticmethod
    def _compare(runner: Runner, sources: Sequence[LoadedCheckpoint]) -> None:
        """Warn where the config differs from the checkpoints that are tested or resumed.

        Raises:
            CheckpointError: If the task or the answers differ, so that the results would mean nothing.
        """
        for source in sources:
            if KEY not in source.rest:
                continue
            wrong, doubtful = differences(metadata_of(source.rest, source.path), run_contents(runner))
            if wrong:
                raise CheckpointError(
                    f"The checkpoint {source.path} was trained for something else than the config. {'; '.join(wrong)}. "
                    "Use the config that it was trained with, or the answer_file of that training."
                )
            if doubtful:
                listed = "".join(f"\n  {each}" for each in doubtful)
                runner.logger.warning(f"The config differs from that of the checkpoint {source.path}:{listed}")
