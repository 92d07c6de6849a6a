"""The last step: what the model takes, and the record that goes with it."""

from collections.abc import Sequence
from typing import Any

from mmcv.transforms import BaseTransform
from torch.utils.data import default_collate

from clipbert_mm.registry import FUNCTIONS, TRANSFORMS
from clipbert_mm.structures import VideoTextSample

LABELS = ("match_labels", "answer_labels", "answer_scores", "counts")
"""Keys of an item that go onto its sample."""


@TRANSFORMS.register_module()
class PackInputs(BaseTransform):
    """Pack an item into ``inputs`` (arrays for the model) and ``data_samples`` (its record).

    Required Keys:
        frames, text_ids, texts, path, sample_idx; mlm_labels, answer_types, question_ids and :data:`LABELS` where there are any

    Args:
        labels: Keys of an item that go onto its sample beside :data:`LABELS`: what a head of your own learns from.
    """

    def __init__(self, *, labels: Sequence[str] = ()) -> None:
        self.labels = tuple(labels)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Pack the item."""
        # Texts stay numpy arrays: a worker hands a tensor over by a file descriptor of its own, which costs more than a text.
        inputs = {key: results[key] for key in ("frames", "text_ids", "mlm_labels") if key in results}
        sample = VideoTextSample(
            metainfo=dict(
                sample_idx=results["sample_idx"], path=results["path"], texts=results["texts"], broken=None, replaced=[]
            )
        )
        sample.set_metainfo({key: results[key] for key in ("answer_types", "question_ids") if key in results})
        sample.set_data({key: results[key] for key in (*LABELS, *self.labels) if key in results})
        return {"inputs": inputs, "data_samples": sample}


@FUNCTIONS.register_module()
def collate_items(items: list[dict[str, Any]]) -> dict[str, Any]:
    """Stack the frames; leave the texts side by side, of which items have different numbers and lengths.

    Args:
        items: What :class:`PackInputs` returns; ``inputs`` is None for an item whose file could not be read.

    Returns:
        ``inputs``, empty if no item is readable: ``frames``, uint8 (B, K, T, H, W, 3), and lists with one entry a readable
        item; ``data_samples``, the records of all items.
    """
    readable = [item["inputs"] for item in items if item["inputs"] is not None]
    inputs: dict[str, Any] = {key: [entry[key] for entry in readable] for key in (readable[0] if readable else ())}
    if readable:
        # In a worker torch stacks into memory that is shared already, so that handing over copies nothing.
        inputs["frames"] = default_collate(inputs["frames"])
    return {"inputs": inputs, "data_samples": [item["data_samples"] for item in items]}
