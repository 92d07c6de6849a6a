"""Values of a Hugging Face ``config.json``, checked one by one: a file from elsewhere decides sizes, and nothing else."""

from collections.abc import Iterable, Mapping
from typing import Any

from clipbert_mm.errors import CheckpointError, printable, quoted

MAX_SIZE = 2**20
"""Largest size that a config may name."""
ACTIVATIONS = ("gelu", "gelu_new", "gelu_pytorch_tanh", "quick_gelu", "relu")
"""Activations that a config may name."""


class Settings:
    """The settings of a ``config.json``, or of a part of it.

    Args:
        values: The settings.
        defaults: What transformers takes for settings that are left out, which it does not write to a file.
        who: The file, for errors.
        part: Name of the part, such as "text_config"; empty for the whole file.
    """

    def __init__(self, values: Mapping[str, Any], defaults: Mapping[str, Any], who: str, part: str = "") -> None:
        self.values, self.defaults, self.who, self.part = values, defaults, who, part

    def part_of(self, name: str, defaults: Mapping[str, Any]) -> "Settings":
        """Return a part, such as ``text_config``, which may be left out."""
        values = self.values.get(name)
        if values is not None and not isinstance(values, Mapping):
            raise self.refused(name, values, "a JSON object")
        return Settings(values or {}, defaults, self.who, name)

    def size(self, name: str) -> int:
        """Return a whole number from 1."""
        value = self.value(name)
        if type(value) is not int or not 0 < value <= MAX_SIZE:
            raise self.refused(name, value, f"a whole number from 1 to {MAX_SIZE:,}")
        return value

    def transformer(self) -> dict[str, Any]:
        """Return the sizes of a transformer, of a text tower with its vocabulary and longest text, by our names."""
        of_texts = dict(vocab_size="vocab_size", max_text_length="max_position_embeddings")
        sizes = dict(
            hidden_size="hidden_size",
            num_layers="num_hidden_layers",
            num_heads="num_attention_heads",
            intermediate_size="intermediate_size",
        )
        sizes |= of_texts if "vocab_size" in self.defaults else {}
        self.expect(
            "num_attention_heads",
            self.size("hidden_size") % self.size("num_attention_heads") == 0,
            f"a divisor of its hidden_size {self.size('hidden_size')}",
        )
        return {ours: self.size(theirs) for ours, theirs in sizes.items()} | dict(
            layer_norm_eps=self.number("layer_norm_eps"), hidden_act=self.activation("hidden_act")
        )

    def number(self, name: str) -> float:
        """Return a number from 0 to 1, such as an epsilon or a probability."""
        value = self.value(name)
        if type(value) not in (int, float) or not 0 <= value <= 1:
            raise self.refused(name, value, "a number from 0 to 1")
        return float(value)

    def activation(self, name: str) -> str:
        """Return the name of an activation."""
        value = self.value(name)
        if value not in ACTIVATIONS:
            raise self.refused(name, value, f"one of {', '.join(ACTIVATIONS)}")
        return value

    def flag(self, name: str) -> bool:
        """Return true or false."""
        value = self.value(name)
        if not isinstance(value, bool):
            raise self.refused(name, value, "true or false")
        return value

    def labels(self, name: str) -> list[str]:
        """Return names by number, such as ``id2label``, in the order of their numbers."""
        values = self.value(name)
        if not isinstance(values, Mapping) or not values:
            raise self.refused(name, values, "a JSON object of names by number")
        ordered = [values.get(str(number)) for number in range(len(values))]
        for number, label in enumerate(ordered):
            if not isinstance(label, str):
                raise self.refused(f"{name}.{number}", label, "a name")
        return [label for label in ordered if isinstance(label, str)]

    def expect(self, name: str, fits: bool, expected: str) -> None:
        """Refuse a value that does not fit.

        Raises:
            CheckpointError: If it does not.
        """
        if not fits:
            raise self.refused(name, self.value(name), expected)

    def architecture(self) -> str:
        """Return the class that the weights belong to; empty if the file does not say it."""
        names = self.values.get("architectures")
        return names[0] if isinstance(names, list) and names and isinstance(names[0], str) else ""

    def value(self, name: str) -> Any:  # noqa: ANN401
        """Return a value as it is in the file, or its default."""
        return self.values.get(name, self.defaults.get(name))

    def refused(self, name: str, value: object, expected: str) -> CheckpointError:
        """Return the error of a setting."""
        where = f"{self.part}.{name}" if self.part else name
        return CheckpointError(
            f"{printable(self.who)} is refused: expected {expected} as its {where}, got {quoted(value)}. Take another copy."
        )


def settings_of(config: Any, names: Iterable[str]) -> dict[str, Any]:  # noqa: ANN401
    """Return settings of a config of transformers by their names."""
    return {name: getattr(config, name) for name in names}
