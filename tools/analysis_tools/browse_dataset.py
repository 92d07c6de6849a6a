#!/usr/bin/env python
"""Draw what the model is fed: python tools/analysis_tools/browse_dataset.py CONFIG."""

import argparse
import os
from pathlib import Path
from typing import Any

from mmengine.config import DictAction
from mmengine.registry import DefaultScope

from clipbert_mm.datasets import train_vocabularies
from clipbert_mm.datasets.media_dataset import MediaDataset
from clipbert_mm.datasets.wrappers import first_value, set_draw
from clipbert_mm.engine.config import expect_clipbert, load_config
from clipbert_mm.engine.run_tool import run_tool
from clipbert_mm.engine.tool_flags import Refused
from clipbert_mm.registry import DATASETS
from clipbert_mm.visualization import draw_items


def describe(dataset: Any, idx: int, clip_times: dict[int, Any]) -> dict[str, Any]:
    """Fetch an item and describe it; its texts are decoded from their token ids, with masks."""
    item = dataset[idx]
    sample, inputs = item["data_samples"], item["inputs"]
    labels = sample.match_labels.tolist() if "match_labels" in sample else [None] * len(inputs["text_ids"])
    marks = {1: "+  ", 0: "-  ", None: ""}
    tokenizer = first_value(dataset, "tokenizer")
    texts = [marks[label] + tokenizer.decode(ids) for label, ids in zip(labels, inputs["text_ids"], strict=True)]
    frames = inputs["frames"]
    times = clip_times.get(idx)
    titles = [""] * len(frames) if times is None else [f"{start:.1f}-{end:.1f} s" for start, end in times]
    folder = getattr(dataset, "data_prefix", {}).get("media") or os.path.dirname(sample.path)
    name = os.path.relpath(sample.path, folder)
    return dict(frames=frames, title=f"{idx}: {name}", texts=texts, clip_titles=titles)


def main(argv: list[str] | None = None) -> None:
    """Draw items of a dataset."""
    parser = argparse.ArgumentParser(
        description="Draw what the model is fed: sampled frames and texts (+ match, - negative)"
    )
    parser.add_argument("config", help="config file")
    parser.add_argument("--split", "--phase", "-p", choices=["train", "val", "test"], default="train")
    parser.add_argument(
        "--number", "--show-number", "-n", type=int, default=6, help="number of items, evenly spread (default: 6)"
    )
    parser.add_argument("--epoch", type=int, default=0, help="epoch whose draws are shown (default: 0)")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--out", help="PNG file (default: browse_<split>.png in the folder)")
    where.add_argument("--output-dir", "-o", help="folder of the PNG file (default: work_dirs/<config name>)")
    for flag in ("--mode", "-m"):
        parser.add_argument(flag, action=Refused, reason="is not an option: what is drawn is what the model is fed.")
    parser.add_argument("--not-show", action="store_true", help="open no window, as without this flag")
    parser.add_argument("--cfg-options", nargs="+", action=DictAction, metavar="KEY=VALUE")
    args = parser.parse_args(argv)
    config = load_config(args.config, args.cfg_options, needs=(f"{args.split}_dataloader",))
    expect_clipbert(config, "browse_dataset.py")
    train_vocabularies(config)
    with DefaultScope.overwrite_default_scope("clipbert_mm"):
        dataset = DATASETS.build(config[f"{args.split}_dataloader"]["dataset"])
    set_draw(dataset, config.get("randomness", {}).get("seed") or 0, args.epoch)
    # Packing keeps only what the model needs; the clips' times are noted on the way, in a dataset of ours.
    clip_times: dict[int, Any] = {}
    if isinstance(dataset, MediaDataset):
        dataset.pipeline.transforms.insert(
            -1, lambda results: clip_times.update({results["sample_idx"]: results.get("clip_times")}) or results
        )
    number = min(args.number, len(dataset))
    chosen = [round(i * (len(dataset) - 1) / max(number - 1, 1)) for i in range(number)]
    folder = args.output_dir or os.path.join("work_dirs", Path(args.config).stem)
    out = args.out or os.path.join(folder, f"browse_{args.split}.png")
    draw_items([describe(dataset, idx, clip_times) for idx in chosen], out)
    print(f"drew {number} of {len(dataset)} items: {out}")


if __name__ == "__main__":
    run_tool(main)
