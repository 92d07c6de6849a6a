"""The package's logger: ``clipbert_mm``, which a program that uses the package configures as any other.

Training, testing and the tools show what it says with MMEngine's current logger, so that it stands in the log of the run.
"""

import logging
import re
import sys

logger = logging.getLogger("clipbert_mm")


LONG = re.compile(r"\n-+\nSystem environment:|Config:\n|Hooks will be executed in the following order:")
"""How the messages of MMEngine's Runner begin that list environment, config and hooks."""


def is_for_console(record: logging.LogRecord) -> bool:
    """Whether a message is shown on a console; the long lists at the start of a run are not."""
    return record.levelno > logging.INFO or LONG.match(record.getMessage()) is None


class _RunLog(logging.Handler):
    """Passes messages on to MMEngine's current logger: on the console and, while a run goes on, in its log file."""

    def emit(self, record: logging.LogRecord) -> None:
        from mmengine.logging import MMLogger

        MMLogger.get_current_instance().handle(record)


def show_in_run_log() -> None:
    """Show what the package says, from now on, with MMEngine's current logger; called by each run and by the tools."""
    if not any(isinstance(handler, _RunLog) for handler in logger.handlers):
        logger.addHandler(_RunLog())
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)


class _Stderr(logging.Handler):
    """Writes messages to the standard error stream of the moment."""

    def emit(self, record: logging.LogRecord) -> None:
        sys.stderr.write(f"{self.format(record)}\n")


def show_on_stderr() -> None:
    """Show what the package says, from now on, on the standard error stream, with the time."""
    if not any(isinstance(handler, _Stderr) for handler in logger.handlers):
        handler = _Stderr()
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
        logger.addHandler(handler)
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)
