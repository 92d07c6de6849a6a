"""Windows that show pictures, on machines with a display."""

from collections.abc import Sequence
from pathlib import Path

from mmengine.visualization import Visualizer

from clipbert_mm.errors import OptionError


def check_display(asked: str, instead: str) -> None:
    """Check that windows can be opened.

    Args:
        asked: What asks for windows, as the user wrote it.
        instead: What to do where there is no display.

    Raises:
        OptionError: If there is no display, or matplotlib has no backend for it.
    """
    from matplotlib import pyplot  # which looks for a display

    if pyplot.get_backend().lower() == "agg":
        raise OptionError(f"{asked} opens windows, and there is no display that matplotlib can use. {instead}")


def show_pictures(paths: Sequence[Path], wait_time: float) -> None:
    """Show pictures one after the other.

    Args:
        paths: Files of pictures.
        wait_time: Seconds that each is shown; 0 waits for the space bar.
    """
    from matplotlib.image import imread

    visualizer = Visualizer.get_instance("clipbert_mm_windows")
    for path in paths:
        visualizer.show(imread(path), win_name=path.name, wait_time=wait_time)
