"""Does a checkpoint fit the model? MMEngine only warns where it does not, and goes on with random weights."""

import os
import zipfile
from collections.abc import Mapping

from torch import Tensor, nn


class CheckpointError(ValueError):
    """A checkpoint that cannot be read or does not fit."""


def check_file(path: str) -> None:
    """See that a local file may be a checkpoint of torch's, without reading it.

    Raises:
        CheckpointError: If there is no such file, or it is cut short or something else.
    """
    if "://" in path:
        return
    if not os.path.isfile(path):
        raise CheckpointError(f"There is no checkpoint {os.path.abspath(path)}.")
    if not zipfile.is_zipfile(path):
        raise CheckpointError(
            f"{path} ({os.path.getsize(path)} bytes) is no checkpoint: expected a file of torch.save, which is a zip archive. "
            "It may have been cut short while it was written or copied."
        )


def check_fit(model: nn.Module, state_dict: Mapping[str, Tensor], *, whole: bool) -> str:
    """Compare a state dict with a model.

    Args:
        model: The model that is to take the weights.
        state_dict: Tensors by name.
        whole: Whether the two have to agree, as for testing and resuming: the model is covered wholly, and the checkpoint
            has no more of any part (backbone, encoder, ...) that the model has. A model to be trained on may have new parts.

    Returns:
        One line that says what fits and what does not.

    Raises:
        CheckpointError: If a tensor has another shape than the model's, nothing fits, or ``whole`` is asked for and
            something is missing.
    """
    # Batch norms count their batches; not every library saves that, and nothing depends on it.
    own = {name: tensor for name, tensor in model.state_dict().items() if not name.endswith("num_batches_tracked")}
    wrong = [
        f"{name}: checkpoint {tuple(state_dict[name].shape)}, model {tuple(own[name].shape)}"
        for name in own
        if name in state_dict and state_dict[name].shape != own[name].shape
    ]
    missing = [name for name in own if name not in state_dict]
    unused = [name for name in state_dict if name not in own and not name.endswith("num_batches_tracked")]
    parts = {name.partition(".")[0] for name in own}
    alien = [name for name in unused if name.partition(".")[0] in parts]
    found = f"{len(own) - len(missing)} of the model's {len(own)} tensors are in the checkpoint"
    if wrong:
        raise CheckpointError(
            f"The checkpoint does not fit the model: {len(wrong)} tensors differ in shape, the first is {wrong[0]}. Use the "
            "config that the checkpoint was trained with."
        )
    if len(missing) == len(own) or (whole and (missing or alien)):
        raise CheckpointError(
            f"The checkpoint does not fit the model: {found}; the first that is missing is "
            f"{(missing or ['none'])[0]}, the first that the model does not know is {(unused or ['none'])[0]}. "
            "Use the config that the checkpoint was trained with."
        )
    new = f"; new are {_parts(missing)}" if missing else ""
    left = f"; not used are {_parts(unused)}" if unused else ""
    return found + new + left


def _parts(names: list[str]) -> str:
    """Name the modules that tensors belong to.

    >>> _parts(["head.a.weight", "head.a.bias", "mlm_head.bias"])
    'head.a, mlm_head'
    """
    return ", ".join(dict.fromkeys(name.rpartition(".")[0] for name in names))
