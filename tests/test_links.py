"""README and docs: what they point to is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
PATH = re.compile(r"\b(?:configs|tools|clipbert_mm)/[\w./*+-]+\.(?:py|sh)\b")
READERS_OWN = "configs/my/"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_paths_of_a_page_lead_somewhere(page: Path):
    text = page.read_text()
    links = [link for link in LINK.findall(text) if "://" not in link]
    assert not [link for link in links if not (page.parent / link).exists()]
    paths = {path for path in PATH.findall(text) if not path.startswith(READERS_OWN)}
    assert not [path for path in paths if not any(ROOT.glob(path))]


def test_links_are_found():
    assert LINK.findall("[a](b.md), [c](../d.py#e), ![f](g/h.png)") == ["b.md", "../d.py", "g/h.png"]
    assert PATH.findall("`python tools/train.py configs/a_b/c-*.py`, other/tools.py") == [
        "tools/train.py",
        "configs/a_b/c-*.py",
    ]
