"""MediaDataset, the base of the datasets: reproducible random draws, and files that cannot be read."""

import os
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.context import get_spawning_popen
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from mmengine.dataset import BaseDataset
from mmengine.fileio import join_path
from mmengine.utils import is_abs

from clipbert_mm.datasets.annotations import read_records
from clipbert_mm.datasets.ledger import ledger_path, read_exclusions
from clipbert_mm.datasets.transforms.other_libraries import check_transforms
from clipbert_mm.datasets.transforms.packing import expect_packed
from clipbert_mm.errors import AnnotationError, BrokenMediaError, ClipBertError, OptionError, quoted
from clipbert_mm.log import logger
from clipbert_mm.media.listing import missing_media
from clipbert_mm.media.storage import is_address
from clipbert_mm.media.worker_status import FileProgress, WorkerStatus, share
from clipbert_mm.structures import VideoTextSample

Item = TypeVar("Item")
MAX_ATTEMPTS = 20
"""Unreadable files in a row after which a training item is an error."""


class MediaDataset(BaseDataset):
    """Base of the datasets of videos or images with texts.

    The records are one array of bytes that workers share, whether they are forked or spawned.

    The random draws of an item depend on (seed, epoch, item) only, neither on the number of workers nor on where a run was
    interrupted.

    In training, another item replaces one whose file cannot be read; it names the file in ``replaced``, and
    :class:`~clipbert_mm.engine.BrokenMediaHook` counts it. In testing no item is replaced.

    Args:
        ann_file: JSON-lines file, relative to ``data_root``, or several, which are read as one.
        pipeline: Configs of the transforms.
        data_root: Folder to which the other paths are relative.
        media_folder: Folder of the videos or images, relative to ``data_root``.
        media_suffix: Suffix to add to the names in the annotation file, such as ".mp4".
        test_mode: Whether an item has all texts of its file, in order, without random draws.
        ledger: Ledger of tools/analysis_tools/scan_videos.py, relative to ``data_root``: files that it lists as missing,
            unreadable or too slow are excluded, and the log says how many. None excludes no file.
        on_broken: What testing does when a file cannot be read: "stop", or "skip" to continue and report coverage.
        indices: Which items to use, such as the first 300 or those of a list; None for all. Validation takes a part by it.
        data_prefix: MMEngine's name for ``media_folder``: the folder, or a dict with it under any one key.
        metainfo: As in MMEngine's BaseDataset.
        filter_cfg: As in MMEngine's BaseDataset, for a class that overrides ``filter_data``.
        serialize_data: As in MMEngine's BaseDataset. If False, each worker that is spawned has a copy of the records.
        lazy_init: Whether the annotation file is read when it is first needed.
        max_refetch: Unreadable files in a row, after the first, by which a training item may be replaced.

    Raises:
        AnnotationError: If the annotation file cannot be used, or files that it names are missing.
        OptionError: If a setting contradicts another one, or has no effect, or a transform is another library's.
    """

    KEYS: ClassVar[Mapping[str, type | tuple[type, ...]]]
    """Keys that a record needs besides the one that names its file, with their types."""
    EXAMPLE: str
    """A line of the annotation file."""
    data_bytes: np.ndarray
    """The records, pickled one after another."""
    path_hashes: np.ndarray
    """Python's hashes of the paths of all files, sorted, to compare the sets of a run."""

    def __init__(
        self,
        *,
        ann_file: str | Sequence[str],
        pipeline: list[dict],
        data_root: str = "",
        media_folder: str = "",
        media_suffix: str = "",
        test_mode: bool = False,
        ledger: str | None = None,
        on_broken: str = "stop",
        indices: int | Sequence[int] | None = None,
        data_prefix: str | Mapping[str, str] | None = None,
        metainfo: Mapping[str, Any] | None = None,
        filter_cfg: Mapping[str, Any] | None = None,
        serialize_data: bool = True,
        lazy_init: bool = False,
        max_refetch: int = MAX_ATTEMPTS - 1,
    ) -> None:
        if on_broken not in ("stop", "skip"):
            raise OptionError(f"{type(self).__name__} expects on_broken 'stop' or 'skip', got {on_broken!r}.")
        if filter_cfg is not None and type(self).filter_data is BaseDataset.filter_data:
            raise OptionError(
                f"filter_cfg of {type(self).__name__} has no effect: the class does not override filter_data. Remove the lines "
                "from the annotation file, or use indices or a ledger."
            )
        self.on_broken = on_broken
        self.media_suffix = media_suffix
        self.excluded = {} if ledger is None else read_exclusions(os.path.join(data_root, ledger))
        # Seed and epoch, in shared memory, so that persistent workers see the new epoch.
        self._draw = share(torch.zeros(2, dtype=torch.int64))
        self._shared: torch.Tensor | None = None  # shared memory behind data_bytes, once a spawned process needs it
        self._worker_status = WorkerStatus()
        self.ann_files = [ann_file] if isinstance(ann_file, str) else list(ann_file)
        self._broken: dict[str, str] = {}  # files at which a worker hung or ended, with the reason
        super().__init__(
            ann_file="",  # MMEngine joins the path of one file with data_root
            data_root=data_root,
            data_prefix=dict(media=_one_folder(media_folder, data_prefix)),
            metainfo=metainfo,
            filter_cfg=filter_cfg,
            pipeline=pipeline,
            test_mode=test_mode,
            indices=indices,
            serialize_data=serialize_data,
            lazy_init=lazy_init,
            max_refetch=max_refetch,
        )
        check_transforms(f"The pipeline of {type(self).__name__}", self.pipeline.transforms)

    def _join_prefix(self) -> None:
        super()._join_prefix()
        root = self.data_root or ""
        self.ann_files = [each if is_abs(each) or not root else join_path(root, each) for each in self.ann_files]
        self.ann_file = ", ".join(self.ann_files)  # for messages

    def full_init(self) -> None:
        """Read the annotation file, if that was not done yet."""
        if not self._fully_initialized:
            super().full_init()
            if not self.serialize_data:
                self.note_items(self.data_list)

    def note_items(self, items: Sequence[Mapping[str, Any]]) -> None:
        """Keep in arrays what is asked of all items, which are those of the dataset from now on."""
        self.path_hashes = _hash_paths(items)

    def get_subset_(self, indices: Sequence[int] | int) -> None:
        """Keep some of the items; see MMEngine's BaseDataset."""
        super().get_subset_(indices)
        self.note_items([self.get_data_info(i) for i in range(len(self))])

    def get_subset(self, indices: Sequence[int] | int) -> "MediaDataset":
        """Return a dataset of some of the items; see MMEngine's BaseDataset."""
        subset = super().get_subset(indices)
        subset.note_items([subset.get_data_info(i) for i in range(len(subset))])
        return subset

    def _copy_without_annotation(self, memo: dict[int, Any] | None = None) -> "MediaDataset":
        """Copy the dataset for MMEngine's ``get_subset``, with shared memory of its own."""
        other = super()._copy_without_annotation({} if memo is None else memo)
        other._draw, other._worker_status, other._shared = share(self._draw.clone()), WorkerStatus(), None
        return other

    def _serialize_data(self) -> tuple[np.ndarray, np.ndarray]:
        self.note_items(self.data_list)
        return super()._serialize_data()

    def records(self) -> list[dict[str, Any]]:
        """Read the annotation file; override it to read another format.

        Returns:
            The records, dicts with the name of the file under ``media``, and the keys of :attr:`KEYS`.
        """
        return [
            record for path in self.ann_files for record in read_records(path, self.KEYS, self.EXAMPLE, self.fault_of)
        ]

    def fault_of(self, record: Mapping[str, Any]) -> str:
        """Return what is wrong with the values of a record; "" if they are correct."""
        return ""

    def path_of(self, name: str) -> str:
        """Return the path of a file that the annotation file names."""
        return os.path.join(self.data_prefix["media"], name + self.media_suffix)

    def usable(self, grouped: dict[str, Item]) -> dict[str, Item]:
        """Exclude files by the ledger, log how many, and check that the other files exist.

        Args:
            grouped: The texts or questions of each file, by path.

        Returns:
            Those of the files that remain.

        Raises:
            AnnotationError: If a file is missing that the ledger does not exclude, or no file remains.
        """
        kept = {path: group for path, group in grouped.items() if ledger_path(path) not in self.excluded}
        if self.excluded and len(kept) == len(grouped):
            logger.warning(
                f"{self.ann_file}: the ledger excludes none of its files. The ledger has absolute paths; if the data was "
                "moved, scan it again."
            )
        if len(kept) < len(grouped):
            reasons = [f"\n  {path}: {self.excluded[ledger_path(path)]}" for path in grouped if path not in kept]
            more = f"\n  and {len(reasons) - 5} more" if len(reasons) > 5 else ""
            logger.warning(
                f"{self.ann_file}: the ledger excludes {len(reasons)} of {len(grouped)} files:{''.join(reasons[:5])}{more}"
            )
        if not kept:
            raise AnnotationError(
                f"{self.ann_file}: the ledger excludes all of its {len(grouped)} files. Scan them again, or set no ledger."
            )
        check_files(list(kept), self.ann_file)
        return kept

    @property
    def tokenizer(self) -> Any:  # noqa: ANN401
        """The tokenizer of the pipeline; None if the pipeline has none."""
        return next((step.tokenizer for step in self.pipeline.transforms if hasattr(step, "tokenizer")), None)

    def set_draw(self, seed: int, epoch: int) -> None:
        """Set seed and epoch of the random draws; see :class:`~clipbert_mm.engine.EpochSeedHook`."""
        self._draw.copy_(torch.tensor([seed, epoch]))

    def __getstate__(self) -> dict[str, Any]:
        """Pass the records to a spawned process in shared memory; a forked process has them anyway."""
        if get_spawning_popen() is None or not self._fully_initialized or not self.serialize_data:
            return self.__dict__
        if self._shared is None:  # copied once, however many processes are spawned
            self._shared = share(torch.from_numpy(self.data_bytes))
            self.data_bytes = self._shared.numpy()
        return {name: value for name, value in self.__dict__.items() if name != "data_bytes"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the array of the records."""
        self.__dict__.update(state)
        if "data_bytes" not in state and self._shared is not None:
            self.data_bytes = self._shared.numpy()

    def loading(self) -> dict[int, FileProgress]:
        """Return which file each process, this one and the workers, reads or has read last, by process id."""
        return self._worker_status.loading()

    def give_up(self, path: str, reason: str) -> bool:
        """Mark a file as broken, since a worker hung or ended while it read the file.

        Returns:
            Whether to continue without it. This is so in training, and in testing if ``on_broken`` is "skip", as long as there
            are at most 20 such files, or a twentieth of the items.
        """
        self._broken[path] = reason
        skips = not self.test_mode or self.on_broken == "skip"
        return skips and len(self._broken) <= max(MAX_ATTEMPTS, len(self) // 20)

    @contextmanager
    def _reading(self, path: str) -> Iterator[None]:
        """Record in the worker status that a file is being read, for the duration of a block.

        Raises:
            BrokenMediaError: If the file is marked as broken, or needs more memory than there is.
        """
        if path in self._broken:
            raise BrokenMediaError(path, self._broken[path])
        try:
            with self._worker_status.at(path):
                yield
        except MemoryError as error:
            raise BrokenMediaError(path, f"it needs more memory than there is ({error})") from error

    def __getitem__(self, idx: int) -> dict[str, Any]:
        """Return an item after the pipeline.

        Raises:
            BrokenMediaError: In testing, if the file cannot be read and ``on_broken`` is "stop".
            ClipBertError: In training, if so many files in a row cannot be read that the cause must lie elsewhere.
        """
        return self.draw_item(idx)

    def draw_item(self, idx: int, passes: int = 0, repeat: int = 0) -> dict[str, Any]:
        """Return an item after the pipeline, as it is drawn in a later epoch, or repeated; errors as of ``dataset[idx]``.

        Args:
            idx: Index of the item.
            passes: How many epochs after that of :meth:`set_draw` the draw is of.
            repeat: Which of several draws within an epoch, from 0; see
                :func:`~clipbert_mm.datasets.wrappers.draw_item`.
        """
        if self.test_mode:
            return self._test_item(idx)
        seed, epoch = self._draw.tolist()
        rng = np.random.default_rng((seed, epoch + passes, idx, repeat) if repeat else (seed, epoch + passes, idx))
        replaced: list[tuple[str, str]] = []
        for _ in range(self.max_refetch + 1):
            info = self.prepare(idx, rng)
            try:
                with self._reading(info["path"]):
                    item = self.pipeline(info)
            except BrokenMediaError as error:
                replaced.append((error.path, error.reason))
                idx = int(rng.integers(len(self)))
                continue
            expect_packed(item, "data_samples")
            item["data_samples"].set_metainfo(dict(replaced=replaced))
            return item
        raise ClipBertError(
            f"{len(replaced)} files in a row could not be read; the last was {replaced[-1][0]}: {replaced[-1][1]}. Check the "
            "decoder and the files."
        )

    def _test_item(self, idx: int) -> dict[str, Any]:
        """Return an item with all texts; ``inputs`` is None if the file cannot be read and may be skipped."""
        info = self.prepare_test(idx)
        try:
            with self._reading(info["path"]):
                return self.pipeline(info)
        except BrokenMediaError as error:
            if self.on_broken == "stop":
                raise BrokenMediaError(
                    error.path,
                    f"{error.reason}. Testing replaces no file: repair or remove it, or set on_broken='skip' of the "
                    "dataset to continue without it and report coverage",
                ) from error
            metainfo = dict(sample_idx=idx, path=error.path, texts=info["texts"], broken=error.reason, replaced=[])
            return {"inputs": None, "data_samples": VideoTextSample(metainfo=metainfo)}

    def get_cat_ids(self, idx: int) -> list[int]:
        """Return the classes of an item, which MMEngine's ClassBalancedDataset balances; override it where there are some.

        Raises:
            OptionError: Always.
        """
        raise OptionError(
            f"ClassBalancedDataset needs items of classes, as of an OpenEndedDataset; those of a {type(self).__name__} have "
            "none. Use RepeatDataset."
        )

    @abstractmethod
    def prepare(self, idx: int, rng: np.random.Generator) -> dict[str, Any]:
        """Return a training item: its texts, their labels and ``rng``."""

    @abstractmethod
    def prepare_test(self, idx: int) -> dict[str, Any]:
        """Return a testing item: all texts of its file."""


def _one_folder(media_folder: str, data_prefix: str | Mapping[str, str] | None) -> str:
    """Return the folder of the files, which MMEngine's datasets call ``data_prefix``."""
    if data_prefix is None:
        return media_folder
    folders = [data_prefix] if isinstance(data_prefix, str) else list(data_prefix.values())
    if media_folder or len(folders) != 1:
        raise OptionError(
            "A dataset has one folder of files, media_folder or data_prefix, got "
            f"media_folder={quoted(media_folder)} and data_prefix={quoted(data_prefix)}. Set one of them."
        )
    return folders[0]


def _hash_paths(items: Sequence[Mapping[str, Any]]) -> np.ndarray:
    return np.unique(np.array([hash(item["path"]) for item in items], np.int64))


def check_files(paths: list[str], ann_file: str) -> None:
    """Check that every file, or folder of frames, that an annotation file names exists.

    Args:
        paths: The files, without duplicates; addresses and keys of an LMDB count as files.
        ann_file: The annotation file, for the error.

    Raises:
        AnnotationError: If files are missing; it has their number and the first one.
    """
    missing = missing_media(paths)
    if missing:
        first = missing[0] if is_address(missing[0]) else os.path.abspath(missing[0])
        raise AnnotationError(
            f"{len(missing)} of {len(paths)} files named in {ann_file} are missing; the first is {quoted(first)}. Set "
            "data_root, media_folder and media_suffix of the dataset to the folder of the files, or remove the lines from the "
            "annotation file, or give the dataset a ledger of tools/analysis_tools/scan_videos.py."
        )
