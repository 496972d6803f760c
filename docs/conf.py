"""How the documentation is built: ``make docs``; a warning is an error."""

from __future__ import annotations

import os
import sysconfig
from importlib.metadata import metadata
from typing import TYPE_CHECKING, Any, get_args
from urllib.request import urlopen

from numpy.typing import ArrayLike
from sphinx_autodoc_typehints import format_annotation

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.config import Config

info = metadata("h2e")
project = info["Name"]
release = version = info["Version"]
author = "h2e developers"
copyright = f"2026, {author}"
repository = "https://github.com/h2e-dev/h2e"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_autodoc_typehints",  # after napoleon
    "sphinx_copybutton",
    "sphinx_design",
    "sphinxcontrib.bibtex",
]
# Cells of the shell call the command h2e of this environment.
os.environ["PATH"] = os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])

exclude_patterns = ["_build", "ecosystem", "**.ipynb_checkpoints"]
templates_path = ["_templates"]

# Every public name has a page, without being listed by hand: the template walks __all__.
autosummary_generate = True
autosummary_ignore_module_all = False
autosummary_imported_members = True
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # sphinx_autodoc_typehints writes them beside the parameters
always_use_bars_union = True
typehints_defaults = "braces"
# Docstrings say in sentences where a result goes, so Returns is text and not a list of types.
napoleon_google_docstring = False
napoleon_custom_sections = [("Returns", "text")]
napoleon_use_rtype = False
typehints_document_rtype = False

bibtex_bibfiles = ["references.bib"]
bibtex_reference_style = "author_year"
bibtex_default_style = "plain"


suppress_warnings = ["config.cache"]  # of the next function, which cannot be pickled and need not be


def typehints_formatter(annotation: Any, config: Config) -> str | None:
    """Call an array-like what it is called in the code, and not by the many types that it stands for."""
    some, every = get_args(ArrayLike), get_args(annotation)
    if not all(part in every for part in some):
        return None
    others = [format_annotation(part, config) for part in every if part not in some]
    return " | ".join([":py:data:`~numpy.typing.ArrayLike`", *others])


def reachable(address: str) -> bool:
    """Whether an inventory can be read now: without a network the site is built without links to other projects."""
    try:
        with urlopen(address + "objects.inv", timeout=5):
            return True
    except OSError:
        return False


others = {
    "anndata": "https://anndata.scverse.org/en/stable/",
    "geopandas": "https://geopandas.org/en/stable/",
    "matplotlib": "https://matplotlib.org/stable/",
    "numpy": "https://numpy.org/doc/stable/",
    "pandas": "https://pandas.pydata.org/docs/",
    "python": "https://docs.python.org/3/",
    "scanpy": "https://scanpy.scverse.org/en/stable/",
    "spatialdata": "https://spatialdata.scverse.org/en/stable/",
    "squidpy": "https://squidpy.readthedocs.io/en/stable/",
}
intersphinx_mapping = {name: (address, None) for name, address in others.items() if reachable(address)}

# A name of h2e that is not there is an error. Names of others are links where their inventories can be read and list
# them (many list a class under another path than the one it is imported from), and plain text elsewhere.
nitpicky = True
nitpick_ignore_regex = [
    (
        r"py:.*",
        r"(anndata|collections|geopandas|matplotlib|numpy|os|pandas|pathlib|spatialdata|spatialdata_io|typing|xarray)\..*",
    ),
    (r"py:class", r"h2e\._learners\.baselines\.\w+"),  # baselines are asked for by name
    (
        r"py:(class|data|exc|obj)",
        r"[A-Z]\w*Error|Ellipsis|bool|bytes|dict|float|int|list|None|str|tuple|type|types\.\w+",
    ),
]

myst_enable_extensions = ["amsmath", "attrs_block", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

# Tutorials are run when the site is built; what has not changed since is taken from the cache.
nb_execution_mode = "cache"
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 600  # seconds a cell: the longest takes one minute on an idle core
nb_merge_streams = True
nb_output_stderr = "remove"  # progress bars, and warnings of other packages; what h2e warns of is said in the text

html_theme = "sphinx_book_theme"
html_title = project
html_logo = "_static/logo.svg"
html_favicon = "_static/favicon.svg"
html_static_path = ["_static"]
html_css_files = ["h2e.css"]
html_theme_options = {
    "repository_url": repository,
    "use_repository_button": True,
    "use_issues_button": True,
    "path_to_docs": "docs",
    "navigation_with_keys": False,
    "navbar_persistent": [],  # the side bar has the search already
    "show_navbar_depth": 1,
}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True


def drop_colon(*event: Any) -> None:
    """Take away the line that sphinx_autodoc_typehints puts before what a function returns, which here is text."""
    lines: list[str] = event[-1]
    lines[:] = [line for line in lines if line != ":"]


def setup(app: Sphinx) -> None:
    """Called by Sphinx after the extensions, so that this runs after theirs and before napoleon (priority 500)."""
    app.connect("autodoc-process-docstring", drop_colon, priority=499)
