"""The report as one HTML file: everything inline, nothing fetched, no script.

A policy lets no other style in.
"""

import base64
import hashlib
from collections.abc import Mapping
from typing import Any, Final

from harness import __version__
from harness.domain.base import shipped_text
from harness.errors import optional
from harness.printable import clean
from harness.report import words
from harness.report.drawing import Drawing, shape
from harness.report.pages import Page
from harness.report.state import State

_HEADINGS: Final = {
    "known": "Beside machines you know",
    "changes": "Since the baseline",
    "machines": "All runs",
    "multiples": "Predicted and measured",
    "ladders": "Which quantisation",
    "courses": "Over time",
    "tables": "On other machines",
    "commands": "What next",
}
"""Headings of the sections, in their order, by the field of the page that fills each."""


def render(page: Page) -> str:
    """The whole page of runs or predictions.

    Raises:
        MissingPackageError: Jinja2 is not installed.
    """
    nav = [(name, heading) for name, heading in _HEADINGS.items() if getattr(page, name)]
    values = {"title": page.title, "page": page, "headings": _HEADINGS, "nav": nav}
    return filled("report.html.j2", values)


def filled(template: str, values: Mapping[str, Any], *, form_action: str = "'none'") -> str:
    """A template with its values put in, all escaped.

    Its policy allows the one style sheet, and forms where said.

    Raises:
        MissingPackageError: Jinja2 is not installed.
    """
    with optional("jinja2", "report"):
        from jinja2 import Environment, FunctionLoader, StrictUndefined
    css = _text("report.css")
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action {form_action}"
    environment = Environment(
        loader=FunctionLoader(_text), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.globals |= {
        "version": __version__,
        "policy": policy,
        "css": Drawing(css),
        "State": State,
        "shape": shape,
        "clean": clean,
        "date_words": words.date_words,
        "short_date": words.short_date,
        "quantities": words.QUANTITIES,
        "glossary": words.GLOSSARY,
    }
    return environment.get_template(template).render(values)


def _text(name: str) -> str:
    return shipped_text(f"templates/{name}", "harness.report")
