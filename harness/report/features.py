"""What runs found inside a model: features, each with the places of a text where it was strongest."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from harness.domain.record import RunRecord
from harness.domain.result import System
from harness.printable import clean
from harness.report.document import RunView
from harness.report.text import digits

_CONTEXT_CHARS: Final = 48
"""Text shown on each side of a token."""


class Place(NamedTuple):
    """One place: text before, the token, text after, each on one line; and the activation there."""

    before: str
    token: str
    after: str
    strength: str


class FeatureRow(NamedTuple):
    """One feature: its number, the share of tokens it fires on, and where it is strongest."""

    number: str
    fires: str
    places: tuple[Place, ...]


class FeaturePanel(NamedTuple):
    """The features of one run.

    Attributes:
        note: What was decomposed, and how well.
        rows: The most telling features first.
    """

    label: str
    note: str
    rows: tuple[FeatureRow, ...]


def feature_panels(named: Sequence[tuple[str, RunView]], records: Sequence[RunRecord]) -> list[FeaturePanel]:
    """A panel for each run whose evaluation lists features; features of another shape are left out."""
    evaluations = {r.run_id: r.result.evaluation for r in records if isinstance(r.result, System)}
    found = []
    for label, run in named:
        evaluation = evaluations.get(run.run_id)
        if not isinstance(evaluation, Mapping) or not isinstance(evaluation.get("features"), Sequence):
            continue
        rows = tuple(row for feature in evaluation["features"] if (row := _row(feature)))
        if rows:
            found.append(FeaturePanel(label, _note(evaluation), rows))
    return found


def _row(feature: Any) -> FeatureRow | None:
    try:
        places = tuple(
            Place(_end(c["before"]), _start(c["token"]), _start(c["after"]), digits(float(c["activation"])))
            for c in feature["contexts"]
        )
        return FeatureRow(str(int(feature["index"])), f"{100 * float(feature['firing_ratio']):.2f} %", places)
    except (KeyError, TypeError, ValueError):
        return None


def _note(evaluation: Mapping[str, Any]) -> str:
    """Model and tensor, unexplained variance and loss recovered on held-out text, cost in generation."""
    parts = [f"{evaluation.get('model', '')} {evaluation.get('tensor', '')}".strip()]
    held, loss, speed = (_part(evaluation, k) for k in ("held_out", "loss", "generation"))
    if {"active_count", "fvu_ratio"} <= held.keys():
        parts.append(
            f"on held-out text {digits(held['active_count'])} features a token leave {held['fvu_ratio']:.3f} of the "
            "variance unexplained"
        )
    if "recovered_zero_ratio" in loss:
        parts.append(
            f"put back into the model they recover {loss['recovered_zero_ratio']:.3f} of the loss that zeros cost"
        )
    if speed.get("plain_s") and speed.get("spliced_s"):
        parts.append(
            f"generation takes {1e3 * speed['plain_s']:.2f} ms a token without them and "
            f"{1e3 * speed['spliced_s']:.2f} ms with them"
        )
    return clean("; ".join(p for p in parts if p), 400)


def _part(evaluation: Mapping[str, Any], name: str) -> dict[str, float]:
    """The figures of one part; anything else a stranger's record holds there is left out."""
    part = evaluation.get(name)
    return {k: float(v) for k, v in part.items() if isinstance(v, int | float)} if isinstance(part, Mapping) else {}


def _line(text: Any) -> str:
    """Text on one line with signs for breaks and tabs; a blank at either end stays, since tokens begin with theirs."""
    signs = str(text).replace("\n", "⏎").replace("\t", "⇥")
    shown = clean(signs, len(signs))
    if not shown:
        return " " if signs else ""
    return " " * signs[0].isspace() + shown + " " * signs[-1].isspace()


def _end(text: Any) -> str:
    line = _line(text)
    return line if len(line) <= _CONTEXT_CHARS else "…" + line[-_CONTEXT_CHARS:]


def _start(text: Any) -> str:
    line = _line(text)
    return line if len(line) <= _CONTEXT_CHARS else line[:_CONTEXT_CHARS] + "…"
