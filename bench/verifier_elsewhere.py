"""A draft here, the verifier on a server: what it was predicted to give, and what it gave, by round trip.

    python -m bench.verifier_elsewhere TARGET.gguf DRAFT.gguf [--trips 0,20,80] [--out FOLDER]

The server (``bench.echo_server``, or llama-cpp-python's own with ``--server llama-cpp-python``) runs TARGET behind
``bench.delaying_proxy``, both on this machine and in turns with the draft, which waits while it verifies. Each round
trip is one record of the speculation kind. The server's plain generation, with which it is compared, streams: it pays
one round trip for an answer. ``pays below`` is the longest round trip at which the law gives a gain.
"""

from pathlib import Path

import click

from bench.running_servers import running
from harness.app.speculate import load_prompts, speculate
from harness.domain.drafting import DraftAdvice
from harness.domain.result import Speculation
from harness.measure.jobs.verify import VerifierJob
from harness.measure.pipeline import How
from harness.predict.speculative import WORTH_RATIO, expected_tokens_per_cycle
from harness.runtimes.llamacpp.draft_policy import CostTable


def break_even_s(advice: DraftAdvice, most_tokens: int = 15) -> float:
    """Longest round trip at which some draft length is worth its risk; 0 where none is.

    From E p / (m d + r + t(m + 1)) = w: r = E p / w - m d - t(m + 1), p a plain token's time there, w the least gain.
    """
    costs, slack = CostTable(advice.verify_s, advice.draft_s), [0.0]
    for m in range(1, most_tokens + 1):
        tokens = expected_tokens_per_cycle(advice.acceptance_ratio, m)
        there_s = costs.verify_s(m + 1) - advice.round_trip_s
        slack.append(tokens * advice.verify_s[1] / WORTH_RATIO - m * advice.draft_s - there_s)
    return max(slack)


@click.command()
@click.argument("target", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("draft", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--trips", default="0,20,80", show_default=True, help="Round trips, in ms.")
@click.option("--prompts", default="code", show_default=True)
@click.option("--prompt-count", default=10, show_default=True, help="The first four are the pilot's.")
@click.option("--tokens", default=48, show_default=True)
@click.option("--server", "program", type=click.Choice(["echo_server", "llama-cpp-python"]), default="echo_server")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Folder for the records.")
def main(
    target: Path, draft: Path, trips: str, prompts: str, prompt_count: int, tokens: int, program: str, out: Path | None
) -> None:
    """Draft with DRAFT here, verify with TARGET on a server, at each round trip."""
    texts = load_prompts(prompts)[:prompt_count]
    broken = False
    for trip_ms in map(float, trips.split(",")):
        with running(program, target, round_trip_ms=trip_ms) as url:
            job = VerifierJob(target=url, drafts=(str(draft),), prompts=texts, new_tokens=tokens)
            record = speculate(job, how=How(keep=False, folder=out, notes={"line_round_trip_ms": trip_ms}))
        if not isinstance(record.result, Speculation):
            click.echo(f"{trip_ms:g} ms: {record.outcome}: {record.detail}")
            broken = True
            continue
        run = record.result
        advice, fast = run.advice, run.speculative
        costs = ", ".join(f"{k}: {s * 1e3:.0f}" for k, s in advice.verify_s.items())
        equal = len(run.ratios) - len(run.differences)
        click.echo(
            f"{trip_ms:g} ms (measured {advice.round_trip_s * 1e3:.1f}): predicted {advice.speedup_ratio:.3f} x with "
            f"{advice.draft_tokens} tokens at acceptance {advice.acceptance_ratio:.2f}; "
            f"measured {run.speedup_ratio:.3f} x "
            f"(from the run's own acceptance {run.acceptance_ratio:.2f}: {run.expected_ratio:.3f} x); pays below "
            f"{break_even_s(advice) * 1e3:.0f} ms; {fast.plain_count} of {fast.cycle_count} tokens or cycles plain; "
            f"equal to the server's own: {equal} of {len(run.ratios)}, unexplained {run.unexplained_count}; "
            f"{record.outcome}; request by tokens (ms): {costs}, a drafted token {advice.draft_s * 1e3:.1f}"
        )
        broken |= run.unexplained_count > 0
    raise SystemExit(1 if broken else 0)


if __name__ == "__main__":
    main()
