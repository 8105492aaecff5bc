"""The quantisation ladder of one model: what every rung measures, and which one each device should take."""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from importlib.resources import as_file, files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple

import msgspec

from harness.app.fit import predict
from harness.app.resolve import ResolvedModel
from harness.catalog.fetch import check_room
from harness.catalog.file_hash import sha256_of
from harness.catalog.gguf import read_gguf
from harness.domain.base import Frozen
from harness.domain.device import DeviceProfile
from harness.domain.foreign import read_limited
from harness.domain.prediction import Interval, Prediction
from harness.domain.quality import TextScore
from harness.domain.record import RunRecord
from harness.domain.result import Quality
from harness.domain.scenario import Scenario
from harness.errors import BadDataError, CouldNotRunError, EngineError, InputError, RefusedError
from harness.measure.child import ChildResult
from harness.measure.jobs.generate import plan as plan_generation
from harness.measure.jobs.score import CHUNK_TOKENS, QualityJob, load_columns
from harness.measure.pipeline import How, Measurement, Pipeline, events_named, key_of, make, prepare
from harness.measure.protocol import GenerateJob
from harness.measure.runner import identify
from harness.predict.quant_mix import NEEDS_IMPORTANCE_MATRIX
from harness.predict.weights import weights_of
from harness.records.ladder import Ladder, Rung, describe, divergence, mark_frontier, reference_of, rung_of
from harness.runtimes.llamacpp import RUNTIME
from harness.runtimes.llamacpp.library import brought_by
from harness.runtimes.llamacpp.quantize import QUANTS
from harness.stats.calibration.paired import calibration_change
from harness.targets.bench import BenchJob, bench_on
from harness.targets.facts import facts, fingerprint
from harness.targets.shell import ShellTarget

DEFAULT_QUANTS: Final = (
    *("F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0", "IQ4_XS", "Q3_K_M", "IQ3_XXS"),
    *("Q2_K", "IQ2_M", "IQ2_XXS", "TQ2_0", "TQ1_0", "IQ1_S"),
)
FAITHFUL_KL: Final = 0.1
"""Nats of divergence up to which a rung counts as faithful to the reference when one is recommended."""

_SAME_SPEED_RATIO: Final = 0.95


class Asked(NamedTuple):
    """What is wanted of each rung: so many chunks of 512 tokens scored (0: all), and a speed test, if any.

    Speed is measured on the ``target`` by llama-bench of the folder ``programs``, or on this machine. All else is done
    here.
    """

    chunk_count: int = 8
    scenario: Scenario | None = Scenario(context_tokens=1024, prompt_tokens=512, new_tokens=64)
    repetitions: int = 3
    target: ShellTarget | None = None
    programs: Path = Path()


def ladder(
    source: Path,
    quants: Sequence[str] = DEFAULT_QUANTS,
    *,
    text: Path | None = None,
    asked: Asked = Asked(),
    folder: Path | None = None,
    keep: Path | None = None,
    how: How = How(),
) -> tuple[Ladder, list[RunRecord]]:
    """Make every rung from ``source``, score it, run it, and remove it again; the ladder, and its records.

    The reference of all comparisons is the source as the quantizer unpacks it: F16 made from it when it is quantized
    itself, else the source. A rung that cannot be made, or does not run, is a record with its reason. Without ``text``
    the one that ships is scored. Files are made in ``folder`` (a temporary one unless given) and removed again, or stay
    in ``keep``: the quantized ones, the reference's and the importance matrix take room.

    Raises:
        RefusedError: A name is no mixture, the weights are synthetic (their quality means nothing), the source is no
            language model, the text is too short, or both folders are given.
        BadDataError: The source is no GGUF file, or the text no UTF-8.
        CouldNotRunError: llama.cpp is not installed, or the folder cannot be written.
        EngineError: The reference could not be made or does not run.
        KeyboardInterrupt: Interrupted; what is done is in the history.
    """
    if unknown := [q for q in quants if q not in QUANTS]:
        raise RefusedError(f"no quantisation {unknown[0]!r}; one of: {', '.join(QUANTS)}")
    if reason := RUNTIME.missing():
        raise CouldNotRunError(reason)
    if folder is not None and keep is not None:
        raise RefusedError("a folder to keep files in and one to remove them from: give one of them")
    header = read_gguf(source)
    if header.synthetic:
        raise RefusedError(f"{source.name} has synthetic weights: it has speed and size, but no quality to measure")
    if header.metadata.get(f"{header.architecture}.attention.causal") is False:
        raise RefusedError(f"{source.name} ({header.architecture}) is no language model: it predicts no next token")
    source_quant = header.weights().quant
    with ExitStack() as stack:
        shipped = stack.enter_context(as_file(files("harness") / "data" / "text" / "python-reference.txt"))
        read = text or shipped
        _check_text(read)
        try:
            place = keep or Path(stack.enter_context(TemporaryDirectory(prefix="edge-harness-ladder-", dir=folder)))
            pipeline = stack.enter_context(Pipeline(how))
            shop = Workshop(source, source_quant, read, place, keep is not None, asked, pipeline)
        except OSError as error:
            where = keep or folder or "temporary folder"
            raise CouldNotRunError(f"{where}: cannot make files here ({error.strerror})") from error
        if not all(pipeline.done_before(shop.quality_key(quant)) for quant in quants):
            try:
                shop.prepare()
            except EngineError as error:
                asked_of = {"model": source.stem, "quant": shop.reference_quant}
                pipeline.not_run("quality", Scenario(), "failed", f"the reference: {error}", **asked_of)
                raise
        rungs, records = [], []
        for quant in quants:
            rung, made = shop.rung(quant)
            pipeline.heard.say(f"{quant}: {describe(rung)}")
            rungs.append(rung)
            records += made
    told = Ladder(
        model=source.stem,
        source_quant=source_quant,
        reference_quant=shop.reference_quant,
        text=read.name,
        chunk_count=asked.chunk_count,
        reference=reference_of(rungs),
        rungs=mark_frontier(rungs),
    )
    return told, records


class Workshop:
    """Makes, scores and times the rungs of one source, in a folder.

    All that a file in the folder depends on is in the name of its own folder there (hashes of the source and the text,
    version of the engine); what a result depends on beyond that is in the key of its record.

    Raises:
        OSError: The folder cannot be written.
    """

    def __init__(
        self, source: Path, quant: str, text: Path, folder: Path, is_kept: bool, asked: Asked, pipeline: Pipeline
    ) -> None:
        self.requantized = "" if quant in {"F32", "F16", "BF16"} else quant
        self.source, self.text = source.absolute(), text.absolute()
        self.reference_quant = "F16" if self.requantized else quant
        self.is_kept, self.asked, self.pipeline = is_kept, asked, pipeline
        timed_on = fingerprint(facts(asked.target)) if asked.target else pipeline.machine
        self._timed_on = timed_on.fingerprint
        hashes = sha256_of(source)[:12], sha256_of(text)[:8]
        self._made_from = "-".join([source.stem, *hashes, brought_by("llama_cpp").replace(" ", "-")])
        self.folder = folder.absolute() / self._made_from
        self.folder.mkdir(parents=True, exist_ok=True)
        self.reference = self.folder / "reference.gguf" if self.requantized else self.source
        self._shape = read_gguf(source).shape()

    def prepare(self) -> None:
        """Make what the rungs are compared with (the source, or F16 made from it) and try it, and the text with it."""
        if self.requantized:
            self._file("F16", self.reference.name)
        asked = {"model": str(self.reference), "text": str(self.text)}
        prepare("harness.measure.jobs.score:run_try", asked, limits=self.pipeline.how.limits)

    def quality_key(self, quant: str) -> str:
        """Key of the record of a rung's quality."""
        return key_of("quality", self._made_from, quant, self.asked.chunk_count, self.pipeline.machine.fingerprint)

    def _speed_key(self, quant: str) -> str:
        asked = self.asked
        return key_of("speed", self._made_from, quant, asked.scenario, asked.repetitions, self._timed_on)

    def rung(self, quant: str) -> tuple[Rung, list[RunRecord]]:
        """One rung and its records."""
        path = self.folder / f"{quant}.gguf"
        try:
            scored = self.pipeline.done_before(self.quality_key(quant)) or self._scored(quant)
            if scored.result is None or self.asked.scenario is None:
                return rung_of(scored), [scored]
            timed = self.pipeline.done_before(self._speed_key(quant)) or self._timed(quant, self.asked.scenario)
            return rung_of(scored, timed), [scored, timed]
        except (EngineError, OSError) as error:
            failed = self.pipeline.not_run(
                "quality", Scenario(), "failed", str(error), model=self.source.stem, quant=quant
            )
            return Rung(quant=quant, outcome=str(error), requantized_from=self.requantized), [failed]
        finally:
            if not self.is_kept:
                path.unlink(missing_ok=True)

    def _scored(self, quant: str) -> RunRecord:
        path, columns = self._file(quant, f"{quant}.gguf"), self.folder / "columns.npz"
        tensors = read_gguf(path).tensors
        weight_count = sum(t.element_count for t in tensors)
        counts: Counter[str] = Counter()
        for tensor in tensors:
            counts[tensor.type_name] += tensor.element_count

        def read(ended: ChildResult) -> Quality | None:
            found = events_named(ended, "quality")
            if not found:
                return None
            own, base = load_columns(columns)
            return Quality(
                text=self.text.name,
                chunk_count=self.asked.chunk_count,
                reference_quant=self.reference_quant,
                bits_per_weight=8 * sum(t.size_bytes for t in tensors) / weight_count,
                types={t: n / weight_count for t, n in counts.most_common()},
                score=msgspec.convert(found[0], TextScore),
                calibration=calibration_change(base, own),
                importance=quant in NEEDS_IMPORTANCE_MATRIX,
            )

        job = QualityJob(
            model=str(path),
            text=str(self.text),
            reference=str(self.reference),
            columns=str(columns),
            chunk_count=self.asked.chunk_count,
        )
        plan = Measurement(
            workload="quality",
            entry="harness.measure.jobs.score:run_quality",
            job=job,
            scenario=Scenario(context_tokens=CHUNK_TOKENS),
            read=read,
            runtime="llamacpp",
            model=self._identity(quant, path),
            key=self.quality_key(quant),
        )
        self.pipeline.heard.begin(f"{quant}: quality", self.asked.chunk_count)
        try:
            return _not_interrupted(self.pipeline.measure(plan))
        finally:
            columns.unlink(missing_ok=True)

    def _timed(self, quant: str, scenario: Scenario) -> RunRecord:
        path, asked, key = self._file(quant, f"{quant}.gguf"), self.asked, self._speed_key(quant)
        self.pipeline.heard.begin(f"{quant}: speed", 3 * (asked.repetitions + 1))
        if asked.target is not None:
            held = self.pipeline.how.limits
            job = BenchJob(scenario=scenario, programs=asked.programs, repetitions=asked.repetitions, limits=held)
            progress = self.pipeline.heard.fetched
            timed = bench_on(asked.target, path, job, self._identity(quant, path), progress=progress)
            asked.target.forget(path, sha256_of(path))
            return self.pipeline.keep(timed, key=key if timed.samples else "")  # what broke off is timed again
        plan = plan_generation(
            GenerateJob(path=str(path), scenario=scenario, repetitions=asked.repetitions, cold_loads=0),
            read_gguf(path).weights(),
            key=key,
        )
        return _not_interrupted(self.pipeline.measure(plan._replace(model=self._identity(quant, path))))

    def _identity(self, quant: str, path: Path) -> Any:
        identity = identify(path, read_gguf(path).weights(), name=self.source.stem)
        return msgspec.structs.replace(identity, quant=quant, requantized_from=self.requantized)

    def _file(self, quant: str, name: str) -> Path:
        if (self.folder / name).exists():
            return self.folder / name
        job = {"source": str(self.source), "quant": quant}
        if quant in NEEDS_IMPORTANCE_MATRIX:
            # Collected once, on the second half of the text; scoring begins with the first.
            of_text = {"model": str(self.source), "text": str(self.text)}
            matrix = self._made("importance.npz", "run_importance", of_text, "collecting an importance matrix")
            job["importance"] = str(matrix)
        self._check_room(quant)
        return self._made(name, "run_quantize", job, f"{quant}: making")

    def _check_room(self, quant: str) -> None:
        """Refuse what the disk cannot take before a byte is written: a full disk is everybody's trouble."""
        try:
            needed_bytes = sum(t.size_bytes for t in weights_of(self._shape, quant).tensors)
        except InputError:  # no table of tensors for this shape: the quantizer finds out
            return
        try:
            check_room(self.folder, needed_bytes, advice="--folder or --keep names a folder on another disk")
        except RefusedError as error:
            raise EngineError(f"{quant} was not made: {error}") from error

    def _made(self, name: str, entry: str, job: dict[str, str], said: str) -> Path:
        """A file that is made once."""
        path = self.folder / name
        if path.exists():
            return path
        self.pipeline.heard.say(said)
        return make(f"harness.runtimes.llamacpp.quantize:{entry}", job, path, limits=self.pipeline.how.limits)


def _not_interrupted(record: RunRecord) -> RunRecord:
    if record.outcome == "interrupted":
        raise KeyboardInterrupt
    return record


def _check_text(path: Path) -> None:
    try:
        read_limited(path).decode()
    except UnicodeDecodeError as error:
        raise BadDataError(path, f"byte {error.start}", "no UTF-8", "a text file in UTF-8") from error


class RungAdvice(Frozen, frozen=True, kw_only=True):
    """The rung that one device should take, empty when none fits; faithful within 0.1 nats of the reference."""

    device: str
    quant: str = ""
    is_faithful: bool = False
    kl_divergence: float | None = None
    decode_tokens_per_s: Interval | None = None
    peak_bytes: Interval | None = None


def advise(
    source: Path, result: Ladder, devices: Sequence[DeviceProfile], scenario: Scenario
) -> tuple[RungAdvice, ...]:
    """What each device should take, by the prediction of each rung on it.

    Raises:
        BadDataError: The source is no GGUF file.
        RefusedError: A device has no such api.
    """
    shape, found = read_gguf(source).weights().shape, []
    quants = [rung.quant for rung in result.rungs if rung.outcome == "ok"]
    models = {quant: ResolvedModel(result.model, quant, weights_of(shape, quant)) for quant in quants}
    for device in devices:
        predictions = {quant: predict(model, device, scenario) for quant, model in models.items()}
        rung = recommend(result, predictions)
        if rung is None:
            found.append(RungAdvice(device=device.name))
            continue
        told = predictions[rung.quant]
        found.append(
            RungAdvice(
                device=device.name,
                quant=rung.quant,
                is_faithful=divergence(rung) <= FAITHFUL_KL,
                kl_divergence=rung.quality.kl_divergence if rung.quality else None,
                decode_tokens_per_s=told.speed.decode_tokens_per_s,
                peak_bytes=told.memory.peak_bytes,
            )
        )
    return tuple(found)


def recommend(result: Ladder, predictions: Mapping[str, Prediction]) -> Rung | None:
    """The rung for a device: among those predicted to fit, the fastest faithful one; None when none fits.

    Faithful is a divergence of at most 0.1 nats from the reference; speed is the one predicted for the device, and of
    speeds within 5 % of the highest, which no prediction tells apart, the smallest divergence wins. So it does where no
    faithful rung fits.
    """
    told = {quant: p for quant, p in predictions.items() if p.verdict.word == "fits"}
    speeds = {quant: p.speed.decode_tokens_per_s.mid for quant, p in told.items()}
    fitting = [r for r in result.rungs if r.quality and r.quant in told]
    if faithful := [r for r in fitting if divergence(r) <= FAITHFUL_KL]:
        enough = _SAME_SPEED_RATIO * max(speeds[r.quant] for r in faithful)
        fitting = [r for r in faithful if speeds[r.quant] >= enough]
    return min(fitting, key=divergence, default=None)
