"""The record of one run: raw samples, counters and fingerprints; throughput is derived and never stored.

``SCHEMA_VERSION`` counts the forms of a record. Version 1 is the first one. In version 2 ``result`` holds what a
kind of measurement found (it stood in ``extra``), ``runtime`` and ``target`` say what ran it and where, and
``scenario.backend`` and ``prediction.backend`` are called ``api``.

The next version (a field with a default needs none: files of this one still load): raise ``SCHEMA_VERSION``,
and say here what changed. Records of another version are refused; a file of a real run of this one is kept as
``tests/records/v<N>-<name>.json``, and a test loads it.

Of version 2 one kind is no longer read: ``boundary``, the longest context under a limit, which no verb makes.
"""

from typing import Annotated, Any, Final, Literal

from msgspec import Meta

from harness.core.base import Frozen
from harness.core.device import Time
from harness.core.model import Count
from harness.core.prediction import Prediction
from harness.core.printable import NAME_MAX, clean
from harness.core.result import Result
from harness.core.scenario import Scenario

SCHEMA_VERSION = 2

Outcome = Literal[
    "ok",
    "inconclusive",
    "crashed",
    "aborted",
    "out of memory",
    "timed out",
    "interrupted",
    "refused",
    "failed",
]
"""How a run ended. ``inconclusive``: it ran, but stayed disturbed. ``crashed``: a signal such as SIGSEGV or
SIGKILL from outside. ``aborted``: the engine's own assertion. ``refused``: the engine would not load it."""

Phase = Literal["load", "prefill", "decode", "first_token", "workload", "verify", "draft", "stream", "score"]


class Validity(Frozen):
    """What the machine was doing to the run while one sample was taken.

    Ratios are shares of the sample's wall time; None where the system does not tell.

    Attributes:
        cpu_stall_ratio: Time some task waited for a CPU (Linux PSI, cpu some).
        steal_ratio: Time the hypervisor took away, per CPU.
        other_load_ratio: CPU time used by other processes, as a share of all CPUs' time.
        doubts: Why this sample should not be believed; empty for a clean one.
    """

    cpu_stall_ratio: float | None = None
    memory_stall_ratio: float | None = None
    io_stall_ratio: float | None = None
    steal_ratio: float | None = None
    other_load_ratio: float | None = None
    major_fault_count: Count = 0
    frequency_hz: float | None = None
    temperature_celsius_max: float | None = None
    doubts: tuple[str, ...] = ()

    def doubted(self, *doubts: str) -> "Validity":
        """The same with further doubts."""
        return self.replace(doubts=(*self.doubts, *doubts))


class Sample(Frozen):
    """One timed repetition.

    Attributes:
        label: Test name as llama-bench prints it (``pp512``, ``tg128``, ``tg128 @ d2048``), or the workload's
            own.
        token_count: Tokens (or operations) the time covers.
        token_times_s: Time of each token, where they were timed singly.
    """

    phase: Phase
    label: str
    token_count: Count
    duration_s: Time
    started_unix_s: Time
    token_times_s: tuple[Time, ...] = ()
    warm_up: bool = False
    validity: Validity = Validity()
    energy_joules: float | None = None


class MemoryUse(Frozen):
    """Memory of the child process over its life.

    Attributes:
        peak_rss_bytes: VmHWM of the child, after exec (never ru_maxrss, which inherits the parent's peak).
        cgroup_peak_bytes: Peak charged to the run's own cgroup, if it had one.
    """

    peak_rss_bytes: Count
    peak_anonymous_bytes: Count = 0
    peak_file_bytes: Count = 0
    cgroup_peak_bytes: Count | None = None


class MachineFingerprint(Frozen):
    """The machine a run was made on; no host name, no user name."""

    system: str
    kernel: str
    cpu_model: str
    core_count: Count
    ram_bytes: Count
    memory_limit_bytes: Count
    isa: tuple[str, ...] | None
    python: str
    device: str = "this machine"
    fingerprint: str = ""


UNKNOWN_MACHINE: Final = MachineFingerprint(
    system="",
    kernel="",
    cpu_model="",
    core_count=0,
    ram_bytes=0,
    memory_limit_bytes=0,
    isa=None,
    python="",
    device="unknown device",
)
"""A machine of which nothing was told."""


class ModelIdentity(Frozen):
    """The model that ran."""

    name: str
    quant: str
    size_bytes: Count
    sha256: str
    architecture: str
    parameter_count: Count
    synthetic: bool = False
    requantized_from: str = ""


class EngineIdentity(Frozen):
    """The engine that ran it.

    Attributes:
        build: What the library says of itself: instruction sets it was built with and found here.
        variant: Which of its libraries for instruction sets it chose, such as ``zen4``; empty where it has
            but one.
    """

    name: str
    version: str
    build: str
    variant: str = ""
    thread_count: Count
    options: dict[str, Any] = {}


class Record(Frozen):
    """One run: what was asked, what happened, and what the prediction had said beforehand.

    Attributes:
        run_id: Unique, sortable by time.
        created: RFC 3339, UTC.
        workload: What was measured: ``generate``, ``speculate``, ``stream``, ``quality``, or the name of
            a workload.
        detail: For anything but ``ok``: signal, exit status, last lines of the engine's log, or the doubts.
        samples: Every sample, warm-ups and disturbed ones included.
        runtime: Software that executed the model, such as ``llamacpp``; empty for none.
        target: Where it ran: ``local``, ``ssh``, ``adb`` or ``http``.
        result: What it found beyond its samples; None for a run that got nowhere.
        extra: Notes (an import's source, CPUs that it was bound to ...), JSON values only.
    """

    schema_version: int
    run_id: Annotated[str, Meta(pattern=r"^[0-9A-Za-z._-]{1,80}\Z")]
    created: Annotated[str, Meta(max_length=NAME_MAX)]
    harness_version: str
    command: tuple[str, ...]
    workload: Annotated[str, Meta(max_length=NAME_MAX)]
    machine: MachineFingerprint
    scenario: Scenario
    outcome: Outcome
    detail: str = ""
    model: ModelIdentity | None = None
    engine: EngineIdentity | None = None
    samples: tuple[Sample, ...] = ()
    memory: MemoryUse | None = None
    prediction: Prediction | None = None
    runtime: str = ""
    target: str = "local"
    result: Result | None = None
    extra: dict[str, Any] = {}

    @property
    def name(self) -> str:
        """Name of the run's model, or of the model that was asked for and could not be had.

        A run without a model has the name of its workload.
        """
        asked = str(self.extra.get("model", self.workload)).rpartition("/")[2]
        return clean(self.model.name if self.model else asked)

    @property
    def quant(self) -> str:
        """Quantisation of the run's model, or the one that was asked for; empty where there is no model."""
        return clean(self.model.quant if self.model else str(self.extra.get("quant", "")))

    def believed(self, phase: Phase) -> tuple[Sample, ...]:
        """Samples of a phase that count: no warm-up, no doubt."""
        return tuple(s for s in self.samples if s.phase == phase and not s.warm_up and not s.validity.doubts)
