"""Public lists of scores and of downloads into ``harness/data/scores.csv``, which `recommend` ranks by.

    python -m bench scores LIST... --month 2026-12

A list is a file or an address: CSV with the columns ``model``, ``benchmark`` and ``score``, or the hub's JSON of
repositories (``api/models?filter=gguf&sort=downloads``). What a list has replaces the whole column, by the benchmark
that most of its models have a score of, so that no two methods stand in one; a list of less than half as many models
as the column has leaves it. The month is the one that the answer shows.
"""

import csv
import io
import re
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import click

from harness.core.errors import BadDataError
from harness.core.foreign import json_of, read_limited
from harness.models.hub_client import download
from harness.models.names import key

SHIPPED: Final = Path(__file__).resolve().parents[1] / "harness" / "data" / "scores.csv"
MOST_BYTES: Final = 16 << 20
MONTH: Final = "(month)"
"""In the place of a model: the row of the months of the columns."""
BENCHMARKS: Final = {
    "intelligence": "(?i)intelligence index|intel, ",
    "coding": "(?i)coding index|coding, ",
    "agentic": "(?i)agentic index|agentic, ",
    "mmmu_pro": "MMMU-Pro",
    "mmlu_pro": "MMLU-Pro",
    "humaneval": "HumanEval$",
    "mmmu": "MMMU$",
}
"""Columns, and how lists call their benchmarks."""

Scores = dict[str, dict[str, float]]
"""By column and published name of a model."""


def read_list(place: str) -> bytes:
    """A list of a file or an address, of at most 16 MiB."""
    if not place.startswith(("http://", "https://")):
        return read_limited(Path(place), MOST_BYTES)
    with TemporaryDirectory() as folder:
        part = Path(folder) / "list"
        download(place, place, part, MOST_BYTES)
        return part.read_bytes()


def scores_in(data: bytes, place: str) -> Scores:
    """What a list says; BadDataError where it is none of the two kinds."""
    found: Scores = defaultdict(dict)
    if data.lstrip()[:1] == b"[":
        for repository in json_of(data, place, "the hub's list of repositories"):
            name = re.sub(r"(?i)-gguf$", "", str(repository.get("id", "")).rpartition("/")[2])
            count = int(repository.get("downloads") or 0)
            found["downloads"][name] = found["downloads"].get(name, 0) + count
        return found
    reader = csv.DictReader(io.StringIO(data.decode("utf-8-sig", errors="replace")))
    if not {"model", "benchmark", "score"} <= set(reader.fieldnames or ()):
        raise BadDataError(place, "header", str(reader.fieldnames)[:80], "model, benchmark and score")
    for row in reader:
        if not re.fullmatch(r"\d+(\.\d+)?", row["score"] or ""):
            raise BadDataError(place, f"line {reader.line_num}", repr(row["score"]), "a number")
        found[row["benchmark"]][row["model"]] = float(row["score"])
    most: Scores = {}
    for column, pattern in BENCHMARKS.items():
        scores = [scores for benchmark, scores in found.items() if re.search(pattern, benchmark)]
        if scores:
            most[column] = max(scores, key=len)
    return most


def renewed(rows: list[dict[str, str]], found: Scores, month: str) -> list[dict[str, str]]:
    """The rows of the table with what a list says."""
    blank = dict.fromkeys(rows[0], "")
    by_name = {key(row["model"]): dict(row) for row in rows}
    for column, scores in found.items():
        if 2 * len(scores) < sum(bool(row[column]) for row in rows):
            continue
        for row in by_name.values():
            row[column] = ""
        for model, value in scores.items():
            # Who has no score yet is not listed for being fetched.
            if column != "downloads" or key(model) in by_name:
                by_name.setdefault(key(model), blank | {"model": model})[column] = f"{value:g}"
        by_name[key(MONTH)][column] = month
    return [row for row in by_name.values() if any(row[column] for column in BENCHMARKS)]


@click.command()
@click.argument("lists", nargs=-1, required=True)
@click.option("--month", required=True, help="Of the scores, such as 2026-12.")
def main(lists: tuple[str, ...], month: str) -> None:
    """Write the table, and print how many scores each list has."""
    text = SHIPPED.read_text(encoding="utf-8")
    remarks = [line for line in text.splitlines() if line.startswith("#")]
    rows = list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))
    for place in lists:
        found = scores_in(read_list(place), place)
        rows = renewed(rows, found, month)
        for column, scores in found.items():
            print(f"{place}: {len(scores)} of {column}")
    out = io.StringIO()
    table = csv.DictWriter(out, rows[0], lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    SHIPPED.write_text("\n".join([*remarks, out.getvalue()]), encoding="utf-8")


if __name__ == "__main__":
    main()
