#!/usr/bin/env python
"""Write the Shapes world: python tools/dataset_converters/shapes.py data/shapes."""

import argparse
from dataclasses import fields

from clipbert_mm.datasets.shapes.world import ShapesWorld
from clipbert_mm.engine.run_tool import run_tool


def main(argv: list[str] | None = None) -> None:
    """Write."""
    parser = argparse.ArgumentParser(description="Write the Shapes world: videos, images and captions, made by seed")
    parser.add_argument("folder", help="where it goes; the shapes configs look in data/shapes, or in $SHAPES_ROOT")
    for field in fields(ShapesWorld):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=int, default=field.default)
    options = vars(parser.parse_args(argv))
    if not ShapesWorld(**{field.name: options[field.name] for field in fields(ShapesWorld)}).write(options["folder"]):
        print(f"{options['folder']} holds this very world already")


if __name__ == "__main__":
    run_tool(main)
