"""The kinds of transformer layers that run on sequences without padding: where their norms are."""

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor


class LayerKind(ABC):
    """What surrounds the self-attention of a layer.

    Args:
        layer: The layer of transformers; its weights are used as they are.
    """

    def __init__(self, layer: Any) -> None:  # noqa: ANN401
        self.layer = layer

    @property
    @abstractmethod
    def attention(self) -> Any:  # noqa: ANN401
        """The module with the projections to query, key and value."""

    @abstractmethod
    def read(self, states: Tensor) -> Tensor:
        """Return what the attention reads of states, (..., D)."""

    @abstractmethod
    def finish(self, context: Tensor, states: Tensor) -> Tensor:
        """Run the rest of the layer on states and the output of their attention, (..., D) each."""


class PostNormLayer(LayerKind):
    """A layer of BERT: a norm after attention and one after the feed-forward network."""

    @property
    def attention(self) -> Any:  # noqa: ANN401
        """The module with the projections to query, key and value."""
        return self.layer.attention.self

    def read(self, states: Tensor) -> Tensor:
        """Return the states as they are."""
        return states

    def finish(self, context: Tensor, states: Tensor) -> Tensor:
        """Run the rest of the layer on states and the output of their attention, (..., D) each."""
        states = self.layer.attention.output(context, states)
        return self.layer.output(self.layer.intermediate(states), states)


class PreNormLayer(LayerKind):
    """A layer of ViLT: a norm before attention and one before the feed-forward network."""

    @property
    def attention(self) -> Any:  # noqa: ANN401
        """The module with the projections to query, key and value."""
        return self.layer.attention.attention

    def read(self, states: Tensor) -> Tensor:
        """Return normalized states, (..., D)."""
        return self.layer.layernorm_before(states)

    def finish(self, context: Tensor, states: Tensor) -> Tensor:
        """Run the rest of the layer on states and the output of their attention, (..., D) each."""
        states = states + self.layer.attention.output(context, states)
        return self.layer.output(self.layer.intermediate(self.layer.layernorm_after(states)), states)


LAYER_KINDS: dict[str, type[LayerKind]] = {
    "bert": PostNormLayer,
    "electra": PostNormLayer,
    "roberta": PostNormLayer,
    "vilt": PreNormLayer,
}
"""The kind of the layers of each architecture where pairs share projections of the first layer and the last layer computes
only what is read."""
