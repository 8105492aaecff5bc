"""The report as one HTML file: everything inline, nothing fetched, no script.

Its content security policy admits only the styles that the file itself holds.
"""

import base64
import hashlib
import re
from collections.abc import Mapping
from html import unescape
from typing import TYPE_CHECKING, Any, Final

from harness import __version__
from harness.core.errors import optional
from harness.core.printable import escape_markdown
from harness.core.tables import shipped_text
from harness.show import words
from harness.show.drawing import Drawing, stated
from harness.show.panels import Page

if TYPE_CHECKING:
    from jinja2 import Environment

_TAG: Final = re.compile(r"<[^>]+>")
_PICTURE: Final = re.compile(r"<svg.*?</svg>", re.DOTALL)


def render(page: Page) -> str:
    """The whole page of runs or predictions.

    Raises:
        MissingPackageError: Jinja2 is not installed.
    """
    return filled("report.html.j2", {"title": page.title, "page": page})


def render_markdown(page: Page) -> str:
    """The page as Markdown for a comment on a pull request: the sentence, the tables, no picture.

    Raises:
        MissingPackageError: Jinja2 is not installed.
    """
    environment = _environment()
    environment.filters["text"] = _markdown_text
    text: str = environment.get_template("report.md.j2").render(page=page, version=__version__)
    return text


def _markdown_text(value: object) -> Drawing:
    """A cell or a sentence as Markdown of one line: tags of our own drawings go, what a stranger wrote is escaped."""
    text = str(value)
    if isinstance(value, Drawing):
        text = unescape(_TAG.sub("", _PICTURE.sub("", text).replace("<small>", " ")))
    return Drawing(escape_markdown(text))


def filled(template: str, values: Mapping[str, Any], *, form_action: str = "'none'") -> str:
    """A template with its values put in, all escaped.

    Its policy allows the one style sheet, and forms where said.

    Raises:
        MissingPackageError: Jinja2 is not installed.
    """
    css = _text("report.css") + _text("app.css")
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action {form_action}"
    environment = _environment()
    environment.globals |= {
        "version": __version__,
        "policy": policy,
        "css": Drawing(css),
        "stated": stated,
        "date_words": words.date_words,
    }
    return environment.get_template(template).render(values)


def _environment() -> "Environment":
    """The one environment of all templates: what they show is escaped.

    Raises:
        MissingPackageError: Jinja2 is not installed.
    """
    with optional("jinja2", "report"):
        from jinja2 import Environment, FunctionLoader, StrictUndefined
    return Environment(
        loader=FunctionLoader(_text), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )


def _text(name: str) -> str:
    return shipped_text(f"templates/{name}", "harness.show")
