"""What is not used is not imported: in a process of its own, as long as it takes nobody's seconds."""

import subprocess
import sys

import pytest

HEAVY = {
    "transformers", "mmpretrain", "mmaction", "mmcv", "cv2", "av", "decord", "lmdb", "matplotlib", "torchvision", "timm",
    "fvcore", "scipy", "mmengine.optim", "mmengine.runner", "torch._dynamo", "torch.distributed.fsdp",
}  # fmt: skip
"""Libraries that tasks use, each by some of them."""


@pytest.mark.parametrize(
    ("statement", "needed"),
    [
        ("import clipbert_mm", set()),
        ("import clipbert_mm.evaluation", set()),
        ("import clipbert_mm.checkpoint", set()),
        (
            "from clipbert_mm.engine.config import load_config",
            {"mmengine.optim", "mmengine.runner", "transformers", "cv2", "torch.distributed.fsdp"},
        ),
    ],
)
def test_what_is_not_used_is_not_imported(statement: str, needed: set[str]):
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = set(done.stdout.split())
    assert {"torch", "clipbert_mm"} <= imported
    assert imported & HEAVY <= needed
