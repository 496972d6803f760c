"""How the documentation is built: ``make docs``; a warning is an error."""

from __future__ import annotations

from importlib.metadata import metadata

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
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
exclude_patterns = ["_build", "**.ipynb_checkpoints"]
templates_path = ["_templates"]

# Every public name has a page, without being listed by hand: the template walks __all__.
autosummary_generate = True
autosummary_ignore_module_all = False
autosummary_imported_members = True
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
# Docstrings say in sentences where a result goes, so Returns is text and not a list of types.
napoleon_google_docstring = False
napoleon_custom_sections = [("Returns", "text")]
napoleon_use_rtype = False

myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # tutorials are run by the tests, with their data

html_theme = "sphinx_book_theme"
html_title = project
html_static_path = ["_static"]
html_css_files = ["h2e.css"]
html_theme_options = {
    "repository_url": repository,
    "use_repository_button": True,
    "use_issues_button": True,
    "path_to_docs": "docs",
    "navigation_with_keys": False,
    "show_navbar_depth": 2,
}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
