"""Files that training cannot read."""

from typing import Any

from mmengine.dist import all_gather_object
from mmengine.hooks import Hook
from mmengine.runner import Runner

from clipbert_mm.errors import ClipBertError
from clipbert_mm.registry import HOOKS


@HOOKS.register_module()
class BrokenMediaHook(Hook):
    """Count the items that training replaced because their file cannot be read; too many end the run.

    Args:
        max_share: Largest share of a training set's items in an epoch that may be replaced, 0 to 1.
    """

    def __init__(self, *, max_share: float = 0.05) -> None:
        self.max_share = max_share
        self.reasons: dict[str, str] = {}
        self.replaced = 0

    def state_dict(self) -> dict[str, Any]:
        """Return what this process counted in the epoch so far, for a checkpoint."""
        return dict(replaced=self.replaced, reasons=dict(self.reasons))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume the count of a run that was cut."""
        self.replaced, self.reasons = state["replaced"], dict(state["reasons"])

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

    def after_train_epoch(self, runner: Runner) -> None:
        """Report what was replaced.

        Raises:
            ClipBertError: If more than ``max_share`` of the items were.
        """
        counts = all_gather_object((self.replaced, self.reasons))
        replaced = sum(count for count, _ in counts)
        reasons = {path: reason for _, by_path in counts for path, reason in by_path.items()}
        if not replaced:
            return
        total = len(runner.train_dataloader.dataset)
        listed = "".join(f"\n  {path}: {reasons[path]}" for path in sorted(reasons)[:5])
        more = f"\n  and {len(reasons) - 5} more" if len(reasons) > 5 else ""
        report = f"{replaced} of {total} items were replaced in this epoch; {len(reasons)} files cannot be read:{listed}{more}"
        if replaced > self.max_share * total:
            raise ClipBertError(
                f"{report}\nBrokenMediaHook allows a share of {self.max_share:g}. Repair or remove the files, or raise "
                "max_share."
            )
        runner.logger.warning(report)
