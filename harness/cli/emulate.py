"""``edge-harness emulate``: where a model stops to fit on a device, predicted and found by real runs."""

import click

from harness.cli._files import model_file
from harness.cli._output import console, emit_json, json_option, table


@click.command("emulate")
@click.argument("model")
@click.option("--as", "device", required=True, metavar="DEVICE", help="Device whose limits are imposed.")
@click.option("--entitled", is_flag=True, help="The limit that an app gets with the entitlement for more memory.")
@json_option
def COMMAND(model: str, device: str, entitled: bool, as_json: bool) -> int:  # noqa: N802  verbs are found by this name
    """Find the longest context that MODEL runs with in the memory an app may use on DEVICE, by bisection."""
    from harness.app.emulate import emulation_of, find_boundary
    from harness.app.resolve import resolve_device
    from harness.errors import Exit
    from harness.units import format_bytes

    path = model_file(model)
    progress = console(stderr=True)
    emulation = emulation_of(resolve_device(device), entitled=entitled)
    result = find_boundary(path, emulation, say=progress.print)
    if as_json:
        emit_json(result)
        return Exit.OK
    cores = emulation.core_count or "an unknown number of"
    rows = [
        ("memory limit", format_bytes(emulation.memory_limit_bytes)),
        (
            "threads",
            f"{emulation.thread_count} (the device has {cores} cores)",
        ),
        ("longest context predicted", f"{result.predicted_tokens} tokens"),
        ("longest context that ran", f"{result.found_tokens} tokens"),
        ("shortest that did not", f"{result.failed_tokens} tokens" if result.failed_tokens else "none"),
        ("memory there", f"{format_bytes(result.found_peak_bytes)}, predicted {format_bytes(result.predicted_bytes)}"),
        ("held by", "a control group" if result.enforced else "a limit on private memory (no control group here)"),
        ("not emulated", ", ".join(emulation.not_emulated)),
    ]
    console().print(table(f"{result.model} as if on {emulation.device} (emulated)", ("", ""), rows))
    return Exit.OK
