"""Sphinx's settings for this site; ``make docs`` builds it."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path[:0] = [str(HERE / "_ext"), str(ROOT)]

import jaxmle  # noqa: E402 - from the line above

project = "jaxmle"
author = "the jaxmle developers"
version = release = jaxmle.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "docstrings", "public_names"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"jaxmle {version}"
html_show_copyright = False
html_show_sphinx = False

# Markdown
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
# Notebooks are shown with the outputs stored in them; `make notebooks` runs them.
nb_execution_mode = "off"
nb_merge_streams = True

# Docstrings
autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_default_options = {"members": True}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_attr_annotations = False
default_role = "code"
smartquotes = False  # s'J⁻¹s has a prime, not a quotation mark
python_maximum_signature_line_length = 80

# Each reference has a target in this site. Only the built-in exceptions of "Raises" have none: a
# build needs the package registries and nothing else, so it reads no other site's index.
nitpicky = True
nitpick_ignore_regex = [("py:exc", r"(Value|Type|Import|Index|Key|Runtime|OS)Error.*")]

TUTORIALS = HERE / "tutorials"
for notebook in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")):
    copy = TUTORIALS / notebook.name
    if not copy.exists() or copy.stat().st_mtime < notebook.stat().st_mtime:
        shutil.copy(notebook, copy)
