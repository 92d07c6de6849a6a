"""Flags that our tools have in common with those of MMPretrain and MMAction2."""

import argparse
from collections.abc import Sequence
from typing import Any

from mmengine.config import Config

from clipbert_mm.command_options import at_least

LOADERS = ("train_dataloader", "val_dataloader", "test_dataloader")
MAX_SEED = 2**31 - 1
"""Largest seed, as MMEngine draws them. Processes and workers count up from it, and NumPy takes none above 2**32 - 1."""
seed_number = at_least(0, MAX_SEED)
"""Argument type of the tools' ``--seed``."""


class Refused(argparse.Action):
    """A flag of the other libraries' tools that ours have not; it ends the tool and says why.

    Args:
        option_strings: The flag.
        dest: Unused.
        reason: Why it is refused, and what to do instead.
    """

    def __init__(self, option_strings: Sequence[str], dest: str, *, reason: str) -> None:
        super().__init__(
            option_strings, argparse.SUPPRESS, nargs="?", default=argparse.SUPPRESS, help=argparse.SUPPRESS
        )
        self.reason = reason

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:  # noqa: ANN401
        """End the tool."""
        parser.error(f"{self.option_strings[0]} {self.reason}")


def add_loader_flags(parser: argparse.ArgumentParser) -> None:
    """Add ``--no-pin-memory`` and ``--no-persistent-workers``, which :func:`set_loaders` applies."""
    parser.add_argument(
        "--no-pin-memory",
        dest="loaders",
        action="append_const",
        const=("pin_memory", False),
        help="do not copy batches to pinned memory, where the config says so (pin_memory of its dataloaders)",
    )
    parser.add_argument(
        "--no-persistent-workers",
        dest="loaders",
        action="append_const",
        const=("persistent_workers", False),
        help="start the workers of dataloaders anew for each epoch, where the config keeps them (persistent_workers)",
    )


def set_loaders(config: Config, settings: Sequence[tuple[str, bool]] | None) -> None:
    """Apply the flags of :func:`add_loader_flags` to all dataloaders of a config."""
    for name in LOADERS:
        if config.get(name) is not None:
            config[name].update(dict(settings or ()))
