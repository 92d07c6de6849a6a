"""Testing and validation of retrieval over a whole gallery."""

import shutil
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_dist_info, get_rank
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner, TestLoop, ValLoop

from clipbert_mm.engine.rank_sync import Machines, locked_for_all, raise_together, told_by_first
from clipbert_mm.errors import OptionError, VideoIndexError
from clipbert_mm.fileio import LOCK
from clipbert_mm.registry import LOOPS
from clipbert_mm.retrieval.evaluator import RetrievalEvaluator
from clipbert_mm.retrieval.fingerprint import claim, digest, digest_files, digest_weights
from clipbert_mm.retrieval.scoring import PairScorer


class RetrievalLoop:
    """What validation and testing share: every text beside every video, each video encoded once.

    Visual tokens and scores lie in the work folder as they are made, in ``retrieval_val``, or in ``retrieval_test-`` and a
    digest of what is tested. A test that was killed goes on from there, to the same scores; validation begins anew each time.
    The folder goes when the metrics are computed. Machines that do not share the work folder send each other what they lack.

    Args:
        runner: The runner.
        dataloader: Dataloader of a RetrievalDataset in test mode, or its config.
        evaluator: Evaluator with a RetrievalMetric, or its config.
        precision: What the joint encoder computes in: "fp32", or "bf16" or "fp16" for speed.
        shortlist: Candidates of each query, a share below 1 or a number, that are scored by all clips, chosen by an overview,
            one clip of all frames; the others rank below them, in the order of their overviews. None scores all by all
            clips, as the paper does.
        clips_per_tile: Pairs of a text and a clip in a tile of the score matrix: what a killed run loses at most. None for
            what suits the device.
        tokens_per_pass: Tokens in one forward pass of the joint encoder. None for what suits the device.
        memory_limit: Most memory that each process may hold, such as "4GiB": visual tokens beyond it are read from disk when
            they are needed. None for no limit.
        keep_scores: Whether the folder stays, so that the next test like this one has its scores at once.
    """

    STAGE: str
    CONTINUES: bool

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
    ) -> None:
        super().__init__(runner, dataloader, evaluator)  # type: ignore[call-arg]
        self.scoring = dict(precision=precision, tokens_per_pass=tokens_per_pass)
        self.storing = dict(clips_per_tile=clips_per_tile, memory_limit=memory_limit)
        self.shortlist = shortlist
        self.keep_scores = keep_scores

    @torch.no_grad()
    def run(self) -> dict[str, float]:
        """Encode, score, evaluate; returns the metrics.

        Raises:
            OptionError: If the dataset draws negatives, which would count as captions.
            BusyFolderError: If another process does the same test in the same work folder.
            VideoIndexError: If what lies there of this test is damaged, or is of something else.
        """
        dataset = self.dataloader.dataset
        if not dataset.test_mode:
            raise OptionError(f"{type(self).__name__} needs a dataset with test_mode=True, got test_mode=False.")
        for event in (f"before_{self.STAGE}", f"before_{self.STAGE}_epoch"):
            self.runner.call_hook(event)
        model = self.runner.model.module if is_model_wrapper(self.runner.model) else self.runner.model
        scorer = PairScorer(model, **self.scoring)  # type: ignore[arg-type]
        identity = self._identity(scorer)
        folder = Path(self.runner.work_dir) / f"retrieval_{self.STAGE}"
        if self.CONTINUES:
            folder = folder.with_name(told_by_first(f"{folder.name}-{digest(identity)[:8]}"))
        machines = self._machines
        with locked_for_all(folder, holders=machines.leaders):
            if machines.leads and not self.CONTINUES:
                empty(folder)
            self._claim(folder, identity, machines)
            gallery = RetrievalEvaluator(scorer, folder, self.runner.logger, machines=machines, **self.storing)  # type: ignore[arg-type]
            records = gallery.encode(self.dataloader)
            metrics = self._evaluate(records, *gallery.score(records, self.shortlist))
            if machines.leads and not self.keep_scores:
                empty(folder)
        with suppress(OSError):  # it is not empty, or another machine's process was quicker
            folder.rmdir()
        self.runner.call_hook(f"after_{self.STAGE}_epoch", metrics=metrics)
        self.runner.call_hook(f"after_{self.STAGE}")
        return metrics

    @cached_property
    def _machines(self) -> Machines:
        return Machines(self.runner.work_dir)

    def _evaluate(
        self, records: list[dict[str, Any]], scores: np.ndarray, chosen: np.ndarray | None
    ) -> dict[str, float]:
        """Let the metrics know a share of the videos in each process, with their columns of the matrix."""
        columns = iter(range(scores.shape[1]))
        rank, world = get_dist_info()
        entries = []
        for i, record in enumerate(records):
            entry = {key: value for key, value in record.items() if key != "pieces"}
            column = next(columns) if record["broken"] is None else None
            entry["scores"] = None if column is None else scores[:, column]
            if chosen is not None:
                entry["shortlist"] = None if column is None else chosen[:, column]
            if i % world == rank:
                entries.append(entry)
        self.evaluator.process(data_samples=entries)
        return self.evaluator.evaluate(len(self.dataloader.dataset))

    def _identity(self, scorer: PairScorer) -> dict[str, str]:
        """Return what the scores depend on, by name."""
        dataset, pairs = self.dataloader.dataset, scorer.pairs
        if not pairs.shares_layers:
            self.runner.logger.warning(
                f"The layers of '{pairs.encoder.bert.config.model_type}' are of a build that nothing quicker is known for than "
                "to run them whole for each pair."
            )
        items = [dataset.prepare_test(i) for i in range(len(dataset))]
        loader = self.runner.cfg.get(f"{self.STAGE}_dataloader") or {}
        shape = dict(shortlist=self.shortlist, clips_per_tile=self.storing["clips_per_tile"])
        return dict(
            weights=digest_weights(scorer.model),
            model=digest(self.runner.cfg.get("model")),
            pipeline=digest(loader.get("dataset", {}).get("pipeline")),
            videos=digest_files([item["path"] for item in items]),
            texts=digest([[item["texts"] for item in items], dataset.tokenizer.get_vocab()]),
            precision=pairs.precision,
            settings=digest(shape | dict(tokens_per_pass=pairs.tokens_per_pass, device=scorer.device.type)),
        )

    def _claim(self, folder: Path, identity: dict[str, str], machines: Machines) -> None:
        """See that all processes test the same, and that what the folder holds, if anything, belongs to this very test."""
        first = told_by_first(identity)
        error: VideoIndexError | OptionError | None = None
        # Each machine may have the videos, with times of their own, in another folder.
        others = [name for name in identity if name not in ("videos", "pipeline") and identity[name] != first[name]]
        if others:
            error = OptionError(
                f"Process {get_rank()} of this test has other {' and other '.join(others)} than process 0. Give all processes "
                "the same config, checkpoint and annotations."
            )
        elif machines.leads:
            try:
                claim(folder, identity)
            except VideoIndexError as foreign:
                error = foreign
        raise_together(error)
        rest = sorted(path.name for path in folder.parent.glob(f"retrieval_{self.STAGE}*") if path.name != folder.name)
        if rest and self.CONTINUES:
            self.runner.logger.info(
                f"{folder.parent} holds results of other tests, which were not finished or are to be kept: {', '.join(rest)}. "
                "Remove those that are not needed."
            )


def empty(folder: Path) -> None:
    """Remove what is in a folder that this process holds the lock of."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != LOCK:
            path.unlink(missing_ok=True)


@LOOPS.register_module()
class RetrievalValLoop(RetrievalLoop, ValLoop):
    """Validate retrieval over the whole gallery; arguments as of :class:`~clipbert_mm.retrieval.loops.RetrievalLoop`."""

    STAGE, CONTINUES = "val", False


@LOOPS.register_module()
class RetrievalTestLoop(RetrievalLoop, TestLoop):
    """Test retrieval over the whole gallery; arguments as of :class:`~clipbert_mm.retrieval.loops.RetrievalLoop`."""

    STAGE, CONTINUES = "test", True
