"""What the datasets share: draws that depend on seed, epoch and item alone, and files that cannot be read."""

import logging
import os
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.context import get_spawning_popen
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log

from clipbert_mm.datasets.annotations import read_records
from clipbert_mm.datasets.ledger import absolute, left_out
from clipbert_mm.errors import AnnotationError, BrokenMediaError, ClipBertError, OptionError, quoted
from clipbert_mm.media.storage import is_address, missing_media
from clipbert_mm.media.worker_status import Loading, WorkerStatus, share
from clipbert_mm.structures import VideoTextSample

Item = TypeVar("Item")
ATTEMPTS = 20
"""How many files in a row may be unreadable before a training item gives up."""


class MediaDataset(BaseDataset):
    """Videos or images with texts; what becomes of them is said by the classes that inherit.

    The records are one array of bytes, which no worker copies, be it forked or started afresh.

    All that is random about an item is drawn from (seed, epoch, item), so it depends neither on the number of workers nor on
    where a run was interrupted.

    A file that cannot be read is replaced by another item in training; the item names it in ``replaced`` and
    :class:`~clipbert_mm.engine.BrokenMediaHook` counts it. In testing it is never replaced.

    Args:
        ann_file: JSON-lines file, relative to ``data_root``.
        pipeline: Configs of the transforms.
        data_root: Folder that the other paths are relative to.
        media_folder: Folder of the videos or images, relative to ``data_root``.
        media_suffix: What follows a name in the annotation file to make the file's, such as ".mp4".
        test_mode: Whether an item has all texts of its file, in order, and nothing is drawn.
        ledger: Ledger of tools/analysis_tools/scan_videos.py, relative to ``data_root``: files that it found missing,
            unreadable or too slow are left out, and the log says how many. None leaves nothing out.
        on_broken: What testing does with a file that cannot be read: "stop", or "skip" to go on and report coverage.

    Raises:
        AnnotationError: If the annotation file cannot be used, or files that it names are missing.
    """

    KEYS: ClassVar[Mapping[str, type | tuple[type, ...]]]
    """What a record needs beside its file, with its type."""
    EXAMPLE: str
    """A line of the annotation file."""
    data_bytes: np.ndarray
    """The records, one pickle after another."""

    def __init__(
        self,
        *,
        ann_file: str,
        pipeline: list[dict],
        data_root: str = "",
        media_folder: str = "",
        media_suffix: str = "",
        test_mode: bool = False,
        ledger: str | None = None,
        on_broken: str = "stop",
    ) -> None:
        if on_broken not in ("stop", "skip"):
            raise OptionError(f"{type(self).__name__} expects on_broken 'stop' or 'skip', got {on_broken!r}.")
        self.on_broken = on_broken
        self.media_suffix = media_suffix
        self.useless = {} if ledger is None else left_out(os.path.join(data_root, ledger))
        # Seed and epoch, in shared memory, so that workers that live on see the epoch move.
        self._draw = share(torch.zeros(2, dtype=torch.int64))
        self._shared: torch.Tensor | None = None  # what data_bytes is a view of, once a process needs it
        self._whereabouts = WorkerStatus()
        self._given_up: dict[str, str] = {}
        super().__init__(
            ann_file=ann_file,
            data_root=data_root,
            data_prefix=dict(media=media_folder),
            pipeline=pipeline,
            test_mode=test_mode,
        )

    def records(self) -> list[dict[str, Any]]:
        """Read the annotation file; a class of your own reads another format here.

        Returns:
            The records, dicts with the name of the file under ``media``, and what :attr:`KEYS` says.
        """
        return read_records(self.ann_file, self.KEYS, self.EXAMPLE, self.fault_of)

    def fault_of(self, record: Mapping[str, Any]) -> str:
        """Say what is wrong with the values of a record; nothing where they are right."""
        return ""

    def path_of(self, name: str) -> str:
        """Return the path of a file that the annotation file names."""
        return os.path.join(self.data_prefix["media"], name + self.media_suffix)

    def usable(self, grouped: dict[str, Item]) -> dict[str, Item]:
        """Leave out what the ledger says is useless, say so, and see that the other files are there.

        Args:
            grouped: What there is of each file, by path.

        Raises:
            AnnotationError: If files are missing that the ledger does not leave out, or nothing is left.
        """
        kept = {path: own for path, own in grouped.items() if absolute(path) not in self.useless}
        if self.useless and len(kept) == len(grouped):
            print_log(
                f"{self.ann_file}: the ledger leaves out none of its files. Its paths are absolute; scan again if data moved.",
                logger="current",
                level=logging.WARNING,
            )
        if len(kept) < len(grouped):
            left = f"{len(grouped) - len(kept)} of {len(grouped)} files are left out by the ledger"
            reasons = [f"\n  {path}: {self.useless[absolute(path)]}" for path in grouped if path not in kept]
            more = f"\n  and {len(reasons) - 5} more" if len(reasons) > 5 else ""
            print_log(
                f"{self.ann_file}: {left}:{''.join(reasons[:5])}{more}",
                logger="current",
                level=logging.WARNING,
            )
        if not kept:
            raise AnnotationError(f"{self.ann_file}: the ledger leaves none of its {len(grouped)} files.")
        check_files(list(kept), self.ann_file)
        return kept

    @property
    def tokenizer(self) -> Any:  # noqa: ANN401
        """The tokenizer of the pipeline; None if it has none."""
        return next((step.tokenizer for step in self.pipeline.transforms if hasattr(step, "tokenizer")), None)

    def set_draw(self, seed: int, epoch: int) -> None:
        """Tell from which seed and epoch on to draw; see :class:`~clipbert_mm.engine.EpochSeedHook`."""
        self._draw.copy_(torch.tensor([seed, epoch]))

    def __getstate__(self) -> dict[str, Any]:
        """Hand the records to a process that is started afresh as shared memory; a forked one sees them anyway."""
        if get_spawning_popen() is None or not self._fully_initialized:
            return self.__dict__
        if self._shared is None:  # copied once, however many processes there are
            self._shared = share(torch.from_numpy(self.data_bytes))
            self.data_bytes = self._shared.numpy()
        return {name: value for name, value in self.__dict__.items() if name != "data_bytes"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take the records as an array again."""
        self.__dict__.update(state)
        if "data_bytes" not in state and self._shared is not None:
            self.data_bytes = self._shared.numpy()

    def loading(self) -> dict[int, Loading]:
        """Return the files that this and the workers' processes are at, by process."""
        return self._whereabouts.loading()

    def give_up(self, path: str, reason: str) -> bool:
        """Take a file for broken at which a worker hung or ended.

        Returns:
            Whether to go on without it, which is so in training, and in testing where ``on_broken`` is "skip", as long as such
            files are few, at most 20 or a twentieth of the items.
        """
        self._given_up[path] = reason
        skips = not self.test_mode or self.on_broken == "skip"
        return skips and len(self._given_up) <= max(ATTEMPTS, len(self) // 20)

    @contextmanager
    def _reading(self, path: str) -> Iterator[None]:
        """Note that a file is read; one that is known to end or hang its process is not.

        Raises:
            BrokenMediaError: If it is such a file, or takes more memory than there is.
        """
        if path in self._given_up:
            raise BrokenMediaError(path, self._given_up[path])
        try:
            with self._whereabouts.at(path):
                yield
        except MemoryError as error:
            raise BrokenMediaError(path, f"it takes more memory than there is ({error})") from error

    def __getitem__(self, idx: int) -> dict[str, Any]:
        """Return an item as its pipeline leaves it.

        Raises:
            BrokenMediaError: In testing, if the file cannot be read and ``on_broken`` is "stop".
            ClipBertError: In training, if so many files in a row cannot be read that something else must be wrong.
        """
        if self.test_mode:
            return self._test_item(idx)
        rng = np.random.default_rng((*self._draw.tolist(), idx))
        replaced: list[tuple[str, str]] = []
        for _ in range(ATTEMPTS):
            info = self.prepare(idx, rng)
            try:
                with self._reading(info["path"]):
                    item = self.pipeline(info)
            except BrokenMediaError as error:
                replaced.append((error.path, error.reason))
                idx = int(rng.integers(len(self)))
                continue
            item["data_samples"].set_metainfo(dict(replaced=replaced))
            return item
        raise ClipBertError(
            f"{ATTEMPTS} files in a row could not be read; the last was {replaced[-1][0]}: {replaced[-1][1]}. Check the "
            "decoder and the files."
        )

    def _test_item(self, idx: int) -> dict[str, Any]:
        """Return an item of all texts; ``inputs`` is None where the file cannot be read and may be left out."""
        info = self.prepare_test(idx)
        try:
            with self._reading(info["path"]):
                return self.pipeline(info)
        except BrokenMediaError as error:
            if self.on_broken == "stop":
                raise BrokenMediaError(
                    error.path,
                    f"{error.reason}. Testing does not replace it; mend or remove it, or set on_broken='skip' of the "
                    "dataset to go on without it and report coverage",
                ) from error
            metainfo = dict(sample_idx=idx, path=error.path, texts=info["texts"], broken=error.reason, replaced=[])
            return {"inputs": None, "data_samples": VideoTextSample(metainfo=metainfo)}

    @abstractmethod
    def prepare(self, idx: int, rng: np.random.Generator) -> dict[str, Any]:
        """Choose the texts of a training item and their labels; the item has ``rng``."""

    @abstractmethod
    def prepare_test(self, idx: int) -> dict[str, Any]:
        """Return a testing item: all texts of its file."""


def check_files(paths: list[str], ann_file: str) -> None:
    """See that every file, or folder of frames, that an annotation file names is there.

    Args:
        paths: The files, each once; addresses and keys of an LMDB are files too.
        ann_file: Who names them.

    Raises:
        AnnotationError: If any is missing: how many, and the first.
    """
    missing = missing_media(paths)
    if missing:
        first = missing[0] if is_address(missing[0]) else os.path.abspath(missing[0])
        raise AnnotationError(
            f"{len(missing)} of {len(paths)} files named in {ann_file} are missing; the first is {quoted(first)}. Set "
            "data_root, media_folder and media_suffix of the dataset to where they lie, or take the lines out of the "
            "annotation file, or give the dataset a ledger of tools/analysis_tools/scan_videos.py."
        )
