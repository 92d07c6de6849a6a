"""A training that is killed again and again ends as one that never was, to the bit."""

import random
import sys
from pathlib import Path

import pytest
from faulty_runs import Run, assert_same_training, final, write_config

CLOCK = ("time", "data_time", "eta", "memory")
VARIANTS = {
    "dropout": "",
    "workers, accumulation and EMA": """
train_dataloader.update(batch_size=1, num_workers=2, persistent_workers=True)
optim_wrapper.update(accumulative_counts=5)
default_hooks.update(ema=dict(type="EMAHook", momentum=0.1))
""",
}


def compare(folder: Path, config: Path, kills: int, seed: int, ranks: int = 1, epochs: int = 5) -> int:
    """Run a training whole and with kills, compare, and return the number of kills."""
    whole, cut = Run(config, folder / "whole", ranks), Run(config, folder / "cut", ranks)
    assert set(whole.finish()) == {0}, whole.log().read_text()[-3000:]
    done = cut.killed(kills, random.Random(seed))
    assert_same_training(final(cut.work_dir, epochs), final(whole.work_dir, epochs))
    rows, wanted = cut.logged(), whole.logged()
    assert rows.keys() == wanted.keys() == set(range(1, max(wanted) + 1))
    for step, row in wanted.items():
        assert {key: rows[step].get(key) for key in row if key not in CLOCK} == {
            key: value for key, value in row.items() if key not in CLOCK
        }, step
    sys.stdout.write(f"\n{done} kills, {len(wanted)} steps, {sorted(path.name for path in cut.work_dir.glob('*.pth'))}")
    return done


def test_a_few_kills_with_everything_on(tmp_path: Path, world: Path, tokenizer: str):
    short = VARIANTS["workers, accumulation and EMA"] + "train_cfg.update(max_epochs=2)"
    config = write_config(tmp_path / "config.py", world, tokenizer, short)
    assert compare(tmp_path, config, kills=2, seed=1, epochs=2) == 2


@pytest.mark.faults
@pytest.mark.parametrize("name", VARIANTS)
def test_many_kills_of_one_process(tmp_path: Path, world: Path, tokenizer: str, name: str):
    config = write_config(tmp_path / "config.py", world, tokenizer, VARIANTS[name])
    assert compare(tmp_path, config, kills=10, seed=len(name)) == 10


@pytest.mark.faults
def test_kills_of_one_of_two_processes(tmp_path: Path, world: Path, tokenizer: str):
    config = write_config(tmp_path / "config.py", world, tokenizer, VARIANTS["workers, accumulation and EMA"])
    assert compare(tmp_path, config, kills=6, seed=3, ranks=2) == 6
