"""``python -m bench json_schemas``: write ``docs/json-schema.json``, the documents of ``--json``, from their types.

The document of a verb stands under ``documents`` by its ``schema``; a document of several kinds is any of them.
"""

import inspect
import json
from pathlib import Path
from typing import Any, Final, NotRequired, Required, TypedDict, get_type_hints

import msgspec

from harness.answer.answer import Answer
from harness.answer.causes import SlowCause
from harness.answer.nearest import Neighbour
from harness.core.budget import Budget
from harness.core.device import Device
from harness.core.prediction import Interval
from harness.core.record import Record
from harness.gates.judge import Judgement
from harness.records.compare import Comparison
from harness.records.ladder import Rung
from harness.show.output import JSON_VERSION
from harness.verbs.doctor import Finding
from harness.verbs.engines import EnginesHere
from harness.verbs.export import Exported
from harness.verbs.learn import Lesson
from harness.verbs.recommend import Ranking
from harness.verbs.refresh import Refreshed
from harness.verbs.trend import MetricChange, Trend

PUBLISHED: Final = Path(__file__).resolve().parents[1] / "docs" / "json-schema.json"


class Measured(TypedDict):
    """What a measured speed says beside the prediction, and what may explain it."""

    says: str
    is_expected: bool
    may_be: tuple[SlowCause, ...]


class FitExtras(TypedDict, total=False):
    """What was asked for beside the answer."""

    explanation: tuple[Neighbour, ...]
    measured_speed: Measured
    electricity: Interval | None


_ANSWER: Final = {name: Required[hint] for name, hint in get_type_hints(Answer, include_extras=True).items()}
_FIELDS: Any = _ANSWER | get_type_hints(FitExtras)
Fit: Any = TypedDict("Fit", _FIELDS, total=False)  # type: ignore[misc]


class Check(TypedDict):
    """Runs beside what was predicted for them."""

    device: Device
    records: list[Record]
    comparisons: list[Comparison | None]


class Shown(TypedDict):
    """Some runs in full, each beside what was predicted before it, and beside the one before it."""

    records: list[Record]
    comparisons: list[Comparison | None]
    errors: list[dict[str, float | None]]
    differences: list[list[MetricChange]]
    not_alike: list[list[str]]


class LadderAnswer(TypedDict):
    """Every rung, and what it was read from."""

    rungs: list[Rung]
    records: list[Record]


class Learnt(TypedDict, total=False):
    """What measurements taught."""

    lessons: list[Lesson]
    unknown: dict[str, int]
    passed_over: list[str]
    forgotten: str
    shared: str


class Failure(TypedDict):
    """Why a verb ended without an answer."""

    message: str
    exit_status: int


class Failed(TypedDict):
    """What any verb prints in place of its own document."""

    error: Failure


class Named(TypedDict):
    """A model or a device in a list."""

    name: str
    title: NotRequired[str]


ONE: Final[dict[str, tuple[Any, ...]]] = {
    "error": (Failed,),
    "fit": (Fit,),
    "check": (Check,),
    "ladder": (LadderAnswer,),
    "learn": (Learnt,),
    "recommend": (Ranking,),
    "devices show": (Device,),
    "devices probe": (Device,),
    "history": (Shown, dict[str, int]),
    "engines show": (EnginesHere,),
    **dict.fromkeys(("serve-load", "soak", "speculate", "stream"), (Record,)),
    **dict.fromkeys(("models pull", "models show"), (dict[str, Any],)),
    "models export": (Exported,),
    "models refresh": (Refreshed,),
    **dict.fromkeys(("validate", "gate update", "tune", "engines pull", "engines remove"), (dict[str, Any],)),
}
SEVERAL: Final[dict[str, tuple[Any, ...]]] = {
    "fit": (Fit,),
    **dict.fromkeys(("run", "stream"), (Record,)),
    "doctor": (Finding,),
    "gate judge": (Judgement,),
    "gate live": (Judgement,),
    "gate init": (Budget,),
    "history": (Trend, dict[str, Any]),
    "models show": (Named,),
    "devices show": (Named,),
}
"""Verbs whose document is a list, under ``items``."""


def schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of the documents of all verbs."""
    kinds = [(verb, kind, False) for verb, row in ONE.items() for kind in row]
    kinds += [(verb, kind, True) for verb, row in SEVERAL.items() for kind in row]
    made, components = msgspec.json.schema_components([kind for _, kind, _ in kinds], ref_template="#/$defs/{name}")
    for described in components.values():  # msgspec and Python take the indentation off docstrings or not, by version
        if "description" in described:
            described["description"] = inspect.cleandoc(described["description"])
    documents: dict[str, Any] = {}
    for (verb, _, several), body in zip(kinds, made, strict=True):
        head = {"schema": {"const": f"edge-harness {verb}"}, "version": {"const": JSON_VERSION}}
        head |= {"items": {"type": "array", "items": {"anyOf": []}}} if several else {}
        named = documents.setdefault(verb, {"anyOf": []})["anyOf"]
        listed = next((one for one in named if "items" in one["properties"]), None) if several else None
        if listed is None:
            listed = {"type": "object", "required": list(head), "properties": head}
            named.append(listed if several else {**listed, "allOf": [_open(body, components)]})
        if several:
            listed["properties"]["items"]["items"]["anyOf"].append(body)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "edge-harness: what --json prints",
        "documents": documents,
        "$defs": components,
    }


def _open(body: dict[str, Any], components: dict[str, Any]) -> dict[str, Any]:
    """A document's own schema, that ``schema`` and ``version`` may stand beside its fields."""
    whole = components[body["$ref"].rpartition("/")[2]] if "$ref" in body else body
    return {key: value for key, value in whole.items() if key not in {"additionalProperties", "title"}}


if __name__ == "__main__":
    PUBLISHED.write_text(json.dumps(schema(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
