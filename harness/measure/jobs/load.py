"""Several requests at once against a server: a closed loop by users, or an open loop by rate.

Words as vLLM's serving benchmark and AIPerf use them: TTFT, inter-token latency (ITL), end-to-end latency
(E2EL) of each request, request and output throughput of a level, goodput (requests a second that met every
limit). A closed loop keeps N users busy, each sending its next request when the last one ended; an open loop
sends at its times whether or not the server keeps up, so that a queue shows. A request that failed is counted
by its cause and has no latency.
"""

import random
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from harness.domain.base import Frozen
from harness.domain.record import Phase
from harness.domain.result import Load, LoadLevel
from harness.domain.scenario import Scenario
from harness.errors import RefusedError
from harness.measure.child import ChildResult
from harness.measure.jobs.served import attached, memory_mark
from harness.measure.pipeline import Measurement
from harness.measure.validity import Watch, child_probe
from harness.ports import Emit
from harness.runtimes.server import AttachedServer
from harness.runtimes.server.answer import READ_LATE, Request, ServerAnswer
from harness.runtimes.server.stream import Patience, ServerError

MOST_AT_ONCE: Final = 512
"""Sequences of which a prediction is made."""


class LoadJob(Frozen):
    """What load to put on a server.

    Attributes:
        levels: Users, each waiting for its answer (a closed loop), one level after the other.
        prompt_tokens: Least and most of each request's own prompt, equally likely between; so are
            ``new_tokens``.
        limits_s: Longest ``ttft``, ``itl`` (mean of the request) and ``e2el`` of a request that counts as
            good.
    """

    url: str
    levels: tuple[float, ...]
    request_count: int = 32
    prompt_tokens: tuple[int, int] = (128, 128)
    new_tokens: tuple[int, int] = (64, 64)
    limits_s: dict[str, float] = {}
    seed: int = 1
    model: str = ""
    patience: Patience = Patience()


def plan(job: LoadJob, predict: Callable[[Scenario], float] | None = None) -> Measurement:
    """Load on a server; asks it once what it runs.

    ``predict`` says before the run how many new tokens a second so many sequences together get, of mean
    lengths.

    Raises:
        RefusedError: The longest request does not fit the server's context, a limit has no such name, or
            users have nothing to ask; what is to be predicted is no closed loop, or the server runs
            elsewhere.
        ServerError: It cannot be reached.
    """
    if unknown := set(job.limits_s) - {"ttft", "itl", "e2el"}:
        raise RefusedError(f"--goodput: found {', '.join(sorted(unknown))}, expected ttft, itl or e2el")
    if max(job.levels) > job.request_count:
        raise RefusedError(
            f"--users: found {max(job.levels):.0f}, expected at most {job.request_count}, or more --requests for them"
        )
    prompt_most = job.prompt_tokens[1]
    new_most = job.new_tokens[1]
    server = attached(job, prompt_most + new_most)

    predicted: dict[float, float] = {}
    if predict is not None:
        if not server.local:
            raise RefusedError("MODEL: only a server on this machine is predicted")
        prompt, new = (round(sum(ends) / 2) for ends in (job.prompt_tokens, job.new_tokens))
        usual = Scenario(prompt_tokens=prompt, new_tokens=new)
        most = server.described.slot_count or MOST_AT_ONCE
        for users in job.levels:
            predicted[users] = predict(usual.replace(batch_count=min(int(users), most)))

    def read(result: ChildResult) -> Load | None:
        told = result.told("level", LoadLevel)
        levels = tuple(v.replace(predicted_tokens_per_s=predicted.get(v.offered)) for v in told)
        if levels:
            return Load(levels=levels, limits_s=job.limits_s)
        return None

    return Measurement(
        workload="load",
        entry=f"{__name__}:run_load",
        job=job,
        scenario=Scenario(
            context_tokens=max(prompt_most + new_most, server.described.context_tokens),
            prompt_tokens=prompt_most,
            new_tokens=new_most,
        ),
        read=read,
        runtime="server",
        model=server.model(),
        wanted_count=1,
    )


def run_load(job: LoadJob, emit: Emit) -> None:
    """Entry point of the child: one level after the other.

    Three samples a request, one ``level`` event a level.

    Raises:
        ServerError: The server cannot be reached, or not one request of a level succeeded.
    """
    server = attached(job)
    emit("engine", server.identity(Scenario()))
    for level in job.levels:
        Level(job, level, server, emit).run()
        emit("memory", memory_mark(server, "loaded"))
    emit("memory", memory_mark(server, "end"))


class Level:
    """One level of load, of so many users."""

    def __init__(self, job: LoadJob, level: float, server: AttachedServer, emit: Emit) -> None:
        self._job = job
        self._level = level
        self._server = server
        self._emit = emit
        self._random = random.Random(f"{job.seed} {level}")
        self._done: list[tuple[float, ServerAnswer | ServerError]] = []
        self.label = f"@ {level:g} users"

    def run(self) -> None:
        """Send, wait for every answer, tell; ServerError where no request succeeded."""
        requests = self._requests()
        # Prompts are made before the clock starts: fitting them asks the server.
        watch = Watch(child_probe(self._server.pid))
        with watch, ThreadPoolExecutor(int(self._level)) as users:
            list(users.map(self._ask, requests))
        answers = [(at_s, a) for at_s, a in self._done if isinstance(a, ServerAnswer)]
        errors = [e for _, e in self._done if isinstance(e, ServerError)]
        late = watch.validity.doubted(READ_LATE)
        begun_unix_s = watch.started_unix_s - watch.start_s
        for at_s, answer in answers:
            given: tuple[tuple[Phase, str, int, float], ...] = (
                ("first_token", "ttft", answer.prompt_tokens or 0, answer.first_token_s),
                ("decode", "tg", answer.later_count, answer.duration_s - answer.first_token_s),
                ("workload", "e2el", 1, answer.duration_s),
            )
            for phase, name, count, taken_s in given:
                sample = watch.sample(phase, f"{name} {self.label}", count, taken_s)
                sample = sample.replace(started_unix_s=begun_unix_s + at_s)
                if phase == "decode":
                    sample = sample.replace(token_times_s=answer.gaps_s())
                    if answer.read_late:
                        sample = sample.replace(validity=late)
                self._emit("sample", sample)
        level = LoadLevel(
            offered=self._level,
            label=self.label,
            duration_s=watch.duration_s,
            completed_count=len(answers),
            good_count=sum(self._good(a) for _, a in answers),
            prompt_tokens=sum(a.prompt_tokens or 0 for _, a in answers),
            cached_tokens=sum(a.cached_tokens or 0 for _, a in answers),
            new_tokens=sum(a.new_tokens for _, a in answers),
            failures=dict(Counter(f"{error.outcome}: {error}"[:120] for error in errors)),
        )
        self._emit("level", level)
        if not answers:
            raise errors[0]

    def _good(self, answer: ServerAnswer) -> bool:
        gaps = answer.later_count
        taken = {
            "ttft": answer.first_token_s,
            "itl": (answer.duration_s - answer.first_token_s) / gaps if gaps else 0.0,
            "e2el": answer.duration_s,
        }
        return all(taken[name] <= most for name, most in self._job.limits_s.items())

    def _requests(self) -> list[Request]:
        """What each request asks for."""
        job = self._job
        draw = self._random
        requests = []
        for _ in range(job.request_count):
            length = draw.randint(*job.prompt_tokens)
            new = draw.randint(*job.new_tokens)
            requests.append(Request(prompt=self._server.prompt(length, draw), new_tokens=new))
        return requests

    def _ask(self, request: Request) -> None:
        sent_s = time.perf_counter()
        try:
            answer = self._server.ask(request)
            if cut := answer.doubts(request.new_tokens, alone=False):
                raise ServerError("; ".join(cut))  # noqa: TRY301 - counted with those that failed
        except ServerError as error:
            self._done.append((sent_s, error))
        else:
            self._done.append((sent_s, answer))
