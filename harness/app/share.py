"""One's own measurement as a row of the published tables, to paste into an issue or a pull request."""

import csv
import io

from harness.domain.record import RunRecord
from harness.domain.result import Generation
from harness.errors import RefusedError
from harness.published.cells import speed_columns
from harness.records.derive import speeds_of


def shared(records: list[RunRecord]) -> str:
    """The rows of records as CSV, with its header.

    Raises:
        RefusedError: A run did not end well, was disturbed all along, or measured no plain speed.
    """
    rows = [row for record in records for row in rows_of(record)]
    text = io.StringIO()
    writer = csv.DictWriter(text, speed_columns(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def rows_of(record: RunRecord) -> list[dict[str, str]]:
    """A row for each speed: no name of the machine, no user, no path, no serial number.

    Raises:
        RefusedError: As :func:`shared`.
    """
    if record.outcome != "ok" or record.model is None or not isinstance(record.result, Generation):
        raise RefusedError(f"run {record.run_id} is not shared: it is no speed of a model that ended well")
    rows = [_row(record, label, speed) for label, speed in speeds_of(record).items()]
    if not rows:
        raise RefusedError(f"run {record.run_id} is not shared: every sample of it was disturbed")
    return rows


def _row(record: RunRecord, label: str, tokens_per_s: float) -> dict[str, str]:
    machine = record.machine
    model = record.model
    engine = record.engine
    assert model is not None
    test, _, depth = label.partition(" @ d")
    chip = machine.cpu_model
    if engine:
        build = f"{engine.name} {engine.version} {engine.build}".strip()
    else:
        build = record.runtime
    cells = {
        "device": chip,
        "chip": chip,
        "backend": record.scenario.api or "cpu",
        "runtime": record.runtime,
        "n_threads": str(record.scenario.thread_count),
        "model": model.name,
        "arch": model.architecture,
        "params_b": f"{model.parameter_count / 1e9:.4g}",
        "quant": model.quant,
        "model_bytes": str(model.size_bytes),
        "test": test,
        "tokens_per_s": f"{tokens_per_s:.6g}",
        "context_depth": depth or "0",
        "source": f"shared:{machine.fingerprint}",
        "date": record.created[:10],
        "build": build,
        "notes": f"edge-harness {record.harness_version}; {machine.core_count} cores; {machine.system}",
        "trust": "B",
    }
    return {name: cells.get(name, "") for name in speed_columns()}
