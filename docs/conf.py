"""How Sphinx builds the documents: `nox -s docs`."""

import re
from importlib.metadata import version as installed
from typing import Any

project = "deepseek_gateway"
author = "The deepseek_gateway developers"
copyright = author  # noqa: A001  # the name that Sphinx reads
version = release = installed("deepseek-gateway")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_heading_anchors = 3
highlight_language = "text"
autodoc_member_order = "bysource"
add_module_names = False
python_use_unqualified_type_names = True
napoleon_use_ivar = True
napoleon_use_rtype = False

html_theme = "furo"
html_title = "deepseek_gateway"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_copy_source = False
html_show_sphinx = False


def setup(app: Any) -> None:
    """Read single backticks in docstrings as code, as Markdown does. This happens before napoleon reads them."""
    app.connect("autodoc-process-docstring", _double_backticks, priority=400)


def _double_backticks(_app: Any, _what: str, _name: str, _object: Any, _options: Any, lines: list[str]) -> None:
    lines[:] = re.sub(r"(?<!`)`([^`]+)`(?!`)", r"``\1``", "\n".join(lines)).split("\n")
