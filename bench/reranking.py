"""Does a language model's order of the hits find the evidence sooner? Recall and reciprocal rank on LoCoMo.

    python -m bench reranking MODEL.gguf LOCOMO.json [--cases 100] [--minutes 10] [--threads 2]

The store finds twelve turns of the question's own conversation by BM25 and MiniLM's vectors; the model judges of each
whether it answers the question. Recall is the mean share of a question's evidence turns among the first k, the
reciprocal rank that of the first of them (0 where none is among the twelve). Ways: the store's own order, the model's
alone, and both added as ``memory_store.reranking`` does. Gains are paired by question over the store's order; their
95 % intervals draw whole conversations. The table is kept in ``reports/workloads/reranking-MODEL.json`` after every
tenth question, so that a run which is stopped leaves what it has.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from time import perf_counter
from typing import Final

import click
import numpy as np
from numpy.typing import NDArray

from bench._kept import keep
from harness.catalog.paths import cache_dir
from harness.domain.scenario import Scenario
from harness.ports import WorkloadContext
from harness.runtimes.llamacpp.session import LlamaSession
from harness.stats.intervals import cluster_interval
from harness.workloads._language.cases import drawn, watched
from harness.workloads._language.judgement import Judge
from harness.workloads._language.templates import ChatTemplate
from harness.workloads.memory_store import minilm
from harness.workloads.memory_store.locomo import read
from harness.workloads.memory_store.reranking import CANDIDATES, relevance, reranked
from harness.workloads.memory_store.scoring import DAY_S
from harness.workloads.memory_store.store import MemoryStore, NewMemory

CUTOFFS: Final = (1, 3, 5, 10)
WAYS: Final = ("the store", "the model", "both")
Figures = dict[str, float]
"""Recall by cutoff, and the reciprocal rank."""


class Heard:
    """A judge whose last log-odds are kept."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self.last: NDArray[np.float64] = np.empty(0)

    def margins(self, questions: Sequence[str]) -> NDArray[np.float64]:
        """The judge's."""
        self.last = self._judge.margins(questions)
        return self.last


def figures(names: Sequence[str], evidence: Sequence[str]) -> Figures:
    """Recall at each cutoff and the reciprocal rank of one question."""
    shares = {f"recall@{k}": len({*names[:k]} & {*evidence}) / len(evidence) for k in CUTOFFS}
    return shares | {"reciprocal rank": next((1 / n for n, name in enumerate(names, 1) if name in evidence), 0.0)}


def gain(rows: Sequence[tuple[str, Figures, Figures]], key: str) -> str:
    """Mean difference of two ways over the same questions, (conversation, old, new), and its interval."""
    gaps: dict[str, list[float]] = {}
    for talk, old, new in rows:
        gaps.setdefault(talk, []).append(new[key] - old[key])
    found = cluster_interval(list(map(sum, gaps.values())), list(map(len, gaps.values())))
    return f"{found.mid:+.3f} ({found.low:+.3f} to {found.high:+.3f})"


def table(asked: Sequence[tuple[str, dict[str, Figures]]], read_count: int, seconds: float) -> list[list[str]]:
    """Rows: a figure, its mean by each way, and what the model's order and both give over the store's."""
    rows = []
    for key in asked[0][1]["the store"]:
        means = [f"{fmean(found[way][key] for _, found in asked):.3f}" for way in WAYS]
        over = [gain([(talk, found["the store"], found[way]) for talk, found in asked], key) for way in WAYS[1:]]
        rows.append([key, *means, *over])
    rows.append(["questions", str(len(asked)), "", "", f"{len({talk for talk, _ in asked})} conversations", ""])
    cost = f"{read_count / len(asked):.0f} tokens read", f"{seconds / len(asked):.2f} s"
    return [*rows, ["a question", "", "", "", *cost]]


@click.command()
@click.argument("model", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("talks", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--cases", default=100, show_default=True, help="Questions, drawn by the seed; 0 for all.")
@click.option("--minutes", default=10.0, show_default=True, help="Ends before, with what it has.")
@click.option("--threads", default=2, show_default=True)
@click.option("--seed", default=1, show_default=True)
def main(model: Path, talks: Path, cases: int, minutes: float, threads: int, seed: int) -> None:
    """Compare orders of what is retrieved on LoCoMo with MODEL."""
    until_s = perf_counter() + 60 * minutes
    context = WorkloadContext(
        Path(), cache_dir(), seed, threads, cases=cases, say=lambda line: click.echo(line, err=True), until_s=until_s
    )
    turns, every = read(talks)
    chosen = drawn([q for q in every if q.evidence], context, cases, by=lambda q: q.conversation)
    last = {turn.conversation: turn.at_s for turn in sorted(turns, key=lambda t: t.at_s)}
    said = f"python -m bench reranking {model.name} {talks.name} --cases {cases} --threads {threads}"
    name = f"workloads/reranking-{model.stem}.json"
    columns = ["figure", *WAYS, "gain, the model", "gain, both"]
    asked: list[tuple[str, dict[str, Figures]]] = []
    embedder, scenario = minilm.MiniLM(context.cache / "encoders"), Scenario(thread_count=threads)
    with (
        tempfile.TemporaryDirectory() as folder,
        MemoryStore(Path(folder) / "talks.db", embedder, capacity=len(turns)) as store,
        LlamaSession(model, scenario, sequence_count=7, output_tokens=16) as session,
    ):
        store.store_many(NewMemory(t.text, t.conversation, t.name, 0.5, t.at_s) for t in turns)
        judge = relevance(session, ChatTemplate.of(model), together=6)
        heard, seconds = Heard(judge), 0.0
        for question in watched(chosen, context, "reranking"):
            talk, now_s = question.conversation, last[question.conversation] + DAY_S
            hits = store.retrieve(question.text, top_k=CANDIDATES, namespace=talk, now_s=now_s)
            start = perf_counter()
            both = reranked(hits, question.text, heard)  # type: ignore[arg-type]
            seconds += perf_counter() - start
            orders = (hits, [hits[at] for at in np.argsort(-heard.last, kind="stable")], both)
            found = [figures([h.memory.source for h in order], question.evidence) for order in orders]
            asked.append((talk, dict(zip(WAYS, found, strict=True))))
            if len(asked) % 10 == 0:
                keep(name, columns, table(asked, judge.read_count, seconds), said)
    keep(name, columns, table(asked, judge.read_count, seconds), said)


if __name__ == "__main__":
    main()
