"""What is costly to make, and made once for all workers of the tests."""

import fcntl
import hashlib
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from clipbert_mm.engine.launch import build_runner

Once = Callable[[str, Callable[[], Any]], Any]
"""From a name and a function to what the function returns, which is called for each name once."""


def once_in(folders: pytest.TempPathFactory) -> Once:
    """Let the first worker that asks for a name compute it, and the others wait for what it returns, which is pickled."""
    base = folders.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def once(name: str, compute: Callable[[], Any]) -> Any:
        kept = shared / f"{name}.pickle"
        with open(shared / f"{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                if not kept.is_file():
                    kept.write_bytes(pickle.dumps(compute()))
            finally:
                fcntl.flock(lock, fcntl.LOCK_UN)  # also where a process that was forked meanwhile has the file open
        return pickle.loads(kept.read_bytes())

    return once


def trained_once(config: Config, once: Once, folders: pytest.TempPathFactory) -> Path:
    """Return the work folder of a training by a config, whose own work folder and name do not matter; not to be written to."""
    config.experiment_name = config.work_dir = ""
    options = json.dumps(config.to_dict(), sort_keys=True, default=repr)

    def train() -> Path:
        folder = folders.mktemp("trained")
        config.experiment_name, config.work_dir = f"{folder.parent.name}-{folder.name}", str(folder)
        torch.manual_seed(0)
        with DefaultScope.overwrite_default_scope("clipbert_mm"):
            build_runner(config).train()
        return folder

    return once(f"trained-{hashlib.sha256(options.encode()).hexdigest()[:16]}", train)
