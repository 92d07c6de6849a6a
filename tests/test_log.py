"""What the package says: under a logger of its own, and in the log of a run while one goes on."""

import logging
import subprocess
import sys
from pathlib import Path

import pytest
from forking import ForkingProcess
from mmengine.config import Config

from clipbert_mm.engine.launch import build_runner
from clipbert_mm.errors import OptionError
from clipbert_mm.log import logger

AS_A_LIBRARY = """
import logging, sys
from clipbert_mm.log import logger
logger.info("not asked for")
logger.warning("to the error output")
assert "mmengine.logging" not in sys.modules or not sys.modules["mmengine.logging"].MMLogger._instance_dict
logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s", stream=sys.stdout)
logger.info("where the program wants it")
"""


def test_as_a_library_the_program_decides_where_messages_go():
    run = subprocess.run([sys.executable, "-c", AS_A_LIBRARY], capture_output=True, text=True, check=True)
    assert run.stdout == "clipbert_mm: where the program wants it\n"
    assert run.stderr == "to the error output\n"


@pytest.mark.parametrize("level", ["INFO", "WARNING"])
def test_a_run_has_them_once_in_its_log_and_on_the_console(
    runner_config: Config, tmp_path: Path, capsys: pytest.CaptureFixture, caplog: pytest.LogCaptureFixture, level: str
):
    runner_config.log_level = level
    runner_config.experiment_name += level
    for part in ("-first", "-second"):  # no run adds a second line
        runner_config.experiment_name += part
        build_runner(runner_config)
    logger.info("12 items are left out")
    logger.warning("worker 3 began again")
    log = max((tmp_path / "work").glob("*/*.log"), key=lambda path: path.stat().st_mtime_ns).read_text()
    for text in (log, capsys.readouterr().out):
        assert text.count("12 items are left out") == (level == "INFO")
        assert text.count("worker 3 began again") == 1
    assert " - clipbert_mm - WARNING - worker 3 began again\n" in log
    assert [record.name for record in caplog.records if "worker 3" in record.getMessage()] == [logger.name]


def test_the_console_has_few_lines_before_an_error_and_the_file_all(
    runner_config: Config, tmp_path: Path, capsys: pytest.CaptureFixture
):
    runner_config.log_level = "INFO"
    runner_config.train_dataloader.update(batch_size=25, drop_last=True)  # of 24 items
    with pytest.raises(OptionError, match="fewer than a batch of 25"):
        build_runner(runner_config).train()
    (log,) = (tmp_path / "work").glob("*/*.log")
    shown, written = capsys.readouterr().out, log.read_text()
    assert len(shown.splitlines()) < 10
    assert f"The log with the environment and the config of this run: {log}\n" in shown
    for part in ("System environment:", "Config:\n", "Hooks will be executed", "FaultTolerantCheckpointHook"):
        assert part in written
        assert part not in shown


def test_importing_the_package_touches_no_logger(with_libraries: ForkingProcess):
    code = (
        "import logging, clipbert_mm.engine, clipbert_mm.log; print(vars(logging.getLogger('clipbert_mm'))['handlers'])"
    )
    assert with_libraries.run(code).stdout == "[]\n"
    assert logging.getLogger("clipbert_mm") is logger
