"""What other tools say of the same model on the same machine: memory and decode speed, each in its own words.

    python -m bench.peers MODEL.gguf --llmfit PATH --llmfit-name OWNER/NAME --quant Q4_K_M \
        --llama-roofline PATH --bandwidth-gb-s 32 --llama-fit-params PATH

``pip install llmfit llama-roofline`` brings the first two (asked here: llmfit 1.1.17, llama-roofline 0.2.3);
llama-fit-params is built with llama.cpp. A tool whose path is not given is left out. llmfit knows models by name and
few quantisations by name: give the nearest one it has. llama-roofline's figure is the ceiling at the bandwidth given.
"""

import json
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import click

MIB = 2**20


class Answer(NamedTuple):
    """What one tool says; None where it says nothing."""

    tool: str
    memory_bytes: float | None
    decode_tokens_per_s: float | None
    prefill_tokens_per_s: float | None = None
    note: str = ""


def read_llmfit(text: str) -> Answer:
    """``llmfit --json plan``: its path for a machine without a GPU."""
    plan = json.loads(text)
    path = next((p for p in plan["run_paths"] if p["path"] == "cpu_only"), None)
    memory = path["minimum"]["ram_gb"] * 2**30 if path else None
    return Answer("llmfit", memory, plan["current"]["estimated_tps"], note=f"as {plan['quantization']}")


def read_roofline(text: str) -> Answer:
    """``llama-roofline inspect --json --peak-bw``: streamed bytes and the ceiling they imply."""
    model = json.loads(text)["models"][0]
    note = f"ceiling at {model['peak_bw_GBs']:g} GB/s; memory: streamed bytes only"
    return Answer("llama-roofline", model["streamed_bytes"], model["ceiling_tok_s"], note=note)


def read_fit_params(text: str) -> Answer:
    """``llama-fit-params -fitp on``: one line a device with model, context and compute in MiB."""
    total = 0.0
    for line in text.splitlines():
        words = line.split()
        if len(words) == 4 and all(w.isdigit() for w in words[1:]):
            total += sum(int(w) for w in words[1:]) * MIB
    return Answer("llama-fit-params", total or None, None, note="model + context + compute")


def _output(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode:
        raise click.ClickException(f"{command[0]} ended with {done.returncode}: {done.stderr[-300:]}")
    return done.stdout


@click.command()
@click.argument("model", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--llmfit", type=click.Path(exists=True))
@click.option("--llmfit-name", help="The model's name in llmfit's list.")
@click.option("--quant", default="Q4_K_M", show_default=True, help="Quantisation as llmfit names it.")
@click.option("--llama-roofline", type=click.Path(exists=True))
@click.option("--bandwidth-gb-s", default=32.0, show_default=True)
@click.option("--llama-fit-params", type=click.Path(exists=True))
@click.option("--context", default=4096, show_default=True)
def main(
    model: Path,
    llmfit: str | None,
    llmfit_name: str | None,
    quant: str,
    llama_roofline: str | None,
    bandwidth_gb_s: float,
    llama_fit_params: str | None,
    context: int,
) -> None:
    """Print one JSON document with the answers of the tools that were given."""
    answers: list[Answer] = []
    if llmfit and llmfit_name:
        answers.append(
            read_llmfit(_output([llmfit, "--json", "plan", llmfit_name, "--context", str(context), "--quant", quant]))
        )
    if llama_roofline:
        answers.append(
            read_roofline(_output([llama_roofline, "inspect", "--json", "--peak-bw", str(bandwidth_gb_s), str(model)]))
        )
    if llama_fit_params:
        answers.append(
            read_fit_params(_output([llama_fit_params, "-m", str(model), "-c", str(context), "-fitp", "on"]))
        )
    document: dict[str, Any] = {"model": model.name, "answers": [a._asdict() for a in answers]}
    click.echo(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()
