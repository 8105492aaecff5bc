"""Speculative decoding beside plain decoding, on the same prompts, in one child process."""

from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Final

import msgspec

from harness.catalog.file_hash import sha256_of
from harness.catalog.gguf import read_weights
from harness.catalog.paths import cache_dir
from harness.domain.drafting import Decoding, DraftAdvice
from harness.domain.foreign import json_of, read_limited, typed
from harness.domain.record import RunRecord
from harness.domain.result import Result, Speculation
from harness.errors import BadDataError
from harness.measure.child import ChildResult, Limits
from harness.measure.jobs.speculate import SpeculationJob
from harness.measure.jobs.stream import StreamJob
from harness.measure.pipeline import How, Measurement, Pipeline, engine_of, key_of, make
from harness.measure.runner import identify
from harness.runtimes.llamacpp.speculative import CostTable, total

PROMPT_CLASSES: Final = ("code", "prose")
_PROMPTS: Final[Any] = Annotated[
    tuple[Annotated[str, msgspec.Meta(min_length=1)], ...], msgspec.Meta(min_length=1)
]


def load_prompts(source: str, count: int | None = None) -> tuple[str, ...]:
    """Prompts of a shipped class (``code``, ``prose``), or of a JSON file with a list of strings.

    The first ``count``.

    Raises:
        BadDataError: The file is no such list, or a shorter one.
    """
    shipped = files("harness") / "data" / "prompts" / f"{source}.json"
    data = read_limited(shipped if source in PROMPT_CLASSES else Path(source))
    prompts: tuple[str, ...] = typed(
        json_of(data, source, "a JSON list of non-empty strings"), _PROMPTS, source
    )
    if len(prompts) < (count or 1):
        raise BadDataError(source, "", f"{len(prompts)} prompts", f"at least {count or 1}")
    return prompts[:count]


def fastest_copy(draft: Path, limits: Limits = Limits()) -> Path:  # noqa: B008
    """A draft with every matrix in plain Q4_0, the output matrix too: made once, and kept in the cache.

    Of a draft, whose output only has to be guessed from, that is the fastest form. The limits are the
    quantizer's.

    Raises:
        RefusedError: The quantizer does not take the file.
        EngineError: The quantizer failed.
    """
    about = draft.stat()
    of_source = (
        f"{about.st_size}-{about.st_mtime_ns}"  # in the folder: the file's name is what people are shown
    )
    path = cache_dir() / "drafts" / of_source / f"{draft.stem}-Q4_0-pure.gguf"
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    job = {"source": str(draft.absolute()), "quant": "Q4_0", "pure": True}
    return make("harness.runtimes.llamacpp.quantize:run_quantize", job, path, limits=limits)


def speculate(
    job: SpeculationJob, *, how: How = How(), on_advice: Callable[[DraftAdvice], None] | None = None
) -> RunRecord:
    """Measure the costs, say whether speculation will pay, then run every prompt both ways.

    The first four prompts are the pilot's where there are at least eight; ``on_advice`` is told before the
    run begins. The record's result is a :class:`~harness.domain.result.Speculation`; different vocabularies,
    a prompt that does not fit the context and a failure of the engine are its outcome.

    Raises:
        BadDataError: The target is no GGUF file.
        CouldNotRunError: Another measured run held the machine for too long.
    """
    target = Path(job.target).absolute()
    beside = [] if job.draft == "lookup" else [Path(job.draft).absolute()]
    job = job.replace(target=str(target), draft=str(beside[0]) if beside else job.draft)

    def hear(event: str, data: Any) -> None:
        if event == "advice" and on_advice:
            on_advice(msgspec.convert(data, DraftAdvice, strict=False))

    count = len(job.split()[1]) * job.repetitions
    return measure_file("speculate", job, target, beside, read, wanted_count=count, how=how, on_event=hear)


def measure_file(
    workload: str,
    job: SpeculationJob | StreamJob,
    path: Path,
    beside: Sequence[Path],
    read: Callable[[ChildResult], Result | None],
    *,
    wanted_count: int,
    how: How,
    on_event: Callable[[str, Any], None] | None = None,
) -> RunRecord:
    """Measure a GGUF file, and other files ``beside`` it, by the job of that name.

    Errors as :func:`speculate`.
    """
    model = identify(path, read_weights(path))
    with Pipeline(how) as pipeline:
        hashes = [sha256_of(other) for other in beside]
        plan = Measurement(
            workload=workload,
            entry=f"harness.measure.jobs.{workload}:run",
            job=job,
            scenario=job.scenario,
            read=read,
            runtime="llamacpp",
            model=model,
            wanted_count=wanted_count,
            key=key_of(
                workload, engine_of("llamacpp"), model.sha256, *hashes, job, pipeline.machine.fingerprint
            ),
        )
        pipeline.heard.begin(path.stem, wanted_count * (2 if workload == "speculate" else 1))
        return pipeline.measure(plan, on_event=on_event)


def read(ended: ChildResult) -> Speculation | None:
    """What the child found, over the prompts that it got through; None when it got through none."""
    advices = ended.told("advice")
    answers = ended.told("answer")
    if not advices or not answers:
        return None
    slow = [msgspec.convert(a["plain"], Decoding) for a in answers]
    fast = [msgspec.convert(a["speculative"], Decoding) for a in answers]
    differences = tuple({"prompt": i, **a["difference"]} for i, a in enumerate(answers) if a["difference"])
    advice = msgspec.convert(advices[0], DraftAdvice, strict=False)
    plain_sum = total(slow)
    fast_sum = total(fast)
    by_position = list(zip(fast_sum.accepted_by_position, fast_sum.tried_by_position, strict=True))
    tried = sum(fast_sum.tried_by_position)
    if tried:
        ratio = sum(fast_sum.accepted_by_position) / tried
    else:
        ratio = 0.0
    costs = CostTable(advice.verify_s, advice.draft_s)
    expected_s = sum(costs.verify_s(n + 1) + n * advice.draft_s for n in fast_sum.lengths)
    ratios = [f.tokens_per_s / s.tokens_per_s for f, s in zip(fast, slow, strict=True)]
    return Speculation(
        draft=advice.draft,
        advice=advice,
        plain=plain_sum,
        speculative=fast_sum,
        speedup_ratio=fast_sum.tokens_per_s / plain_sum.tokens_per_s,
        median_ratio=median(ratios),
        expected_ratio=fast_sum.decoded_count * advice.verify_s[1] / expected_s,
        acceptance_ratio=ratio,
        acceptance_by_position=tuple(a / t for a, t in by_position if t),
        ratios=tuple(ratios),
        differences=differences,
        unexplained_count=sum(not d["explained"] for d in differences),
    )
