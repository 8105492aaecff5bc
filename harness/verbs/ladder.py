"""The quantisation ladder of one model: each quantisation is made, scored beside the source, run and removed again."""

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.resources import as_file, files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

from harness.core.base import REFERENCE
from harness.core.errors import BadDataError, CouldNotRunError, EngineError, InputError, RefusedError
from harness.core.foreign import read_limited
from harness.core.model import Weights
from harness.core.quality import CalibrationChange, TextScore
from harness.core.record import ModelIdentity, Record
from harness.core.result import Quality
from harness.core.scenario import Scenario
from harness.measure.child import ChildResult
from harness.measure.jobs.generate import plan as plan_generation
from harness.measure.jobs.score import CHUNK_TOKENS, QualityJob
from harness.measure.pipeline import How, Measurement, Pipeline, engine_of, key_of, make
from harness.measure.protocol import GenerateJob
from harness.measure.runner import identify
from harness.models.fetch import check_room
from harness.models.file_hash import sha256_of
from harness.models.gguf import read_gguf
from harness.models.quant import MIXTURES
from harness.models.quant_mix import NEEDS_IMPORTANCE_MATRIX
from harness.models.weights import weights_of
from harness.records.ladder import rungs_of
from harness.runtimes.llamacpp import RUNTIME
from harness.runtimes.llamacpp.library import brought_by
from harness.runtimes.llamacpp.quantize import QUANTS

DEFAULT_QUANTS: Final = tuple(name for name, one in MIXTURES.items() if "rung" in one.flags)


class LadderRequest(NamedTuple):
    """What is wanted of each rung: chunks of 512 tokens to score (0: all), and a speed test."""

    chunk_count: int = 8
    scenario: Scenario | None = Scenario(context_tokens=1024, prompt_tokens=512, new_tokens=64)
    repetitions: int = 3


def ladder(
    source: Path,
    quants: Sequence[str] = DEFAULT_QUANTS,
    *,
    text: Path | None = None,
    asked: LadderRequest = LadderRequest(),
    keep: Path | None = None,
    how: How = How(),
) -> list[Record]:
    """Make every rung from ``source``, score it, run it, and remove it again: a record of its quality, and of its speed.

    The reference of all comparisons is the source as the quantizer unpacks it: F16 made from it when it is
    quantized itself, else the source. A rung that cannot be made, or does not run, is a record with its
    reason. Without ``text`` the one that ships is scored. Files are made in a temporary folder, or stay in
    ``keep``.

    Raises:
        RefusedError: A name is no mixture, the weights are synthetic (their quality means nothing), the
            source is no language model, or the text is too short.
        BadDataError: The source is no GGUF file, or the text no UTF-8.
        CouldNotRunError: llama.cpp is not installed, or the folder cannot be written.
        KeyboardInterrupt: Interrupted; what is done is in the history.
    """
    if unknown := [q for q in quants if q not in QUANTS]:
        raise RefusedError(f"no quantisation {unknown[0]!r}; one of: {', '.join(QUANTS)}")
    if reason := RUNTIME.missing():
        raise CouldNotRunError(reason)
    header = read_gguf(source)
    if header.synthetic:
        raise RefusedError(
            f"{source.name} has synthetic weights: it has speed and size, but no quality to measure"
        )
    if header.metadata.get(f"{header.architecture}.attention.causal") is False:
        raise RefusedError(
            f"{source.name} ({header.architecture}) is not a language model: it predicts no next token"
        )
    records = []
    with ExitStack() as stack:
        path = text or stack.enter_context(as_file(files("harness") / REFERENCE))
        try:
            read_limited(path).decode()
            made_from = (
                source.stem,
                sha256_of(source)[:12],
                sha256_of(path)[:8],
                brought_by("").replace(" ", "-"),
            )
            place = keep or Path(stack.enter_context(TemporaryDirectory(prefix="edge-harness-ladder-")))
            folder = place.absolute() / "-".join(made_from)
            folder.mkdir(parents=True, exist_ok=True)
        except UnicodeDecodeError as error:
            raise BadDataError(path, f"byte {error.start}", "no UTF-8", "a text file in UTF-8") from error
        except OSError as error:
            raise CouldNotRunError(
                f"{keep or 'temporary folder'}: cannot make files here ({error.strerror})"
            ) from error
        pipeline = stack.enter_context(Pipeline(how))
        shop = _Workshop(source.absolute(), path.absolute(), folder, header.weights(), asked, pipeline)
        for index, quant in enumerate(quants):
            pipeline.heard.plan((len(quants) - index) * (1 + bool(asked.scenario)))
            made = shop.rung(quant)
            if keep is None:
                (folder / f"{quant}.gguf").unlink(missing_ok=True)
            for rung in rungs_of(made):
                pipeline.heard.say(f"{rung.quant}: {rung.outcome}")
            records += made
    return records


class _Workshop(NamedTuple):
    """Makes, scores and times the rungs of one source, in a folder.

    All that a file in the folder depends on is in the folder's name (hashes of the source and the text, version
    of the engine); what a result depends on beyond that is in the key of its record.
    """

    source: Path
    text: Path
    folder: Path
    weights: Weights
    asked: LadderRequest
    pipeline: Pipeline

    @property
    def requantized_from(self) -> str:
        """The source's quantisation, where it has one."""
        return "" if self.weights.quant in {"F32", "F16", "BF16"} else self.weights.quant

    def rung(self, quant: str) -> list[Record]:
        """The records of one rung: its quality, and its speed where that is asked for.

        A resumed ladder takes the records that it has already.
        """
        machine = self.pipeline.machine.fingerprint
        asked = self.asked
        quality_key = key_of("quality", self.folder.name, quant, asked.chunk_count, machine)
        try:
            records = [self.pipeline.reused(quality_key, quant) or self._scored(quant, quality_key)]
            if records[0].outcome == "refused":  # for the text or the model: it holds for every rung
                raise RefusedError(records[0].detail)
            if records[0].result is not None and (scenario := asked.scenario) is not None:
                told = scenario, asked.repetitions, engine_of("llamacpp"), machine
                key = key_of("speed", self.folder.name, quant, *told)
                records.append(self.pipeline.reused(key, quant) or self._timed(quant, scenario, key))
        except (EngineError, OSError) as error:
            named = {"model": self.source.stem, "quant": quant}
            return [self.pipeline.not_run("quality", Scenario(), "failed", str(error), named)]
        if any(record.outcome == "interrupted" for record in records):
            raise KeyboardInterrupt
        return records

    def _scored(self, quant: str, key: str) -> Record:
        if self.requantized_from:
            reference = self._file("F16", "reference.gguf")
        else:
            reference = self.source
        path = self._file(quant, f"{quant}.gguf")
        weights = read_gguf(path).weights()
        counts: Counter[str] = Counter()
        for tensor in weights.tensors:
            counts[tensor.type_name] += tensor.element_count

        def read(ended: ChildResult) -> Quality | None:
            scores = ended.told("quality", TextScore)
            changes = ended.told("calibration", CalibrationChange)
            if not scores:
                return None
            return Quality(
                text=self.text.name,
                chunk_count=self.asked.chunk_count,
                bits_per_weight=8 * weights.tensor_bytes / weights.weight_count,
                types={t: n / weights.weight_count for t, n in counts.most_common()},
                score=scores[0],
                calibration=changes[0],
                importance=quant in NEEDS_IMPORTANCE_MATRIX,
            )

        files_of = {"model": path, "text": self.text, "reference": reference}
        plan = Measurement(
            workload="quality",
            entry="harness.measure.jobs.score:run_quality",
            job=QualityJob(
                **{name: str(file) for name, file in files_of.items()},
                chunk_count=self.asked.chunk_count,
            ),
            scenario=Scenario(context_tokens=CHUNK_TOKENS),
            read=read,
            runtime="llamacpp",
            model=self._identity(quant, path),
            key=key,
        )
        self.pipeline.heard.begin(f"{quant}: quality", self.asked.chunk_count)
        return self.pipeline.measure(plan)

    def _timed(self, quant: str, scenario: Scenario, key: str) -> Record:
        path = self._file(quant, f"{quant}.gguf")
        repetitions = self.asked.repetitions
        self.pipeline.heard.begin(f"{quant}: speed", 3 * (repetitions + 1))
        job = GenerateJob(path=str(path), scenario=scenario, repetitions=repetitions, cold_loads=0)
        plan = plan_generation(job, read_gguf(path).weights(), key=key)
        return self.pipeline.measure(plan._replace(model=self._identity(quant, path)))

    def _identity(self, quant: str, path: Path) -> ModelIdentity:
        identity = identify(path, read_gguf(path).weights(), name=self.source.stem)
        return identity.replace(quant=quant, requantized_from=self.requantized_from)

    def _file(self, quant: str, name: str) -> Path:
        """A file of the rung's folder, made once; EngineError where the quantizer or the disk cannot."""
        if (self.folder / name).exists():
            return self.folder / name
        job = {"source": str(self.source), "quant": quant}
        if quant in NEEDS_IMPORTANCE_MATRIX:
            # Collected once, on the second half of the text; scoring begins with the first.
            of_text = {"model": str(self.source), "text": str(self.text)}
            job["importance"] = str(self._made("importance.npz", "run_importance", of_text))
        try:
            needed_bytes = weights_of(self.weights.shape, quant).tensor_bytes
            check_room(self.folder, needed_bytes, advice="--keep names a folder on another disk")
        except RefusedError as error:
            raise EngineError(f"{quant} was not made: {error}") from error
        except InputError:  # no table of tensors for this shape: the quantizer finds out
            pass
        return self._made(name, "run_quantize", job)

    def _made(self, name: str, entry: str, job: dict[str, str]) -> Path:
        path = self.folder / name
        if not path.exists():
            self.pipeline.heard.say(f"making {name}")
            make(f"harness.runtimes.llamacpp.quantize:{entry}", job, path, limits=self.pipeline.how.limits)
        return path
