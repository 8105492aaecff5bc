"""Adaptive computation at answering: more samples, stopped early, or checked by programs, on GSM8K.

    python -m bench.best_of_n MODEL.gguf GSM8K.jsonl [--cases 24] [--samples 8] [--tokens 160] [--minutes 10]

Each problem gets one greedy answer and so many samples, drawn in one batch, and so many programs, which are worked
exactly (``harness.workloads.reasoning.programs``). From the same draws come: the first sample; the majority of k; a
vote that ends early (Aggarwal et al. 2023); the majority of k programs; and a vote of k samples and k programs, each
verifying the other. Tokens are those drawn. ``at_equal_tokens`` gives, for the mean tokens of each majority of k
samples, the largest k that the ways with programs can pay for, and their gain in accuracy there with its paired
interval. The result is printed, and written anew
to ``reports/workloads/best-of-n-MODEL.json`` after every problem, so that a run which is stopped leaves what it has.
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple

import click

from bench._kept import REPORTS, write
from harness.domain.scenario import Scenario
from harness.ports import Session, WorkloadContext
from harness.runtimes.llamacpp.session import LlamaSession
from harness.stats.intervals import cluster_interval, share_interval
from harness.workloads._language.cases import drawn, watched
from harness.workloads._language.generate import Branches, Plan
from harness.workloads._language.templates import ChatTemplate, Message
from harness.workloads.grounding_qa.answering import WAVES, vote_in_waves
from harness.workloads.reasoning.programs import NUMBER, Author, worked

_TOLD: Final = "Solve the problem step by step, one short step a line. The last line is: #### and the number."


class Tried(NamedTuple):
    """One sample or program: its answer, and the tokens drawn."""

    answer: str
    drawn_count: int


class Solved(NamedTuple):
    """One problem: the right answer, the greedy try, samples, programs, and the seconds of each of the three."""

    gold: str
    greedy: Tried
    tries: tuple[Tried, ...]
    programs: tuple[Tried, ...]
    seconds: tuple[float, float, float]


def number_in(text: str) -> str:
    """The number after ``####``, else the last one; without signs, and without zeros after the point."""
    found = NUMBER.findall(text.rsplit("####", 1)[-1]) or NUMBER.findall(text)
    plain = found[-1].replace(",", "") if found else ""
    return plain.rstrip("0").rstrip(".") if "." in plain else plain


def solve(
    session: Session, template: ChatTemplate, author: Author, row: dict[str, str], plan: Plan, count: int
) -> Solved:
    """Greedy and sampled answers to one problem, and as many programs."""
    prompt = template.tokens(session, [Message("system", _TOLD), Message("user", row["question"])])
    times = [time.perf_counter()]
    branches = Branches(session, prompt)
    drawn = [branches.draw([0], plan._replace(temperature=0.0))]
    times.append(time.perf_counter())
    drawn.append(branches.draw(range(count), plan))
    times.append(time.perf_counter())
    author.forget()
    before = author.drawn_count
    written = author.write([row["question"]], count)[0]
    spent = (author.drawn_count - before) // count
    times.append(time.perf_counter())
    said = [[Tried(number_in(session.detokenize(s.tokens)), s.step_count) for s in part] for part in drawn]
    programs = [Tried(number_in(str(float(own[-1]))) if (own := worked(p)) else "", spent) for p in written]
    seconds = tuple(b - a for a, b in pairwise(times))
    gold = number_in(row["answer"])
    return Solved(gold, said[0][0], tuple(said[1]), tuple(programs), (seconds[0], seconds[1], seconds[2]))


def majority(tries: Sequence[Tried]) -> str:
    """The commonest answer that is one; the first of equal ones."""
    return next((a for a, _ in Counter(t.answer for t in tries).most_common() if a), "")


def paired_interval(candidate: Sequence[bool], baseline: Sequence[bool]) -> tuple[float, float, float]:
    """Mean difference candidate - baseline over the same rows, and its 95 % bootstrap interval."""
    gaps = [float(c) - float(b) for c, b in zip(candidate, baseline, strict=True)]
    found = cluster_interval(gaps, [1.0] * len(gaps))
    return found.mid, found.low or 0.0, found.high or 0.0


def compared(solved: Sequence[Solved]) -> dict[str, Any]:
    """Accuracy against tokens of each way, and the ways with programs at the budgets of the majority."""
    count = len(solved[0].tries)
    ways: dict[str, Callable[[Solved, int], Sequence[Tried]]] = {
        "majority": lambda s, k: s.tries[:k],
        "majority of programs": lambda s, k: s.programs[:k],
        "vote of samples and programs": lambda s, k: (*s.tries[:k], *s.programs[:k]),
    }

    def way(name: str, k: int) -> tuple[list[bool], float]:
        used = [ways[name](s, k) for s in solved]
        tokens = sum(t.drawn_count for tries in used for t in tries) / len(solved)
        return [majority(tries) == s.gold for tries, s in zip(used, solved, strict=True)], tokens

    def told(right: Sequence[bool], tokens: float) -> dict[str, Any]:
        share = share_interval(sum(right), len(right))
        return {"accuracy": share.mid, "interval": [share.low, share.high], "tokens": tokens}

    found: dict[str, Any] = {"problem_count": len(solved)}
    greedy = [s.greedy.answer == s.gold for s in solved]
    found["greedy"] = told(greedy, sum(s.greedy.drawn_count for s in solved) / len(solved))
    votes = [vote_in_waves(_answers_of(s), _waves(count)) for s in solved]
    tokens = sum(t.drawn_count for (_, k), s in zip(votes, solved, strict=True) for t in s.tries[:k]) / len(solved)
    found["vote that ends early"] = told([v == s.gold for (v, _), s in zip(votes, solved, strict=True)], tokens)
    tried = {name: {k: way(name, k) for k in range(1, count + 1)} for name in ways}
    for name, of in tried.items():
        found |= {f"{name}, of {k}": told(*of[k]) for k in of}
    plain = tried.pop("majority")
    for name, of in tried.items():
        equal = {}
        for k, (right, budget) in plain.items():
            paid = max((j for j, (_, cost) in of.items() if cost <= budget), default=0)
            if paid:
                equal[f"budget of a majority of {k}"] = {"of": paid, "gain": paired_interval(of[paid][0], right)}
        if equal:
            found[f"{name}, at_equal_tokens"] = equal
    names = ("greedy", "samples", "programs")
    return found | {"seconds": {n: sum(s.seconds[at] for s in solved) / len(solved) for at, n in enumerate(names)}}


def _answers_of(solved: Solved) -> Callable[[Sequence[int]], list[str]]:
    return lambda numbers: [solved.tries[n].answer for n in numbers]


def _waves(count: int) -> tuple[int, ...]:
    waves = [w for at, w in enumerate(WAVES) if sum(WAVES[: at + 1]) <= count]
    return tuple(waves) if sum(waves) == count else (*waves, count - sum(waves))


@click.command()
@click.argument("model", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("problems", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--cases", default=24, show_default=True, help="Problems, drawn by the seed; 0 for all.")
@click.option("--samples", default=8, show_default=True, help="At least 2.", type=click.IntRange(2, 16))
@click.option("--tokens", default=160, show_default=True, help="Most tokens of an answer.")
@click.option("--threads", default=2, show_default=True)
@click.option("--minutes", default=10.0, show_default=True, help="Ends before, with what it has.")
@click.option("--seed", default=1, show_default=True)
def main(
    model: Path, problems: Path, cases: int, samples: int, tokens: int, threads: int, minutes: float, seed: int
) -> None:
    """Compare ways to spend tokens on GSM8K with MODEL."""
    until_s = time.perf_counter() + 60 * minutes
    context = WorkloadContext(
        Path(), Path(), seed, threads, cases=cases, say=lambda line: click.echo(line, err=True), until_s=until_s
    )
    rows = drawn([json.loads(line) for line in problems.read_text(encoding="utf-8").splitlines()], context, cases)
    scenario = Scenario(context_tokens=512 + (samples + 2) * (tokens + 128), thread_count=threads)
    with LlamaSession(model, scenario, sequence_count=samples + 1, output_tokens=64) as session:
        template = ChatTemplate.of(model)
        author = Author(session, template, seed)
        plan = Plan(tokens, 0.7, seed, session.is_end)
        solved: list[Solved] = []
        text = ""
        for row in watched(rows, context, "problems"):
            solved.append(solve(session, template, author, row, plan, samples))
            found = {"model": model.name, "sample_tokens": tokens, "of": len(rows), **compared(solved)}
            said = f"python -m bench best_of_n {model.name} {problems.name} --cases {cases} --tokens {tokens}"
            text = write(REPORTS / f"workloads/best-of-n-{model.stem}.json", f"{said} --threads {threads}", found)
    click.echo(text)


if __name__ == "__main__":
    main()
