"""What setup.py ships: every sub-package, and a model index that names configs that exist."""

from pathlib import Path

import pytest
import yaml

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
    collections = {collection["Name"] for collection in index["Collections"]}
    for model in index["Models"]:
        assert model["In Collection"] in collections
        assert Path(model["Config"]).stem == model["Name"], "mim looks a config up by the model's name"
        assert (ROOT / model["Config"]).is_file()
