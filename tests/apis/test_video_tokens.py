"""Visual tokens that are made again: the recent ones are kept, up to a number of bytes."""

from collections import OrderedDict

import numpy as np
import pytest
import torch

from clipbert_mm.apis import video_tokens
from clipbert_mm.apis.video_tokens import VideoTokens
from clipbert_mm.index import Entry


class _NoWalk(OrderedDict):
    """A mapping that nothing goes through as a whole, which would take time in all that is kept for each video."""

    def values(self) -> None:
        raise AssertionError("all tokens are looked at")


def test_the_recent_ones_are_kept_up_to_a_number_of_bytes(monkeypatch: pytest.MonkeyPatch):
    """As by adding up all bytes each time, of videos that are kept, asked for and kept again in a random order."""
    monkeypatch.setattr(video_tokens, "RECENT_BYTES", 4000)
    kept, twin = VideoTokens(None, None), OrderedDict[int, torch.Tensor]()
    kept._recent = _NoWalk()
    rng = np.random.default_rng(0)
    for number, clips in zip(rng.integers(30, size=400).tolist(), rng.integers(1, 9, size=400).tolist(), strict=True):
        entry = Entry(f"/v/{number}.mp4", 1, 1, 1.0, None, (2, 2))
        found = kept._recent_tokens(entry)
        assert (found is None) == (number not in twin)
        if number in twin:
            twin.move_to_end(number)
            assert torch.equal(found, twin[number])
            continue
        tokens = torch.full((clips, 3, 20), float(number))
        kept._keep(entry, tokens)
        twin[number] = tokens
        while sum(each.nbytes for each in twin.values()) > 4000:
            twin.popitem(last=False)
    assert [path for path, _, _ in kept._recent] == [f"/v/{number}.mp4" for number in twin]
