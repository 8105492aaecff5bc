"""``edge-harness emulate``: where a model stops to fit on a device, predicted and found by real runs."""

import click

from harness.cli import _options as options
from harness.cli._output import Answer, model_file
from harness.units import format_bytes


@click.command("emulate")
@click.argument("model")
@click.option("--as", "device", required=True, metavar="DEVICE", help="Device whose limits are imposed.")
@click.option("--entitled", is_flag=True, help="The limit that an app gets with the entitlement for more memory.")
@options.quant
@options.memory_limit
@options.threads
@options.measuring(300.0)
def emulate(model: str, device: str, entitled: bool, quant: str, thread_count: int, how: "options.How") -> Answer:
    """Find the longest context that MODEL runs with in the memory an app may use on DEVICE, by bisection."""
    from harness.app.emulate import emulation_of, find_boundary
    from harness.app.resolve import resolve_device
    from harness.cli._records import answer_of
    from harness.domain.result import Boundary

    path = model_file(model, quant)
    emulation = emulation_of(
        resolve_device(device), entitled=entitled, memory_bytes=how.limits.memory_bytes, thread_count=thread_count
    )

    record = find_boundary(path, emulation, how=how)

    def view(result: Boundary) -> tuple[str, list[tuple[str, str]]]:
        cores = emulation.core_count or "an unknown number of"
        found = f"{format_bytes(result.found_peak_bytes)}, predicted {format_bytes(result.predicted_bytes)}"
        return f"{record.name} as if on {result.device} (emulated)", [
            ("memory limit", format_bytes(result.memory_limit_bytes)),
            ("threads", f"{emulation.thread_count} (the device has {cores} cores)"),
            ("longest context predicted", f"{result.predicted_tokens} tokens"),
            ("longest context that ran", f"{result.found_tokens} tokens"),
            ("shortest that did not", f"{result.failed_tokens} tokens" if result.failed_tokens else "none"),
            ("memory there", found),
            ("held by", "a control group" if result.enforced else "a limit on private memory (no control group here)"),
            ("not emulated", ", ".join(result.not_emulated)),
        ]

    return answer_of(record, Boundary, view)
