#!/usr/bin/env python
"""Write the Shapes world: python tools/dataset_converters/shapes.py data/shapes."""

import argparse
from dataclasses import fields

from clipbert_mm.command_options import at_least
from clipbert_mm.datasets.shapes.hard import HardShapesWorld
from clipbert_mm.datasets.shapes.world import ShapesWorld
from clipbert_mm.engine.run_tool import run_tool
from clipbert_mm.engine.tool_flags import seed_number


def main(argv: list[str] | None = None) -> None:
    """Write."""
    parser = argparse.ArgumentParser(description="Write the Shapes world: videos, images and captions, made by seed")
    parser.add_argument("folder", help="where it goes; the shapes configs look in data/shapes, or in $SHAPES_ROOT")
    parser.add_argument("--hard", action="store_true", help="the world of the tables' twins (docs/shapes_twins.md)")
    for field in fields(HardShapesWorld):
        kind = seed_number if field.name == "seed" else at_least(0)
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=kind, default=argparse.SUPPRESS)
    options = vars(parser.parse_args(argv))
    folder, hard = options.pop("folder"), options.pop("hard")
    world = HardShapesWorld if hard else ShapesWorld
    if unknown := options.keys() - {field.name for field in fields(world)}:
        parser.error(f"--{min(unknown).replace('_', '-')} needs --hard")
    if not world(**options).write(folder):
        print(f"{folder} holds this very world already")


if __name__ == "__main__":
    run_tool(main)
