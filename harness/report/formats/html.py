"""The report as one HTML file: everything inline, nothing fetched, a policy that lets no other script or style run."""

import base64
import hashlib
from collections.abc import Sequence
from typing import Final

import msgspec

from harness import __version__
from harness.domain.base import shipped_text
from harness.domain.record import RunRecord
from harness.errors import optional
from harness.printable import clean
from harness.report.choices import Choices, profile_of
from harness.report.document import RunReport, RunView
from harness.report.figures import figures, labelled
from harness.report.panels import sections
from harness.report.text import amount, digits
from harness.units import format_bytes

_TOO_WIDE: Final = (
    ".matrix,.legend,#why{display:none}"
    '#count::after{content:". Too wide for paper: name models with --models, or look at the screen."}'
)


def render(records: Sequence[RunRecord], report: RunReport) -> str:
    """The whole page; the records are its runs themselves, for the time of each token.

    Raises:
        MissingPackageError: Jinja2 or vl-convert is not installed.
    """
    with optional("jinja2", "report"):
        from jinja2 import Environment, StrictUndefined
        from jinja2.utils import htmlsafe_json_dumps
        from markupsafe import Markup
    names = ("report.css", "report.js", "report.html.j2")
    css, js, page = (shipped_text(f"templates/{name}", "harness.report") for name in names)
    if report.choices:
        # On paper the matrix fits the width of a page: some 700 px, a column 46, names 230. Nobody can read it below
        # half its size.
        zoom = min(0.6, 640 / (230 + 46 * len(report.choices.models)))
        rule = f".matrix table{{zoom:{zoom:.2f}}}" if zoom >= 0.5 else _TOO_WIDE
        css += f"@media print{{{rule}}}\n"
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.globals |= {each.__name__: each for each in (amount, clean, digits, format_bytes)}
    named = labelled(report.runs)
    choices = report.choices
    policy = (
        f"default-src 'none'; style-src '{_hash(css)}'; script-src '{_hash(js)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    start_device, start_model = _start(choices, named) if choices else (0, 0)
    drawn = [f._replace(svg=Markup(f.svg)) for f in figures(report, records)]  # noqa: S704 - escaped by its serialiser
    return environment.from_string(page).render(
        report=report,
        harness_version=__version__,
        policy=policy,
        css=Markup(css),  # noqa: S704 - our own file
        js=Markup(js),  # noqa: S704 - our own file
        choices=choices,
        data=htmlsafe_json_dumps(msgspec.to_builtins(choices), separators=(",", ":")) if choices else "",
        shown=[choices.shown(d) for d in range(len(choices.devices))] if choices else [],
        start_device=start_device,
        start_model=start_model,
        named=named,
        runs=[(label, run) for label, run in named if run.record.workload == "generate"],
        figures=drawn,
        sections=sections(records),
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _start(choices: Choices, named: Sequence[tuple[str, RunView]]) -> tuple[int, int]:
    """Device and model that the panel begins with: those that ran, else a phone and a model near 3 B."""
    names = {profile_of(run.device) for _, run in named}
    devices = [i for i, d in enumerate(choices.devices) if d.name in names]
    devices = devices or [i for i, d in enumerate(choices.devices) if d.kind == "phone"]
    devices = devices or list(range(len(choices.devices)))
    ran = [i for i, m in enumerate(choices.models) if any(run.name.startswith(m.name) for _, run in named)]
    near = min(range(len(choices.models)), key=lambda i: abs(choices.models[i].parameters_b - 3.2), default=0)
    return devices[len(devices) // 2], ran[-1] if ran else near
