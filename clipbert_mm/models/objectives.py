"""What a ClipBert may learn from besides the loss of its head: parts that own the way from a batch to its losses."""

from typing import Any

from clipbert_mm.errors import OptionError
from clipbert_mm.models.hard_negatives import HardNegatives, build_hard_negatives
from clipbert_mm.models.vector_distillation import VectorDistillation, build_distillation


def build_objectives(
    model: Any,  # noqa: ANN401
    hard_negatives: dict | None,
    distillation: dict | None,
) -> tuple[HardNegatives | None, VectorDistillation | None]:
    """Build the objectives of a ClipBert with all its other parts; each has a ``loss`` of the model and a batch.

    Args:
        model: The model.
        hard_negatives: Config of the HardNegatives; None for none.
        distillation: Config of the VectorDistillation; None for none.

    Raises:
        OptionError: If both are given, the encoder has no vectors, or another option of the model does not go with them.
    """
    if None not in (hard_negatives, distillation):
        raise OptionError(
            "ClipBert has either hard_negatives, which train the whole model, or a distillation, which trains its vectors "
            "alone; the config has both. Leave one of the two out."
        )
    return build_hard_negatives(hard_negatives, model), build_distillation(distillation, model)
