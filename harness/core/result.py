"""What a measurement found beyond its samples: one type a kind, told apart by ``kind`` in the file.

A new kind of measurement adds its type here and to ``Result``, a job in ``harness.measure.jobs``, and the
metrics that a budget may name to ``harness.core.metric``. Speeds and latencies are never here: samples give
them.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

from msgspec import Meta

from harness.core.base import Frozen
from harness.core.device import Span, Time
from harness.core.drafting import Decoding, DraftAdvice
from harness.core.model import Count
from harness.core.quality import CalibrationChange, TextScore
from harness.core.streaming import ExpertPlan, ExpertUse, StreamPlan, StreamReport

_EVEN_RATIO: Final = 1.2
"""Most that answers of one streamed run may differ by; two took 415 and 217 ms a token, where a disk was shared."""


class ResultKind(Frozen, tag=str.lower, tag_field="kind"):
    """A result, known in a file by the name of its type in small letters."""

    @property
    def doubts(self) -> tuple[str, ...]:
        """Why it is inconclusive, whatever its samples say."""
        return ()


class EngineBuffer(Frozen):
    """One buffer as the engine's log told it.

    Attributes:
        device: Where it lies, such as ``Vulkan0``, ``CPU``, ``CUDA_Host``; ``CPU_Mapped`` is address space of
            the file.
        part: ``weights``, ``kv cache``, ``compute buffer`` or ``output``.
    """

    device: str
    part: str
    size_bytes: Count

    @property
    def on_host(self) -> bool:
        """Whether it is the host's memory."""
        return self.device.startswith("CPU") or self.device.endswith("_Host")

    @property
    def is_mapped(self) -> bool:
        """Whether it is address space of the file: what of it is resident shows in the peak alone."""
        return self.device.endswith("_Mapped")


Verdict = Literal["kept", "noted", "broken", "unknown"]
"""``noted``: it does otherwise and says so, or no figure here depends on it."""


class ServerCheck(Frozen):
    """One promise of a server, tried before it was measured (``harness.runtimes.server.compliance``).

    Attributes:
        name: ``cache``, ``prompts``, ``tokens``, ``drafts``, ``bunching`` or ``prefixes``.
        detail: What was seen, in words with figures.
    """

    name: str
    verdict: Verdict
    detail: str


class Generation(ResultKind):
    """The protocol of llama-bench, with time to first token and the latency of each token.

    Attributes:
        repetitions: Clean samples that were wanted of each test.
        buffers: What the engine laid where, as far as it tells.
        token_nll: Of a run beside other runtimes: negative log-probability (nats) of each scored token of the
            shipped text, in its order; empty where the runtime gives none.
        server: Of a run on a server: what it promises and whether it keeps it.
    """

    repetitions: Count
    buffers: tuple[EngineBuffer, ...] = ()
    token_nll: tuple[float, ...] = ()
    server: tuple[ServerCheck, ...] = ()


class Speculation(ResultKind):
    """Speculative beside plain decoding, on the same prompts.

    Attributes:
        draft: Draft model file, or ``lookup``.
        plain: Sums over all prompts without a draft.
        speculative: Sums over all prompts with it.
        speedup_ratio: Speed of speculation over plain decoding, sums over sums.
        median_ratio: Median over the prompts of their own ratios, which one disturbed answer does not move.
        expected_ratio: The same computed from the costs measured before, and the draft lengths and acceptance
            of the run.
        acceptance_ratio: Drafted tokens accepted, of those compared.
        acceptance_by_position: The same for the first, second ... drafted token of a cycle.
        differences: Where greedy outputs differ, with the logit margin that explains it.
        unexplained_count: Differences that no margin explains; must be 0.
    """

    draft: str
    advice: DraftAdvice
    plain: Decoding
    speculative: Decoding
    speedup_ratio: float
    median_ratio: float
    expected_ratio: float
    acceptance_ratio: float
    acceptance_by_position: tuple[float, ...]
    ratios: tuple[float, ...]
    differences: tuple[dict[str, Any], ...] = ()
    unexplained_count: Count = 0


class Stream(ResultKind):
    """Decoding with weights that exceed the memory they may take.

    Attributes:
        mode: ``streamed`` by this harness, or ``mapped`` and left to the system's page cache.
        draft: Draft model file, ``lookup``, or empty.
        enforced: Whether a control group held the process to it (else a watchdog on its private memory).
        decoding: Sums over all prompts.
        schedule: ``blocks`` or ``experts``; empty when mapped.
        schedule_reason: Why blocks are streamed although the model has experts; empty otherwise.
        policy: Which experts stayed, of records before version 0.4: since then the likeliest.
        expert_plan: What was pinned and how much room experts had.
        report: What was read and waited for; None when mapped.
        expert_use: What the router wanted, and what of it was in memory.
        experts: Predicted and measured hits, bytes and times of a token, of records before version 0.4.
        bound_ratio: Least time of a pass by the bound / measured time of a pass; None when nothing was
            streamed.
        verify_s: Seconds of a pass by its tokens, measured before the prompts; empty without a draft.
        draft_s: Seconds to draft a token, measured with it; None without a draft.
        predicted_tokens_per_s: Said before the run; None when nothing was.
        control_s: Median pass with all weights in memory, called back as a streamed one is; None where there was no
            room for that.
        seen_tokens_per_s: Said of the run after its first tokens; None for a mapped one.
        answers_tokens_per_s: Each answer's speed.
    """

    mode: str
    budget_bytes: Count
    enforced: bool
    decoding: Decoding
    outputs: tuple[tuple[int, ...], ...]
    draft: str = ""
    schedule: str = ""
    schedule_reason: str = ""
    policy: str = ""
    plan: StreamPlan | None = None
    expert_plan: ExpertPlan | None = None
    report: StreamReport | None = None
    expert_use: ExpertUse | None = None
    experts: dict[str, float] | None = None
    bound_ratio: float | None = None
    verify_s: dict[int, float] = {}
    draft_s: float | None = None
    predicted_tokens_per_s: float | None = None
    control_s: float | None = None
    seen_tokens_per_s: float | None = None
    answers_tokens_per_s: tuple[float, ...] = ()

    @property
    def doubts(self) -> tuple[str, ...]:
        """Why one speed does not stand for all of the run: its answers differ too much."""
        speeds = self.answers_tokens_per_s
        if not speeds or max(speeds) <= _EVEN_RATIO * min(speeds):
            return ()
        return (
            f"its answers were written at {min(speeds):.2f} to {max(speeds):.2f} tokens/s, more than "
            f"{_EVEN_RATIO:g} times apart",
        )

    @property
    def read_bytes_per_token(self) -> float | None:
        """Bytes read from storage for each new token; None where the file was mapped and nobody counts them."""
        if self.report is None or not self.decoding.tokens:
            return None
        return self.report.read_bytes / len(self.decoding.tokens)


class Quality(ResultKind):
    """One quantisation of a model, scored on a text beside the least quantized one.

    Attributes:
        chunk_count: Chunks of 512 tokens that were scored; 0 for all.
        bits_per_weight: 8 x tensor bytes / weights.
        types: Share of the weights by type, most first. llama.cpp gives a matrix whose rows are no multiple
            of 256 a wider type than the mixture is named after.
        calibration: Each token's confidence beside the reference's, paired.
        task: Of the questions that ship.
    """

    text: str
    chunk_count: Count
    bits_per_weight: float
    types: dict[str, float]
    score: TextScore
    calibration: CalibrationChange
    importance: bool = False


class Score(Frozen):
    """A figure of a system's answers, beside what answers without its work would get.

    Attributes:
        name: A metric that a budget may name (``recall_at_10``, ``f1``), or a figure of the system's own.
        group: Which cases it is of; empty for all.
        low: Lower end of its 95 % interval; None where there is none.
        count: Cases that it is of.
        nulls: The same figure of answers without the work: ``newest first``, ``always yes`` ...
        more_is_better: Whether a higher figure is the better one.
    """

    name: str
    value: float | None
    group: str = ""
    low: float | None = None
    high: float | None = None
    count: Count = 0
    nulls: dict[str, float] = {}
    more_is_better: bool = True

    @property
    def best_null(self) -> str:
        """The null that is hardest to beat; empty where a result has no null."""
        hardest = max if self.more_is_better else min
        return hardest(self.nulls, key=self.nulls.__getitem__, default="")

    @property
    def beats_null(self) -> bool | None:
        """Whether the whole interval is better than every null; None where that cannot be said."""
        if not self.nulls or self.low is None or self.high is None:
            return None
        null = self.nulls[self.best_null]
        if self.more_is_better:
            return self.low > null
        return self.high < null


class PassFigures(Frozen):
    """Passes of one part in one kind of step, of all its cases; of the whole step where ``part`` is empty.

    Attributes:
        step: Kind of the step.
        op: What the part does; ``all`` of a step, ``glue`` of what is none of its passes.
        tokens: Median of the tokens in a step.
        p50_s: Median of the seconds in a step; None where nothing there runs it.
        predicted_p50_s: From the speeds that were known before; None where the part has none.
        where: Machine that it was measured on where that is another than the record's.
    """

    step: str
    part: str
    op: str
    tokens: float = 0.0
    p50_s: float | None = None
    p95_s: float | None = None
    predicted_p50_s: float | None = None
    predicted_p95_s: float | None = None
    where: str = ""

    @property
    def error_ratio(self) -> float | None:
        """Predicted over measured median, less 1."""
        if self.predicted_p50_s is None or not self.p50_s:
            return None
        return self.predicted_p50_s / self.p50_s - 1


class PartMemory(Frozen):
    """What one part of a system holds.

    Attributes:
        file_bytes: Its file, of which mapped pages count.
        cache_bytes: KV cache, as the engine tells.
        arena_bytes: Scratch of a pass, as the engine tells: address space, touched in part.
        anonymous_bytes: Measured, where the part is a process of its own; None in one process with others.
        predicted_bytes: Anonymous memory, predicted.
    """

    part: str
    file_bytes: Count = 0
    cache_bytes: Count = 0
    arena_bytes: Count = 0
    anonymous_bytes: Count | None = None
    predicted_bytes: Count | None = None


class SystemResult(ResultKind, tag="system"):
    """A system beside a language model: a memory, a check of answers, a probe ...

    Attributes:
        parts: The models that it was made of, by what each was for.
        predicted_anonymous_bytes: Of the process or processes; None where a part has no prediction.
        answers: Each with the number of its case; the first ones of very many.
    """

    size: dict[str, int]
    seed: int = 1
    parts: dict[str, str] = {}
    scores: tuple[Score, ...] = ()
    passes: tuple[PassFigures, ...] = ()
    memory: tuple[PartMemory, ...] = ()
    predicted_anonymous_bytes: Count | None = None
    answers: tuple[dict[str, Any], ...] = ()


class LoadLevel(Frozen):
    """One level of load on a server; the latencies of its requests are samples with its label.

    Attributes:
        offered: Users at once.
        label: End of the labels of its samples.
        duration_s: From the first request to the end of the last.
        completed_count: Requests that were answered.
        good_count: Of those, the ones within every limit.
        cached_tokens: Of those, found in the server's cache.
        failures: Requests that failed, by outcome and cause.
        predicted_tokens_per_s: Output throughput that was predicted before; None where nothing was.
    """

    offered: Time
    label: str
    duration_s: Span
    completed_count: Count
    good_count: Count
    prompt_tokens: Count
    cached_tokens: Count
    new_tokens: Count
    failures: dict[str, Count] = {}
    predicted_tokens_per_s: float | None = None

    @property
    def requests_per_s(self) -> float:
        """Request throughput."""
        return self.completed_count / self.duration_s

    @property
    def new_tokens_per_s(self) -> float:
        """Output throughput: tokens of all answers."""
        return self.new_tokens / self.duration_s

    @property
    def goodput_requests_per_s(self) -> float:
        """Requests a second that met every limit."""
        return self.good_count / self.duration_s


class Load(ResultKind):
    """Requests at once against a server.

    Attributes:
        limits_s: Longest ttft, itl and e2el of a good request.
        server: What the server promises and whether it keeps it.
    """

    levels: Annotated[tuple[LoadLevel, ...], Meta(min_length=1)]
    limits_s: dict[str, float] = {}
    server: tuple[ServerCheck, ...] = ()

    @property
    def saturation(self) -> float | None:
        """Level at which the server is saturated; None where the levels do not show it.

        The fewest users that give 95 % of the best output throughput, where more users were tried.
        """
        return _enough([(v.offered, v.new_tokens_per_s) for v in self.levels])

    @property
    def predicted_saturation(self) -> float | None:
        """The same by what was predicted before."""
        return _enough([(v.offered, v.predicted_tokens_per_s or 0.0) for v in self.levels])


def _enough(rates: Sequence[tuple[float, float]]) -> float | None:
    """The first load that gives 95 % of the best rate, if it is not the last one tried."""
    best, most = (
        max(column, default=0.0) for column in ([rate for _, rate in rates], [load for load, _ in rates])
    )
    enough = min((load for load, rate in rates if best and rate >= 0.95 * best), default=most)
    if enough != most:
        return enough
    return None


class Window(Frozen):
    """Some seconds of decoding. What the device does not tell is None.

    Attributes:
        duration_s: How long it took, pauses of the duty cycle left out.
        celsius: Hottest sensor at its end.
        frequency_hz: Mean frequency of the CPUs at its end.
        joules: Energy used in it, less what the idle device used before.
    """

    since_start_s: float
    duration_s: Span
    token_count: Count
    celsius: float | None = None
    frequency_hz: float | None = None
    joules: float | None = None
    battery_percent: float | None = None

    @property
    def tokens_per_s(self) -> float:
        """Speed of this window."""
        return self.token_count / self.duration_s


class Soak(ResultKind):
    """Decoding for minutes.

    Attributes:
        minutes: How long it really ran.
        burst_tokens_per_s: Middle speed before the knee; of the whole run without one.
        sustained_tokens_per_s: Middle speed of the last quarter.
        knee_s: When it fell for good; None where no fall is told from noise.
        drop_ratio: By how much, as a share of the burst; 0 without a knee.
        sustained_joules_per_token: In the last quarter.
        energy_scope: What the energy counts; empty without.
        tokens_per_charge: Of a full battery at the sustained rate; None without one.
        stopped: Which limit ended it early; empty for none.
    """

    minutes: float
    duty_ratio: float
    windows: tuple[Window, ...]
    burst_tokens_per_s: float
    sustained_tokens_per_s: float
    knee_s: float | None = None
    drop_ratio: float = 0.0
    sustained_joules_per_token: float | None = None
    energy_scope: str = ""
    tokens_per_charge: float | None = None
    stopped: str = ""


Result = Generation | Speculation | Stream | Quality | SystemResult | Load | Soak
