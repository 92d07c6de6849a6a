"""Packages whose names are imported when they are first used: each name is there, none is imported before."""

import importlib
import subprocess
import sys

import pytest

PACKAGES = {
    "clipbert_mm.apis": {
        "GalleryError": "clipbert_mm.errors.VideoIndexError",
        "VideoGallery": "clipbert_mm.apis.VideoIndex",
    },
    "clipbert_mm.engine": {
        "CheckpointFitHook": "clipbert_mm.engine.CheckpointCompatibilityHook",
        "CheckpointHook": "clipbert_mm.engine.FaultTolerantCheckpointHook",
        "EpochBasedTrainLoop": "clipbert_mm.engine.ResumableEpochTrainLoop",
        "RetrievalTestLoop": "clipbert_mm.retrieval.RetrievalTestLoop",
        "RetrievalValLoop": "clipbert_mm.retrieval.RetrievalValLoop",
    },
    "clipbert_mm.retrieval": {
        "ForeignResultsError": "clipbert_mm.retrieval.ResultsMismatchError",
        "Gallery": "clipbert_mm.retrieval.FeatureStore",
        "claim": "clipbert_mm.retrieval.reserve",
    },
}
"""Packages, and their names of before with those of today."""


@pytest.mark.parametrize("package", PACKAGES)
def test_every_name_is_there(package: str):
    module = importlib.import_module(package)
    for name in module.__all__:
        assert getattr(getattr(module, name), "__name__", name) == name
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'Nothing'"):
        _ = module.Nothing


@pytest.mark.parametrize("package", PACKAGES)
def test_names_of_before_are_there_with_a_warning(package: str):
    module = importlib.import_module(package)
    for old, new in PACKAGES[package].items():
        with pytest.warns(FutureWarning, match=rf"{package}\.{old} is deprecated .* Use {new}\."):
            found = getattr(module, old)
        assert found.__name__ == new.rpartition(".")[2]


@pytest.mark.parametrize("package", PACKAGES)
def test_no_submodule_is_imported_with_the_package(package: str):
    code = f"import sys, {package}\nprint([name for name in sys.modules if name.startswith('{package}.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
