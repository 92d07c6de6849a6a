"""What a run asks of a dataset that may be wrapped: MMEngine's wrappers, a MixedDataset, or a wrapper of one's own.

A wrapper has its dataset under ``dataset`` or its datasets under ``datasets``, to any depth; MMEngine's are ConcatDataset,
RepeatDataset and ClassBalancedDataset.
"""

import bisect
from collections.abc import Iterator, Sequence
from typing import Any

from mmengine.dataset import ClassBalancedDataset, ConcatDataset, RepeatDataset

from clipbert_mm.datasets.media_dataset import MediaDataset
from clipbert_mm.media.worker_status import FileProgress


def leaves(dataset: Any) -> Iterator[Any]:  # noqa: ANN401
    """Iterate over the datasets within a wrapper, each once; over a dataset alone if it is not wrapped."""
    inner = _inner(dataset)
    for each in inner:
        yield from leaves(each)
    if not inner:
        yield dataset


def _inner(dataset: Any) -> list[Any]:  # noqa: ANN401
    """Return the datasets that a wrapper holds directly; none if it is no wrapper."""
    if is_slice(dataset):
        return [dataset._dataset]
    if isinstance(dataset, MediaDataset):
        return []
    several = getattr(dataset, "datasets", None)
    if isinstance(several, (list, tuple)):
        return list(several)
    one = getattr(dataset, "dataset", None)
    return [one] if hasattr(one, "__getitem__") and hasattr(one, "__len__") else []


def is_slice(dataset: Any) -> bool:  # noqa: ANN401
    """Whether a dataset is the start of another, as MMEngine's Runner makes it for ``num_batch_per_epoch``."""
    return type(dataset).__name__ == "_SlicedDataset"  # importing its module takes seconds


def draws_anew(dataset: Any) -> bool:  # noqa: ANN401
    """Whether items of a dataset are drawn by seed, epoch and item, as those of our training sets are."""
    return any(isinstance(leaf, MediaDataset) and not leaf.test_mode for leaf in leaves(dataset))


def draw_item(dataset: Any, number: Any) -> Any:  # noqa: ANN401
    """Return an item of a dataset by the number of its draw.

    Item ``i`` of ``n`` has the numbers i, i + n, i + 2n, … in the passes of a training by iterations, each of which is drawn as
    in an epoch of its own. Each repetition by MMEngine's RepeatDataset and ClassBalancedDataset is drawn on its own.

    Args:
        dataset: The dataset.
        number: Number of the draw; for a dataset that has none, whatever it is indexed by.
    """
    known = isinstance(dataset, (MediaDataset, ConcatDataset, RepeatDataset, ClassBalancedDataset))
    if not known and not is_slice(dataset):
        return dataset[number]
    passes, index = divmod(number, len(dataset))
    return _draw(dataset, index, passes, 0)


def _draw(dataset: Any, index: int, passes: int, repeat: int) -> Any:  # noqa: ANN401
    """Return an item in some pass over the whole and, within it, some repetition of its dataset."""
    if is_slice(dataset):
        return _draw(dataset._dataset, index, passes, repeat)
    if isinstance(dataset, ConcatDataset):
        which, index = dataset._get_ori_dataset_idx(index)
        return _draw(dataset.datasets[which], index, passes, repeat)
    if isinstance(dataset, RepeatDataset):
        own = dataset._get_ori_dataset_idx(index)
        return _draw(dataset.dataset, own, passes, repeat * dataset.times + index // len(dataset.dataset))
    if isinstance(dataset, ClassBalancedDataset):
        own = dataset._get_ori_dataset_idx(index)
        before = index - bisect.bisect_left(dataset.repeat_indices, own)  # repetitions stand side by side
        return _draw(dataset.dataset, own, passes, repeat * len(dataset) + before)
    if isinstance(dataset, MediaDataset) and (passes or repeat):
        return dataset.draw_item(index, passes, repeat)
    return dataset[index]


def set_draw(dataset: Any, seed: int, epoch: int) -> None:  # noqa: ANN401
    """Set seed and epoch of the random draws; each of several datasets gets a seed of its own.

    A dataset of another library, which draws in its own way, is left alone.
    """
    if hasattr(dataset, "set_draw"):
        dataset.set_draw(seed, epoch)
        return
    for number, each in enumerate(_inner(dataset)):
        set_draw(each, seed + number, epoch)


def loading(dataset: Any) -> dict[int, FileProgress]:  # noqa: ANN401
    """Return which file each process, this one and the workers, reads or has read last, by process id."""
    latest: dict[int, FileProgress] = {}
    for leaf in leaves(dataset):
        for pid, progress in leaf.loading().items() if hasattr(leaf, "loading") else ():
            other = latest.get(pid)
            if other is None or (progress.busy, progress.since) > (other.busy, other.since):
                latest[pid] = progress
    return latest


def can_give_up(dataset: Any) -> bool:  # noqa: ANN401
    """Whether a dataset can continue without a file at which a worker hung or ended."""
    return any(hasattr(leaf, "give_up") for leaf in leaves(dataset))


def give_up(dataset: Any, path: str, reason: str) -> bool:  # noqa: ANN401
    """Mark a file as broken in whichever dataset has it.

    Returns:
        Whether to continue without it; see :meth:`~clipbert_mm.datasets.media_dataset.MediaDataset.give_up`.
    """
    continues = [leaf.give_up(path, reason) for leaf in leaves(dataset) if hasattr(leaf, "give_up")]
    return any(continues)


def first_value(dataset: Any, name: str) -> Any:  # noqa: ANN401
    """Return an attribute of the first dataset within a wrapper that has it, or whose pipeline has it; None if none has.

    A dataset of MMAction2 has its ``tokenizer`` and ``answers`` in the ClipBertTransforms of its pipeline.
    """
    owners = (owner for leaf in leaves(dataset) for owner in (leaf, *steps_of(leaf)))
    values = (getattr(owner, name, None) for owner in owners)
    return next((value for value in values if value is not None), None)


def steps_of(dataset: Any) -> Sequence[Any]:  # noqa: ANN401
    """Return the transforms in the pipeline of a dataset that is no wrapper."""
    return getattr(getattr(dataset, "pipeline", None), "transforms", None) or ()
