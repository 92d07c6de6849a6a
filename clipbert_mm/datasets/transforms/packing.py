"""PackInputs, the last transform, and collate_items, which makes a batch."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmcv.transforms import BaseTransform
from torch.utils.data import default_collate

from clipbert_mm.errors import OptionError, quoted
from clipbert_mm.registry import FUNCTIONS, TRANSFORMS
from clipbert_mm.structures import VideoTextSample

LABELS = ("match_labels", "answer_labels", "answer_scores", "counts")
"""Keys of an item that are stored on its sample."""


@TRANSFORMS.register_module()
class PackInputs(BaseTransform):
    """Pack an item into ``inputs`` (arrays for the model) and ``data_samples`` (its ``VideoTextSample``).

    Required Keys:
        frames, text_ids, texts, path, sample_idx; content_shape, mlm_labels, answer_types, question_ids, references, spans with
        clip_times, and :data:`LABELS` if present

    Args:
        labels: Keys to store on the sample in addition to :data:`LABELS`, for a head of your own.

    Raises:
        OptionError: If the captions of an item have time spans and its clips have no times.
    """

    def __init__(self, *, labels: Sequence[str] = ()) -> None:
        self.labels = tuple(labels)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Pack the item."""
        # Texts stay numpy arrays: a worker passes each tensor by a file descriptor of its own, which costs more.
        inputs = {key: results[key] for key in ("frames", "text_ids", "mlm_labels", "content_shape") if key in results}
        sample = VideoTextSample(
            metainfo=dict(
                sample_idx=results["sample_idx"], path=results["path"], texts=results["texts"], broken=None, replaced=[]
            )
        )
        optional = ("answer_types", "question_ids", "references", "spans")
        sample.set_metainfo({key: results[key] for key in optional if key in results})
        if "spans" in results:
            if "clip_times" not in results:
                raise OptionError(
                    f"PackInputs: captions of {results['path']} have time spans, so its clips need times (clip_times), got "
                    "none. Add SampleClips to the pipeline, or remove the spans from the annotation file."
                )
            sample.set_metainfo(dict(clip_times=results["clip_times"]))
        sample.set_data({key: results[key] for key in (*LABELS, *self.labels) if key in results})
        return {"inputs": inputs, "data_samples": sample}


def expect_packed(item: Any, *keys: str) -> None:  # noqa: ANN401
    """Check that an item has keys that :class:`PackInputs` adds.

    Raises:
        OptionError: If it lacks one.
    """
    if not isinstance(item, Mapping) or not item.keys() >= set(keys):
        got = f"one with {', '.join(sorted(map(str, item)))}" if isinstance(item, Mapping) else quoted(item)
        raise OptionError(
            f"Expected an item with {' and '.join(keys)}, got {got}. End the pipeline of the dataset with "
            "dict(type='PackInputs')."
        )


@FUNCTIONS.register_module()
def collate_items(items: list[dict[str, Any]]) -> dict[str, Any]:
    """Stack the frames of items; collect the texts in lists, since items have different numbers and lengths of texts.

    Args:
        items: Outputs of :class:`PackInputs`; ``inputs`` is None for an item whose file could not be read.

    Returns:
        ``inputs`` with ``frames``, uint8 (B, K, T, H, W, 3), and lists with one entry per readable item; it is empty if no item
        is readable. ``data_samples`` has the samples of all items.

    Raises:
        OptionError: If PackInputs did not pack an item, or the frames of the items have different shapes.
    """
    for item in items:
        expect_packed(item, "inputs", "data_samples")
    readable = [item["inputs"] for item in items if item["inputs"] is not None]
    inputs: dict[str, Any] = {key: [entry[key] for entry in readable] for key in (readable[0] if readable else ())}
    if readable:
        shapes = {tuple(frames.shape[2:4]) for frames in inputs["frames"]}
        if len(shapes) > 1:
            raise OptionError(
                "collate_items expects frames of one shape in a batch, got "
                f"{', '.join(f'{height} x {width}' for height, width in sorted(shapes))} pixels. Set batch_size=1, or resize "
                "all videos to one shape, as by ResizePad or by ResizeTo with size."
            )
        # In a worker torch stacks into shared memory, so that the batch is passed on without a copy.
        inputs["frames"] = default_collate(inputs["frames"])
    return {"inputs": inputs, "data_samples": [item["data_samples"] for item in items]}
