"""The report as one HTML file: everything inline, nothing fetched, no script; a policy lets no other style in."""

import base64
import hashlib
from typing import Final

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
    "ladders": "Which quantisation",
    "courses": "Over time",
    "tables": "On other machines",
    "commands": "What next",
}
"""Headings of the sections, in their order, by the field of the page that fills each."""


def render(page: Page) -> str:
    """The whole page.

    Raises:
        MissingPackageError: Jinja2 is not installed.
    """
    with optional("jinja2", "report"):
        from jinja2 import Environment, StrictUndefined
    css, template = (shipped_text(f"templates/{name}", "harness.report") for name in ("report.css", "report.html.j2"))
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.from_string(template).render(
        page=page,
        version=__version__,
        policy=f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'",
        css=Drawing(css),
        headings=_HEADINGS,
        nav=[(name, heading) for name, heading in _HEADINGS.items() if getattr(page, name)],
        State=State,
        shape=shape,
        clean=clean,
        date_words=words.date_words,
        short_date=words.short_date,
        quantities=words.QUANTITIES,
        glossary=words.GLOSSARY,
    )
