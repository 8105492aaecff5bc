"""``edge-harness run``: measure models for real, each in a child process of its own."""

from pathlib import Path
from typing import Any

import click

from harness.cli._output import console, emit_json, json_option
from harness.cli._sizes import Size, numbers


@click.command()
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@click.option("--quant", "-q", default="", help="Mixture; the card's usual one unless given.")
@click.option("--context", "-c", "context_tokens", type=click.IntRange(1), default=4096, show_default=True)
@click.option("--prompt", "-p", "prompt_tokens", type=click.IntRange(0), default=512, show_default=True)
@click.option("--new", "-n", "new_tokens", type=click.IntRange(0), default=128, show_default=True)
@click.option(
    "--depth", "depths", default="0", callback=numbers, help="Tokens already in the cache; or several: 0,2048."
)
@click.option("--threads", "-t", default="0", callback=numbers, help="Threads, or several: 1,2. 0: physical cores.")
@click.option("--ubatch", "ubatch_tokens", type=click.IntRange(1), default=512, show_default=True)
@click.option("--kv-type", default="F16", show_default=True)
@click.option("--flash-attention/--no-flash-attention", default=True)
@click.option("--repack/--no-repack", default=True, help="Let the CPU backend rewrite weights.")
@click.option("--mmap/--no-mmap", default=True, help="Map the file instead of reading it.")
@click.option("--runtime", default="llamacpp", show_default=True, help="Runtime.")
@click.option("--repetitions", "-r", type=click.IntRange(1, 1000), default=5, show_default=True)
@click.option("--cold-loads", type=click.IntRange(0, 100), default=1, show_default=True)
@click.option("--greedy", is_flag=True, help="Choose each token from its logits inside the clock.")
@click.option("--timeout", "timeout_s", type=click.FloatRange(0, min_open=True), default=1800.0, show_default=True)
@click.option("--memory-limit", "memory_bytes", type=Size(), help="Such as 900MB or 1.5GiB.")
@click.option("--wait/--no-wait", default=True, help="Wait for another measured run on this machine.")
@click.option("--resume", is_flag=True, help="Take results of the last day for cells that were done.")
@click.option("--out", "-o", type=click.Path(file_okay=False, path_type=Path), help="Also write each record there.")
@click.option("--as", "emulated", metavar="DEVICE", help="Held to the memory and cores that DEVICE gives one app.")
@click.option("--draft", metavar="M", help="Speculate with this draft: the same as the verb `speculate`.")
@click.option("--ram-budget", metavar="SIZE", help="Stream weights within this budget: the same as the verb `stream`.")
@click.option("--workload", default="generate", show_default=True, help="Another workload, with MODEL if it needs one.")
@click.option("--on", "target", default="local", help="Another device: ssh://user@host, adb:// or adb://SERIAL.")
@click.option("--programs", type=click.Path(file_okay=False, path_type=Path), help="Folder with llama-bench for --on.")
@json_option
@click.pass_context
def run(
    context: click.Context,
    /,
    models: tuple[str, ...],
    quant: str,
    depths: tuple[int, ...],
    threads: tuple[int, ...],
    runtime: str,
    repetitions: int,
    cold_loads: int,
    greedy: bool,
    timeout_s: float,
    memory_bytes: int | None,
    wait: bool,
    resume: bool,
    out: Path | None,
    emulated: str | None,
    draft: str | None,
    ram_budget: str | None,
    workload: str,
    target: str,
    programs: Path | None,
    as_json: bool,
    **fields: Any,
) -> int:
    """Measure each MODEL (name or file): prefill, decode, first token, load, memory.

    Exit status: 0 all well, 3 some inconclusive, 4 some could not run; the others are run all the same.
    """
    if draft or ram_budget or workload != "generate":
        return _other_verb(context, models, draft, ram_budget, workload, emulated, as_json)
    from harness.app.resolve import scenario_from
    from harness.app.run import Options, cells_of, exit_of, run_cells, this_machine
    from harness.cli._progress import RunProgress
    from harness.cli._records import reasons, run_table
    from harness.measure.child import Limits

    notes: dict[str, Any] = {}
    if emulated:
        from harness.app.emulate import emulation_of
        from harness.app.resolve import resolve_device

        emulation = emulation_of(resolve_device(emulated))
        memory_bytes = min(memory_bytes or emulation.memory_limit_bytes, emulation.memory_limit_bytes)
        threads = (emulation.thread_count,) if threads == (0,) else threads
        notes = {"emulates": emulation.device, "not_emulated": list(emulation.not_emulated)}
    cells = cells_of(models, quant, scenario_from(fields), depths=depths, threads=threads)
    options = Options(
        runtime=runtime,
        repetitions=repetitions,
        cold_loads=cold_loads,
        greedy=greedy,
        limits=Limits(wall_s=timeout_s, memory_bytes=memory_bytes),
        wait=wait,
        resume=resume,
        folder=out,
        notes=notes,
    )
    with RunProgress() as progress:
        if target == "local":
            records = run_cells(cells, options, device=this_machine(), listener=progress)
        else:
            from harness.app.on_target import run_on

            records = run_on(target, cells, options, programs, say=progress.say)[1]
    if as_json:
        emit_json(records)
    else:
        console().print(run_table(records))
        for line in reasons(records):
            console().print(line, markup=False)
    return exit_of(records)


def _other_verb(
    context: click.Context,
    models: tuple[str, ...],
    draft: str | None,
    ram_budget: str | None,
    workload: str,
    emulated: str | None,
    as_json: bool,
) -> int:
    """Hand over to the verb that does this; one model at a time."""
    from harness.cli import speculate, stream, workloads

    if len(models) != 1:
        raise click.BadParameter("exactly one MODEL with --draft, --ram-budget or --workload", param_hint="MODEL")
    if workload != "generate":
        from harness.cli._files import model_file

        path, devices = model_file(models[0]), (emulated,) if emulated else ()
        given = {"name": workload, "model": path, "devices": devices, "as_json": as_json}
        return int(context.invoke(workloads.run, **given) or 0)
    given = {"model": models[0], "draft": draft or "", "as_json": as_json}
    if ram_budget:
        return int(context.invoke(stream.COMMAND, ram_budget=ram_budget, **given) or 0)
    return int(context.invoke(speculate.COMMAND, **given) or 0)


COMMAND = run
