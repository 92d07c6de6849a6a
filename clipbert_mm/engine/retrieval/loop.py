"""Testing and validation of retrieval over a whole gallery."""

import shutil
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import barrier, get_dist_info
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner, TestLoop, ValLoop

from clipbert_mm.engine.retrieval.identity import claim, digest, digest_files, digest_weights
from clipbert_mm.engine.retrieval.run import GalleryRun
from clipbert_mm.engine.retrieval.scoring import PairScorer
from clipbert_mm.errors import OptionError
from clipbert_mm.registry import LOOPS


class RetrievalLoop:
    """What validation and testing share: every text beside every video, each video encoded once.

    Visual tokens and scores lie in the work folder, in ``retrieval_test`` or ``retrieval_val``, as they are made. A test that
    was killed goes on from there, to the same scores; validation begins anew each time. The folder goes when the metrics are
    computed.

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
            ForeignResultsError: If the work folder holds the scores of a test of something else.
        """
        dataset = self.dataloader.dataset
        if not dataset.test_mode:
            raise OptionError(f"{type(self).__name__} needs a dataset with test_mode=True, got test_mode=False.")
        for event in (f"before_{self.STAGE}", f"before_{self.STAGE}_epoch"):
            self.runner.call_hook(event)
        model = self.runner.model.module if is_model_wrapper(self.runner.model) else self.runner.model
        scorer = PairScorer(model, **self.scoring)  # type: ignore[arg-type]
        folder = Path(self.runner.work_dir) / f"retrieval_{self.STAGE}"
        self._claim(folder, scorer)
        gallery = GalleryRun(scorer, folder, self.runner.logger, **self.storing)  # type: ignore[arg-type]
        records = gallery.encode(self.dataloader)
        scores, chosen = gallery.score(records, self.shortlist)
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
        metrics = self.evaluator.evaluate(len(dataset))
        if rank == 0 and not self.keep_scores:
            shutil.rmtree(folder, ignore_errors=True)
        self.runner.call_hook(f"after_{self.STAGE}_epoch", metrics=metrics)
        self.runner.call_hook(f"after_{self.STAGE}")
        return metrics

    def _claim(self, folder: Path, scorer: PairScorer) -> None:
        """See that what the folder holds, if anything, belongs to this very test."""
        rank, _ = get_dist_info()
        dataset, pairs = self.dataloader.dataset, scorer.pairs
        if not pairs.shares_layers:
            self.runner.logger.warning(
                f"The layers of '{pairs.encoder.bert.config.model_type}' are of a build that nothing quicker is known for than "
                "to run them whole for each pair."
            )
        if rank == 0 and not self.CONTINUES:
            shutil.rmtree(folder, ignore_errors=True)
        items = [dataset.prepare_test(i) for i in range(len(dataset))]
        loader = self.runner.cfg.get(f"{self.STAGE}_dataloader") or {}
        shape = dict(shortlist=self.shortlist, clips_per_tile=self.storing["clips_per_tile"])
        identity = dict(
            weights=digest_weights(scorer.model),
            model=digest(self.runner.cfg.get("model")),
            pipeline=digest(loader.get("dataset", {}).get("pipeline")),
            videos=digest_files([item["path"] for item in items]),
            texts=digest([[item["texts"] for item in items], dataset.tokenizer.get_vocab()]),
            precision=pairs.precision,
            settings=digest(shape | dict(tokens_per_pass=pairs.tokens_per_pass, device=scorer.device.type)),
        )
        barrier()
        if rank == 0:
            claim(folder, identity)
        barrier()
        if rank != 0:
            claim(folder, identity)


@LOOPS.register_module()
class RetrievalValLoop(RetrievalLoop, ValLoop):
    """Validate retrieval over the whole gallery; arguments as of :class:`~clipbert_mm.engine.retrieval.loop.RetrievalLoop`."""

    STAGE, CONTINUES = "val", False


@LOOPS.register_module()
class RetrievalTestLoop(RetrievalLoop, TestLoop):
    """Test retrieval over the whole gallery; arguments as of :class:`~clipbert_mm.engine.retrieval.loop.RetrievalLoop`."""

    STAGE, CONTINUES = "test", True
