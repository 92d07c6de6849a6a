"""A few damaged and hostile files of each kind; ``make test-faults N=2000`` tries many."""

from pathlib import Path

import pytest
from damage.run import KINDS, WELL, try_kind

SEEDS = range(12)


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_are_read_or_refused_by_name(kind: str, tmp_path: Path):
    outcomes = list(try_kind(kind, SEEDS, tmp_path / "work"))
    assert len(outcomes) == len(SEEDS)
    assert [each for each in outcomes if each.what not in WELL] == []
