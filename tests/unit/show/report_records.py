"""Small records made by hand, and random ones."""

from hypothesis import strategies as st

from harness.core.prediction import (
    Interval,
    Limit,
    MemoryPart,
    MemoryPrediction,
    PartKind,
    Prediction,
    SpeedPrediction,
    Verdict,
)
from harness.core.record import (
    SCHEMA_VERSION,
    EngineIdentity,
    MachineFingerprint,
    MemoryUse,
    ModelIdentity,
    Record,
    Sample,
    Validity,
)
from harness.core.scenario import Scenario

HOSTILE = '</script><img src=x onerror="window.pwned=1">\'|`{{7*7}}\x00\u202e'


def around(mid: float) -> Interval:
    return Interval(mid=mid, low=mid / 2, high=mid * 2)


def record(
    *, name: str = "small-1b", rates: tuple[float, ...] = (10.0, 12.0, 11.0), run_id: str = "20260101T000000-aa", **more
) -> Record:
    """10 tokens at each of ``rates``, one warm-up and one disturbed sample; peak 300 MiB, 256 predicted."""
    samples = [
        Sample(
            phase="decode",
            label="tg10",
            token_count=10,
            duration_s=10 / r,
            started_unix_s=i,
            token_times_s=(1 / r,) * 10,
        )
        for i, r in enumerate(rates, 1)
    ]
    spoilt = [
        Sample(phase="decode", label="tg10", token_count=10, duration_s=50.0, started_unix_s=0.0, warm_up=True),
        Sample(
            phase="decode",
            label="tg10",
            token_count=10,
            duration_s=90.0,
            started_unix_s=9.0,
            validity=Validity(doubts=("other load 40 %",)),
        ),
    ]
    prediction = Prediction(
        device="board",
        model=name,
        quant="Q4_0",
        api="cpu",
        memory=MemoryPrediction(
            parts=(MemoryPart(PartKind.WEIGHTS, anonymous_bytes=0, file_bytes=256 << 20, reason="the file"),),
            peak_bytes=around(256 << 20),
        ),
        speed=SpeedPrediction(
            decode_tokens_per_s=around(10.0),
            prefill_tokens_per_s=around(100.0),
            ttft_cold_s=around(1.0),
            ttft_warm_s=around(0.5),
            load_cold_s=around(1.0),
            load_warm_s=around(0.1),
            active_bytes=250_000_000,
            kv_read_bytes=0,
            roofline_tokens_per_s=40.0,
            limits={Limit.WEIGHTS: 1.0},
        ),
        verdict=Verdict(
            word="fits", binding_limit=Limit.WEIGHTS, needed_bytes=256 << 20, available_bytes=1 << 30, reasons=("room",)
        ),
    )
    fields = {
        "schema_version": SCHEMA_VERSION,
        "run_id": run_id,
        "created": "2026-01-01T00:00:00+00:00",
        "harness_version": "0.1.0",
        "command": ("edge-harness", "run", name),
        "workload": "generate",
        "machine": MachineFingerprint(
            system="Linux",
            kernel="6.1",
            cpu_model="Imagined CPU",
            core_count=4,
            ram_bytes=8 << 30,
            memory_limit_bytes=8 << 30,
            isa=("avx2",),
            python="3.11",
            device="board",
        ),
        "scenario": Scenario(new_tokens=10, prompt_tokens=100, thread_count=4),
        "outcome": "ok",
        "model": ModelIdentity(
            name=name,
            quant="Q4_0",
            size_bytes=260_000_000,
            sha256="0" * 64,
            architecture="llama",
            parameter_count=10**9,
        ),
        "engine": EngineIdentity(name="llama.cpp", version="1.2", build="abcdef1 (1)", thread_count=4),
        "samples": (spoilt[0], *samples, spoilt[1]),
        "memory": MemoryUse(peak_rss_bytes=300 << 20),
        "prediction": prediction,
    }
    return Record(**(fields | more))


machines = st.sampled_from(["EPYC", "Xeon", "M3"]).map(
    lambda name: MachineFingerprint(
        system="Linux", kernel="6", cpu_model=name, core_count=4, ram_bytes=8 << 30, memory_limit_bytes=8 << 30,
        isa=None, python="3.11", device="this machine", fingerprint=name,
    )
)  # fmt: skip


@st.composite
def runs(draw, index: int = 0) -> Record:
    """A run of one of few models, machines and settings, so that some are alike; well, doubtful or broken."""
    number = draw(st.integers(0, 10**6))
    name, quant = draw(
        st.sampled_from([("small-1b", "Q4_0"), ("small-1b", "Q8_0"), (HOSTILE, ""), ("smollm2-135m", "Q4_1")])
    )
    base = record(
        name=name,
        run_id=f"r{index}-{number}",
        rates=tuple(draw(st.lists(st.floats(0.01, 900.0), max_size=7))),
        outcome=draw(st.sampled_from(["ok", "ok", "ok", "inconclusive", "crashed", "refused"])),
        created=f"2026-01-{draw(st.integers(1, 28)):02}T{draw(st.integers(0, 23)):02}:00:00+00:00",
        machine=draw(machines),
        scenario=Scenario(
            depth_tokens=draw(st.sampled_from([0, 2048])), thread_count=draw(st.sampled_from([2, 4])), api="cpu"
        ),
        target=draw(st.sampled_from(["local", "ssh"])),
        runtime=draw(st.sampled_from(["llamacpp", "ik"])),
        detail=draw(st.sampled_from(["", "busy", HOSTILE])),
    )
    model = base.model.replace(quant=quant)
    if draw(st.booleans()):
        base = base.replace(prediction=None)
    return base.replace(model=model)
