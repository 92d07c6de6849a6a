#!/usr/bin/env python
"""Index videos by several processes; see dist_index.sh and slurm_index.sh. Alone it is the same as clipbert index."""

import sys

from clipbert_mm.__main__ import main

if __name__ == "__main__":
    main(["index", *sys.argv[1:]])
