"""What a measurement found beyond its samples: one type a kind, told apart by ``kind`` in the file.

A new kind of measurement adds its type here and to ``Result``, a job in ``harness.measure.jobs``, and the metrics that
a budget may name to ``harness.records.metrics``. Speeds and latencies are never here: samples give them.
"""

from typing import Any

from harness.domain.base import Frozen
from harness.domain.drafting import Decoding, DraftAdvice
from harness.domain.quality import CalibrationChange, TextScore
from harness.domain.soak import Soak
from harness.domain.streaming import ExpertOutlook, ExpertPlan, ExpertUse, StreamPlan, StreamReport


class Generation(Frozen, frozen=True, kw_only=True, tag="generation", tag_field="kind"):
    """The protocol of llama-bench, with time to first token and the latency of each token.

    Attributes:
        repetitions: Clean samples that were wanted of each test.
        greedy: Whether each token was chosen from the logits inside the clock.
    """

    repetitions: int
    greedy: bool = False


class Speculation(Frozen, frozen=True, kw_only=True, tag="speculation", tag_field="kind"):
    """Speculative beside plain decoding, on the same prompts.

    Attributes:
        draft: Draft model file, or ``lookup``.
        advice: What was said before the run.
        plain: Sums over all prompts without a draft.
        speculative: Sums over all prompts with it.
        speedup_ratio: Speed of speculation over plain decoding, sums over sums.
        median_ratio: Median over the prompts of their own ratios, which one disturbed answer does not move.
        expected_ratio: The same computed from the costs measured before, and the draft lengths and acceptance of
            the run.
        fixed_ratio: What a fixed draft of the advised length would have given at the run's acceptance, by formula.
        acceptance_ratio: Drafted tokens accepted, of those compared.
        acceptance_by_position: The same for the first, second ... drafted token of a cycle.
        ratios: Speed ratio of each prompt.
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
    fixed_ratio: float
    acceptance_ratio: float
    acceptance_by_position: tuple[float, ...]
    ratios: tuple[float, ...]
    differences: tuple[dict[str, Any], ...] = ()
    unexplained_count: int = 0


class Stream(Frozen, frozen=True, kw_only=True, tag="stream", tag_field="kind"):
    """Decoding with weights that exceed the memory they may take.

    Attributes:
        mode: ``streamed`` by this harness, or ``mapped`` and left to the system's page cache.
        draft: Draft model file, ``lookup``, or empty.
        budget_bytes: Memory the process might use in all.
        enforced: Whether a control group held the process to it (else a watchdog on its private memory).
        decoding: Sums over all prompts.
        outputs: New tokens of each prompt.
        schedule: ``blocks`` or ``experts``; empty when mapped.
        schedule_reason: Why blocks are streamed although the model has experts; empty otherwise.
        policy: Which experts stay; empty when none are streamed.
        plan: What was pinned and streamed, block by block.
        expert_plan: What was pinned and how much room experts had.
        report: What was read and waited for; None when mapped.
        expert_use: What the router wanted, and what of it was in memory.
        experts: Predicted and measured hits, bytes and times of a token.
        bound_ratio: Least time of a pass by the bound / measured time of a pass; None when nothing was streamed.
        verify_s: Seconds of a pass by its tokens, measured before the prompts; empty without a draft.
        draft_s: Seconds to draft a token, measured with it.
        predicted_tokens_per_s: Said before the run; None when nothing was.
    """

    mode: str
    budget_bytes: int
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
    experts: ExpertOutlook | None = None
    bound_ratio: float | None = None
    verify_s: dict[int, float] = {}
    draft_s: float = 0.0
    predicted_tokens_per_s: float | None = None

    @property
    def read_bytes_per_token(self) -> float | None:
        """Bytes read from storage for each new token; None when mapped."""
        if self.report is None or not self.decoding.tokens:
            return None
        return self.report.read_bytes / len(self.decoding.tokens)


class Quality(Frozen, frozen=True, kw_only=True, tag="quality", tag_field="kind"):
    """One quantisation of a model, scored on a text beside the least quantized one.

    Attributes:
        text: Name of the text's file.
        chunk_count: Chunks of 512 tokens that were scored; 0 for all.
        reference_quant: Mixture it was compared with.
        bits_per_weight: 8 x tensor bytes / weights.
        types: Share of the weights by type, most first. llama.cpp gives a matrix whose rows are no multiple of 256 a
            wider type than the mixture is named after.
        score: Perplexity, divergence and agreement.
        calibration: Each token's confidence beside the reference's, paired.
        importance: Whether an importance matrix was used.
    """

    text: str
    chunk_count: int
    reference_quant: str
    bits_per_weight: float
    types: dict[str, float]
    score: TextScore
    calibration: CalibrationChange
    importance: bool = False


class System(Frozen, frozen=True, kw_only=True, tag="system", tag_field="kind"):
    """A workload that is no plain language model: a memory store, a calibration, a verifier ...

    Attributes:
        size: Its parameters.
        seed: Seed of everything random in it.
        prepare_s: Time to build what is timed; None when it did not get that far.
        quality: What the check of its answers found.
        evaluation: What it found on public data, where that was asked for.
        predicted: Prediction of each operation, made before the run.
        units: Costs of single operations on this machine, which the predictions rest on.
    """

    size: dict[str, int]
    seed: int = 1
    prepare_s: float | None = None
    quality: dict[str, Any] = {}
    evaluation: dict[str, Any] = {}
    predicted: tuple[dict[str, Any], ...] = ()
    units: dict[str, Any] = {}


class Boundary(Frozen, frozen=True, kw_only=True, tag="boundary", tag_field="kind"):
    """Longest context that a model can be run with under a device's memory limit, found by real runs.

    Attributes:
        device: The device whose limit was imposed.
        memory_limit_bytes: What an app may use on it.
        predicted_tokens: Longest context whose predicted memory is within the limit.
        found_tokens: Longest context that ran; 0 when none did.
        failed_tokens: Shortest context that did not; 0 when all that were tried ran.
        predicted_bytes: Memory predicted at the found context.
        found_peak_bytes: Memory charged at the found context.
        enforced: Whether a control group held the runs to the limit.
        tried: Contexts in the order they were tried, each with how its run ended.
        not_emulated: What the result must not be read for.
    """

    device: str
    memory_limit_bytes: int
    predicted_tokens: int
    found_tokens: int
    failed_tokens: int
    predicted_bytes: int
    found_peak_bytes: int
    enforced: bool
    tried: tuple[tuple[int, str], ...] = ()
    not_emulated: tuple[str, ...] = ()

    @property
    def error_ratio(self) -> float | None:
        """(predicted - found) / found, in memory at the found context; None where nothing ran."""
        return self.predicted_bytes / self.found_peak_bytes - 1.0 if self.found_peak_bytes else None


Result = Generation | Speculation | Stream | Quality | System | Boundary | Soak
