"""Test and validation loops of retrieval over a whole gallery."""

import shutil
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from mmengine.dist import get_dist_info, get_rank
from mmengine.runner import Runner, TestLoop, ValLoop

from clipbert_mm import compat
from clipbert_mm.engine.bare_model import bare_model
from clipbert_mm.engine.rank_sync import FolderSync, broadcast_from_first, lock_folders, raise_on_all_ranks
from clipbert_mm.errors import OptionError, VideoIndexError
from clipbert_mm.evaluation import RetrievalMetric
from clipbert_mm.fileio import LOCK
from clipbert_mm.registry import LOOPS
from clipbert_mm.retrieval.evaluator import RetrievalEvaluator
from clipbert_mm.retrieval.fingerprint import digest, digest_files, digest_weights, reserve
from clipbert_mm.structures import LOG_ODDS

if TYPE_CHECKING:
    from clipbert_mm.models import ClipBert, PairEncoder


class RetrievalLoop:
    """Score every text with every video, encoding each video once; the common part of validation and test.

    Visual tokens and scores are written to the work folder as they are computed, into ``retrieval_val``, or into
    ``retrieval_test-`` and a digest of what is tested. A killed test resumes from there with the same scores; validation
    starts again each time. The folder is deleted once the metrics are computed. Machines that do not share the work folder
    send each other the files that they lack.

    With a metric that is ``multi_positive``, equal texts are encoded and scored once. Captions with time spans are also scored
    with each clip of their own video alone, after all pairs.

    Args:
        runner: The runner.
        dataloader: Dataloader of a RetrievalDataset in test mode, or its config.
        evaluator: Evaluator with a RetrievalMetric, or its config.
        precision: What the joint encoder computes in: "fp32", or "bf16" or "fp16" for speed.
        shortlist: Candidates of each query, a share below 1 or a number, that are chosen by coarse tokens (vectors if the
            encoder has them, else one clip of all frames) and re-ranked with all clips; the others rank below them, by their
            coarse scores. None scores all pairs with all clips, as the paper does.
        clips_per_tile: Pairs of a text and a clip in a tile of the score matrix: the most work that a killed run loses. None
            for a value that suits the device.
        tokens_per_pass: Most tokens in one forward pass of the joint encoder. None for a value that suits the device.
        memory_limit: Most memory of each process, such as "4GiB"; visual tokens beyond it are read from disk when needed.
            None for no limit.
        keep_scores: Whether to keep the folder, so that a repeated test has its scores at once.
        fp16: MMEngine's name for half precision of whatever type the device has, instead of ``precision``.
    """

    STAGE: str
    RESUMES: bool

    runner: Runner
    dataloader: Any
    evaluator: Any

    def __init__(
        self,
        runner: Runner,
        dataloader: Any,  # noqa: ANN401
        evaluator: Any,  # noqa: ANN401
        precision: str = "fp32",
        shortlist: float | None = None,
        clips_per_tile: int | None = None,
        tokens_per_pass: int | None = None,
        memory_limit: str | None = None,
        keep_scores: bool = False,
        fp16: bool = False,
    ) -> None:
        super().__init__(runner, dataloader, evaluator)  # type: ignore[call-arg]
        if fp16:
            precision = {torch.float16: "fp16", torch.bfloat16: "bf16"}[compat.half_precision("auto")]
        self.scoring = dict(precision=precision, tokens_per_pass=tokens_per_pass)
        self.storing = dict(clips_per_tile=clips_per_tile, memory_limit=memory_limit)
        self.shortlist = shortlist
        self.keep_scores = keep_scores

    @torch.no_grad()
    def run(self) -> dict[str, float]:
        """Encode, score, evaluate; returns the metrics.

        Raises:
            OptionError: If the dataset draws negatives, which would count as captions, or the calibration is to be tested of
                scores that are no probabilities.
            BusyFolderError: If another process runs the same test in the same work folder.
            VideoIndexError: If stored results of this test are damaged, or belong to another test.
        """
        dataset = self.dataloader.dataset
        if not hasattr(dataset, "prepare_test"):
            raise OptionError(
                f"{type(self).__name__} expects a RetrievalDataset, got a {type(dataset).__name__}. To test several annotation "
                "files as one, set ann_file of the dataset to a list of them."
            )
        if not dataset.test_mode:
            raise OptionError(f"{type(self).__name__} expects a dataset with test_mode=True, got test_mode=False.")
        model = bare_model(self.runner.model)
        self._check_calibration(model)
        for event in (f"before_{self.STAGE}", f"before_{self.STAGE}_epoch"):
            self.runner.call_hook(event)
        pairs = model.eval().pair_encoder(**self.scoring)
        fingerprint = self._fingerprint(model, pairs)
        folder = Path(self.runner.work_dir) / f"retrieval_{self.STAGE}"
        if self.RESUMES:
            folder = folder.with_name(broadcast_from_first(f"{folder.name}-{digest(fingerprint)[:8]}"))
        machines = self._machines
        with lock_folders(folder, holders=machines.leaders):
            if machines.is_leader and not self.RESUMES:
                empty(folder)
            self._reserve(folder, fingerprint, machines)
            evaluator = RetrievalEvaluator(
                model,
                pairs,
                folder,
                self.runner.logger,
                unique_texts=self._unique_texts,
                machines=machines,
                **self.storing,  # type: ignore[arg-type]
            )
            metrics = self._evaluate(evaluator)
            if machines.is_leader and not self.keep_scores:
                empty(folder)
        with suppress(OSError):  # not empty, or deleted by another machine
            folder.rmdir()
        self.runner.call_hook(f"after_{self.STAGE}_epoch", metrics=metrics)
        self.runner.call_hook(f"after_{self.STAGE}")
        return metrics

    @cached_property
    def _machines(self) -> FolderSync:
        return FolderSync(self.runner.work_dir)

    @property
    def _metrics(self) -> list[RetrievalMetric]:
        return [metric for metric in self.evaluator.metrics if isinstance(metric, RetrievalMetric)]

    @property
    def _unique_texts(self) -> bool:
        return any(metric.multi_positive for metric in self._metrics)

    def _check_calibration(self, model: "ClipBert") -> None:
        """Check that scores are probabilities if their calibration is to be tested."""
        if not any(metric.calibration for metric in self._metrics):
            return
        if getattr(model.head, "score_kind", None) != LOG_ODDS:
            raise OptionError(
                "RetrievalMetric with calibration=True expects scores that are log-odds, as of a MatchingHead, got those of "
                f"{type(model.head).__name__}. Set calibration=False."
            )
        if self.shortlist is not None:
            raise OptionError(
                "RetrievalMetric with calibration=True expects all pairs to be scored with all clips, got "
                f"shortlist={self.shortlist} of {type(self).__name__}. Set shortlist=None, or calibration=False."
            )

    def _evaluate(self, evaluator: RetrievalEvaluator) -> dict[str, float]:
        """Score all pairs, and pass this process's share of the videos, with their columns of the scores, to the metrics."""
        records = evaluator.encode(self.dataloader)
        scores, chosen = evaluator.score(records, self.shortlist)
        columns = iter(range(scores.shape[1]))
        rank, world = get_dist_info()
        entries = []
        for i, record in enumerate(records):
            entry = {key: value for key, value in record.items() if key != "pieces"}
            column = next(columns) if record["broken"] is None else None
            entry["scores"] = None if column is None else torch.tensor(scores[:, column])
            if chosen is not None:
                entry["shortlist"] = None if column is None else torch.tensor(chosen[:, column])
            if i % world == rank:
                if "spans" in record:
                    entry["clip_scores"] = torch.as_tensor(evaluator.score_clips(record))
                entries.append(entry)
        self.evaluator.process(data_samples=entries)
        return self.evaluator.evaluate(len(self.dataloader.dataset))

    def _fingerprint(self, model: "ClipBert", pairs: "PairEncoder") -> dict[str, str]:
        """Return digests of everything that the scores depend on, by name."""
        dataset = self.dataloader.dataset
        if not pairs.shares_layers:
            self.runner.logger.warning(
                f"The fast scoring of pairs does not support layers of '{pairs.encoder.text_config.model_type}'. All of them "
                "run for each pair, with the same scores."
            )
        items = [dataset.prepare_test(i) for i in range(len(dataset))]
        loader = self.runner.cfg.get(f"{self.STAGE}_dataloader") or {}
        shape: dict[str, Any] = dict(shortlist=self.shortlist, clips_per_tile=self.storing["clips_per_tile"])
        if self._unique_texts:
            shape["unique_texts"] = True
        texts = [[item["texts"] for item in items], dataset.tokenizer.get_vocab()]
        spans = [item.get("spans") for item in items]
        if any(spans):  # stored with the videos
            texts.append(spans)
        return dict(
            weights=digest_weights(model),
            model=digest(self.runner.cfg.get("model")),
            pipeline=digest(loader.get("dataset", {}).get("pipeline")),
            videos=digest_files([item["path"] for item in items]),
            texts=digest(texts),
            precision=pairs.precision,
            settings=digest(shape | dict(tokens_per_pass=pairs.tokens_per_pass, device=pairs.device.type)),
        )

    def _reserve(self, folder: Path, fingerprint: dict[str, str], machines: FolderSync) -> None:
        """Check that all processes run the same test, and that results in the folder, if any, belong to this very test."""
        first = broadcast_from_first(fingerprint)
        error: VideoIndexError | OptionError | None = None
        # Paths and modification times of the videos may differ between machines.
        common = fingerprint.keys() - {"videos", "pipeline"}
        differing = [name for name in fingerprint if name in common and fingerprint[name] != first[name]]
        if differing:
            error = OptionError(
                f"Rank {get_rank()} of this test differs from rank 0 in: {', '.join(differing)}. Start all ranks with the same "
                "config, checkpoint and annotations."
            )
        elif machines.is_leader:
            try:
                reserve(folder, fingerprint)
            except VideoIndexError as mismatch:
                error = mismatch
        raise_on_all_ranks(error)
        others = sorted(
            path.name for path in folder.parent.glob(f"retrieval_{self.STAGE}*") if path.name != folder.name
        )
        if others and self.RESUMES:
            self.runner.logger.info(
                f"{folder.parent} holds results of other tests, unfinished or kept on purpose: {', '.join(others)}. Delete "
                "those that are not needed."
            )


def empty(folder: Path) -> None:
    """Delete the content of a folder whose lock this process holds."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != LOCK:
            path.unlink(missing_ok=True)


@LOOPS.register_module()
class RetrievalValLoop(RetrievalLoop, ValLoop):
    """Validate retrieval over the whole gallery; arguments as of :class:`~clipbert_mm.retrieval.loops.RetrievalLoop`."""

    STAGE, RESUMES = "val", False


@LOOPS.register_module()
class RetrievalTestLoop(RetrievalLoop, TestLoop):
    """Test retrieval over the whole gallery; arguments as of :class:`~clipbert_mm.retrieval.loops.RetrievalLoop`."""

    STAGE, RESUMES = "test", True
