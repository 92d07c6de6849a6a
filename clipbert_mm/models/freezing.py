"""The parts of a ClipBert that may be frozen (Table 6 of the paper), or learn alone, and the mode that the others stay in."""

from collections.abc import Sequence

from mmengine.model import BaseModel
from torch import nn

from clipbert_mm.errors import OptionError

PARTS = {
    "visual_encoder": ("backbone", "projection", "temporal_fusion"),  # F_v of Eq. 3
    "text_encoder": (
        "encoder.bert.embeddings",
        "encoder.bert.embeddings_project",
        "encoder.text.embeddings",
        "encoder.text_embedding",
    ),  # F_l of Eq. 3: word embeddings
    "fusion_encoder": (  # H without the head
        "encoder.bert.encoder",
        "encoder.bert.pooler",
        "encoder.visual_embedding",
        "encoder.text.encoder",
        "encoder.type_embedding",
        "encoder.transformer",
        "encoder.norm",
        "encoder.pooler",
    ),
    "vectors": (
        "encoder.text_projection",
        "encoder.visual_projection",
        "encoder.vectors",
        "backbone.visual_projection",
    ),
}
"""The modules of each part, by the name that ``frozen`` of a ClipBert may hold, which then has no gradients."""


def freeze(model: nn.Module, parts: Sequence[str]) -> list[nn.Module]:
    """Switch off the gradients of parts of a model, and of the projections to vectors if no loss reads these.

    So these keep their weights, which weight decay alone would move, and distributed training waits for no gradient of them.

    Args:
        model: A ClipBert with all its modules.
        parts: Names of :data:`PARTS`.

    Returns:
        The frozen modules.

    Raises:
        OptionError: If ``parts`` is a string or has another name.
    """
    if isinstance(parts, str) or not set(parts) <= set(PARTS):
        raise OptionError(f"ClipBert expects frozen to be a list of some of {', '.join(PARTS)}, got {parts!r}.")
    parts = [*parts, "vectors"] if leaves_vectors_alone(model) else parts
    names = [name for part in parts for name in PARTS[part]]
    modules = [module for name, module in model.named_modules() if name in names]
    for module in modules:
        module.requires_grad_(False)
    return modules


def leaves_vectors_alone(model: nn.Module) -> bool:
    """Whether a ClipBert has vectors beside the states of its joint encoder, and nothing that trains them."""
    encoder = getattr(model, "encoder", None)
    has_both = getattr(encoder, "has_vectors", False) and not getattr(encoder, "compares_vectors", False)
    return has_both and all(getattr(model, name, None) is None for name in ("hard_negatives", "distillation"))


class FreezableModel(BaseModel):
    """A model whose frozen parts stay in eval mode."""

    frozen: Sequence[str] = ()
    learning: Sequence[str] = ()
    """The modules that learn, where only some do."""

    def train(self, mode: bool = True) -> "FreezableModel":
        """Set training mode, except for frozen modules."""
        super().train(mode)
        for module in freeze(self, self.frozen):
            module.eval()
        if self.learning:
            for child in self.children():
                child.eval()
            for name in self.learning:
                self.get_submodule(name).train(mode)
        return self


def freeze_all_but(model: FreezableModel, names: Sequence[str]) -> None:
    """Switch off the gradients of all modules but some, which are then the only ones in training mode.

    Args:
        model: The model.
        names: The modules that learn; those that the model does not have yet keep their gradients anyway.
    """
    model.requires_grad_(False)
    for name, module in model.named_modules():
        if name in names:
            module.requires_grad_(True)
    model.learning = names
