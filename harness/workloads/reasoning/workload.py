"""Reasoning checks as a workload: analyse traces, solve constraint puzzles."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from harness.domain.workload import Cost
from harness.errors import WrongAnswerError
from harness.ports import Operation, WorkloadContext
from harness.workloads._described import Described
from harness.workloads._language.cases import drawn, watched
from harness.workloads._language.judgement import Judge
from harness.workloads._language.templates import open_chat
from harness.workloads._language.texts import text_table
from harness.workloads.reasoning import process_bench
from harness.workloads.reasoning.analysis import analyse
from harness.workloads.reasoning.constraints import Puzzle, solve, violations
from harness.workloads.reasoning.contradictions import asked, believed, chains, contradictions, score, unseen
from harness.workloads.reasoning.programs import PROGRAMS, TOGETHER
from harness.workloads.reasoning.traces import trace


class State(NamedTuple):
    """Traces with one error each, the same without, and puzzles."""

    wrong: list[Any]
    right: list[Any]
    puzzles: list[Any]


class ReasoningWorkload(Described):
    """Exact arithmetic over a chain of thought, and puzzles with a proof."""

    def costs(self, size: Mapping[str, int]) -> Sequence[Cost]:
        """Interpreted code, as traced, and regular expressions.

        On a step of some 30 characters 46 expressions are tried, five on its parts of some 3 characters. A puzzle has
        five people and three rooms.
        """
        resident = 4000 * size["trace_count"]
        fixed: dict[str, Any] = {"resident_bytes": resident, "parallel": False}
        steps = size["step_count"]
        return (
            Cost(
                operation="analyse",
                python_ops_count=5750.0 * steps,
                regex_chars_count=(46 * (30 + 13) + 5 * (3 + 13)) * steps,
                **fixed,
            ),
            Cost(operation="solve", python_ops_count=4420, **fixed),
        )

    def prepare(self, size: Mapping[str, int], context: WorkloadContext) -> State:
        """Make traces and puzzles."""
        count, steps = size["trace_count"], size["step_count"]
        first = 1000 * context.seed
        wrong = [trace(first + i, step_count=steps) for i in range(count)]
        right = [trace(first + i, step_count=steps, inject=False) for i in range(count)]
        people, rooms = ("Ada", "Ben", "Cleo", "Dan", "Eve"), ("1", "2", "3")
        puzzles = [
            Puzzle(
                people, rooms, ((people[i % 5], people[(i + 1) % 5]),), ((people[(i + 2) % 5], people[i % 5]),), (), 2
            )
            for i in range(20)
        ]
        return State(wrong, right, puzzles)

    def operations(self, state: State) -> Sequence[Operation]:
        """Analyse one trace; solve one puzzle."""
        turn = iter(range(1 << 40))
        return (
            Operation("analyse", lambda: analyse(state.wrong[next(turn) % len(state.wrong)].steps)),
            Operation("solve", lambda: solve(state.puzzles[next(turn) % len(state.puzzles)])),
        )

    def check(self, state: State) -> Mapping[str, Any]:
        """Every error that was put in is located, no right trace is blamed, every solution keeps its constraints."""
        missed = [t for t in state.wrong if analyse(t.steps).first_error != t.wrong_step]
        blamed = [t for t in state.right if analyse(t.steps).faults]
        if missed or blamed:
            raise WrongAnswerError(f"{len(missed)} errors not located, {len(blamed)} right traces blamed")
        for puzzle in state.puzzles:
            answer = solve(puzzle).solution
            if answer is not None and violations(puzzle, answer):
                raise WrongAnswerError("a solution breaks its constraints")
        return {"located_count": len(state.wrong), "blamed_count": 0, "puzzle_count": len(state.puzzles)}

    def evaluate(self, context: WorkloadContext) -> Mapping[str, Any]:
        """Contradictions on held-out chains; false alarms on GSM8K and ProcessBench's score where those sets are.

        With a model (``--model``), its judgement of contradictions and its step critic stand beside the exact checks.
        """
        made = chains(context.seed, held_out=True, fill_count=4)
        found: dict[str, Any] = {
            name: score(some, [contradictions(c.steps) for c in some])
            for name, some in (("contradictions", made), ("contradictions, unseen chains", unseen()))
        }
        sequences = 1 + PROGRAMS * TOGETHER
        opened = open_chat(context, 4096, sequences) if context.model_path else None
        files = context.data_files("processbench*.json")
        if opened:
            found["contradictions with the model"] = _asked(*opened, context.share(1 + len(files)))
        solved = context.data_files("gsm8k*.jsonl")
        for path in solved:
            rows = process_bench.rows_of(path, "question", "answer")
            alarms = sum(bool(analyse(r["answer"], r["question"]).faults) for r in rows)
            found[path.stem] = {"trace_count": len(rows), "false_alarm_ratio": alarms / len(rows)}
        for at, path in enumerate(files):
            context.tell(found)
            part = context.share(len(files) - at)
            rows = process_bench.rows_of(path, "problem", "steps", "label")
            found[path.stem] = {**process_bench.score(rows), "published_f1": dict(process_bench.beside(path.stem))}
            if opened:
                found[path.stem]["critic"] = process_bench.criticised(*opened, rows, solved, part, path.stem)
        if opened:
            opened[0].close()
        return found


def _asked(session: Any, template: Any, context: WorkloadContext) -> Mapping[str, Any]:
    """The rules and the model together; the margin from which it is believed is fitted on the chains for fitting."""
    told = text_table("instructions")["contradictions"]
    judge = Judge(session, template, told["instruction"], told["examples"])
    fitting, made = (
        drawn(chains(context.seed, held_out=held), context, 60, by=lambda c: (c.kind, c.wrong_step))
        for held in (False, True)
    )
    fitted = [asked(judge, c.steps) for c in watched(fitting, context.share(2), "contradictions for fitting")]
    held = [asked(judge, c.steps) for c in watched(made, context, "contradictions with the model")]

    def scored(some: Any, margins: Any, least: float) -> Mapping[str, Any]:
        return score(some[: len(margins)], [believed(c.steps, m, least) for c, m in zip(some, margins, strict=False)])

    least = next((m for m in (1.0, 2.0, 3.0, 4.0, 5.0) if scored(fitting, fitted, m)["precision"] >= 0.95), 99.0)
    return {"least_margin": least, "read_tokens": judge.read_count, **scored(made, held, least)}
