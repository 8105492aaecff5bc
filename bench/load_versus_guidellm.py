"""``serve-load`` beside guidellm on the same server, in turns: whether their figures agree within their own spread.

    python -m bench.load_versus_guidellm MODEL.gguf --guidellm PATH [--server llama-server] [--users 1,2,4,8]
        [--turns 3] [--out FOLDER]

Both keep so many users busy with requests of the same lengths: prompts of common words fitted to a number of tokens by
the server's own tokenizer, and as many new tokens for each. guidellm reads its prompts from a file, streams
completions and asks past end tokens. Each turn is a fresh process of each, the other one first than the turn before.
A figure of a side is the median of its turns, and its spread the least and the greatest of them: they agree where the
spreads overlap.
"""

import json
import random
import subprocess
import tempfile
from pathlib import Path
from statistics import median
from typing import Any, Final

import click
import numpy as np

from bench.running_servers import PROGRAMS, running
from harness.domain.record import RunRecord
from harness.domain.result import Load
from harness.errors import CouldNotRunError
from harness.measure.jobs.load import LoadJob, plan
from harness.measure.pipeline import How, Pipeline
from harness.runtimes.server import RUNTIME
from harness.runtimes.server.answer import Request

FIGURES: Final = {
    "output tokens/s": ("output_tokens_per_second", "mean", 1.0),
    "TTFT p50 (ms)": ("time_to_first_token_ms", "p50", 1.0),
    "TTFT p99 (ms)": ("time_to_first_token_ms", "p99", 1.0),
    "ITL p50 (ms)": ("inter_token_latency_ms", "p50", 1.0),
    "E2EL p50 (ms)": ("request_latency", "p50", 1e3),
    "E2EL p99 (ms)": ("request_latency", "p99", 1e3),
}
"""What is compared: the metric of guidellm, its statistic, and the factor to our unit."""


def theirs(program: Path, url: str, users: int, requests: int, data: Path) -> dict[str, float]:
    """Figures of one run of guidellm.

    Raises:
        CouldNotRunError: It failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [
            str(program), "run", "--disable-console-interactive",
            "--backend", f"kind=openai_http,target={url},request_format=/v1/completions",
            "--profile", f"kind=concurrent,streams={users}",
            "--constraint", f"kind=max_requests,count={requests}",
            "--data", f"kind=json_file,path={data}",
            "--output", f"kind=json,path={report}",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
        if done.returncode or not report.exists():
            raise CouldNotRunError(f"guidellm ended with {done.returncode}: {(done.stderr or done.stdout)[-600:]}")
        found: dict[str, Any] = json.loads(report.read_text())["benchmarks"][0]["metrics"]
    figures = {}
    for name, (metric, statistic, factor) in FIGURES.items():
        part = found[metric]["successful"]
        value = part["percentiles"][statistic] if statistic.startswith("p") else part[statistic]
        figures[name] = float(value) * factor
    return figures


def ours(record: RunRecord) -> dict[str, float]:
    """The same of one record of one level."""
    assert isinstance(record.result, Load), record.detail
    (level,) = record.result.levels
    times = {phase: [s for s in record.samples if s.phase == phase] for phase in ("first_token", "decode", "workload")}
    first, whole = ([s.duration_s * 1e3 for s in times[p]] for p in ("first_token", "workload"))
    # guidellm's time between tokens is the mean of a request; ours of each gap is kept in the record beside it.
    between = [s.duration_s / s.token_count * 1e3 for s in times["decode"] if s.token_count]
    values = [level.new_tokens_per_s, *np.percentile(first, [50, 99]), np.median(between)]
    return dict(zip(FIGURES, map(float, [*values, *np.percentile(whole, [50, 99])]), strict=True))


@click.command()
@click.argument("model", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--guidellm", "program", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--server", type=click.Choice(PROGRAMS[:3]), default="llama-server", show_default=True)
@click.option("--users", default="1,2,4,8", show_default=True)
@click.option("--turns", default=3, show_default=True)
@click.option("--requests", default=24, show_default=True, help="Of each level and turn.")
@click.option("--prompt", default=64, show_default=True)
@click.option("--tokens", default=32, show_default=True)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Folder for the records.")
def main(
    model: Path, program: Path, server: str, users: str, turns: int, requests: int, prompt: int, tokens: int,
    out: Path | None,
) -> None:  # fmt: skip
    """Put the same load on a server of MODEL by both, at each number of users."""
    levels = [int(n) for n in users.split(",")]
    apart = 0
    with (
        tempfile.TemporaryDirectory() as folder,
        running(server, model, slots=max(levels)) as url,
        Pipeline(How(keep=False, folder=out)) as pipeline,
    ):
        attached, source = RUNTIME.attach(url), random.Random(7)
        data = Path(folder) / "prompts.jsonl"
        attached.ask(Request(prompt="Once", new_tokens=8))  # the first request of a server is none like the others
        for count in levels:
            found: dict[str, list[dict[str, float]]] = {"ours": [], "guidellm": []}
            for turn in range(turns):
                for side in ("ours", "guidellm") if turn % 2 == 0 else ("guidellm", "ours"):
                    if side == "guidellm":
                        # New ones each time: a server keeps what it has read.
                        texts = [attached.prompt(prompt, source, words=True) for _ in range(2 * requests)]
                        lengths: dict[str, Any] = {"prompt_tokens_count": prompt, "output_tokens_count": tokens}
                        data.write_text("".join(json.dumps({"prompt": t, **lengths}) + "\n" for t in texts))
                        found[side].append(theirs(program, url, count, requests, data))
                        continue
                    job = LoadJob(
                        url=url,
                        levels=(float(count),),
                        request_count=requests,
                        seed=turn + 1,
                        prompt_tokens=(prompt, prompt),
                        new_tokens=(tokens, tokens),
                    )
                    found[side].append(ours(pipeline.measure(plan(job))))
            click.echo(f"{count} users, {turns} turns of {requests} requests: median (least to greatest) of the turns")
            for name in FIGURES:
                sides = {side: sorted(run[name] for run in runs) for side, runs in found.items()}
                shown = "; ".join(f"{s} {median(v):.2f} ({v[0]:.2f} to {v[-1]:.2f})" for s, v in sides.items())
                mine, other = sides["ours"], sides["guidellm"]
                agree = mine[0] <= other[-1] and other[0] <= mine[-1]
                ratio = median(mine) / median(other) if median(other) else float("nan")
                apart += not agree
                click.echo(f"  {name:>16}: {shown}; ratio {ratio:.3f}{'' if agree else ', spreads apart'}")
    click.echo(f"{apart} of {len(levels) * len(FIGURES)} figures whose spreads are apart")


if __name__ == "__main__":
    main()
