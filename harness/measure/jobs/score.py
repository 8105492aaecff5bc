"""How well a model predicts a text, beside a reference that reads the same tokens."""

from pathlib import Path
from typing import Final

import numpy as np

from harness.core import plugins
from harness.core.base import REFERENCE, Frozen
from harness.core.errors import EngineError, RefusedError
from harness.core.ports import Emit
from harness.core.scenario import Scenario
from harness.core.stats.calibration.paired import calibration_change
from harness.core.tables import shipped_text
from harness.measure.validity import Watch, child_probe
from harness.runtimes.llamacpp import RUNTIME
from harness.runtimes.llamacpp.session import LlamaSession
from harness.runtimes.llamacpp.text_scores import Scored, Scores, chunks_of, score, text_nll

CHUNK_TOKENS: Final = 512
_NO_NUMBER_NATS: Final = 100.0
"""Worse than any guess: a runtime that gives no numbers must not pass for one that tells nothing."""


class QualityJob(Frozen):
    """What to score, of ``chunk_count`` chunks from the beginning (0: all), beside a least quantized ``reference``."""

    model: str
    text: str
    reference: str
    chunk_count: int = 8


def run_quality(job: QualityJob, emit: Emit) -> None:
    """Child's entry; emits ``engine``, a ``sample`` for each chunk, ``calibration`` and ``quality``.

    Raises:
        RefusedError: The text is shorter than two chunks.
        EngineError: The model's predictions are no numbers.
    """
    scenario = Scenario(context_tokens=CHUNK_TOKENS)
    model = LlamaSession(Path(job.model), scenario, batch_tokens=CHUNK_TOKENS)
    base = LlamaSession(Path(job.reference), scenario, batch_tokens=CHUNK_TOKENS)
    tokens = model.tokenize(Path(job.text).read_text(encoding="utf-8"))
    if len(tokens) < 2 * CHUNK_TOKENS:
        raise RefusedError(f"the text has {len(tokens)} tokens: at least {2 * CHUNK_TOKENS} are needed")
    scores = Scores()
    emit("engine", RUNTIME.identity(scenario))
    for chunk in chunks_of(tokens, CHUNK_TOKENS, job.chunk_count, model.begin_token):
        with Watch(child_probe()) as watch:
            truth = np.array(chunk[len(chunk) // 2 + 1 :], np.int64)
            logs = score(model, chunk)
            if not np.isfinite(logs).all():
                raise EngineError("its predictions are no finite numbers")
            scores.add(logs, truth, score(base, chunk))
        emit("sample", watch.sample("score", f"score{CHUNK_TOKENS}", len(chunk)))
    own, reference = scores.columns()
    emit("calibration", calibration_change(reference, own))
    emit("quality", scores.result())


class TextJob(Frozen):
    """A runtime and the file that it loads; ``scenario`` as it is timed."""

    runtime: str
    scenario: Scenario
    path: str
    chunk_count: int = 4


def run_text(job: TextJob, emit: Emit) -> None:
    """Entry point of the child that scores a text: it emits ``nll`` [n], where the runtime gives one.

    A probability of the shipped text that is no number counts as ``_NO_NUMBER_NATS``.

    Raises:
        RefusedError: The runtime gives no log-probabilities of a text.
        HarnessError: It or the model cannot be used.
    """
    runtime = plugins.load("harness.runtimes", job.runtime, "RUNTIME")
    with runtime.open(Path(job.path), job.scenario) as session:
        if not isinstance(session, Scored):
            raise RefusedError(f"the runtime {job.runtime} shows no logits of a batch")
        losses = text_nll(session, shipped_text(REFERENCE), job.chunk_count)
    emit("nll", np.nan_to_num(losses, nan=_NO_NUMBER_NATS, posinf=_NO_NUMBER_NATS).tolist())
