"""Seeds that NumPy does not take are refused before anything is done, by all tools alike."""

from collections.abc import Callable
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"
COMMANDS = {
    "train.py": (),
    "demo.py": (),
    "analysis_tools/ablation.py": (),
    "analysis_tools/probe_video_encoders.py": (),
    "dataset_converters/msrvtt.py": ("retrieval",),
    "dataset_converters/own_csv.py": (),
    "dataset_converters/shapes.py": (),
    "dataset_converters/ssv2.py": (),
    "dataset_converters/tgif_qa.py": (),
}
"""Tools with a seed, and the task before it."""


@pytest.mark.parametrize("script", COMMANDS)
def test_seeds_out_of_range_are_refused(script: str, tool: Callable, capsys: pytest.CaptureFixture):
    module = tool(script)
    option = "--seeds" if script.endswith("ablation.py") else "--seed"
    for number in ("-1", "2147483648", "4294967296", "99999999999999", "nan", "1.5"):
        with pytest.raises(SystemExit) as caught:
            module.main([*COMMANDS[script], option, number])
        assert caught.value.code == 2
        expected = f"argument {option}: expected a whole number, 0 to 2147483647, got '{number}'"
        assert expected in capsys.readouterr().err


def test_the_largest_seed_leaves_room_for_processes_and_workers(tool: Callable):
    assert tool("train.py").parse_args(["a.py", "--seed", "2147483647"]).seed == 2**31 - 1


def test_no_tool_with_a_seed_is_left_out():
    with_seed = {
        str(path.relative_to(TOOLS)) for path in TOOLS.rglob("*.py") if '"--seed' in path.read_text(encoding="utf-8")
    }
    # Steps pass a seed on; mutation testing draws by Python's generator, which takes any.
    others = {"analysis_tools/ablations/steps.py", "mutation/mutate.py"}
    assert with_seed - others | {"dataset_converters/shapes.py"} == set(COMMANDS)
