"""Files that training cannot read."""

import os
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.dist import all_gather_object
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner

from clipbert_mm.datasets.media_dataset import MediaDataset
from clipbert_mm.datasets.transforms import OpenVideo
from clipbert_mm.datasets.wrappers import leaves
from clipbert_mm.errors import BrokenMediaError, ClipBertError, printable
from clipbert_mm.media.media_file import probe_media
from clipbert_mm.registry import HOOKS

MAX_OPENED = 2000
"""Files of a training set that are opened before the first step, at most; each takes about a millisecond."""


@HOOKS.register_module()
class BrokenMediaHook(Hook):
    """Count the items that training replaced because their file cannot be read; too many end the run.

    Before the first step the videos of a set of at most 2,000 are opened, which finds those that are empty, have no video
    (sound alone), or are no videos; too many of them end the run at once. What is damaged further inside shows when it is read.

    Args:
        max_share: Largest share of a training set's items in an epoch that may be replaced, 0 to 1.
    """

    def __init__(self, *, max_share: float = 0.05) -> None:
        self.max_share = max_share
        self.reasons: dict[str, str] = {}
        self.replaced = 0
        self.steps_per_pass = 0  # of a training by iterations, whose passes stand for epochs

    def state_dict(self) -> dict[str, Any]:
        """Return what this process counted in the epoch so far, for a checkpoint."""
        return dict(replaced=self.replaced, reasons=dict(self.reasons))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume the count of a run that was cut."""
        self.replaced, self.reasons = state["replaced"], dict(state["reasons"])

    def before_train(self, runner: Runner) -> None:
        """Open the videos of a small set; a resumed run has done so.

        Raises:
            ClipBertError: If more than ``max_share`` of the items have a file that cannot be opened.
        """
        dataset = runner.train_dataloader.dataset
        if not isinstance(runner.train_loop, EpochBasedTrainLoop):
            self.steps_per_pass = len(runner.train_dataloader)
        items: dict[str, int] = {}
        for path in _video_paths(dataset):
            items[path] = items.get(path, 0) + 1
        if runner.iter > 0 or len(items) > MAX_OPENED:
            return
        reasons = {path: reason for path in items if (reason := _why_unreadable(path))}
        if reasons:
            count, total = sum(items[path] for path in reasons), sum(map(len, leaves(dataset)))
            self._judge(runner, f"{count} of {total} items have a file that is no video", reasons, count, total)

    def before_train_epoch(self, runner: Runner) -> None:
        """Set the count to zero."""
        self.reasons, self.replaced = {}, 0

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None, outputs: dict | None = None
    ) -> None:
        """Count the items of a batch that were replaced."""
        for sample in (data_batch or {}).get("data_samples", ()):
            self.replaced += bool(sample.replaced)
            self.reasons.update(sample.replaced)
        if self.steps_per_pass and (runner.iter + 1) % self.steps_per_pass == 0:
            self.after_train_epoch(runner)
            self.before_train_epoch(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        """Report what was replaced in an epoch, or in a pass of a training by iterations.

        Raises:
            ClipBertError: If more than ``max_share`` of the items were.
        """
        counts = all_gather_object((self.replaced, self.reasons))
        replaced = sum(count for count, _ in counts)
        reasons = {path: reason for _, by_path in counts for path, reason in by_path.items()}
        if not replaced:
            return
        total = len(runner.train_dataloader.dataset)
        self._judge(runner, f"{replaced} of {total} items were replaced in this epoch", reasons, replaced, total)

    def _judge(self, runner: Runner, what: str, reasons: Mapping[str, str], count: int, total: int) -> None:
        """Warn of files that cannot be read, or raise a ClipBertError if they are too many."""
        listed = "".join(f"\n  {printable(path)}: {reasons[path]}" for path in sorted(reasons)[:5])
        more = f"\n  and {len(reasons) - 5} more" if len(reasons) > 5 else ""
        report = f"{what}; {len(reasons)} files cannot be read:{listed}{more}"
        if count > self.max_share * total:
            raise ClipBertError(
                f"{report}\nBrokenMediaHook allows a share of {self.max_share:g}. Repair or remove the files, or raise "
                "max_share."
            )
        runner.logger.warning(report)


def _video_paths(dataset: Any) -> Iterator[str]:  # noqa: ANN401
    """Iterate over the paths of the items that are video files; of a wrapper, of all its datasets."""
    for part in leaves(dataset):
        if isinstance(part, MediaDataset) and any(isinstance(step, OpenVideo) for step in part.pipeline.transforms):
            yield from (part.get_data_info(i)["path"] for i in range(len(part)))


def _why_unreadable(path: str) -> str:
    """Return why a video cannot be opened; "" if it can, or is in another storage, which is not looked at."""
    if not os.path.isfile(path):
        return ""
    if os.path.getsize(path) == 0:
        return "the file is empty (0 bytes)"
    try:
        return "" if probe_media((path,)).codec else "it has no video stream"
    except BrokenMediaError as error:
        return error.reason
