"""Batch costs and speculative speedups said before anything runs, beside the runs.

    python -m bench.speculation_ahead TARGET.gguf DRAFT.gguf [--gammas 1,2,4,8] [--prompts code]

The prediction rests on this machine's calibration alone (tiny synthetic models; ``edge-harness devices probe``), never
on the two models. The cost of a pass and of a drafted token are predicted outright; the speedup needs an acceptance
rate, which is a property of the text: the one that the run itself shows is put into the predicted costs.
"""

import json
from functools import partial
from pathlib import Path
from statistics import median

import click
from msgspec.structs import replace

from harness.app.resolve import resolve_model
from harness.app.speculate import load_prompts, speculate
from harness.app.this_machine import probed
from harness.domain.record import result_of
from harness.domain.result import Speculation
from harness.domain.scenario import Scenario
from harness.errors import RefusedError
from harness.measure.jobs.speculate import SpeculationJob
from harness.predict.passes import Pass
from harness.predict.speed import pass_seconds
from harness.predict.weights import matrix_types
from harness.runtimes.llamacpp.draft_policy import CostTable


def predicted(target: Path, draft: Path, sizes: list[int]) -> tuple[dict[int, float], float]:
    """(seconds of a pass of the target by tokens, seconds of a drafted token) by this machine's calibration.

    Raises:
        RefusedError: None of the models' types can be calibrated.
    """
    weights, small = (resolve_model(str(path)).weights for path in (target, draft))
    types = matrix_types(weights) | matrix_types(small)
    say = partial(click.echo, err=True)
    device, scenario = probed(types, Scenario(), say=say), Scenario(api="cpu")
    if device.calibration("cpu") is None:
        raise RefusedError("none of the types of these models can be calibrated here")
    verify = {k: pass_seconds(weights, device, scenario, Pass(k, 96, verified=True)) for k in sizes}
    return verify, pass_seconds(small, device, scenario, Pass(1, 96))


@click.command()
@click.argument("target", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("draft", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--gammas", default="1,2,4,8", show_default=True)
@click.option("--prompts", default="code", show_default=True)
@click.option("--prompt-count", default=8, show_default=True, help="The first four are the pilot's.")
@click.option("--tokens", default=32, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def main(target: Path, draft: Path, gammas: str, prompts: str, prompt_count: int, tokens: int, as_json: bool) -> None:
    """Predict batch costs and speedups for TARGET drafted by DRAFT, then run them."""
    lengths = [int(g) for g in gammas.split(",")]
    said_s, said_draft_s = predicted(target, draft, [1, *(g + 1 for g in lengths)])
    click.echo(
        "predicted: pass over k tokens (ms) "
        + ", ".join(f"{k}: {s * 1e3:.0f}" for k, s in said_s.items())
        + f"; a drafted token {said_draft_s * 1e3:.1f}",
        err=True,
    )
    texts = load_prompts(prompts)[:prompt_count]
    job = SpeculationJob(target=str(target), drafts=(str(draft),), prompts=texts, new_tokens=tokens)
    runs: dict[int, Speculation] = {g: result_of(speculate(replace(job, draft_tokens=g)), Speculation) for g in lengths}
    plain_s = median(r.advice.verify_s[1] for r in runs.values())
    rows = []
    for gamma, run in runs.items():
        measured_s = run.advice.verify_s
        said = CostTable(said_s, said_draft_s).speedup_ratio(gamma, run.acceptance_ratio)
        rows.append(
            {
                "gamma": gamma,
                "predicted_cost_ratio": said_s[gamma + 1] / said_s[1],
                "measured_cost_ratio": measured_s.get(gamma + 1, 0.0) / measured_s[1],
                "acceptance_ratio": run.acceptance_ratio,
                "predicted_speedup": said,
                "from_measured_costs": run.expected_ratio,
                "measured_speedup": run.median_ratio,
                "error_ratio": said / run.median_ratio - 1.0,
            }
        )
    draft_s = median(r.advice.draft_s for r in runs.values())
    head = {
        "plain_pass_s": {"predicted": said_s[1], "measured": plain_s},
        "drafted_token_s": {"predicted": said_draft_s, "measured": draft_s},
    }
    if as_json:
        click.echo(json.dumps({**head, "rows": rows}, indent=2))
        return
    click.echo(
        f"plain pass {said_s[1] * 1e3:.1f} ms predicted, {plain_s * 1e3:.1f} measured; "
        f"drafted token {said_draft_s * 1e3:.1f} and {draft_s * 1e3:.1f}"
    )
    click.echo("gamma  V(g+1)/V(1) predicted measured  acceptance  speedup predicted  measured  error")
    for r in rows:
        click.echo(
            f"{r['gamma']:>5}  {r['predicted_cost_ratio']:>21.2f} {r['measured_cost_ratio']:>8.2f}  "
            f"{r['acceptance_ratio']:>10.3f}  {r['predicted_speedup']:>17.2f}  {r['measured_speedup']:>8.2f}  "
            f"{r['error_ratio']:>+6.1%}"
        )


if __name__ == "__main__":
    main()
