"""What the parts of the speed laws come to in each group of rows, beside micro-benchmarks of the same thing.

    python -m bench term_sizes

By group: the three laws that most of the time hangs on, d ln t / d ln law, and their fitted size there (median, 10th
and 90th percentile over votes). By micro-benchmark (``micro_benchmarks.csv``): what the shipped coefficients say of
that chip. Written to ``reports/validation/terms.json``.
"""

import csv
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bench._kept import REPORTS, write
from harness.app.published import shipped_rows
from harness.predict.coefficients import shipped
from harness.predict.decode import Machine, Work, capped, decode_base, decode_parts, features
from harness.predict.prefill import INT8_RATIO, Prompt, prefill_base, prefill_parts
from harness.predict.terms import laws_of
from harness.predict.traits import chip_key, quant_class, traits_of
from harness.published.rows import Row, is_trusted, predictable

FOLDER = Path(__file__).resolve().parent
_WORDS = {
    "efficiency": "share of its bandwidth that a chip reaches",
    "overhead": "seconds of a layer beside its bytes",
    "compute": "operations for a weight",
    "attention": "speed of reading the cache, to that of weights",
    "mfu": "share of the matrix peak",
    "prompt attention": "speed of attention in a prompt, to that of weights",
    "prompt overhead": "seconds of 32 layers for a batch of a prompt",
}


def _sizes(work: Work, machine: Machine, prompt: Prompt | None) -> Iterator[tuple[str, float, float]]:
    """Name, share of the time and size of each law; what a chip or a model takes beyond them is no size."""
    values = shipped().values
    if prompt is None:
        laws = laws_of(features("decode", work, machine), values)
        slopes = decode_parts(decode_base(work, machine), laws)[1]
        limits = {"efficiency": 1.0, "attention": 1.0}
    else:
        laws = laws_of(features("prefill", work, machine, prompt.tokens), values)
        slopes = prefill_parts(prefill_base(work, machine, prompt), laws)[1]
        limits = {"mfu": INT8_RATIO, "attention": 1.0}
    for law, size in laws.items():
        if law != "scale":
            known = limits[law] * capped(size / limits[law]) if law in limits else size
            yield law if prompt is None or law == "mfu" else f"prompt {law}", abs(slopes[law]), known


def _groups(rows: list[Row]) -> dict[str, list[dict[str, Any]]]:
    votes: dict[str, dict[str, dict[Any, list[tuple[float, float]]]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        assert row.work is not None
        for law, share, size in _sizes(row.work, row.machine, row.prompt if row.phase == "prefill" else None):
            votes[row.group][law].setdefault(row.vote, []).append((share, size))
    found: dict[str, list[dict[str, Any]]] = {}
    for group, by_law in votes.items():
        for law, by_vote in by_law.items():
            share, size = np.array([np.median(one, axis=0) for one in by_vote.values()]).T
            found.setdefault(group, []).append({
                "law": _WORDS[law],
                "time_ratio": float(np.median(share)),
                "size": [float(q) for q in np.quantile(size, (0.1, 0.5, 0.9))],
                "votes_count": len(size),
            })  # fmt: skip
        found[group] = sorted(found[group], key=lambda one: -float(one["time_ratio"]))[:3]
    return found


def _benchmarks() -> Iterator[dict[str, Any]]:
    for raw in csv.DictReader((FOLDER / "micro_benchmarks.csv").read_text(encoding="utf-8").splitlines()):
        bandwidth = float(raw["bandwidth_gb_s"]) * 1e9
        machine = Machine(
            raw["api"], bandwidth, traits_of(raw["chip"], raw["api"], bandwidth), chip=chip_key(raw["chip"])
        )
        quant = raw["quant"] or "Q4_K_M"
        work = Work(4.9e9, 8e9, 32, 0.0, quant_class(quant), type_name=quant)  # 8B, 32 layers
        prompt = Prompt(512, 0.0) if raw["law"] == "mfu" else None
        fitted = next(size for law, _, size in _sizes(work, machine, prompt) if law == raw["law"])
        shown = {name: raw[name] for name in ("chip", "how", "source")}
        yield {"law": _WORDS[raw["law"]], **shown, "measured": float(raw["size"]), "fitted": fitted}


def main() -> None:
    """Write the record."""
    told = {
        "groups": _groups([row for row in predictable(shipped_rows()) if is_trusted(row)]),
        "benchmarks": list(_benchmarks()),
    }
    print(write(REPORTS / "validation" / "terms.json", "python -m bench term_sizes", told), end="")


if __name__ == "__main__":
    main()
