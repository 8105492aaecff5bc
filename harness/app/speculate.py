"""Speculative decoding beside plain decoding, on the same prompts, in one child process."""

import json
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from statistics import median
from typing import Any, Final

import msgspec

from harness.app._speculation_job import Advice, SpeculationJob, speedup
from harness.domain.base import Frozen
from harness.domain.record import MemoryUse
from harness.domain.scenario import Scenario
from harness.errors import BadDataError, EngineError, RefusedError
from harness.measure.child import Limits, run_child
from harness.runtimes.llamacpp.draft_policy import CostTable
from harness.runtimes.llamacpp.quantize import QuantizeJob
from harness.runtimes.llamacpp.speculative import Generation, total

TARGET: Final = "harness.app._speculation_job:run"
PROMPT_CLASSES: Final = ("code", "prose")


class SpeculationResult(Frozen, frozen=True, kw_only=True):
    """What came out.

    Attributes:
        target: Target model file.
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
        answers: Speed ratio of each prompt.
        differences: Where greedy outputs differ, with the logit margin that explains it.
        unexplained_count: Differences that no margin explains; must be 0.
        memory: Memory of the child: both models.
    """

    target: str
    draft: str
    advice: Advice
    plain: Generation
    speculative: Generation
    speedup_ratio: float
    median_ratio: float
    expected_ratio: float
    fixed_ratio: float
    acceptance_ratio: float
    acceptance_by_position: tuple[float, ...]
    answers: tuple[float, ...]
    differences: tuple[dict[str, Any], ...]
    unexplained_count: int
    memory: MemoryUse


def load_prompts(source: str) -> tuple[str, ...]:
    """Prompts of a shipped class (``code``, ``prose``), or of a JSON file with a list of strings.

    Raises:
        BadDataError: The file is no such list.
    """
    if source in PROMPT_CLASSES:
        text = (files("harness") / "data" / "prompts" / f"{source}.json").read_text(encoding="utf-8")
    else:
        try:
            text = Path(source).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BadDataError(source, "", str(error), "a JSON file with a list of prompts") from error
    try:
        prompts = json.loads(text)
    except json.JSONDecodeError as error:
        raise BadDataError(source, "", str(error), "a JSON list of strings") from error
    if not isinstance(prompts, list) or not prompts or not all(isinstance(p, str) and p for p in prompts):
        raise BadDataError(source, "", type(prompts).__name__, "a JSON list of non-empty strings")
    return tuple(prompts)


def requantized(source: Path, folder: Path, quant: str, *, pure: bool = False) -> Path:
    """A coarser copy of a model in ``folder``, made once.

    Of the target itself it is a draft with the same vocabulary and no other model needed. ``pure`` gives every matrix
    the one type, the output matrix too: of a draft, whose output only has to be guessed from, that is the fastest form.

    Raises:
        EngineError: The quantizer failed.
    """
    about = source.stat()
    path = folder / f"{source.stem}-{quant}{'-pure' if pure else ''}-{about.st_size}-{about.st_mtime_ns}.gguf"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    job = QuantizeJob(source=str(source.absolute()), target=str(part), quant=quant, pure=pure)
    result = run_child("harness.runtimes.llamacpp.quantize:run_quantize", job)
    if result.outcome != "ok":
        part.unlink(missing_ok=True)
        raise EngineError(f"{result.outcome}: {result.detail}")
    part.replace(path)
    return path


def speculate(
    target: Path,
    drafts: Sequence[Path],
    prompts: Sequence[str],
    *,
    scenario: Scenario | None = None,
    new_tokens: int = 96,
    draft_tokens: int = 0,
    temperature: float = 0.0,
    seed: int = 0,
    limits: Limits = Limits(),  # noqa: B008  an immutable tuple
    on_advice: Callable[[Advice], None] | None = None,
) -> SpeculationResult:
    """Measure the costs, say whether speculation will pay, then run every prompt both ways.

    Args:
        target: Model whose output is wanted.
        drafts: Draft models to choose from, by what each is expected to give; none for prompt lookup.
        prompts: Texts; the first four are the pilot's where there are at least eight.
        scenario: Context and so on; 1024 tokens of context when None.
        new_tokens: Tokens generated after each prompt.
        draft_tokens: Fixed draft length; 0 for adaptive.
        temperature: 0 for greedy.
        seed: Of sampling.
        limits: Of the child.
        on_advice: Called with the advice before the run itself begins.

    Raises:
        RefusedError: The vocabularies differ, or a prompt does not fit the context.
        EngineError: The engine failed.
    """
    job = SpeculationJob(
        target=str(target.absolute()),
        drafts=tuple(str(draft.absolute()) for draft in drafts) or ("lookup",),
        prompts=tuple(prompts),
        scenario=scenario or Scenario(context_tokens=1024),
        new_tokens=new_tokens,
        draft_tokens=draft_tokens,
        temperature=temperature,
        seed=seed,
    )

    def hear(event: str, data: Any) -> None:
        if event == "advice" and on_advice:
            on_advice(msgspec.convert(data, Advice, strict=False))

    result = run_child(TARGET, job, limits=limits, on_event=hear)
    if result.outcome != "ok":
        error: dict[str, Any] = next((data for name, data in result.events if name == "error"), {})
        raise (RefusedError if error.get("kind") == "RefusedError" else EngineError)(result.detail)
    advice = msgspec.convert(next(d for n, d in result.events if n == "advice"), Advice, strict=False)
    answers = [d for n, d in result.events if n == "answer"]
    slow = [msgspec.convert(a["plain"], Generation) for a in answers]
    fast = [msgspec.convert(a["speculative"], Generation) for a in answers]
    differences = tuple({"prompt": i, **a["difference"]} for i, a in enumerate(answers) if a["difference"])
    return summarise(target.name, advice.draft, advice, slow, fast, differences, result.memory)


def summarise(
    target: str,
    draft: str,
    advice: Advice,
    slow: Sequence[Generation],
    fast: Sequence[Generation],
    differences: tuple[dict[str, Any], ...],
    memory: MemoryUse,
) -> SpeculationResult:
    """All figures from the answers."""
    plain_sum, fast_sum = total(slow), total(fast)
    tried, accepted = sum(fast_sum.tried_by_position), sum(fast_sum.accepted_by_position)
    ratio = accepted / tried if tried else 0.0
    costs = CostTable(advice.verify_s, advice.draft_s)
    expected_s = sum(costs.verify_s(n + 1) + n * advice.draft_s for n in fast_sum.lengths)
    length = advice.draft_tokens
    ratios = [f.tokens_per_s / s.tokens_per_s for f, s in zip(fast, slow, strict=True)]
    return SpeculationResult(
        target=target,
        draft=draft,
        advice=advice,
        plain=plain_sum,
        speculative=fast_sum,
        speedup_ratio=fast_sum.tokens_per_s / plain_sum.tokens_per_s,
        median_ratio=median(ratios),
        expected_ratio=fast_sum.decoded_count * advice.verify_s[1] / expected_s,
        fixed_ratio=speedup(length, ratio, advice.verify_s, advice.draft_s) if length else 1.0,
        acceptance_ratio=ratio,
        acceptance_by_position=tuple(
            a / t for a, t in zip(fast_sum.accepted_by_position, fast_sum.tried_by_position, strict=True) if t
        ),
        answers=tuple(ratios),
        differences=differences,
        unexplained_count=sum(not d["explained"] for d in differences),
        memory=memory,
    )
