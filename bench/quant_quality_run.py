"""What quantisation does to a real model's confidences and answers, row by row on the same tokens and tasks.

An expected calibration error alone does not see quantisation: every comparison here is paired. For a rung of a ladder:
``ask`` the reference once and each rung once, then ``compare`` each with the reference.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import as_file, files
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.answers_job import AnswersJob
from bench.confidence import TokenScores, at_temperature, best_temperature, part
from bench.reasoning_tasks import KINDS
from harness.catalog.gguf import read_gguf
from harness.domain.base import Frozen
from harness.domain.quality import CalibrationChange, Change, Temperature
from harness.errors import EngineError, RefusedError
from harness.measure.child import Limits, run_child
from harness.predict.quant_mix import NEEDS_IMPORTANCE_MATRIX
from harness.runtimes.llamacpp.quantize import QUANTS, QuantizeJob
from harness.stats.calibration.metrics import ece, equal_width
from harness.stats.calibration.paired import calibration_change
from harness.stats.intervals import share_interval


def scaled(tokens: TokenScores) -> Temperature:
    """Fit a temperature on the first half of the rows, judge it on the second."""
    half = len(tokens.nll) // 2
    fitted = best_temperature(part(tokens, slice(half)))
    held = part(tokens, slice(half, None))
    confidence, loss = at_temperature(held, fitted)
    return Temperature(
        temperature=fitted,
        ece=ece(equal_width(held.top_probability, held.is_top_right, allow_few=True)),
        ece_scaled=ece(equal_width(np.minimum(confidence, 1.0), held.is_top_right, allow_few=True)),
        nll=float(held.nll.mean()),
        nll_scaled=float(loss.mean()),
    )


class Asked(NamedTuple):
    """How much to ask.

    Attributes:
        text: Text file; None for the one that ships.
        chunk_count: Chunks of 512 tokens, the second half of each scored; 0 for all.
        task_count: Tasks of each of the five kinds; 0 for none.
        thread_count: Threads; 0 for the physical cores.
    """

    text: Path | None = None
    chunk_count: int = 16
    task_count: int = 100
    thread_count: int = 0


class Choices(NamedTuple):
    """Answers to the tasks of one kind: confidence, right or not, negative log share of the true option, chance [n]."""

    confidence: NDArray[np.float64]
    right: NDArray[np.bool_]
    nll: NDArray[np.float64]
    chance: NDArray[np.float64]


class Answers(NamedTuple):
    """What one model answered; rows stand in the same order for every model of one vocabulary."""

    tokens: TokenScores
    tasks: Mapping[str, Choices]


class TaskResult(Frozen, frozen=True, kw_only=True):
    """One kind of task.

    Attributes:
        kind: Its name.
        row_count: Tasks.
        accuracy: With its interval.
        chance: Accuracy without reading the questions: a random option, or always the commonest answer, the better.
        has_signal: Whether the reference beats chance by its interval; where it does not, no difference means anything.
        accuracy_change: Paired difference to the reference.
        lost_count: Right before, wrong now.
        gained_count: Wrong before, right now.
    """

    kind: str
    row_count: int
    accuracy: Change
    chance: float
    has_signal: bool
    accuracy_change: Change
    lost_count: int
    gained_count: int


class QuantQuality(Frozen, frozen=True, kw_only=True):
    """One quantisation beside the reference.

    Attributes:
        quant: Mixture; of the reference its own.
        requantized_from: Mixture of the source it was made from, when that was quantized already: the differences then
            are to that source, and a first loss lies before them. Empty for the reference itself and for full sources.
        size_bytes: File size.
        next_token: On the text.
        choices: On all tasks together; None when none were asked.
        tasks: By kind.
    """

    quant: str
    requantized_from: str
    size_bytes: int
    next_token: CalibrationChange
    choices: CalibrationChange | None
    tasks: tuple[TaskResult, ...]


def ask(model: Path, asked: Asked = Asked(), limits: Limits = Limits()) -> Answers:  # noqa: B008  immutable tuples
    """Run one model over the text and the tasks, in a child process.

    Raises:
        EngineError: The engine failed.
    """
    with (
        tempfile.TemporaryDirectory(prefix="edge-harness-answers-") as folder,
        as_file(files("harness") / "data" / "text" / "python-reference.txt") as shipped,
    ):
        target = Path(folder) / "answers.npz"
        job = AnswersJob(
            model=str(model.absolute()),
            text=str((asked.text or shipped).absolute()),
            target=str(target),
            chunk_count=asked.chunk_count,
            task_count=asked.task_count,
            thread_count=asked.thread_count,
        )
        result = run_child("bench.answers_job:run_answers", job, limits=limits)
        if result.outcome != "ok":
            raise EngineError(f"{result.outcome}: {result.detail}")
        with np.load(target, allow_pickle=False) as columns:
            tokens = TokenScores._make(columns[name] for name in TokenScores._fields)
            kinds = [k for k in KINDS if f"{k} right" in columns.files]
            tasks = {k: Choices._make(columns[f"{k} {name}"] for name in Choices._fields) for k in kinds}
    return Answers(tokens, tasks)


def next_token_calibration(reference: Answers, candidate: Answers) -> CalibrationChange:
    """CalibrationChange on the text, with the best temperature.

    Raises:
        RefusedError: The two did not answer the same rows.
    """
    columns = [(a.tokens.top_probability, a.tokens.is_top_right, a.tokens.nll) for a in (reference, candidate)]
    return calibration_change(columns[0], columns[1], scaled(candidate.tokens))


def compare_answers(
    reference: Answers, candidate: Answers
) -> tuple[CalibrationChange, CalibrationChange | None, tuple[TaskResult, ...]]:
    """Everything of one quantisation: calibration on the text, on the choices, and the tasks by kind.

    Raises:
        RefusedError: The two did not answer the same rows.
    """
    choices = None
    if reference.tasks:
        sides = [[np.concatenate(c) for c in zip(*a.tasks.values(), strict=True)] for a in (reference, candidate)]
        choices = calibration_change(sides[0][:3], sides[1][:3])
    tasks = tuple(_task(kind, before, candidate.tasks[kind]) for kind, before in reference.tasks.items())
    return next_token_calibration(reference, candidate), choices, tasks


def _task(kind: str, before: Choices, after: Choices) -> TaskResult:
    count, chance = len(before.right), float(before.chance.mean())
    base = share_interval(int(before.right.sum()), count)
    mine = share_interval(int(after.right.sum()), count)
    gaps = after.right.astype(np.float64) - before.right
    rng = np.random.default_rng(0)
    low, high = np.percentile(gaps[rng.integers(0, count, (2000, count))].mean(1), [2.5, 97.5])
    return TaskResult(
        kind=kind,
        row_count=count,
        accuracy=Change(value=mine.mid, low=mine.low or 0.0, high=mine.high or 0.0),
        chance=chance,
        has_signal=base.low is not None and base.low > chance,
        accuracy_change=Change(value=float(gaps.mean()), low=float(low), high=float(high)),
        lost_count=int((gaps < 0).sum()),
        gained_count=int((gaps > 0).sum()),
    )


def quant_quality(
    source: Path,
    quants: Sequence[str],
    asked: Asked = Asked(),  # noqa: B008  an immutable tuple
    *,
    limits: Limits = Limits(),  # noqa: B008  an immutable tuple
    say: Callable[[str], None] = lambda _: None,
) -> tuple[QuantQuality, ...]:
    """Ask the source, then every quantisation made from it; the first result is the source beside itself.

    Raises:
        RefusedError: A name is no mixture, needs an importance matrix, or the weights are synthetic.
        BadDataError: The source is no GGUF file.
        EngineError: The engine or the quantizer failed.
    """
    unfit = [q for q in quants if q not in QUANTS or q in NEEDS_IMPORTANCE_MATRIX]
    if unfit:
        raise RefusedError(f"{unfit[0]} cannot be made here: it is no mixture, or needs an importance matrix")
    header = read_gguf(source)
    if header.synthetic:
        raise RefusedError(f"{source.name} has synthetic weights: there is no quality to measure")
    own = header.weights().quant
    made_from = "" if own in {"F32", "F16", "BF16"} else own
    say(f"{own}, the source: asking")
    reference = ask(source, asked, limits)
    results = [_result(own, "", source, reference, reference)]
    with tempfile.TemporaryDirectory(prefix="edge-harness-quants-") as folder:
        for quant in quants:
            say(f"{quant}: making and asking")
            path = Path(folder) / f"{source.stem}-{quant}.gguf"
            job = QuantizeJob(source=str(source.absolute()), target=str(path), quant=quant)
            made = run_child("harness.runtimes.llamacpp.quantize:run_quantize", job, limits=limits)
            if made.outcome != "ok":
                raise EngineError(f"{made.outcome}: {made.detail}")
            results.append(_result(quant, made_from, path, reference, ask(path, asked, limits)))
            path.unlink()
    return tuple(results)


def _result(quant: str, made_from: str, path: Path, reference: Answers, candidate: Answers) -> QuantQuality:
    next_token, choices, tasks = compare_answers(reference, candidate)
    return QuantQuality(
        quant=quant,
        requantized_from=made_from,
        size_bytes=path.stat().st_size,
        next_token=next_token,
        choices=choices,
        tasks=tasks,
    )
