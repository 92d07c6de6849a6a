#!/usr/bin/env python
"""Train small video backbones for an epoch to tell the color and the motion of a shape.

    python tools/analysis_tools/probe_video_encoders.py TSN SlowOnly

Each is trained from random weights in a ClipEncoder, with one linear layer over the mean and the maximum of its map. The clips
are drawn, not read from files: one second of one shape of the Shapes world. A frame alone tells the color, not the motion.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from benchmarks.video_backbones import BACKBONES, encoder_config
from torch import Tensor, nn

from clipbert_mm import compat
from clipbert_mm.datasets.shapes.scenes import BACKGROUNDS, COLORS, SHAPES, Scene, ShapeObject, draw_scene
from clipbert_mm.engine.run_tool import run_tool
from clipbert_mm.engine.tool_flags import seed_number
from clipbert_mm.fileio import atomic_write
from clipbert_mm.registry import MODELS

SIZE = 64
MOTIONS = {"standing still": (0.0, 0.0), "moving sideways": (0.6, 0.0), "moving up and down": (0.0, 0.6)}
"""Velocities, in shares of the frame a second."""
TARGETS = {"color": len(COLORS), "motion": len(MOTIONS)}
COLUMNS = ("parameters", *TARGETS, "seconds")


def draw_clips(count: int, frames: int, seed: int) -> tuple[Tensor, Tensor]:
    """Draw clips of one shape.

    Args:
        count: Number N of clips.
        frames: Frames T of a clip, evenly over a second.
        seed: Seed of the scenes.

    Returns:
        Clips, uint8 (N, T, 3, SIZE, SIZE), and the indices of color and motion, int64 (N, 2).
    """
    rng = np.random.default_rng(seed)
    clips, labels = (
        np.empty((count, frames, SIZE, SIZE, 3), np.uint8),
        rng.integers(0, list(TARGETS.values()), (count, 2)),
    )
    for clip, (color, motion) in zip(clips, labels, strict=True):
        velocity = np.array(list(MOTIONS.values())[motion]) * rng.choice((-1, 1))
        item = ShapeObject(
            str(rng.choice(SHAPES)), list(COLORS)[color], "large", tuple(rng.uniform(0, 1, 2)), tuple(velocity.tolist())
        )
        scene = Scene((item,), str(rng.choice(list(BACKGROUNDS))), 1.0)
        for i, frame in enumerate(clip):
            frame[:] = draw_scene(scene, i / max(1, frames - 1), SIZE, SIZE)
    return torch.from_numpy(clips).permute(0, 1, 4, 2, 3), torch.from_numpy(labels)


class Probe(nn.Module):
    """A clip encoder and one linear layer, from normalized clips (N, T, 3, H, W) to logits of all targets."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.encoder = MODELS.build(encoder_config(name, SIZE))
        with compat.building_mmaction():  # without MMEngine's line for each weight
            self.encoder.init_weights()
        self.classifier = nn.LazyLinear(sum(TARGETS.values()))

    def forward(self, clips: Tensor) -> tuple[Tensor, ...]:
        """Return logits (N, classes) of each target."""
        maps = self.encoder(clips.float().sub(128).div(64))  # (N, t, C, h, w)
        pooled = torch.cat([maps.mean(dim=(1, 3, 4)), maps.amax(dim=(1, 3, 4))], dim=1)
        return self.classifier(pooled).split(list(TARGETS.values()), dim=1)


def probe(name: str, args: argparse.Namespace) -> dict[str, float]:
    """Train and test one backbone; returns the share of right answers of each target in percent, and the time."""
    torch.manual_seed(args.seed)
    frames = BACKBONES[name][1]
    clips, labels = draw_clips(args.clips, frames, args.seed)
    model = Probe(name)
    model(clips[:2])  # its linear layer learns its size
    steps = args.epochs * (args.clips // args.batch)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min((step + 1) / 10, 1.0) * (1 - step / steps))
    began = time.process_time()
    for _ in range(args.epochs):
        for batch in torch.randperm(args.clips)[: steps // args.epochs * args.batch].split(args.batch):
            loss = sum(
                F.cross_entropy(*pair) for pair in zip(model(clips[batch]), labels[batch].unbind(dim=1), strict=True)
            )
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
            schedule.step()
    seconds = time.process_time() - began
    model.eval()
    clips, labels = draw_clips(args.test_clips, frames, args.seed + 1_000_000)
    with torch.no_grad():
        logits = [torch.cat(each) for each in zip(*(model(part) for part in clips.split(50)), strict=True)]
    right = [
        100 * (found.argmax(dim=1) == wanted).float().mean().item()
        for found, wanted in zip(logits, labels.unbind(dim=1), strict=True)
    ]
    parameters = sum(each.numel() for each in model.encoder.parameters())
    return {"parameters": parameters, **dict(zip(TARGETS, right, strict=True)), "seconds": seconds}


def main(argv: list[str] | None = None) -> None:
    """Probe each backbone; prints and writes a table."""
    parser = argparse.ArgumentParser(description="Train small video backbones to tell color and motion of a shape")
    parser.add_argument("names", nargs="*", help=f"backbones (default: all): {', '.join(BACKBONES)}")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--clips", type=int, default=2000, help="clips to train on (default: 2000)")
    parser.add_argument("--test-clips", type=int, default=500, help="clips to test on (default: 500)")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=seed_number, default=0)
    parser.add_argument("--out", type=Path, default=Path("work_dirs/probe_video_encoders.md"))
    args = parser.parse_args(argv)
    if unknown := set(args.names) - set(BACKBONES):
        parser.error(f"there is no backbone {', '.join(sorted(unknown))}; there are {', '.join(BACKBONES)}")
    lines = [f"| backbone | {' | '.join(COLUMNS)} |", "| --- |" + " --- |" * len(COLUMNS)]
    for name in args.names or BACKBONES:
        found = probe(name, args)
        cells = [
            f"{found['parameters']:,}",
            *(f"{found[target]:.1f} %" for target in TARGETS),
            f"{found['seconds']:.0f} s",
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    lines.append(f"| chance | | {' | '.join(f'{100 / classes:.1f} %' for classes in TARGETS.values())} | |")
    with atomic_write(args.out) as file:
        file.write("\n".join(lines) + "\n")
    print(f"wrote {args.out}")


if __name__ == "__main__":
    run_tool(main)
