#!/usr/bin/env python
"""Write a trained public model as a Hugging Face folder: python tools/model_converters/export_public.py CHECKPOINT FOLDER."""

import argparse
import tempfile

import torch

from clipbert_mm.apis.equality import TOLERANCE, largest_difference
from clipbert_mm.apis.opening import open_model
from clipbert_mm.checkpoint.exporting import export_model
from clipbert_mm.engine.run_tool import run_tool

TEXTS = ("a man is talking", "two people run")
"""What the library's model is compared on."""


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Write a trained public model as a folder of Hugging Face")
    parser.add_argument("checkpoint", help="checkpoint of a training that started from BLIP, ViLT, CLIP or SigLIP")
    parser.add_argument("folder", help="folder to write, which the library's from_pretrained reads")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> float:
    """Write the folder; returns the largest difference of a logit from the library's model with these weights."""
    args = parse_args(argv)
    with tempfile.TemporaryDirectory() as text_folder:
        opened = open_model(args.checkpoint, text_folder)
        model, recipe, tokenize = opened.model.eval(), opened.recipe, opened.tokenize
        family, settings = export_model(model, recipe.pipeline, tokenize.tokenizer, args.folder, recipe.answers)
        step = next(step for step in recipe.pipeline if step["type"] == "ResizeTo")
        side = step.get("size") or [step.get("crop") or step["shorter"]] * 2
        ids = [tokenize.transform(dict(texts=[text]))["text_ids"][0] for text in TEXTS]
        difference = largest_difference(model, family, settings, ids, torch.randn(2, 3, *side))
    print(
        f"{args.folder} is a {family.library_class} of Hugging Face; its scores differ from those of {args.checkpoint} by "
        f"{difference:.1g}, where {TOLERANCE:g} is rounding."
    )
    return difference


if __name__ == "__main__":
    run_tool(main)
