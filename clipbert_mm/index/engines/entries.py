"""The videos of an index in an engine, as a mapping."""

from collections.abc import ItemsView, Iterator, Mapping
from typing import TYPE_CHECKING

from clipbert_mm.index.records import Entry

if TYPE_CHECKING:
    from clipbert_mm.index.engines.remote_index import RemoteIndex


class RemoteEntries(Mapping[str, Entry]):
    """The videos of an index by path, in the order of their paths, each read when it is asked for."""

    def __init__(self, index: "RemoteIndex") -> None:
        self.index = index

    def __getitem__(self, path: str) -> Entry:
        return self.index.found([path])[path]

    def __iter__(self) -> Iterator[str]:
        return (entry.path for entry in self.index.listed())

    def __len__(self) -> int:
        return self.index.count()

    def items(self) -> ItemsView[str, Entry]:
        """Return pairs of path and video, which are read in order and not one by one."""
        return _Items(self)


class _Items(ItemsView[str, Entry]):
    _mapping: RemoteEntries

    def __iter__(self) -> Iterator[tuple[str, Entry]]:
        return ((entry.path, entry) for entry in self._mapping.index.listed())
