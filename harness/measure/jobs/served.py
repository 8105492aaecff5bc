"""The measuring protocol on a server that is there already: the tests of :mod:`harness.measure.protocol` by streaming.

``ttft`` is the time from sending a request to its first token; ``pp`` the server's own time for the prompt
where it tells one, else time to first token; ``tg`` the time between the first token and the last, with each
gap beside it. The connection is made before the clock starts, as for a client that keeps it. Disturbances are
judged on this machine, with the server's processes counted as ours where it runs here.
"""

import contextlib
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, Final

import psutil

from harness.core.errors import RefusedError
from harness.core.ports import Emit
from harness.core.prediction import Prediction
from harness.core.record import Phase, Sample
from harness.core.result import Generation, ServerCheck
from harness.core.scenario import Scenario
from harness.measure.memory_watch import MemoryReading, read_memory
from harness.measure.pipeline import Measurement
from harness.measure.protocol import GenerateJob, Protocoller
from harness.measure.runner import check_scenario
from harness.measure.validity import Watch
from harness.runtimes.server import RUNTIME, AttachedServer
from harness.runtimes.server.compliance import check_server
from harness.runtimes.server.pieces import BELIEVED, READ_LATE, Request, ServerAnswer
from harness.runtimes.server.stream import Patience

if TYPE_CHECKING:
    from harness.measure.jobs.load import LoadJob

_PROMPTS_MAX: Final = 8
_OWN: Final = (
    "kv_type",
    "flash_attention",
    "repack",
    "mmap",
    "ubatch_tokens",
    "batch_count",
    "api",
    "placement",
)
OF_SERVER: Final = {name: getattr(Scenario(), name) for name in _OWN}
"""What of a scenario is decided where a server is started, as it is where nobody asks for it."""


class ServedJob(GenerateJob):
    """What the child asks a server for, beside the fields of a run.

    Attributes:
        model: Its name for the model, empty where it has one only.
        check_s: How long a look at what it promises may take before it is measured; 0: none is taken.
    """

    url: str
    runtime: str = "server"
    model: str = ""
    patience: Patience = Patience()
    check_s: float = 0.0


def plan(
    job: ServedJob, predict: Callable[[Scenario, bool], Prediction | None] = lambda *_: None
) -> Measurement:
    """The protocol on a server; asks it once what it runs.

    ``predict`` is asked before the run, with the cache of one of its slots where it tells (whether all of
    them share it, it does not tell), and whether it runs on this machine.

    Raises:
        RefusedError: The scenario does not fit its own context or the server's, asks for what a server
            decides by itself, or the server has no such model.
        ServerError: It cannot be reached.
    """
    s = job.scenario
    check_scenario(s)
    if s.depth_tokens:
        raise RefusedError("--depth: a server fills its own cache: ask it for a longer prompt")
    server = attached(job, max(s.prompt_tokens + 1, s.new_tokens + 2), s)
    own_tokens = server.described.context_tokens if server.described.slot_count else s.context_tokens
    return Measurement(
        workload="generate",
        entry=f"{__name__}:run_served",
        job=job,
        scenario=s,
        read=lambda ended: Generation(
            repetitions=job.repetitions, server=tuple(ended.told("server check", ServerCheck))
        ),
        runtime="server",
        model=server.model(),
        prediction=predict(s.replace(context_tokens=own_tokens), server.local),
        wanted_count=job.repetitions,
    )


def attached(
    job: "ServedJob | LoadJob",
    needed_tokens: int = 0,
    scenario: Scenario = Scenario(),  # noqa: B008
) -> AttachedServer:
    """The server of a job that needs a context of so many tokens.

    Raises:
        RefusedError: Its context is shorter, or the scenario asks for what a server decides by itself.
        ServerError: It cannot be reached.
    """
    if other := [name for name, usual in OF_SERVER.items() if getattr(scenario, name) != usual]:
        raise RefusedError(f"{', '.join(other)}: a server has its own; set it where the server is started")
    server = RUNTIME.attach(job.url, model=job.model, patience=job.patience)
    room = server.described.context_tokens
    if 0 < room < needed_tokens:
        raise RefusedError(f"the server has a context of {room} tokens, and the run needs {needed_tokens}")
    return server


def run_served(job: ServedJob, emit: Emit) -> None:
    """Entry point of the child: measure a server as :class:`ServedJob` says, telling each sample at once.

    Raises:
        HarnessError: The server cannot be used, or failed; its ``outcome`` says how.
    """
    Served(job, attached(job), emit).run()


class Served(Protocoller):
    """Runs one job on a server; arguments as :class:`Protocoller`, with the server in place of a runtime."""

    def __init__(self, job: ServedJob, server: AttachedServer, emit: Emit) -> None:
        super().__init__(job, server, emit)  # type: ignore[arg-type]  # it opens no session
        self.server = server
        self.pid = server.pid
        self._broken: Broken = {}
        self._check_s = job.check_s

    def run(self) -> None:
        """Prefill with first token, decode."""
        self.emit("engine", self.server.identity(self.job.scenario))
        self.emit("memory", memory_mark(self.server, "loaded"))
        self._broken = broken_promises(self.server, self._check_s, self.emit)
        if self.job.scenario.prompt_tokens:
            self._repeat(self._first_token)
        if self.job.scenario.new_tokens:
            self._repeat(self._answer)
        self.emit("memory", memory_mark(self.server, "end"))

    def _first_token(self, warm_up: bool) -> bool:
        tokens = self.job.scenario.prompt_tokens
        answer, watch = self._ask(tokens, 1)
        wait_s = own_s = answer.first_token_s
        if answer.prompt_s is not None and answer.prompt_s > BELIEVED * wait_s and not answer.doubts(1):
            own_s = answer.prompt_s
        prompted = watch.sample("prefill", f"pp{tokens}", tokens, own_s)
        first = watch.sample("first_token", f"ttft{tokens}", tokens, wait_s).replace(energy_joules=None)
        for sample in (prompted, first):
            self._tell(sample.replace(warm_up=warm_up))
        return not watch.validity.doubts

    def _answer(self, warm_up: bool) -> bool:
        wanted = self.job.scenario.new_tokens
        for _ in range(_PROMPTS_MAX):
            # The first token belongs to the prompt: one more is asked for, and gaps are counted from it.
            answer, watch = self._ask(1, (1 if warm_up else wanted) + 1)
            if answer.counts[0] == 1:
                break
            # Its first piece waited for the end of a character, and when its tokens came nobody knows:
            # another prompt.
        count = answer.later_count
        duration_s = answer.arrivals_s[-1] - answer.arrivals_s[0]
        if count < 1 or duration_s <= 0:
            watch.doubt(f"no time between tokens: {answer.new_tokens} came in one piece")
        elif answer.read_late:
            watch.doubt(READ_LATE)
        made = watch.sample("decode", f"tg{wanted}", count, duration_s)
        self._tell(made.replace(warm_up=warm_up, token_times_s=answer.gaps_s()))
        return not watch.validity.doubts

    def _tell(self, sample: Sample) -> None:
        """Emit a sample. What the server breaks is marked after it was looked at: another try would not mend that."""
        self.emit("sample", marked(sample, self._broken))

    def _ask(self, prompt_tokens: int, new_tokens: int) -> tuple[ServerAnswer, Watch]:
        request = Request(
            prompt=self.server.prompt(prompt_tokens, self._random),
            new_tokens=new_tokens,
            context_tokens=self.job.scenario.context_tokens,
        )
        meter = self._meter if self.server.local else None  # another machine's energy nobody here knows
        with self.watch(meter) as watch:
            answer = self.server.ask(request)
        if answer.prompt_tokens not in {None, prompt_tokens}:
            watch.doubt(f"the prompt had {answer.prompt_tokens} tokens, {prompt_tokens} were wanted")
        watch.doubt(*answer.doubts(new_tokens))
        if contradiction := self.server.contradiction(answer):
            watch.doubt(contradiction)
        if answer.cached_tokens:
            watch.doubt(f"{answer.cached_tokens} tokens of the prompt came from the server's cache")
        return answer, watch


_TOUCHED: Final[dict[str, tuple[Phase, ...]]] = {
    "cache": ("prefill", "first_token", "decode", "workload"),
    "prompts": ("prefill", "first_token", "workload"),
    "prefixes": ("prefill", "first_token", "workload"),
    "tokens": ("decode",),
    "drafts": ("decode", "workload"),
    "bunching": ("decode", "first_token"),
}
"""Figures that a broken promise leaves without a meaning."""


Broken = dict[Phase, tuple[str, ...]]
"""Promises that a server breaks, by the kind of sample that they touch, in words."""


def broken_promises(
    server: AttachedServer, within_s: float, emit: Emit, allowed: Collection[str] = ()
) -> Broken:
    """Look at what a server promises (not within 0 s) and tell it; the broken ones, but for those ``allowed``.

    Raises:
        ServerError: The server cannot be reached, or failed.
    """
    broken: Broken = {}
    for check in check_server(server, within_s=within_s) if within_s else ():
        emit("server check", check)
        is_broken = check.verdict == "broken" and check.name not in allowed
        for phase in _TOUCHED[check.name] if is_broken else ():
            said = f"the server breaks a promise ({check.name}): {check.detail}"
            broken[phase] = (*broken.get(phase, ()), said)
    return broken


def marked(sample: Sample, broken: Broken) -> Sample:
    """A sample with what its server breaks as its doubts."""
    return sample.replace(validity=sample.validity.doubted(*broken.get(sample.phase, ())))


def memory_mark(server: AttachedServer, name: str) -> dict[str, Any]:
    """Memory of the server's processes together; a mark that says so where the model lies elsewhere.

    That is a server on another machine, one whose model lies on a card, and a proxy that only listens at the
    port: its processes hold less than half of the bytes that the server tells of its model.
    """
    processes = []
    if server.pid:
        with contextlib.suppress(psutil.Error):
            root = psutil.Process(server.pid)
            processes = [root, *root.children(recursive=True)]
    held = MemoryReading(0, 0, 0, 0)
    for process in processes:
        held = MemoryReading(
            *map(sum, zip(held, read_memory(process.pid) or MemoryReading(0, 0, 0, 0), strict=True))
        )
    elsewhere = not held.rss_bytes or held.rss_bytes < server.described.size_bytes / 2
    return {"mark": name, "elsewhere": elsewhere, **held._asdict()}
