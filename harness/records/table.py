"""Runs as a flat table, a row each, for DuckDB, pandas or a spreadsheet."""

import csv
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import median
from typing import Any, Final

from harness.core.errors import CouldNotRunError, optional
from harness.core.metric import FIGURES, metric_values
from harness.core.record import Record
from harness.records.possible import impossible
from harness.records.store import written_beside

_BATCH: Final = 10_000
"""Rows of a Parquet file that are held at once."""
_TEXTS: Final = (
    *("run_id", "created", "workload", "outcome", "detail", "model", "quant", "model_sha256"),
    *(
        "device",
        "cpu_model",
        "target",
        "runtime",
        "runtime_version",
        "variant",
        "api",
        "kv_type",
        "impossible",
    ),
)
_COUNTS: Final = (
    *("core_count", "ram_bytes", "context_tokens", "prompt_tokens", "new_tokens", "depth_tokens"),
    *("batch_count", "thread_count"),
)
COLUMNS: Final = (*_TEXTS, *_COUNTS, *FIGURES)
"""Names of the columns; each metric is the median of its undisturbed samples, empty where it was not measured."""


def row_of(record: Record) -> dict[str, Any]:
    """One run by the names of ``COLUMNS``."""
    engine, scenario, machine = record.engine, record.scenario, record.machine
    found: dict[str, Any] = {
        "run_id": record.run_id,
        "created": record.created,
        "workload": record.workload,
        "outcome": record.outcome,
        "detail": record.detail,
        "model": record.name,
        "quant": record.quant,
        "model_sha256": record.model.sha256 if record.model else "",
        "device": machine.device,
        "cpu_model": machine.cpu_model,
        "core_count": machine.core_count,
        "ram_bytes": machine.ram_bytes,
        "target": record.target,
        "runtime": record.runtime,
        "runtime_version": engine.version if engine else "",
        "variant": engine.variant if engine else "",
        "api": scenario.api,
        "kv_type": scenario.kv_type,
        "impossible": "; ".join(impossible(record)),
    }
    found |= {name: getattr(scenario, name) for name in _COUNTS if name not in found}
    for name in FIGURES:
        values = metric_values(record, name)
        found[name] = median(values) if values else None
    return found


def write_table(records: Iterable[Record], path: Path) -> int:
    """Write runs as CSV, JSON lines or Parquet, by the ending of ``path``, and return how many there are.

    A reader never sees half a file. Rows are written one at a time, or for Parquet in batches.

    Raises:
        CouldNotRunError: The file cannot be written.
        MissingPackageError: pyarrow, which writes Parquet, is not installed.
    """
    write = {".csv": _write_csv, ".jsonl": _write_lines, ".parquet": _write_parquet}[path.suffix.lower()]
    with written_beside(path) as partial:
        try:
            return write(map(row_of, records), partial)
        except OSError as error:
            raise CouldNotRunError(f"could not write {path}: {error.strerror}") from error


def _write_csv(rows: Iterable[dict[str, Any]], path: Path) -> int:
    count = 0
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for count, row in enumerate(rows, 1):  # noqa: B007 - the last number is the count
            writer.writerow({name: _no_formula(value) for name, value in row.items()})
    return count


def _no_formula(value: Any) -> Any:
    """A text that a spreadsheet would run as a formula, with an apostrophe before it."""
    return f"'{value}" if isinstance(value, str) and value[:1] in {"=", "+", "-", "@", "\t"} else value


def _write_lines(rows: Iterable[dict[str, Any]], path: Path) -> int:
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for count, row in enumerate(rows, 1):  # noqa: B007 - the last number is the count
            file.write(json.dumps(row) + "\n")
    return count


def _write_parquet(rows: Iterable[dict[str, Any]], path: Path) -> int:
    with optional("pyarrow", "parquet"):
        import pyarrow as pa
        import pyarrow.parquet as pq
    fields = [(name, pa.string()) for name in _TEXTS] + [(name, pa.int64()) for name in _COUNTS]
    schema = pa.schema([*fields, *((name, pa.float64()) for name in FIGURES)])
    count = 0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for batch in _batches(rows):
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))
            count += len(batch)
    return count


def _batches(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    for row in rows:
        batch.append(row)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
