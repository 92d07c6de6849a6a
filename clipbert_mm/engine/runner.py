"""MMEngine's Runner, loading checkpoints of any kind."""

from collections.abc import Sequence
from typing import Any

from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from clipbert_mm.checkpoint import CheckpointError, read_source
from clipbert_mm.engine.memory import explaining_out_of_memory
from clipbert_mm.registry import RUNNERS


@RUNNERS.register_module()
class ClipBertRunner(Runner):
    """Runner whose ``load_from`` takes checkpoints of every kind that is known, alone or several in a list.

    They are recognised by their content and opened without running code from them; see :mod:`clipbert_mm.checkpoint`.
    :class:`~clipbert_mm.engine.CheckpointFitHook` sees that they fit. Where memory ends, it says what would fit.
    """

    batch_at_work: tuple[str, dict[str, Any]] | None = None
    """The stage ("train", "val" or "test") and the batch that is worked on; None between batches."""

    def train(self) -> nn.Module:
        """Train; see MMEngine's Runner."""
        with explaining_out_of_memory(self):
            return super().train()

    def val(self) -> dict[str, float]:
        """Validate; see MMEngine's Runner."""
        with explaining_out_of_memory(self):
            return super().val()

    def test(self) -> dict[str, float]:
        """Test; see MMEngine's Runner."""
        with explaining_out_of_memory(self):
            return super().test()

    def call_hook(self, fn_name: str, **kwargs: Any) -> None:  # noqa: ANN401
        """Call the hooks, and note which batch is worked on."""
        when, stage, *what = fn_name.split("_")
        if what == ["iter"]:
            self.batch_at_work = (stage, kwargs["data_batch"]) if when == "before" else None
        super().call_hook(fn_name, **kwargs)

    def load_checkpoint(
        self,
        filename: str | Sequence[str],
        map_location: Any = "cpu",  # noqa: ANN401
        strict: bool = False,
        revise_keys: Sequence[tuple[str, str]] = (),
    ) -> dict[str, Any]:
        """Load weights into the model.

        Args:
            filename: File, folder or name of a checkpoint, or several, of which the last counts where they overlap.
            map_location: Device for the tensors of torch's files.
            strict: Whether the names of the checkpoints have to be the model's exactly.
            revise_keys: Must be empty; names are converted by the kind of the checkpoint.

        Returns:
            The checkpoint; what the last file holds beside weights is in it.

        Raises:
            CheckpointError: If one cannot be read, is of no known kind, or does not fit.
        """
        assert not revise_keys, "names are converted by the kind of the checkpoint"
        paths = [filename] if isinstance(filename, str) else list(filename)
        # What is resumed stays in use, and the file may be overwritten meanwhile; weights are copied at once.
        sources = [read_source(path, map_location, mmap=not self._resume) for path in paths]
        if self._resume and not {"meta", "optimizer", "message_hub"} <= set(sources[-1].rest):
            raise CheckpointError(
                f"{paths[-1]} holds weights without the state of a training, so there is nothing to resume. Train from it "
                "with load_from instead."
            )
        tensors = {name: tensor for source in sources for name, tensor in source.tensors.items()}
        checkpoint = {**sources[-1].rest, "state_dict": tensors, "sources": sources}
        self.call_hook("after_load_checkpoint", checkpoint=checkpoint)
        model = self.model.module if is_model_wrapper(self.model) else self.model
        model.load_state_dict(checkpoint["state_dict"], strict=strict)
        self._has_loaded = True
        return checkpoint
