"""What a family of public checkpoints says of a model."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Family:
    """A public model as a ClipBert, with its published protocol on videos.

    Args:
        name: Name of the family.
        library_class: Class of the library that its weights belong to.
        prefixes: How the names of tensors begin in the library, and how in a ClipBert.
        model: Config of the ClipBert, without ``type`` and ``data_preprocessor``.
        vocab_size: Number of tokens in the vocabulary.
        clips: Settings of SampleClips.
        tokenize: Settings of Tokenize, ``max_length`` among them.
        library_logits: Computes clip logits, (M, V, C), by the library's own model, of texts of one length, (M, L), and videos
            of one frame, (V, 3, H, W).
        mask_padding: Whether frames are padded to one shape, and the model leaves the padding out.
        answers: The answers in the order of the head's outputs; None without an answer vocabulary.
        library: Package of the library.
        build_library: Builds the library's own model from the settings; None for a class of transformers.
    """

    name: str
    library_class: str
    prefixes: Mapping[str, str]
    model: dict[str, Any]
    vocab_size: int
    clips: dict[str, Any]
    tokenize: dict[str, Any]
    library_logits: Callable[[Any, Tensor, Tensor], Tensor]
    mask_padding: bool = False
    answers: list[str] | None = None
    library: str = "transformers"
    build_library: Callable[[Mapping[str, Any]], Any] | None = None

    @property
    def library_version(self) -> str:
        """The library and its release, such as "transformers 5.1.0"."""
        return f"{self.library} {version(self.library)}"

    def library_names(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rename the tensors of a ClipBert to the library's names."""
        return replace_prefixes(tensors, {ours: theirs for theirs, ours in self.prefixes.items()})


def replace_prefixes(tensors: Mapping[str, Tensor], prefixes: Mapping[str, str]) -> dict[str, Tensor]:
    """Replace how the names of tensors begin; a longer prefix goes before a shorter one, and other names stay.

    >>> list(replace_prefixes({"a.b.c": 1, "a.c": 2, "d": 3}, {"a.": "x.", "a.b.": "y."}))
    ['y.c', 'x.c', 'd']
    """
    ordered = sorted(prefixes.items(), key=lambda pair: -len(pair[0]))
    renamed = {}
    for name, tensor in tensors.items():
        old, new = next((pair for pair in ordered if name.startswith(pair[0])), ("", ""))
        renamed[new + name.removeprefix(old)] = tensor
    return renamed
