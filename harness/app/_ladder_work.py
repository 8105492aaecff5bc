"""Make, score and time the rungs of a ladder, in a folder that may be kept so that an interrupted ladder goes on there.

All that a file in the folder depends on is in the name of its own folder there (the source's and the text's hashes, the
engine's version); what a result depends on beyond that stands in the result.
"""

from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple

import msgspec

from harness.app.calibration_change import calibration_change
from harness.app.rungs import Rung
from harness.catalog.fetch import check_room
from harness.catalog.gguf import read_gguf
from harness.catalog.paths import home_dir
from harness.domain.base import Frozen
from harness.domain.record import Phase, RunRecord
from harness.domain.scenario import Scenario
from harness.errors import CouldNotRunError, EngineError, InputError, RefusedError
from harness.measure.child import ChildResult, Limits, run_child
from harness.measure.file_hash import file_sha256
from harness.measure.lock import machine_lock
from harness.measure.machine import fingerprint
from harness.measure.runner import run_model
from harness.predict.weights import weights_of
from harness.records.store import write_atomically
from harness.runtimes.llamacpp.quality import Quality, QualityJob, load_columns
from harness.runtimes.llamacpp.quantize import NEED_IMPORTANCE, QuantizeJob

_QUANTIZE: Final = "harness.runtimes.llamacpp.quantize:run_quantize"
_IMPORTANCE: Final = "harness.runtimes.llamacpp.quantize:run_importance"
_QUALITY: Final = "harness.runtimes.llamacpp.quality:run_quality"
_TRY: Final = "harness.runtimes.llamacpp.quality:run_try"


class Asked(NamedTuple):
    """What is wanted of each rung.

    Attributes:
        chunk_count: Chunks of 512 tokens that are scored; 0 for all.
        scenario: Of the speed test; None for no speed test.
        repetitions: Of the speed test.
    """

    chunk_count: int
    scenario: Scenario | None
    repetitions: int


class KeptRung(Frozen, frozen=True, kw_only=True):
    """A rung as it is kept, with what its parts were measured under; an empty condition: not measured, or not well."""

    rung: Rung
    quality_under: str = ""
    speed_under: str = ""


class Workshop:
    """The rungs of one source.

    Args:
        source: GGUF file that is quantized.
        requantized: Its mixture where it is quantized already; else empty.
        text: Text to score on.
        folder: Where files are made.
        is_kept: Whether files and results stay there.
        limits: Of each child.
        say: Told what goes on.

    Raises:
        CouldNotRunError: The folder cannot be written.
    """

    def __init__(
        self,
        source: Path,
        requantized: str,
        text: Path,
        folder: Path,
        *,
        is_kept: bool,
        limits: Limits,
        say: Callable[[str], None],
    ) -> None:
        self.source, self.requantized, self.text = source.absolute(), requantized, text.absolute()
        self.limits, self.is_kept, self.say = limits, is_kept, say
        parts = [file_sha256(text)[:8]]
        if is_kept:
            from harness.runtimes.llamacpp.library import package_version

            parts = [file_sha256(source)[:12], *parts, package_version()]
        self.folder = folder.absolute() / "-".join([source.stem, *parts])
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CouldNotRunError(f"{folder}: cannot make files here ({error.strerror})") from error
        self._machine = fingerprint().fingerprint
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
        self._child(_TRY, {"model": str(self.reference), "text": str(self.text)})

    @property
    def reference(self) -> Path:
        """What the rungs are compared with."""
        return self.folder / "reference.gguf" if self.requantized else self.source

    def is_scored(self, quant: str, asked: Asked) -> bool:
        """Whether the folder has the quality of a rung."""
        return self._load(quant).quality_under == _quality_condition(asked)

    def rung(self, quant: str, asked: Asked) -> Rung:
        """One rung; whatever was measured before, under the same conditions, is taken from the folder.

        Raises:
            KeyboardInterrupt: Interrupted.
        """
        kept = self._load(quant)
        path = self.folder / f"{quant}.gguf"
        quality_under, speed_under = _quality_condition(asked), self._speed_condition(asked)
        try:
            if kept.quality_under != quality_under:
                rung = self._scored(quant, self._file(quant, path.name), asked.chunk_count)
                if kept.speed_under:  # the file is the same: its speed stays
                    rung = msgspec.structs.replace(rung, **_speed_fields(kept.rung))
                kept = msgspec.structs.replace(kept, rung=rung, quality_under=quality_under)
                self._save(quant, kept)
            elif self.is_kept:
                self.say(f"{quant}: quality kept from before")
            if asked.scenario is not None and kept.speed_under != speed_under:
                record = self._timed(self._file(quant, path.name), asked.scenario, asked.repetitions)
                rung = msgspec.structs.replace(kept.rung, **_speeds(record))
                under = speed_under if record.outcome == "ok" else ""
                kept = msgspec.structs.replace(kept, rung=rung, speed_under=under)
                self._save(quant, kept)
            elif asked.scenario is not None and self.is_kept:
                self.say(f"{quant}: speed kept from before")
        except (EngineError, OSError) as error:
            return Rung(quant=quant, outcome=str(error), requantized_from=self.requantized)
        finally:
            if not self.is_kept:
                path.unlink(missing_ok=True)
        return kept.rung

    def _scored(self, quant: str, path: Path, chunk_count: int) -> Rung:
        columns = self.folder / "columns.npz"
        job = QualityJob(
            model=str(path),
            text=str(self.text),
            reference=str(self.reference),
            columns=str(columns),
            chunk_count=chunk_count,
        )
        try:
            quality = self._child(_QUALITY, job)["quality"]
            own, base = load_columns(columns)
        finally:
            columns.unlink(missing_ok=True)
        tensors = read_gguf(path).tensors
        weight_count = sum(t.element_count for t in tensors)
        counts: dict[str, int] = {}
        for tensor in tensors:
            counts[tensor.type_name] = counts.get(tensor.type_name, 0) + tensor.element_count
        return Rung(
            quant=quant,
            size_bytes=path.stat().st_size,
            bits_per_weight=8 * sum(t.size_bytes for t in tensors) / weight_count,
            types={t: n / weight_count for t, n in sorted(counts.items(), key=lambda item: -item[1])},
            quality=msgspec.convert(quality, Quality),
            calibration=calibration_change(base, own),
            requantized_from=self.requantized,
            importance=quant in NEED_IMPORTANCE,
        )

    def _timed(self, path: Path, scenario: Scenario, repetitions: int) -> RunRecord:
        weights = read_gguf(path).weights()
        with machine_lock(home_dir() / "run.lock", on_wait=lambda who: self.say(f"waiting for {who} to finish")):
            record = run_model(
                path, weights, scenario, repetitions=repetitions, cold_loads=0, sha256="not hashed", limits=self.limits
            )
        if record.outcome == "interrupted":
            raise KeyboardInterrupt
        return record

    def _speed_condition(self, asked: Asked) -> str:
        scenario = msgspec.json.encode(asked.scenario).decode()
        return f"{asked.repetitions} repetitions of {scenario} on {self._machine}"

    def _file(self, quant: str, name: str) -> Path:
        """A file of the mixture, made under another name first: what bears its name is whole."""
        path, part = self.folder / name, self.folder / f"{name}.part"
        if path.exists():
            return path
        importance = str(self._importance()) if quant in NEED_IMPORTANCE else ""
        self._check_room(quant)
        self.say(f"{quant}: making")
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
        self.say("collecting an importance matrix")
        job = {"model": str(self.source), "text": str(self.text), "target": str(part)}
        return self._made(path, part, _IMPORTANCE, job)

    def _made(self, path: Path, part: Path, target: str, job: dict[str, Any] | msgspec.Struct) -> Path:
        """The file that a child writes as ``part``, under its name once it is whole."""
        try:
            self._child(target, job)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        return path

    def _child(self, target: str, arguments: dict[str, Any] | msgspec.Struct) -> dict[str, Any]:
        result = run_child(target, arguments, limits=self.limits)
        if result.outcome == "interrupted":
            raise KeyboardInterrupt
        if result.outcome != "ok":
            raise _error_of(result)
        return dict(result.events)

    def _load(self, quant: str) -> KeptRung:
        nothing = KeptRung(rung=Rung(quant=quant))
        path = self.folder / f"{quant}.json"
        if not self.is_kept or not path.exists():
            return nothing
        try:
            return msgspec.json.decode(path.read_bytes(), type=KeptRung)
        except (OSError, msgspec.MsgspecError) as error:
            self.say(f"{path}: measured anew, unreadable ({error})")
            return nothing

    def _save(self, quant: str, kept: KeptRung) -> None:
        if self.is_kept:
            write_atomically(self.folder / f"{quant}.json", msgspec.json.encode(kept))


def _quality_condition(asked: Asked) -> str:
    return f"{asked.chunk_count} chunks"


_SPEED_FIELDS: Final = ("decode_tokens_per_s", "prefill_tokens_per_s", "peak_memory_bytes", "speed_outcome")


def _speed_fields(rung: Rung) -> dict[str, Any]:
    return {name: getattr(rung, name) for name in _SPEED_FIELDS}


def _error_of(result: ChildResult) -> RefusedError | EngineError:
    """What a child's failure is: input that no rung could take, or a failure of the engine."""
    told = next((data for name, data in reversed(result.events) if name == "error"), None) or {}
    if told.get("kind") == "RefusedError":
        return RefusedError(result.detail)
    return EngineError(f"{result.outcome}: {result.detail}")


def _speeds(record: RunRecord) -> dict[str, Any]:
    """Medians of what was measured, disturbed samples too when there are no others, and how it went."""
    rates: dict[str, Any] = dict.fromkeys(_SPEED_FIELDS)
    first_line = record.detail.partition("\n")[0]
    rates["speed_outcome"] = (
        record.outcome if record.outcome in {"ok", "inconclusive"} else (f"{record.outcome}: {first_line}")
    )
    wanted: tuple[tuple[Phase, str], ...] = (("decode", "decode_tokens_per_s"), ("prefill", "prefill_tokens_per_s"))
    for phase, name in wanted:
        samples = record.believed(phase) or [s for s in record.samples if s.phase == phase and not s.warm_up]
        if samples:
            rates[name] = median(s.token_count / s.duration_s for s in samples)
    memory = record.memory
    if memory is not None:
        rates["peak_memory_bytes"] = memory.peak_pss_bytes or memory.peak_rss_bytes
    return rates
