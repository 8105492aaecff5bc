"""What runs found inside a model: features, each with the places of a text where it was strongest."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from harness.domain.record import RunRecord
from harness.domain.result import System
from harness.printable import clean
from harness.report.document import RunView
from harness.report.text import digits

_CONTEXT_CHARS: Final = 48
"""Text shown on each side of a token."""


class Place(msgspec.Struct, frozen=True):
    """One place: text before, the token, text after, and the activation there."""

    before: str
    token: str
    after: str
    activation: float


class Feature(msgspec.Struct, frozen=True):
    """One feature: its number, the share of tokens it fires on, and where it is strongest."""

    index: int
    firing_ratio: float
    contexts: tuple[Place, ...]


class FeaturePanel(NamedTuple):
    """The features of one run, the most telling first."""

    label: str
    note: str
    features: tuple[Feature, ...]


def feature_panels(named: Sequence[tuple[str, RunView]], records: Sequence[RunRecord]) -> list[FeaturePanel]:
    """A panel for each run whose evaluation lists features; features of another shape are left out."""
    evaluations = {r.run_id: r.result.evaluation for r in records if isinstance(r.result, System)}
    found = []
    for label, run in named:
        evaluation = evaluations.get(run.run_id, {})
        listed = evaluation.get("features")
        features = tuple(f for each in listed if (f := _feature(each))) if isinstance(listed, list | tuple) else ()
        if features:
            found.append(FeaturePanel(label, _note(evaluation), features))
    return found


def _feature(told: Any) -> Feature | None:
    try:
        return msgspec.convert(told, Feature, strict=False)
    except msgspec.ValidationError:
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


def excerpt(text: str, *, end: bool = False) -> str:
    """The beginning (or the end) of a text on one line, with signs for breaks and tabs.

    A blank at either end stays, since tokens begin with theirs.
    """
    signs = text.replace("\n", "⏎").replace("\t", "⇥")
    line = clean(signs, len(signs)) or " " * bool(signs)
    if line.strip():
        line = " " * signs[0].isspace() + line + " " * signs[-1].isspace()
    if len(line) <= _CONTEXT_CHARS:
        return line
    return "…" + line[-_CONTEXT_CHARS:] if end else line[:_CONTEXT_CHARS] + "…"
