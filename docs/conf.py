"""How the site is built: `make docs`, or sphinx-build -W -n docs build/docs. Reads nothing from the network."""

import inspect
import pkgutil
import warnings
from typing import Any

from docutils import nodes
from sphinx.ext import autosummary

from clipbert_mm import __version__

warnings.filterwarnings("ignore", "clipbert_mm.* is deprecated", FutureWarning)  # of modules in their old places

project = "clipbert_mm"
author = "clipbert_mm developers"
copyright = author
version = release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
templates_path = ["_templates"]
exclude_patterns = ["_templates"]

smartquotes = False  # "uniform" and --strict are meant as they are written
highlight_language = "none"  # of blocks that name no language
myst_heading_anchors = 3  # links to #headings, as code hosts have them

autosummary.WELL_KNOWN_ABBREVIATIONS += ("Eq.",)  # a summary does not end there
autosummary_ignore_module_all = False
# Old places of modules, which warn when they are imported.
autosummary_context = dict(moved=["clipbert_mm.engine.retrieval", "clipbert_mm.datasets.transforms.readers"])
autodoc_default_options = {
    "members": True,
    "member-order": "bysource",
    "show-inheritance": True,
    "ignore-module-all": True,  # each thing is described once, where it is written
}
add_module_names = False  # the page says them
autodoc_inherit_docstrings = False
autodoc_typehints = "description"
autodoc_typehints_format = "short"
autodoc_use_type_comments = False  # there are none, and looking for them parses each function anew
autoclass_content = "both"  # so that the types of a constructor's arguments stand beside what the class says of them
python_use_unqualified_type_names = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_custom_sections = [
    "Required Keys",
    "Modified Keys",
    "Added Keys",
    ("Meta information", "params_style"),
    ("Data", "params_style"),
]

# Names of other libraries lead nowhere: their inventories would have to be fetched.
nitpick_ignore_regex = [
    (
        r"py:.*",
        r"(abc|argparse|av|collections|concurrent|contextlib|fastapi|fractions|gr|gradio|logging|matplotlib|mm\w+|multiprocessing)\b.*",
    ),
    (r"py:.*", r"(numpy|os|pathlib|pickle|pydantic|signal|sqlite3|torch|transformers)\b.*"),
    (r"py:class", r"cv2\..*|json\.JSONDecoder|_?queue\.SimpleQueue|types\.ModuleType"),
    (r"py:class", r"clipbert_mm\..*\.(Item|R)|~P"),  # type variables
    (r"py:class", r"clipbert_mm\..*\._\w+"),  # what two classes share
]

html_theme = "furo"
html_title = f"clipbert_mm {release}"
html_copy_source = False
html_show_sphinx = False


def find_by_public_name(app: Any, env: Any, node: nodes.Element, content: nodes.Element) -> nodes.Node | None:
    """Lead a reference by the name that a package exports to where the thing is written."""
    target = node.get("reftarget", "")
    target = target if target.startswith("clipbert_mm.") else f"{node.get('py:module')}.{target}"
    if node.get("refdomain") != "py" or not target.startswith("clipbert_mm."):
        return None
    try:
        thing = pkgutil.resolve_name(target)
    except (ImportError, AttributeError, ValueError):  # a name that is none
        return None
    if not inspect.isclass(thing) and not inspect.isroutine(thing):
        return None
    written = f"{thing.__module__}.{thing.__qualname__}"
    domain = env.get_domain("py")
    if written == target:
        return None
    return domain.resolve_xref(env, node["refdoc"], app.builder, node["reftype"], written, node, content)


def setup(app: Any) -> None:
    """Add what the extensions lack."""
    app.connect("missing-reference", find_by_public_name)
