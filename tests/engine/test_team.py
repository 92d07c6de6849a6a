"""Processes that share a job: what the first one makes is there in all of them, or all end."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch.multiprocessing
from ports import free_port
from torch import distributed

from clipbert_mm.engine.team import Team, join_team
from clipbert_mm.errors import OptionError


def run_rank(rank: int, port: int, folder: Path, job: Callable[[Team, Path], object]) -> None:
    """Join a team of three, and write what the job returns, or how it ends."""
    os.environ |= dict(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="3", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
    )
    os.environ.pop("TORCHELASTIC_RUN_ID", None)
    join_team("pytorch")
    team = Team(together=True)
    try:
        said = job(team, folder)
    except (OptionError, SystemExit) as error:
        said = f"{type(error).__name__}: {error}"
    (folder / str(rank)).write_text(str(said))
    distributed.destroy_process_group()


def agree(team: Team, folder: Path) -> object:
    made = team.from_first(lambda: [team.rank, "made"])
    time.sleep(0.3 * team.rank)
    return made, team.gather(team.rank**2), Team(together=False).size


def fail(team: Team, folder: Path) -> object:
    def make() -> None:
        raise OptionError("there is no video")

    return team.from_first(make)


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        (agree, ["([0, 'made'], [0, 1, 4], 1)", "([0, 'made'], [], 1)", "([0, 'made'], [], 1)"]),
        (fail, ["OptionError: there is no video", "SystemExit: 1", "SystemExit: 1"]),
    ],
)
def test_all_have_what_the_first_one_makes(tmp_path: Path, job: Callable, expected: list[str]):
    torch.multiprocessing.start_processes(run_rank, (free_port(), tmp_path, job), nprocs=3, start_method="fork")
    assert [(tmp_path / str(rank)).read_text() for rank in range(3)] == expected


def test_a_process_alone_is_the_first_of_one():
    team = Team(together=True)
    assert (team.rank, team.size, team.is_first) == (0, 1, True)
    assert (team.from_first(lambda: 3), team.gather(5)) == (3, [5])
    team.wait()
    with pytest.raises(OptionError, match="is for processes started by torchrun"):
        join_team("pytorch")
