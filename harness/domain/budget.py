"""What a release may cost: budgets for the gate."""

from typing import Annotated, Any, Final, Literal, get_args

from msgspec import Meta

from harness.domain.base import Frozen
from harness.domain.device import Speed

Metric = Literal[
    "decode_tokens_per_s",
    "prefill_tokens_per_s",
    "ttft_s",
    "itl_p50_s",
    "itl_p99_s",
    "load_s",
    "peak_memory_bytes",
    "peak_anonymous_bytes",
    "file_bytes",
    "joules_per_token",
    "workload_p50_s",
    "workload_p95_s",
    "speedup_ratio",
    "acceptance_ratio",
    "read_bytes_per_token",
    "perplexity",
    "kl_divergence_nats",
    "new_tokens_per_s",
    "goodput_requests_per_s",
    "saturation_load",
    "sustained_tokens_per_s",
    "sustained_joules_per_token",
    "hottest_celsius",
]

_GAINS: Final = frozenset({"speedup_ratio", "acceptance_ratio", "saturation_load"})
HIGHER_IS_BETTER: Final[frozenset[Metric]] = frozenset(
    metric for metric in get_args(Metric) if metric.endswith("_per_s") or metric in _GAINS
)


PINS: Final = (
    "machine",
    "model_sha256",
    "quant",
    "runtime",
    "context_tokens",
    "prompt_tokens",
    "new_tokens",
    "depth_tokens",
    "thread_count",
    "batch_count",
    "ubatch_tokens",
    "kv_type",
    "flash_attention",
    "mmap",
    "repack",
    "api",
    "gpu_layers",
    "cpu_moe",
)
"""Keys that a budget may pin: those of the run, then those of its scenario and placement."""


class Budget(Frozen):
    """One limit on one metric.

    Exactly one of the limits is set.

    Attributes:
        workload: What was measured: ``generate``, ``speculate``, ``stream``, ``quality``,
            ``load``, or a workload.
        label: Test label such as ``tg128``; empty for the metric's usual one.
        baseline_ratio: Least share of the baseline's speed (or greatest multiple of its cost).
        prediction_ratio: Least share of the predicted speed (or greatest multiple of the predicted cost).
        slowdown_ratio: A slowdown against the baseline that must be found: the budget is broken by a build that is
            slower beyond noise, by more than half of that.
        roofline_ratio: Least share of the roofline: of the speed that bandwidth alone would allow. Decode only.
        predicted: Judge the prediction for ``device`` instead of a measurement.
        inconclusive_limit: Gates in a row that may end inconclusive before the budget counts as broken.
        pin: What a run must be, beside its names, for the budget to judge it: machine, model file, quantisation,
            runtime, fields of its scenario.
    """

    metric: Metric
    device: str = "*"
    model: str = "*"
    workload: str = "generate"
    label: str = ""
    floor: Speed | None = None
    ceiling: Speed | None = None
    baseline_ratio: Speed | None = None
    slowdown_ratio: Annotated[float, Meta(gt=0, lt=1)] | None = None
    prediction_ratio: Speed | None = None
    roofline_ratio: Speed | None = None
    predicted: bool = False
    confidence: Annotated[float, Meta(ge=0.5, lt=1)] = 0.95
    inconclusive_limit: Annotated[int, Meta(ge=1)] = 3
    pin: dict[str, Any] = {}
