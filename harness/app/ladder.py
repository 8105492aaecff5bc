"""The quantisation ladder of one model: size, speed, memory, quality and calibration of every rung."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from harness.app.run import hashed
from harness.catalog.fetch import check_room
from harness.catalog.gguf import read_gguf
from harness.domain.quality import TextScore
from harness.domain.record import RunRecord
from harness.domain.result import Quality
from harness.domain.scenario import Scenario
from harness.errors import BadDataError, CouldNotRunError, EngineError, InputError, RefusedError
from harness.measure.child import ChildResult, Limits
from harness.measure.jobs.generate import plan as plan_generation
from harness.measure.jobs.score import QualityJob, load_columns
from harness.measure.pipeline import How, Listener, Measurement, Pipeline, events_named, key_of, prepare
from harness.measure.protocol import GenerateJob
from harness.measure.runner import identify
from harness.predict.weights import weights_of
from harness.records.ladder import Ladder, Rung, describe, mark_frontier, reference_of, rung_of
from harness.runtimes.llamacpp import RUNTIME
from harness.runtimes.llamacpp.quantize import NEED_IMPORTANCE, QUANTS, QuantizeJob
from harness.stats.calibration.paired import calibration_change

DEFAULT_QUANTS: Final = (
    *("F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0", "IQ4_XS", "Q3_K_M", "IQ3_XXS"),
    *("Q2_K", "IQ2_M", "IQ2_XXS", "TQ2_0", "TQ1_0", "IQ1_S"),
)
_QUANTIZE: Final = "harness.runtimes.llamacpp.quantize:run_quantize"
_IMPORTANCE: Final = "harness.runtimes.llamacpp.quantize:run_importance"
_SCORE: Final = "harness.measure.jobs.score:run_quality"
_TRY: Final = "harness.measure.jobs.score:run_try"


class Asked(NamedTuple):
    """What is wanted of each rung.

    Attributes:
        chunk_count: Chunks of 512 tokens that are scored; 0 for all.
        scenario: Of the speed test; None for no speed test.
    """

    chunk_count: int = 8
    scenario: Scenario | None = Scenario(context_tokens=1024, prompt_tokens=512, new_tokens=64)
    repetitions: int = 3
    limits: Limits = Limits()


class Climbed(NamedTuple):
    """A ladder and the records it was made from: a quality and a speed for each rung that ran."""

    ladder: Ladder
    records: list[RunRecord]


def ladder(
    source: Path,
    quants: Sequence[str] = DEFAULT_QUANTS,
    *,
    text: Path | None = None,
    asked: Asked = Asked(),  # noqa: B008  an immutable tuple
    folder: Path | None = None,
    keep: Path | None = None,
    how: How = How(),  # noqa: B008  an immutable tuple
    listener: Listener | None = None,
) -> Climbed:
    """Make every rung from ``source``, score it, run it, and remove it again.

    The reference of all comparisons is the source as the quantizer unpacks it: F16 made from it when it is quantized
    itself, else the source. A rung that cannot be made, or does not run, is a record with its reason.

    Args:
        source: GGUF file, the less quantized the better.
        quants: Rungs.
        text: Text to score on; None for the one that ships.
        asked: What is measured of each rung.
        folder: Where files are made and removed again; a temporary one when None.
        keep: Folder where files stay instead. The quantized files, the reference's and the importance matrix take room.
        how: How records are made and kept; with ``resume``, what was measured within a day is not measured again.
        listener: Who is told.

    Raises:
        RefusedError: A name is no mixture, the weights are synthetic (their quality means nothing), the source is no
            language model, the text is too short, or both folders are given.
        BadDataError: The source is no GGUF file, or the text no UTF-8.
        CouldNotRunError: llama.cpp is not installed, or the folder cannot be written.
        EngineError: The reference could not be made or does not run.
        KeyboardInterrupt: Interrupted; what is done is in the history.
    """
    unknown = [q for q in quants if q not in QUANTS]
    if unknown:
        raise RefusedError(f"no quantisation {unknown[0]!r}; one of: {', '.join(QUANTS)}")
    if reason := RUNTIME.missing():
        raise CouldNotRunError(reason)
    if folder is not None and keep is not None:
        raise RefusedError("a folder to keep files in and one to remove them from: give one of them")
    source_quant = _source_quant(source)
    requantized = "" if source_quant in {"F32", "F16", "BF16"} else source_quant
    with (
        _folder(folder, keep) as place,
        as_file(files("harness") / "data" / "text" / "python-reference.txt") as shipped,
        Pipeline(how, listener) as pipeline,
    ):
        read = text or shipped
        _check_text(read)
        shop = Workshop(source, requantized, read, place, keep is not None, asked, pipeline)
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
    return Climbed(told, records)


class Workshop:
    """Makes, scores and times the rungs of one source, in a folder.

    All that a file in the folder depends on is in the name of its own folder there (hashes of the source and the text,
    version of the engine); what a result depends on beyond that is in the key of its record. ``requantized`` is the
    source's mixture where it is quantized already, else empty.

    Raises:
        CouldNotRunError: The folder cannot be written.
    """

    def __init__(
        self, source: Path, requantized: str, text: Path, folder: Path, is_kept: bool, asked: Asked, pipeline: Pipeline
    ) -> None:
        from harness.runtimes.llamacpp.library import package_version

        self.source, self.requantized, self.text = source.absolute(), requantized, text.absolute()
        self.reference_quant = "F16" if requantized else read_gguf(source).weights().quant
        self.is_kept, self.asked, self.pipeline = is_kept, asked, pipeline
        self._made_from = "-".join([source.stem, hashed(source)[:12], hashed(text)[:8], package_version()])
        self.folder = folder.absolute() / self._made_from
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CouldNotRunError(f"{folder}: cannot make files here ({error.strerror})") from error
        self._shape = read_gguf(source).shape()

    def prepare(self) -> None:
        """Make what the rungs are compared with (the source, or F16 made from it) and try it, and the text with it.

        Raises:
            RefusedError: It is no language model, or the text is too short.
            EngineError: The engine failed on it.
            KeyboardInterrupt: Interrupted.
        """
        if self.requantized:
            self._file("F16", self.reference.name)
        prepare(_TRY, {"model": str(self.reference), "text": str(self.text)}, limits=self.asked.limits)

    @property
    def reference(self) -> Path:
        """What the rungs are compared with."""
        return self.folder / "reference.gguf" if self.requantized else self.source

    def quality_key(self, quant: str) -> str:
        """Key of the record of a rung's quality."""
        return key_of("quality", self._made_from, quant, self.asked.chunk_count, self.pipeline.machine.fingerprint)

    def _speed_key(self, quant: str) -> str:
        machine = self.pipeline.machine.fingerprint
        return key_of("speed", self._made_from, quant, self.asked.scenario, self.asked.repetitions, machine)

    def rung(self, quant: str) -> tuple[Rung, list[RunRecord]]:
        """One rung and its records.

        Raises:
            KeyboardInterrupt: Interrupted.
        """
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
        counts: dict[str, int] = {}
        for tensor in tensors:
            counts[tensor.type_name] = counts.get(tensor.type_name, 0) + tensor.element_count

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
                types={t: n / weight_count for t, n in sorted(counts.items(), key=lambda item: -item[1])},
                score=msgspec.convert(found[0], TextScore),
                calibration=calibration_change(base, own),
                importance=quant in NEED_IMPORTANCE,
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
            entry=_SCORE,
            job=job,
            scenario=Scenario(context_tokens=job.chunk_tokens),
            read=read,
            runtime="llamacpp",
            model=self._identity(quant, path),
            limits=self.asked.limits,
            key=self.quality_key(quant),
        )
        self.pipeline.heard.begin(f"{quant}: quality", self.asked.chunk_count)
        try:
            return _not_interrupted(self.pipeline.measure(plan))
        finally:
            columns.unlink(missing_ok=True)

    def _timed(self, quant: str, scenario: Scenario) -> RunRecord:
        path = self._file(quant, f"{quant}.gguf")
        plan = plan_generation(
            GenerateJob(path=str(path), scenario=scenario, repetitions=self.asked.repetitions, cold_loads=0),
            read_gguf(path).weights(),
            hash_of=hashed,
            limits=self.asked.limits,
            key=self._speed_key(quant),
        )
        self.pipeline.heard.begin(f"{quant}: speed", 3 * (self.asked.repetitions + 1))
        return _not_interrupted(self.pipeline.measure(plan._replace(model=self._identity(quant, path))))

    def _identity(self, quant: str, path: Path) -> Any:
        identity = identify(path, read_gguf(path).weights(), name=self.source.stem, sha256=hashed(path))
        return msgspec.structs.replace(identity, quant=quant, requantized_from=self.requantized)

    def _file(self, quant: str, name: str) -> Path:
        """A file of the mixture, made under another name first: what bears its name is whole."""
        path, part = self.folder / name, self.folder / f"{name}.part"
        if path.exists():
            return path
        importance = str(self._importance()) if quant in NEED_IMPORTANCE else ""
        self._check_room(quant)
        self.pipeline.heard.say(f"{quant}: making")
        job = QuantizeJob(source=str(self.source), target=str(part), quant=quant, importance=importance)
        return self._made(path, part, _QUANTIZE, job)

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

    def _importance(self) -> Path:
        """The importance matrix, collected once, on the second half of the text; scoring begins with the first."""
        path, part = self.folder / "importance.npz", self.folder / "importance.part.npz"
        if path.exists():
            return path
        self.pipeline.heard.say("collecting an importance matrix")
        job = {"model": str(self.source), "text": str(self.text), "target": str(part)}
        return self._made(path, part, _IMPORTANCE, job)

    def _made(self, path: Path, part: Path, entry: str, job: dict[str, Any] | msgspec.Struct) -> Path:
        """The file that a child writes as ``part``, under its name once it is whole."""
        try:
            prepare(entry, job, limits=self.asked.limits)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        return path


def _not_interrupted(record: RunRecord) -> RunRecord:
    if record.outcome == "interrupted":
        raise KeyboardInterrupt
    return record


def _source_quant(source: Path) -> str:
    """Mixture of a file that a ladder can be made from."""
    header = read_gguf(source)
    if header.synthetic:
        raise RefusedError(f"{source.name} has synthetic weights: it has speed and size, but no quality to measure")
    if header.metadata.get(f"{header.architecture}.attention.causal") is False:
        raise RefusedError(f"{source.name} ({header.architecture}) is no language model: it predicts no next token")
    return header.weights().quant


@contextmanager
def _folder(scratch: Path | None, keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        yield keep
        return
    try:
        made = tempfile.TemporaryDirectory(prefix="edge-harness-ladder-", dir=scratch)
    except OSError as error:
        raise CouldNotRunError(f"{scratch or 'temporary folder'}: cannot make files here ({error.strerror})") from error
    with made as path:
        yield Path(path)


def _check_text(path: Path) -> None:
    try:
        path.read_text(encoding="utf-8")
    except OSError as error:
        raise BadDataError(path, "", f"unreadable ({error.strerror})", "a text file") from error
    except UnicodeDecodeError as error:
        raise BadDataError(path, f"byte {error.start}", "no UTF-8", "a text file in UTF-8") from error
