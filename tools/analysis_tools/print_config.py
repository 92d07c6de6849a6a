#!/usr/bin/env python
"""Print a config as it is after inheritance and options: python tools/analysis_tools/print_config.py CONFIG."""

import argparse
import contextlib
import sys

from mmengine.config import DictAction

from clipbert_mm.engine.config import load_config
from clipbert_mm.engine.run_tool import run_tool


def main(argv: list[str] | None = None) -> None:
    """Print."""
    parser = argparse.ArgumentParser(description="Print a whole config")
    parser.add_argument("config", help="config file")
    parser.add_argument("--cfg-options", nargs="+", action=DictAction, metavar="KEY=VALUE")
    args = parser.parse_args(argv)
    with contextlib.redirect_stdout(sys.stderr):  # MMEngine's log, which else would stand in the config
        config = load_config(args.config, args.cfg_options)
    print(config.pretty_text)


if __name__ == "__main__":
    run_tool(main)
