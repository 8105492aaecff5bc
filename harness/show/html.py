"""The report as one HTML file: everything inline, nothing fetched, no script.

A policy lets no other style in.
"""

import base64
import hashlib
from collections.abc import Mapping
from typing import Any

from harness import __version__
from harness.core.base import shipped_text
from harness.core.errors import optional
from harness.show import words
from harness.show.drawing import Drawing, stated
from harness.show.panels import Page


def render(page: Page) -> str:
    """The whole page of runs or predictions.

    Raises:
        MissingPackageError: Jinja2 is not installed.
    """
    return filled("report.html.j2", {"title": page.title, "page": page})


def filled(template: str, values: Mapping[str, Any], *, form_action: str = "'none'") -> str:
    """A template with its values put in, all escaped.

    Its policy allows the one style sheet, and forms where said.

    Raises:
        MissingPackageError: Jinja2 is not installed.
    """
    with optional("jinja2", "report"):
        from jinja2 import Environment, FunctionLoader, StrictUndefined
    css = _text("report.css") + _text("app.css")
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action {form_action}"
    environment = Environment(
        loader=FunctionLoader(_text), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.globals |= {
        "version": __version__,
        "policy": policy,
        "css": Drawing(css),
        "stated": stated,
        "date_words": words.date_words,
    }
    return environment.get_template(template).render(values)


def _text(name: str) -> str:
    return shipped_text(f"templates/{name}", "harness.show")
