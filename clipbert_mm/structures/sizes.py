"""Sizes of memory, as people write them."""

import re

from clipbert_mm.errors import OptionError

UNITS = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


def parse_bytes(size: str) -> int:
    """Read a size of memory.

    Raises:
        OptionError: If it is none.

    >>> parse_bytes("1.5GiB")
    1610612736
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(KiB|MiB|GiB|TiB)\s*", str(size))
    if found is None:
        raise OptionError(f"Expected a size of memory such as '4GiB' or '500MiB', got {size!r}.")
    return int(float(found[1]) * UNITS[found[2]])
