"""Settings of the site. The reference is generated from the code each time the site is built."""

import re
import sys
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS), str(DOCS.parent / "src")]

import bontune  # noqa: E402
from reference import write_reference  # noqa: E402

write_reference(DOCS / "reference")

project = "bontune"
version = release = bontune.__version__
project_copyright = "the bontune contributors"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "bontune"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
myst_heading_anchors = 3
autodoc_typehints = "none"
autodoc_member_order = "bysource"
napoleon_use_rtype = False
napoleon_use_param = False
pygments_style = "friendly"


def show_formulas_as_they_are(app: Any, what: str, name: str, value: object, options: object, lines: list[str]) -> None:
    """Turn the indented formulas of a docstring into literal blocks, and bars into bars."""
    shown: list[str] = []
    is_section = False
    for line in lines:
        if line and not line.startswith(" "):
            is_section = re.fullmatch(r"[A-Z]\w+:", line) is not None
        is_formula = line.startswith("    ") and not is_section
        if is_formula and not shown[-1]:
            is_first = next((text for text in reversed(shown) if text), "").startswith(" ") is False
            shown += ["::", ""] if is_first else []
        shown.append(line if is_formula or line.startswith(">>>") else re.sub(r"(?<!`)\|(?!`)", r"\\|", line))
    lines[:] = shown


def setup(app: Any) -> None:
    """Register the hook before napoleon's, which runs at priority 500."""
    app.connect("autodoc-process-docstring", show_formulas_as_they_are, priority=400)
