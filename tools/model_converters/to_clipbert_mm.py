#!/usr/bin/env python
"""Convert a checkpoint of another library to our names: python tools/model_converters/to_clipbert_mm.py SOURCE TARGET.pth."""

import argparse
import os

from clipbert_mm import __version__
from clipbert_mm.checkpoint import read_source, write_checkpoint
from clipbert_mm.engine.run_tool import run_tool


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Convert a checkpoint of another library to our names")
    parser.add_argument("source", help="file, Hugging Face folder or name")
    parser.add_argument("target", help="file to write, .pth")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Convert; the target appears whole or not at all."""
    args = parse_args(argv)
    if os.path.exists(args.target):
        raise FileExistsError(f"{args.target} exists. Move it away or name another target.")
    source = read_source(args.source)
    checkpoint = {
        "state_dict": source.tensors,
        "meta": {"converted_from": source.title, "clipbert_mm_version": __version__},
    }
    if source.input_spec is not None:
        checkpoint["convention"] = source.input_spec.to_dict()
    checkpoint |= {key: source.rest[key] for key in ("vocabulary", "attention_heads") if key in source.rest}
    write_checkpoint(checkpoint, args.target)
    modules = dict.fromkeys(name.partition(".")[0] for name in source.tensors)
    print(
        f"{args.source} is {source.title}; {len(source.tensors)} tensors of {', '.join(modules)} are in {args.target}."
    )
    if source.input_spec is not None:
        print(f"Its visual weights want frames as {source.input_spec}.")


if __name__ == "__main__":
    run_tool(main)
