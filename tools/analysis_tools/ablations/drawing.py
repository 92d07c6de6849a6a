"""Figures 4 and 5 of the paper, redrawn from our runs."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from clipbert_mm.visualization.figures import save_figure

COLORS = ("#22415f", "#4878a8", "#1a9641", "#d7761c", "#7b3294")
STYLES = ("-", "--", ":", "-.")
"""Of lines, where there are more than colors."""
AXES = {"clips": "clips $N_{train}$ (T = 1)", "frames": "frames $T$ ($N_{train}$ = 1)"}
"""Axes of Figure 5, by their names in the reports of the benchmarks."""


def draw_lines(report: Mapping[str, Any], spec: Mapping[str, Any], picture: Path) -> bool:
    """Draw a metric of each task against a label of the rows, one line for each value of another label (Figure 4).

    Args:
        report: The report of a table.
        spec: ``x``, the label along the axis, a number in each row; and ``lines``, the other label, left out for one line.
        picture: The PNG file.

    Returns:
        Whether there was anything to draw.
    """
    tasks = [task for task, metrics in report["metrics"].items() if metrics]
    points = {task: _points(report, spec, task, report["metrics"][task][0]) for task in tasks}
    tasks = [task for task in tasks if points[task]]
    if not tasks:
        return False
    figure = Figure(figsize=(4.8 * len(tasks), 3.6), layout="constrained")
    for axes, task in zip(figure.subplots(1, len(tasks), squeeze=False)[0], tasks, strict=True):
        for number, (name, own) in enumerate(points[task].items()):
            color, style = COLORS[number % len(COLORS)], STYLES[number // len(COLORS) % len(STYLES)]
            x, mean, low, high = (list(each) for each in zip(*sorted(own), strict=True))
            below = [m - value for m, value in zip(mean, low, strict=True)]
            above = [value - m for m, value in zip(mean, high, strict=True)]
            apart = [value * 1.03**number for value in x]  # so that the intervals of several lines can be told apart
            drawn = dict(marker="o", capsize=3, color=color, linestyle=style, label=f"{spec.get('lines')} = {name}")
            axes.errorbar(apart, mean, yerr=(below, above), **drawn)
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.set_xticks(sorted({point[0] for own in points[task].values() for point in own}))
        axes.set_xlabel(spec["x"])
        axes.set_ylabel(f"{report['metrics'][task][0].removeprefix('t2v/')}, %")
        axes.set_title(task, fontsize=10)
        if len(points[task]) > 1:
            axes.legend(fontsize=8)
    seeds = {len(row["tasks"][task]["values"]) for row in report["rows"] for task in tasks if task in row["tasks"]} - {
        0
    }
    told = " to ".join(map(str, sorted({min(seeds), max(seeds)})))
    figure.suptitle(f"{report['title']} ({told} seeds, 95 % intervals)", fontsize=10)
    save_figure(figure, picture)
    return True


def _points(
    report: Mapping[str, Any], spec: Mapping[str, Any], task: str, metric: str
) -> dict[str, list[tuple[float, float, float, float]]]:
    """Return x, mean and the ends of the interval of each row that is there, by line."""
    points: dict[str, list[tuple[float, float, float, float]]] = {}
    for row in report["rows"]:
        found = row["tasks"].get(task, {}).get("estimates", {}).get(metric)
        if found is not None and spec["x"] in row["label"]:
            ends = found["interval"] or found["over_queries"]
            own = points.setdefault(row["label"].get(spec.get("lines"), ""), [])
            own.append((float(row["label"][spec["x"]]), found["mean"], *ends))
    return points


def draw_costs(report: Mapping[str, Any], picture: Path) -> bool:
    """Draw the largest batch and the time of a pass against clips and frames, with the metric of the rows (Figure 5).

    Args:
        report: The report of a table with ``benchmarks``: ``memory`` and ``step`` of tools/analysis_tools/benchmark.py. Rows
            whose label has ``axis``, "clips" or "frames", and ``number`` are drawn into the panel of times.
        picture: The PNG file.

    Returns:
        Whether there was anything to draw.
    """
    benchmarks = report.get("benchmarks")
    if not benchmarks:
        return False
    figure = Figure(figsize=(9, 6.2), layout="constrained")
    grid = figure.subplots(2, 2, sharex="col")
    for (above, below), (axis, label) in zip(grid.T, AXES.items(), strict=True):
        if "memory" in benchmarks:
            limit = benchmarks["memory"]["memory_limit"] / 2**30
            _draw(above, benchmarks["memory"][axis], axis, lambda row: row["largest_batch"]["plain"])
            above.set_ylabel(f"largest batch within {limit:g} GiB")
            above.set_yscale("log", base=2)
            above.yaxis.set_major_formatter(ScalarFormatter())
        if "step" in benchmarks:
            _draw(below, benchmarks["step"][axis], axis, lambda row: row["seconds"]["backward"]["median_s"])
            below.set_ylabel(f"seconds, forward and backward, batch {benchmarks['step']['setting']['batch']}")
            below.set_ylim(bottom=0)
        _draw_metric(below, report, axis)
        below.set_xlabel(label)
    device = next(iter(benchmarks.values()))["environment"]["device"]
    figure.suptitle(f"{report['title']}, {device}", fontsize=10)
    save_figure(figure, picture)
    return True


def _draw(
    axes: Axes, rows: Sequence[Mapping[str, Any]], axis: str, value: Callable[[Mapping[str, Any]], float]
) -> None:
    ordered = sorted(rows, key=lambda row: row[axis])
    numbers = [row[axis] for row in ordered]
    axes.plot(numbers, [value(row) for row in ordered], "o-", color=COLORS[1])
    axes.set_xticks(numbers)


def _draw_metric(axes: Axes, report: Mapping[str, Any], axis: str) -> None:
    """Draw the first metric of the rows of an axis, where there are any, on a scale of its own."""
    task, metrics = next(((t, m) for t, m in report["metrics"].items() if m), ("", [""]))
    points = sorted(_points(report, dict(x="number", lines="axis"), task, metrics[0]).get(axis, ()))
    if points:
        numbers, means, *_ = zip(*points, strict=True)
        other = axes.twinx()
        other.plot(numbers, means, "s--", color=COLORS[3])
        other.set_ylabel(f"{task} {metrics[0].removeprefix('t2v/')}, %", color=COLORS[3])
        other.set_ylim(bottom=0)
