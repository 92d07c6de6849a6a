#!/usr/bin/env python
"""Count multiply-adds and parameters: python tools/analysis_tools/get_flops.py CONFIG."""

import argparse
import sys

import torch
from fvcore.nn import FlopCountAnalysis, flop_count_table
from mmengine.config import DictAction
from mmengine.registry import DefaultScope

from clipbert_mm import compat
from clipbert_mm.engine.config import load_config
from clipbert_mm.engine.errors import USER_ERRORS, plain_message
from clipbert_mm.registry import MODELS


class Pair(torch.nn.Module):
    """One video beside one text, as a module of plain tensors that fvcore can trace."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, frames: torch.Tensor, text_ids: torch.Tensor, text_mask: torch.Tensor, video_index: torch.Tensor
    ) -> torch.Tensor:
        """Return clip logits."""
        return self.model.score(self.model.encode_video(frames), text_ids, text_mask, video_index)


def main(argv: list[str] | None = None) -> None:
    """Count."""
    parser = argparse.ArgumentParser(description="Multiply-adds and parameters of one video beside one text, by module")
    parser.add_argument("config", help="config file")
    parser.add_argument("--clips", type=int, help="clips K of the video (default: the training pipeline's)")
    parser.add_argument("--frames", type=int, help="frames T of a clip (default: the training pipeline's)")
    parser.add_argument("--size", type=int, help="frame size in pixels (default: the training pipeline's)")
    parser.add_argument("--text-length", type=int, default=20, help="word pieces L (default: 20)")
    parser.add_argument("--depth", type=int, default=2, help="how deep modules are listed (default: 2)")
    parser.add_argument("--cfg-options", nargs="+", action=DictAction, metavar="KEY=VALUE")
    args = parser.parse_args(argv)
    config = load_config(args.config, args.cfg_options)
    with DefaultScope.overwrite_default_scope("clipbert_mm"):
        model = MODELS.build(config.model).eval()
    # An image is a video of one clip of one frame.
    settings = {key: value for step in config.train_dataloader.dataset.pipeline for key, value in step.items()}
    clips = args.clips or settings.get("num_clips", 1)
    frames = args.frames or settings.get("num_frames", 1)
    size = args.size or settings["size"]
    inputs = (
        torch.zeros(1, clips, frames, 3, size, size),
        torch.zeros(1, args.text_length, dtype=torch.long),
        torch.ones(1, args.text_length, dtype=torch.long),
        torch.zeros(1, dtype=torch.long),
    )
    flops = FlopCountAnalysis(Pair(model), inputs).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    flops.set_op_handle("aten::scaled_dot_product_attention", compat.count_attention)
    print(flop_count_table(flops, max_depth=args.depth + 1))
    print(
        f"{flops.total() / 1e9:.3f} G multiply-adds for {clips} x {frames} frames of {size} x {size} "
        f"pixels and {args.text_length} word pieces (convolutions, matrix products, normalisations; a multiply-add counts once)"
    )


if __name__ == "__main__":
    try:
        main()
    except USER_ERRORS as error:
        sys.exit(plain_message(error))
