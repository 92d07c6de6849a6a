"""What docs/coming_from_openmmlab.md says of flags and names."""

import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from warm_python import run_code

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "coming_from_openmmlab.md").read_text()
TOOLS = {
    "train": "train.py",
    "test": "test.py",
    "browse_dataset": "analysis_tools/browse_dataset.py",
    "get_flops": "analysis_tools/get_flops.py",
    "print_config": "analysis_tools/print_config.py",
}


def flags_of(kind: str) -> set[str]:
    """Return the flags that the page says are the same for a tool."""
    rows = [line.split(" | ") for line in PAGE.splitlines() if line.startswith("| ") and line.count(" | ") == 1]
    cells = [row[0] for row in rows if "the same" in row[1]]
    parts = [part for cell in cells for part in re.split(r"; ", cell)]
    named = [part for part in parts if re.match(rf"\|? ?(\w+, )?{kind}\b(, \w+)? `", part)]
    return {flag for part in named for flag in re.findall(r"`(--?[\w-]+)", part)}


@pytest.mark.parametrize("kind", TOOLS)
def test_h20_h27_flags_that_the_page_names_are_there(
    tool: Callable[[str], ModuleType], capsys: pytest.CaptureFixture, kind: str
):
    flags = flags_of(kind)
    assert len(flags) >= 1
    with pytest.raises(SystemExit):
        tool(TOOLS[kind]).main(["--help"])
    known = set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", capsys.readouterr().out))
    assert flags <= known
    assert {"train": {"--no-pin-memory", "--deterministic"}, "test": {"--out", "--show", "--no-pin-memory"}}.get(
        kind, set()
    ) <= flags


def test_h27_models_are_built_without_a_scope_after_the_usual_call():
    (block,) = re.findall(r"```python\n(from clipbert_mm\.utils .*?)```", PAGE, flags=re.DOTALL)
    code = f"""
from mmengine.registry import MODELS
try:
    MODELS.build(dict(type="MaxAggregator"))
except KeyError as error:
    assert "MaxAggregator is not in the mmengine::model registry" in str(error)
else:
    raise AssertionError("MMEngine's rule is another one")
{block}
assert type(MODELS.build(dict(type="MaxAggregator"))).__name__ == "MaxAggregator"
"""
    run_code(code)
