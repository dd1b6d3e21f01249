"""The documentation site: `make docs` builds it, offline and with warnings as errors."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_scripts"))

import affectlens

project = "AffectLens"
author = "The AffectLens authors"
copyright = "2026, The AffectLens authors"
version = release = affectlens.__version__
language = "en"
smartquotes = False  # options stay `--set`, quoted names can be copied

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "cli_reference",
    "settings_reference",
    "picture",
]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_*", "**/.ipynb_checkpoints", "tutorials/_*"]

# Markdown. Headings get anchors down to the third level, so that pages can point at each other's.
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4

# Docstrings: Google style, single backticks are code.
default_role = "code"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autosummary_generate = False
napoleon_numpy_docstring = False
napoleon_use_ivar = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 90
add_module_names = False
toc_object_entries_show_parents = "hide"

# Look. No web fonts, no scripts from elsewhere, nothing that calls home.
html_theme = "furo"
html_title = f"AffectLens {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_theme_options = {
    "navigation_with_keys": True,
    "light_css_variables": {
        "color-brand-primary": "#0b5c8f",
        "color-brand-content": "#0b5c8f",
        "color-brand-visited": "#6a3d7c",
    },
    "dark_css_variables": {
        "color-brand-primary": "#7cc0ee",
        "color-brand-content": "#7cc0ee",
        "color-brand-visited": "#c9a3dc",
    },
}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
copybutton_exclude = ".linenos, .gp, .go"
