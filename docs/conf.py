"""How `make docs` builds the pages. They are read on a code host too, so what links them is plain relative links.

The source folder is the repository's root: the README, the changelog and the examples' READMEs are pages as well, where
they are, and each link from one page to another leads to the same file in both places. Nothing is fetched.
"""

from __future__ import annotations

import re
from importlib.metadata import version as version_of
from typing import Any

project = "framelane_celery"
author = "the framelane-celery contributors"
copyright = author
release = version = version_of("framelane-celery")

extensions = ["myst_parser", "sphinx.ext.autodoc"]
root_doc = "docs/index"
include_patterns = ["README.md", "CHANGELOG.md", "docs/**.md", "examples/**README.md", "tests/suite/README.md"]
exclude_patterns = [".*", "docs/_build", "*-output"]  # the first spares a walk through the virtual environments

myst_enable_extensions = ["html_image"]
myst_heading_anchors = 3  # as code hosts make them

# Docstrings write names between single backticks, as the pages do.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
nitpick_ignore_regex = [("py:.*", ".*")]  # types in signatures: most of them are others', or are not told of here

html_theme = "furo"
html_title = f"framelane_celery {release}"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_additional_pages = {"index": "start.html"}  # at the root of what is built: leads to docs/index.html
templates_path = ["_templates"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False

LABEL = re.compile(r"(Shape|Units|Raises|Resend|Source|Errors|Returns): +(.*)")


def as_restructured_text(app: Any, what: str, name: str, obj: object, options: Any, lines: list[str]) -> None:
    """Turn a docstring's labels (house style: "Raises: …", its further lines indented) into fields, and what is
    indented below a colon into a block of its own."""
    if "".join(lines).startswith("Alias for field number"):  # what Python says of each field of a named tuple
        lines.clear()
    fields: list[tuple[str, str]] = []
    text: list[str] = []
    for line in lines:
        if found := LABEL.fullmatch(line):
            fields.append((found[1], found[2]))
        elif fields and line.startswith(" "):
            fields[-1] = (fields[-1][0], f"{fields[-1][1]} {line.strip()}")
        elif line.startswith("  ") and text and text[-1].endswith(":"):
            text += [f"{text.pop()}:", "", line]
        else:
            text.append(line)
    lines[:] = [*text, "", *(f":{label}: {_field(label, words)}" for label, words in fields), ""]


def _field(label: str, words: str) -> str:
    return f"``{words}``" if label == "Shape" else words.replace("*", r"\*")


def skip_what_pydantic_adds(app: Any, what: str, name: str, obj: object, skip: bool, options: Any) -> bool | None:
    return True if name == "model_config" else None


def setup(app: Any) -> None:
    app.connect("autodoc-skip-member", skip_what_pydantic_adds)
    app.connect("autodoc-process-docstring", as_restructured_text)
