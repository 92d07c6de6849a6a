"""What setup.py ships: every sub-package, and a model index that names configs that exist."""

from pathlib import Path

import pytest
import yaml
from modelindex.load_model_index import load

ROOT = Path(__file__).resolve().parents[1]


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
        for folder in ("shapes", "pretrain", "retrieval", "video_qa", "image_qa")
        for path in (ROOT / "configs" / folder).glob("*.py")
    }
    assert {ROOT / model.config for model in index.models} == {
        path for path in configs if not path.stem.endswith("_custom")
    }
    reported = [result for model in index.models for result in model.results or []]
    assert len(reported) == 17
    assert all(name.endswith(" (paper)") for result in reported for name in result.metrics)
