"""One's own measurement as rows of the published tables, to paste into an issue or a pull request."""

import csv
import io
import re
from contextlib import suppress

from harness.answer.resolve import resolve_device
from harness.core.errors import HarnessError, RefusedError
from harness.core.record import Record
from harness.core.result import Generation
from harness.records.derive import speeds_of
from harness.speed.published.cells import speed_columns


def shared(records: list[Record]) -> str:
    """A row for each speed of the records as CSV, with its header.

    No name of the machine, no user, no path, no address, no serial number: a word of the command that may hold
    one is left out.

    Raises:
        RefusedError: A run did not end well, was disturbed all along, or measured no plain speed.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, speed_columns(), lineterminator="\n")
    writer.writeheader()
    for record in records:
        model = record.model
        machine = record.machine
        speeds = speeds_of(record)
        if record.outcome != "ok" or not (model and speeds and isinstance(record.result, Generation)):
            raise RefusedError(f"run {record.run_id} is not shared: it has no clean speed of a model")
        chip = machine.cpu_model
        if record.scenario.api not in {"", "cpu"}:
            chip = machine.device
        build = record.runtime
        if record.engine:
            build = f"{record.engine.name} {record.engine.version} {record.engine.build}"
        command = " ".join("..." if re.search(r"[/\\@]", word) else word for word in record.command)
        cells = {
            "device": chip,
            "chip": chip,
            "backend": record.scenario.api or "cpu",
            "runtime": record.runtime,
            "n_threads": record.scenario.thread_count,
            "model": model.name,
            "arch": model.architecture,
            "params_b": model.parameter_count / 1e9,
            "quant": model.quant,
            "model_bytes": model.size_bytes,
            "source": f"shared:{machine.fingerprint}",
            "date": record.created[:10],
            "build": build,
            "notes": f"{command}; edge-harness {record.harness_version}; {machine.core_count} cores; {machine.system}",
            "trust": "B",
        }
        with suppress(HarnessError):  # of an unknown chip whoever merges the rows has to tell it
            device = resolve_device(chip)
            bandwidth = device.pool(device.pool_for(record.scenario.api)).bandwidth_bytes_per_s
            cells["memory_bandwidth_gb_s"] = bandwidth.value / 1e9
            cells["bw_confidence"] = bandwidth.confidence
        for label, speed in speeds.items():
            test, _, depth = label.partition(" @ d")
            row = {"test": test, "context_depth": depth or 0, "tokens_per_s": f"{speed:.6g}"}
            writer.writerow(cells | row)
    return text.getvalue()
