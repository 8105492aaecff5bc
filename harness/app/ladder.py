"""The quantisation ladder of one model: size, speed, memory, quality of every rung, and the rung a device takes."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import as_file, files
from pathlib import Path
from statistics import median
from typing import Any, Final

import msgspec

from harness.app.fit import predict
from harness.app.resolve import ResolvedModel
from harness.backends.llamacpp.quality import Quality, QualityJob
from harness.backends.llamacpp.quantize import NEED_IMPORTANCE, QUANTS, QuantizeJob
from harness.catalog.gguf import read_gguf
from harness.domain.base import Frozen
from harness.domain.device import DeviceProfile
from harness.domain.prediction import Prediction
from harness.domain.record import Phase, RunRecord
from harness.domain.scenario import Scenario
from harness.errors import EngineError, RefusedError
from harness.feasibility.weights import weights_of
from harness.measure.child import Limits, run_child
from harness.measure.runner import run_model

DEFAULT_QUANTS: Final = (
    *("F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0", "IQ4_XS", "Q3_K_M", "IQ3_XXS"),
    *("Q2_K", "IQ2_M", "IQ2_XXS", "TQ2_0", "TQ1_0", "IQ1_S"),
)
_GOOD_ENOUGH_KL: Final = 0.1
"""Nats of divergence up to which a rung counts as faithful to the reference when one is recommended."""


class Rung(Frozen, frozen=True, kw_only=True):
    """One quantisation of the model.

    Attributes:
        quant: Mixture.
        size_bytes: File size; 0 when it could not be made.
        bits_per_weight: 8 x tensor bytes / weights.
        decode_tokens_per_s: Measured; None when not.
        prefill_tokens_per_s: Measured; None when not.
        peak_memory_bytes: Peak PSS of the process that ran it.
        quality: On the text; None when not measured.
        requantized_from: Quantisation of the source when that was no F32, F16 or BF16; quality then includes its loss.
        importance: Whether an importance matrix was used.
        on_frontier: No other rung is smaller, faster and better at once.
        outcome: ``ok``, or why there is nothing.
    """

    quant: str
    outcome: str = "ok"
    size_bytes: int = 0
    bits_per_weight: float = 0.0
    decode_tokens_per_s: float | None = None
    prefill_tokens_per_s: float | None = None
    peak_memory_bytes: int | None = None
    quality: Quality | None = None
    requantized_from: str = ""
    importance: bool = False
    on_frontier: bool = False


class Ladder(Frozen, frozen=True, kw_only=True):
    """All rungs of one model."""

    model: str
    source_quant: str
    reference_quant: str
    text: str
    rungs: tuple[Rung, ...]


def ladder(
    source: Path,
    quants: Sequence[str] = DEFAULT_QUANTS,
    *,
    text: Path | None = None,
    chunk_count: int = 8,
    measure_speed: bool = True,
    scenario: Scenario | None = None,
    repetitions: int = 3,
    folder: Path | None = None,
    limits: Limits = Limits(),  # noqa: B008  an immutable tuple
    say: Callable[[str], None] = lambda _: None,
) -> Ladder:
    """Make every rung from ``source``, run it, score it, and remove it again.

    The reference of the divergence is the source as the quantizer unpacks it: F16 made from it when it is quantized
    itself, else the source.

    Args:
        source: GGUF file, the less quantized the better.
        quants: Rungs.
        text: Text to score on; None for the one that ships.
        chunk_count: Chunks of 512 tokens.
        measure_speed: Whether speed and memory are measured too.
        scenario: Of the speed test; pp512 and tg64 when None.
        repetitions: Of the speed test.
        folder: Where files are made; a temporary one when None.
        limits: Of each child.
        say: Told what goes on.

    Raises:
        RefusedError: A name is no mixture, or the weights are synthetic (their quality means nothing).
        BadDataError: The source is no GGUF file.
        EngineError: The reference itself could not be scored.
    """
    unknown = [q for q in quants if q not in QUANTS]
    if unknown:
        raise RefusedError(f"no quantisation {unknown[0]!r}; one of: {', '.join(QUANTS)}")
    header = read_gguf(source)
    if header.synthetic:
        raise RefusedError(f"{source.name} has synthetic weights: it has speed and size, but no quality to measure")
    source_quant = header.weights().quant
    requantized = "" if source_quant in {"F32", "F16", "BF16"} else source_quant
    with (
        tempfile.TemporaryDirectory(prefix="edge-harness-ladder-", dir=folder) as scratch,
        as_file(files("harness") / "data" / "text" / "python-reference.txt") as shipped,
    ):
        maker = _Maker(source, text or shipped, Path(scratch), limits, chunk_count, say)
        reference = maker.reference(requantized)
        rungs = []
        for quant in quants:
            say(f"{quant}: making")
            rung = maker.rung(quant, reference, requantized, measure_speed, scenario, repetitions)
            say(f"{quant}: {describe(rung)}")
            rungs.append(rung)
    return Ladder(
        model=source.stem,
        source_quant=source_quant,
        reference_quant="F16" if requantized else source_quant,
        text=(text or shipped).name,
        rungs=mark_frontier(rungs),
    )


class _Maker:
    def __init__(
        self, source: Path, text: Path, folder: Path, limits: Limits, chunk_count: int, say: Callable[[str], None]
    ) -> None:
        self.source, self.text, self.folder, self.limits = source, text, folder, limits
        self.chunk_count = chunk_count
        self.say = say
        self._importance: Path | None = None

    def reference(self, requantized: str) -> Path:
        if not requantized:
            return self.source
        path = self.folder / "reference.gguf"
        self._child("harness.backends.llamacpp.quantize:run_quantize", self._job("F16", path))
        return path

    def _job(self, quant: str, path: Path) -> QuantizeJob:
        importance = str(self.importance()) if quant in NEED_IMPORTANCE else ""
        return QuantizeJob(source=str(self.source.absolute()), target=str(path), quant=quant, importance=importance)

    def importance(self) -> Path:
        """The importance matrix, collected once, on the second half of the text; scoring begins with the first."""
        if self._importance is None:
            self.say("collecting an importance matrix")
            path = self.folder / "importance.npz"
            self._child(
                "harness.backends.llamacpp.quantize:run_importance",
                {"model": str(self.source.absolute()), "text": str(self.text), "target": str(path)},
            )
            self._importance = path
        return self._importance

    def _child(self, target: str, arguments: dict[str, Any] | msgspec.Struct) -> dict[str, Any]:
        result = run_child(target, arguments, limits=self.limits)
        if result.outcome != "ok":
            raise EngineError(f"{result.outcome}: {result.detail}")
        return dict(result.events)

    def rung(
        self,
        quant: str,
        reference: Path,
        requantized: str,
        measure_speed: bool,
        scenario: Scenario | None,
        repetitions: int,
    ) -> Rung:
        path = self.folder / f"{self.source.stem}-{quant}.gguf"
        try:
            self._child("harness.backends.llamacpp.quantize:run_quantize", self._job(quant, path))
            weights = read_gguf(path).weights()
            job = QualityJob(
                model=str(path),
                text=str(self.text),
                reference=str(reference.absolute()),
                chunk_count=self.chunk_count,
            )
            quality = self._child("harness.backends.llamacpp.quality:run_quality", job)["quality"]
            record = None
            if measure_speed:
                asked = scenario or Scenario(context_tokens=1024, prompt_tokens=512, new_tokens=64)
                record = run_model(path, weights, asked, repetitions=repetitions, cold_loads=0, sha256="not hashed")
            tensor_bytes = sum(t.size_bytes for t in weights.tensors)
            return Rung(
                quant=quant,
                size_bytes=path.stat().st_size,
                bits_per_weight=8 * tensor_bytes / sum(t.element_count for t in weights.tensors),
                quality=msgspec.convert(quality, Quality),
                requantized_from=requantized,
                importance=quant in NEED_IMPORTANCE,
                **(_speeds(record) if record else {}),
            )
        except EngineError as error:
            return Rung(quant=quant, outcome=str(error), requantized_from=requantized)
        finally:
            path.unlink(missing_ok=True)


def _speeds(record: RunRecord) -> dict[str, Any]:
    """Medians of what was measured, disturbed samples too when there are no others."""
    rates: dict[str, Any] = {}
    wanted: tuple[tuple[Phase, str], ...] = (("decode", "decode_tokens_per_s"), ("prefill", "prefill_tokens_per_s"))
    for phase, name in wanted:
        samples = record.believed(phase) or [s for s in record.samples if s.phase == phase and not s.warm_up]
        if samples:
            rates[name] = median(s.token_count / s.duration_s for s in samples)
    memory = record.memory
    if memory is not None:
        rates["peak_memory_bytes"] = memory.peak_pss_bytes or memory.peak_rss_bytes
    return rates


def mark_frontier(rungs: Sequence[Rung]) -> tuple[Rung, ...]:
    """Mark the rungs that no other one beats in size, speed and divergence at once (Pareto)."""

    def cost(rung: Rung) -> tuple[float, float, float]:
        kl = rung.quality.kl_divergence if rung.quality and rung.quality.kl_divergence is not None else float("inf")
        return rung.size_bytes, -(rung.decode_tokens_per_s or 0.0), kl

    made = [r for r in rungs if r.outcome == "ok"]

    def beaten(rung: Rung) -> bool:
        mine = cost(rung)
        return any(cost(o) != mine and all(a <= b for a, b in zip(cost(o), mine, strict=True)) for o in made)

    return tuple(msgspec.structs.replace(r, on_frontier=r.outcome == "ok" and not beaten(r)) for r in rungs)


def rung_predictions(source: Path, result: Ladder, device: DeviceProfile, scenario: Scenario) -> dict[str, Prediction]:
    """What the feasibility model says of each rung on a device: memory, speed and verdict by mixture.

    Raises:
        BadDataError: The source is no GGUF file.
        RefusedError: The device has no such backend.
    """
    shape = read_gguf(source).weights().shape
    found = {}
    for rung in result.rungs:
        if rung.outcome == "ok":
            model = ResolvedModel(name=result.model, quant=rung.quant, weights=weights_of(shape, rung.quant))
            found[rung.quant] = predict(model, device, scenario)
    return found


def recommend(result: Ladder, predictions: Mapping[str, Prediction]) -> Rung | None:
    """The rung for a device: among those predicted to fit, the fastest faithful one; None when none fits.

    Faithful is a divergence of at most 0.1 nats from the reference; speed is the one predicted for the device. Where
    no faithful rung fits, the smallest divergence wins.

    Args:
        result: The ladder.
        predictions: Of each rung on the device, see :func:`rung_predictions`.
    """
    fitting = [
        r for r in result.rungs if r.quality and r.quant in predictions and predictions[r.quant].verdict.word == "fits"
    ]
    if not fitting:
        return None

    def divergence(rung: Rung) -> float:
        assert rung.quality is not None
        return rung.quality.kl_divergence if rung.quality.kl_divergence is not None else rung.quality.perplexity

    faithful = [r for r in fitting if divergence(r) <= _GOOD_ENOUGH_KL]
    if faithful:
        return max(faithful, key=lambda r: (predictions[r.quant].speed.decode_tokens_per_s.mid, -divergence(r)))
    return min(fitting, key=divergence)


def describe(rung: Rung) -> str:
    """One line on a rung."""
    if rung.outcome != "ok" or rung.quality is None:
        return rung.outcome
    q = rung.quality
    speed = f", {rung.decode_tokens_per_s:.1f} tokens/s" if rung.decode_tokens_per_s else ""
    kl = f", KL {q.kl_divergence:.4f}" if q.kl_divergence is not None else ""
    return f"{rung.bits_per_weight:.2f} bits{speed}, perplexity {q.perplexity:.4f}{kl}"
