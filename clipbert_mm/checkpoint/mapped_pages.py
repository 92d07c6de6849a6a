"""Give the memory of a file's tensors back as soon as they are copied: pages of a mapped file that were read count as used."""

import ctypes
import mmap
import sys
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn

DONT_NEED = 4
"""MADV_DONTNEED of Linux."""


class MappedPages:
    """The private mappings of files in the memory of this process; on systems other than Linux none are known."""

    def __init__(self) -> None:
        ranges = _file_ranges() if sys.platform == "linux" else []
        self.starts, self.ends = [start for start, _ in ranges], [end for _, end in ranges]
        self.madvise = ctypes.CDLL(None).madvise if ranges else None

    def release(self, tensor: Tensor) -> None:
        """Give back the pages of a tensor that is in a mapped file, and leave any other tensor alone.

        The tensor keeps its values, which are read from the file again when they are used; it must not have been changed.
        """
        if self.madvise is None or tensor.device.type != "cpu" or not tensor.is_contiguous():
            return
        address, size = tensor.data_ptr(), tensor.numel() * tensor.itemsize
        mapping = bisect_right(self.starts, address) - 1
        if mapping < 0 or address + size > self.ends[mapping]:
            return
        first = -(-address // mmap.PAGESIZE) * mmap.PAGESIZE  # whole pages of this tensor alone
        last = (address + size) // mmap.PAGESIZE * mmap.PAGESIZE
        if last > first:
            self.madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), DONT_NEED)


def _file_ranges() -> list[tuple[int, int]]:
    """Return the first address of each private mapping of a file and the address after it, in ascending order."""
    ranges = []
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as lines:
        for line in lines:
            addresses, rights, _, _, inode, *_ = line.split(maxsplit=5)
            if rights.endswith("p") and inode != "0":
                start, end = addresses.split("-")
                ranges.append((int(start, 16), int(end, 16)))
    return ranges


@contextmanager
def releasing_copied(model: nn.Module, tensors: Mapping[str, Tensor], pages: MappedPages) -> Iterator[None]:
    """While a model loads tensors in this block, release those of each of its modules once the module has copied them."""

    def release(own: list[Tensor], *_: Any) -> None:  # noqa: ANN401
        for tensor in own:
            pages.release(tensor)

    with ExitStack() as hooks:
        for prefix, module in model.named_modules():
            names = (
                name for kind in (module.named_parameters, module.named_buffers) for name, _ in kind(recurse=False)
            )
            full_names = (f"{prefix}.{name}" if prefix else name for name in names)
            own = [tensors[name] for name in full_names if name in tensors]
            if own:
                hooks.callback(module.register_load_state_dict_post_hook(partial(release, own)).remove)
        yield
