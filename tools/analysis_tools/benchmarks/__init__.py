"""What the tools measure with: time, memory and FLOPs of loading, training and retrieval, written as JSON and figures.

Each module here has ``add_arguments(parser)``, ``measure(config, args)``, which returns a report that JSON can hold, and
``draw(report, picture)``; ``tools/analysis_tools/benchmark.py`` has a sub-command for each.
"""

from benchmarks.timing import Timing, environment, matrix_rate, time_in_turn

__all__ = ["Timing", "environment", "matrix_rate", "time_in_turn"]
