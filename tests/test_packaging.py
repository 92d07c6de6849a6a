"""What setup.py ships: every sub-package, and a model index that names configs that exist; and the project's own files."""

import re
import subprocess
import sys
from email.parser import HeaderParser
from pathlib import Path
from zipfile import ZipFile

import pytest
import yaml
from forking import ForkingProcess
from modelindex.load_model_index import load

from clipbert_mm import __version__

ROOT = Path(__file__).resolve().parents[1]
URL = "https://github.com/clipbert-mm/clipbert_mm"


def metafiles() -> list[Path]:
    """The metafiles that model-index.yml imports."""
    return [ROOT / path for path in yaml.safe_load((ROOT / "model-index.yml").read_text())["Import"]]


def test_every_folder_with_code_is_a_package():
    # find_packages leaves out a folder without __init__.py, and everything below it, in silence.
    folders = {path.parent for path in (ROOT / "clipbert_mm").rglob("*.py") if ".mim" not in path.parts}
    assert [folder for folder in sorted(folders) if not (folder / "__init__.py").exists()] == []


def test_model_index_lists_every_metafile():
    assert sorted(metafiles()) == sorted((ROOT / "configs").rglob("metafile.yml"))


@pytest.mark.parametrize("metafile", metafiles(), ids=lambda path: path.parent.name)
def test_metafile_names_configs_that_exist(metafile: Path):
    index = yaml.safe_load(metafile.read_text())
    for model in index["Models"]:
        assert model["In Collection"] == "CLIPBERT"
        assert Path(model["Config"]).stem == model["Name"], "mim looks a config up by the model's name"
        assert (ROOT / model["Config"]).is_file()


def test_open_mmlab_s_reader_takes_the_index_and_results_are_marked_as_the_paper_s(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    index = load("model-index.yml")
    index.build_models_with_collections()
    assert len(index.models) == sum(len(yaml.safe_load(path.read_text())["Models"]) for path in metafiles())
    configs = {
        path
        for folder in (
            "shapes",
            "pretrain",
            "retrieval",
            "video_qa",
            "image_qa",
            "other_datasets",
            "video_encoders",
            "public",
        )
        for path in (ROOT / "configs" / folder).glob("*.py")
    }
    assert {ROOT / model.config for model in index.models} == {path for path in configs if "_custom" not in path.stem}
    reported = [result for model in index.models for result in model.results or []]
    assert len(reported) == 17
    assert all(name.endswith(" (paper)") for result in reported for name in result.metrics)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of the package."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [
        sys.executable,
        "setup.py",
        "--quiet",
        "egg_info",
        "--egg-base",
        folder,
        "build",
        "--build-base",
        folder / "build",
    ]
    subprocess.run([*build, "bdist_wheel", "--dist-dir", folder], cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def test_wheel_has_type_marker_and_address(wheel: Path):
    with ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = HeaderParser().parsestr(archive.read(f"clipbert_mm-{__version__}.dist-info/METADATA").decode())
    assert {"clipbert_mm/py.typed", "clipbert_mm/.mim/model-index.yml"} <= names
    tools = "clipbert_mm/.mim/tools"
    assert {f"{tools}/train.py", f"{tools}/analysis_tools/get_flops.py"} <= names
    assert not [name for name in names if "/bench_" in name or "/mutation/" in name], "tools of developers"
    assert not [name for name in names if name.startswith(("tests/", "requirements/"))]
    assert f"Issues, {URL}/issues" in metadata.get_all("Project-URL")
    assert "Typing :: Typed" in metadata.get_all("Classifier")


INHERITED = """
import os, sys, warnings
warnings.simplefilter("ignore")  # MMEngine uses pkg_resources
os.chdir({folder!r})
os.environ["SHAPES_ROOT"] = "/world"
sys.path.insert(0, {site!r})
import clipbert_mm
from mmengine.config import Config
from mmengine.hub import get_config, get_model
assert clipbert_mm.__file__.startswith({site!r})
by_path = Config.fromfile("path.py").to_dict()  # any program can read it, which knows nothing of clipbert_mm

import clipbert_mm.registry
from clipbert_mm.engine.config import find_config, load_config
assert load_config("mine.py").to_dict() == by_path
assert find_config("shapes/{name}.py") == find_config("configs/shapes/{name}.py") == find_config("{name}")
config = get_config("clipbert_mm::shapes/{name}.py")
assert config.to_dict() == load_config("{name}.py").to_dict()
open("printed.py", "w").write(config.pretty_text)
new_style = load_config("new.py").to_dict()
assert type(get_model("clipbert_mm::shapes/{name}.py")).__name__ == "ClipBert"
changed = config.to_dict()
changed["train_cfg"]["max_epochs"] = 1
assert changed == by_path == new_style
"""


@pytest.mark.parametrize("place", ["a wheel", "a clone"])
def test_h24_configs_are_inherited_from_outside(
    wheel: Path, tmp_path: Path, with_libraries: ForkingProcess, place: str
):
    name = "clipbert_tiny_1xb16-2x2-4e_shapes-retrieval"
    site = ROOT
    if place == "a wheel":
        site = tmp_path / "site"
        with ZipFile(wheel) as archive:
            archive.extractall(site)
    change = "train_cfg = dict(max_epochs=1)\n"
    (tmp_path / "mine.py").write_text(f'_base_ = "clipbert_mm::shapes/{name}.py"\n{change}')
    (tmp_path / "path.py").write_text(
        f"""_base_ = __import__("clipbert_mm").__path__[0] + "/.mim/configs/shapes/{name}.py"\n{change}"""
    )
    (tmp_path / "new.py").write_text(
        "from mmengine.config import read_base\n"
        "with read_base():\n    from .printed import *\n"
        "train_cfg.update(max_epochs=1)\n"
    )
    with_libraries.run(INHERITED.format(folder=str(tmp_path), site=str(site), name=name))


def read_yaml(path: str) -> dict:
    return yaml.safe_load((ROOT / path).read_text())


def test_citation_names_this_release_and_the_paper():
    citation = read_yaml("CITATION.cff")
    # Required by Citation File Format 1.2.0.
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= citation.keys()
    assert (citation["version"], citation["repository-code"]) == (__version__, URL)
    paper = citation["preferred-citation"]
    assert {"type", "title", "authors"} <= paper.keys()
    bibtex = (ROOT / "README.md").read_text().partition("@inproceedings")[2]
    assert paper["title"] in bibtex
    assert " and ".join(f"{author['family-names']}, {author['given-names']}" for author in paper["authors"]) in bibtex


def test_workflow_runs_the_commands_of_a_developer():
    job = read_yaml(".github/workflows/test.yml")["jobs"]["test"]
    assert job["strategy"]["matrix"]["python"] == ["3.10", "3.12"]
    commands = [step["run"].split("  #")[0].split() for step in job["steps"] if "run" in step]
    assert [command[:2] for command in commands] == [["make", "setup"], ["make", "test"]]
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert {"setup", "test", "quick"} <= set(targets)


@pytest.mark.parametrize("form", ["bug_report", "feature_request"])
def test_issue_form_has_what_the_site_asks_of_one(form: str):
    found = read_yaml(f".github/ISSUE_TEMPLATE/{form}.yml")
    assert {"name", "description", "body"} <= found.keys()
    assert all(field["attributes"]["label"] for field in found["body"])
    assert len({field["id"] for field in found["body"]}) == len(found["body"])


def test_security_reports_go_to_the_repository():
    (link,) = read_yaml(".github/ISSUE_TEMPLATE/config.yml")["contact_links"]
    assert link["url"] == f"{URL}/security/advisories/new"
