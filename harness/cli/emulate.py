"""``edge-harness emulate``: where a model stops to fit on a device, predicted and found by real runs."""

import click

from harness.cli import _options as options
from harness.cli._command import Verb
from harness.cli._output import Answer, model_file


@click.command("emulate", cls=Verb)
@click.argument("model")
@click.option(
    "--as", "device", required=True, metavar="DEVICE", help="Device whose memory limit and cores are imposed."
)
@click.option("--entitled", is_flag=True, help="Assume the app has the entitlement for more memory.")
@options.quant
@options.memory_limit
@options.threads
@options.measuring(300.0)
def emulate(model: str, device: str, entitled: bool, quant: str, thread_count: int, how: "options.How") -> Answer:
    """Find the longest context that runs in the memory of a device.

    MODEL is run again and again, held to the memory that one app may use on DEVICE, with contexts chosen by bisection.
    """
    from harness.app.emulate import emulation_of, find_boundary
    from harness.app.resolve import resolve_device
    from harness.cli._records import answer_of

    path = model_file(model, quant)
    emulation = emulation_of(
        resolve_device(device), entitled=entitled, memory_bytes=how.limits.memory_bytes, thread_count=thread_count
    )

    return answer_of(find_boundary(path, emulation, how=how))
