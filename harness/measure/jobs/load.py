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
from functools import partial
from typing import Any, Final

from harness.core.base import Frozen
from harness.core.errors import RefusedError
from harness.core.ports import Emit
from harness.core.record import Sample
from harness.core.result import Load, LoadLevel, ServerCheck
from harness.core.scenario import Scenario
from harness.measure.child import ChildResult
from harness.measure.jobs.served import Broken, attached, broken_promises, marked, memory_mark
from harness.measure.pipeline import Measurement
from harness.measure.validity import Watch, child_probe
from harness.runtimes.server import AttachedServer
from harness.runtimes.server.pieces import READ_LATE, Request, ServerAnswer
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
        check_s: How long a look at what the server promises may take before; 0: none is taken.
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
    check_s: float = 0.0


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
    most_tokens = job.prompt_tokens[1] + job.new_tokens[1]
    server = attached(job, most_tokens)
    if predict is not None and not server.local:
        raise RefusedError("MODEL: only a server on this machine is predicted")
    predicted: dict[float, float] = {}
    if predict is not None:
        prompt, new = (round(sum(ends) / 2) for ends in (job.prompt_tokens, job.new_tokens))
        for users in job.levels:
            count = min(int(users), server.described.slot_count or MOST_AT_ONCE)
            predicted[users] = predict(Scenario(prompt_tokens=prompt, new_tokens=new, batch_count=count))

    def read(result: ChildResult) -> Load | None:
        told = result.told("level", LoadLevel)
        levels = tuple(v.replace(predicted_tokens_per_s=predicted.get(v.offered)) for v in told)
        checks = tuple(result.told("server check", ServerCheck))
        return Load(levels=levels, limits_s=job.limits_s, server=checks) if levels else None

    return Measurement(
        workload="load",
        entry=f"{__name__}:run_load",
        job=job,
        scenario=Scenario(
            context_tokens=max(most_tokens, server.described.context_tokens),
            prompt_tokens=job.prompt_tokens[1],
            new_tokens=job.new_tokens[1],
        ),
        read=read,
        runtime="server",
        model=server.model(),
        wanted_count=1,
    )


def run_load(job: LoadJob, emit: Emit) -> None:
    """Entry point of the child that puts a server under load, one level after the other.

    Each request gives three samples, and each level ends with an event of that name.

    Raises:
        ServerError: The server cannot be reached, or not one request of a level succeeded.
    """
    server = attached(job)
    emit("engine", server.identity(Scenario()))
    # Drafts, and prompts that are kept, are part of how a server carries its load.
    broken = broken_promises(server, job.check_s, emit, allowed=("drafts", "prefixes"))
    for level in job.levels:
        _run_level(job, level, server, partial(_tell, emit, broken))
        emit("memory", memory_mark(server, "loaded"))
    emit("memory", memory_mark(server, "end"))


def _tell(emit: Emit, broken: Broken, name: str, data: Any) -> None:
    """Emit an event; a sample with what the server was found to break."""
    emit(name, marked(data, broken) if isinstance(data, Sample) else data)


def _run_level(job: LoadJob, users: float, server: AttachedServer, emit: Emit) -> None:
    """So many users: send, wait for every answer, tell; ServerError where no request succeeded."""
    label = f"@ {users:g} users"
    draw = random.Random(f"{job.seed} {users}")
    # Prompts are made before the clock starts: fitting them asks the server.
    requests = []
    for _ in range(job.request_count):
        prompt = server.prompt(draw.randint(*job.prompt_tokens), draw)
        requests.append(Request(prompt=prompt, new_tokens=draw.randint(*job.new_tokens)))

    def ask(request: Request) -> tuple[float, ServerAnswer | ServerError]:
        sent_s = time.perf_counter()
        try:
            answer = server.ask(request)
        except ServerError as error:
            return sent_s, error
        if cut := answer.doubts(request.new_tokens, alone=False):
            return sent_s, ServerError("; ".join(cut))  # counted with those that failed
        return sent_s, answer

    with Watch(child_probe(server.pid)) as watch, ThreadPoolExecutor(int(users)) as pool:
        done = list(pool.map(ask, requests))
    answers = [(sent_s, answer) for sent_s, answer in done if isinstance(answer, ServerAnswer)]
    errors = [error for _, error in done if isinstance(error, ServerError)]
    late = watch.validity.doubted(READ_LATE)
    good_count = 0
    for sent_s, answer in answers:
        decode_s = answer.duration_s - answer.first_token_s
        taken_s = {
            "ttft": answer.first_token_s,
            "itl": decode_s / max(answer.later_count, 1),
            "e2el": answer.duration_s,
        }
        good_count += all(taken_s[name] <= most_s for name, most_s in job.limits_s.items())
        first = watch.sample("first_token", f"ttft {label}", answer.prompt_tokens or 0, answer.first_token_s)
        decode = watch.sample("decode", f"tg {label}", answer.later_count, decode_s)
        decode = decode.replace(token_times_s=answer.gaps_s())
        if answer.read_late:
            decode = decode.replace(validity=late)
        for sample in (first, decode, watch.sample("workload", f"e2el {label}", 1, answer.duration_s)):
            emit("sample", sample.replace(started_unix_s=watch.started_unix_s + sent_s - watch.start_s))
    level = LoadLevel(
        offered=users,
        label=label,
        duration_s=watch.duration_s,
        completed_count=len(answers),
        good_count=good_count,
        prompt_tokens=sum(answer.prompt_tokens or 0 for _, answer in answers),
        cached_tokens=sum(answer.cached_tokens or 0 for _, answer in answers),
        new_tokens=sum(answer.new_tokens for _, answer in answers),
        failures=dict(Counter(f"{error.outcome}: {error}"[:120] for error in errors)),
    )
    emit("level", level)
    if not answers:
        raise errors[0]
