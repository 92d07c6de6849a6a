"""Packaging of clipbert_mm. The settings of ruff, mypy and pytest are in pyproject.toml."""

import os
import shutil
from pathlib import Path
from runpy import run_path

from setuptools import Command, find_packages, setup
from setuptools.command.build import build

ROOT = Path(__file__).resolve().parent
URL = "https://github.com/clipbert-mm/clipbert_mm"
MIM_ITEMS = ("configs", "tools", "model-index.yml")
DEVELOPERS_ONLY = (
    "benchmark.py",
    "benchmark_*.py",
    "bench_*.py",
    "load_*.py",
    "memory_tracker.py",
    "probe_*.py",
    "vector_*.py",
    "video_backbones.py",
    "video_set.py",
    "mutation",
)
# Tools that measure and test this project; not in a wheel.


class build_mim(Command):
    """Puts configs, tools and the model index into clipbert_mm/.mim, where OpenMMLab's mim looks for them.

    A part of `build`, which pip runs for a wheel and for an editable install alike; setuptools sets `editable_mode`.
    A wheel gets copies; for an editable install, links in the source tree keep edits visible.
    """

    user_options = []
    editable_mode = False

    def initialize_options(self):
        self.build_lib = None

    def finalize_options(self):
        self.set_undefined_options("build", ("build_lib", "build_lib"))

    def run(self):
        package = (ROOT if self.editable_mode else Path(self.build_lib)) / "clipbert_mm"
        mim = package / ".mim"
        shutil.rmtree(mim, ignore_errors=True)  # what an earlier build left
        mim.mkdir(parents=True)
        for item in MIM_ITEMS:
            source, target = ROOT / item, mim / item
            if self.editable_mode:
                target.symlink_to(os.path.relpath(source, mim))
            elif source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", *DEVELOPERS_ONLY))
            else:
                shutil.copy(source, target)
        if self.editable_mode:
            self.tell_mim(package)

    def tell_mim(self, package: Path):
        """Lead mim to the source tree: it joins site-packages and the first line of top_level.txt, and looks there."""
        unpacked_wheel = Path(self.get_finalized_command("install").install_lib)
        for top_level in unpacked_wheel.glob("*.dist-info/top_level.txt"):
            top_level.write_text(f"{package}\nclipbert_mm\n")


# The documented way to add a build step; errors in an overridden build_py are only warnings in an editable install.
build.sub_commands.append(("build_mim", None))


def requirements(name: str) -> list[str]:
    """Read requirements/<name>.txt, without comments and blank lines."""
    lines = (ROOT / "requirements" / f"{name}.txt").read_text().splitlines()
    return [line for line in (line.partition("#")[0].strip() for line in lines) if line]


setup(
    name="clipbert_mm",
    version=run_path(str(ROOT / "clipbert_mm" / "version.py"))["__version__"],
    description="CLIPBERT: video-and-language learning via sparse sampling, on MMEngine",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    url=URL,
    project_urls={
        "Documentation": f"{URL}/tree/main/docs",
        "Changes": f"{URL}/blob/main/CHANGELOG.md",
        "Issues": f"{URL}/issues",
        "Paper": "https://arxiv.org/abs/2102.06183",
    },
    author="clipbert_mm developers",
    license="Apache-2.0",
    license_files=["LICENSE"],
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Topic :: Multimedia :: Video",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    python_requires=">=3.10",
    packages=find_packages(include=["clipbert_mm", "clipbert_mm.*"]),
    package_data={"clipbert_mm": ["py.typed"]},
    install_requires=requirements("runtime"),
    extras_require={
        "tests": requirements("tests"),
        "docs": requirements("docs"),
        "page": requirements("page"),
        "faiss": requirements("faiss"),
        "lancedb": requirements("lancedb"),
        "open-clip": requirements("open_clip"),
        "optional": requirements("optional"),
        "all": [
            each
            for name in ("tests", "docs", "page", "faiss", "lancedb", "open_clip", "optional")
            for each in requirements(name)
        ],
    },
    entry_points={"console_scripts": ["clipbert = clipbert_mm.__main__:main"]},
    cmdclass={"build_mim": build_mim},
    zip_safe=False,
)
