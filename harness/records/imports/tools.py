"""Results of tools and servers as records, by the table ``harness/data/imports.toml``.

Numbers are checked, names are kept short, nothing is trusted.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Final, TypeVar

from harness import __version__
from harness.domain.base import Frozen, shipped_table
from harness.domain.placement import Placement
from harness.domain.quant import mixture_in
from harness.domain.record import (
    SCHEMA_VERSION,
    UNKNOWN_MACHINE,
    EngineIdentity,
    ModelIdentity,
    Phase,
    RunRecord,
    Sample,
)
from harness.domain.scenario import Scenario
from harness.errors import BadDataError
from harness.records.store import decode, encode

S = TypeVar("S", bound=Frozen)

TOOLS: Final = shipped_table("data/imports.toml")
"""What is where in each tool's results."""
SAMPLES_MAX: Final = 100_000
ALL_LAYERS: Final = 99
"""Of ``-ngl``, what llama-bench does unasked and people write for all of them; a negative number says so too."""
UNDATED: Final = "1970-01-01T00:00:00+00:00"
"""When a result was made that does not say so."""
LEAST, MOST = 1e-15, 1e19
"""Of any amount, nanoseconds since 1970 among them: powers of what is beyond are no numbers any more."""
_LAST_UNIX_S: Final = 4e9
_MODEL: Final = ModelIdentity(
    name="unknown model", quant="", size_bytes=0, sha256="", architecture="", parameter_count=0
)


def number(value: Any, default: float = 0.0) -> float:
    """A number that an amount can be (0, or ``LEAST`` to ``MOST``), from a number or text.

    Else the default.
    """
    try:
        amount = float(value)
    except (TypeError, ValueError):
        return default
    return amount if amount == 0 or LEAST <= amount <= MOST else default


def count(value: Any, default: int = 0) -> int:
    """The same as a whole number."""
    return int(min(number(value, default), 2**53))


def text(value: Any, most: int = 200) -> str:
    """Text of bounded length, of text or a whole number; empty for anything else."""
    return str(value)[:most] if isinstance(value, str | int) else ""


def dated(value: Any) -> str:
    """When, as ISO 8601, of such a text or of seconds since 1970; ``UNDATED`` for what is no such time."""
    if isinstance(value, int | float):
        return datetime.fromtimestamp(min(number(value), _LAST_UNIX_S), UTC).isoformat()
    try:
        return datetime.fromisoformat(text(value)).isoformat()
    except ValueError:
        return UNDATED


def at(document: Any, path: str) -> Any:
    """What stands at a path of ``imports.toml``; None where there is nothing."""
    for way in path.split("|"):
        value = document
        for name in way.split("."):
            value = value.get(name) if isinstance(value, dict) else None
        if value not in (None, ""):
            return value
    return None


def filled(blank: S, paths: Mapping[str, str], *documents: Any) -> S:
    """``blank`` with the fields whose paths lead to a value in one of the documents: text, or whole numbers."""
    values: dict[str, Any] = {}
    for name, path in paths.items():
        value = next((each for document in documents if (each := at(document, path)) is not None), None)
        kept = count(value) if isinstance(getattr(blank, name), int) else text(value).strip()
        values |= {name: kept} if kept else {}
    return blank.replace(**values)


def sample(phase: Phase, label: str, token_count: int, duration_s: float, at: float = 0.0) -> Sample:
    """One sample of another tool: nothing is known of the machine's state."""
    return Sample(phase=phase, label=label, token_count=token_count, duration_s=duration_s, started_unix_s=at)


def record(
    source: object,
    tool: str,
    samples: list[Sample],
    *documents: Any,
    scenario: Scenario | None = None,
    **model: Any,
) -> RunRecord:
    """A record of ``samples``; its identifier is made from its content, so that reading twice gives the same.

    What it is of stands in the ``documents``, where ``imports.toml`` says; ``model`` are fields of the model
    that are known better.

    Raises:
        BadDataError: There are no samples, or too many; or an amount is none that a record may have.
    """
    if not 0 < len(samples) <= SAMPLES_MAX:
        size = f"{len(samples)} samples" if samples else "no measurement"
        raise BadDataError(str(source), "", size, f"results of {tool}, at most {SAMPLES_MAX} samples")
    table = TOOLS.get(tool, {})
    created = dated(next((v for d in documents if (v := at(d, table.get("created", ""))) is not None), None))
    identity = filled(_MODEL, table.get("model", {}), *documents)
    identity = identity.replace(
        **{"name": identity.name.rpartition("/")[2]} | {k: v for k, v in model.items() if v}
    )
    engine = EngineIdentity(name=tool, version="", build="", thread_count=0)
    engine = filled(engine, table.get("engine", {}), *documents)
    stamp = re.sub(r"[^0-9T]", "", created)[:15]
    content = (tool, identity.name, identity.quant, created, samples)
    made = RunRecord(
        schema_version=SCHEMA_VERSION,
        run_id=f"{stamp}-{tool}-{hashlib.sha256(repr(content).encode()).hexdigest()[:8]}",
        created=created,
        harness_version=__version__,
        command=(f"imported from {tool}",),
        workload="generate",
        machine=filled(UNKNOWN_MACHINE, table.get("machine", {}), *documents),
        scenario=scenario or Scenario(thread_count=engine.thread_count),
        outcome="ok",
        model=identity,
        engine=engine,
        samples=tuple(samples),
        extra={"imported_from": tool},
    )
    return decode(encode(made), str(source))  # what cannot be read back is not kept


def tool_of(document: Any) -> str:
    """Whose results a JSON document holds; empty for nobody's known here."""
    answers = document if isinstance(document, list) else [document]
    for tool, table in TOOLS.items():
        if answers and all(at(answer, path) is not None for answer in answers for path in table["needs"]):
            return tool
    return ""


def from_document(document: Any, tool: str, source: Path | str) -> list[RunRecord]:
    """One record for each answer in it.

    Raises:
        BadDataError: An answer took no time, or names no model.
    """
    if tool == "llama-bench":
        return of_llama_bench(document, source)
    table = TOOLS[tool]
    records = []
    for index, answer in enumerate(document if isinstance(document, list) else [document]):
        place = f"{source}[{index}]"
        if not text(at(answer, table["model"]["name"])):
            raise BadDataError(place, "model", "nothing", "the name of the model that answered")
        records.append(record(place, tool, _samples(answer, table), answer))
    return records


def _samples(answer: Any, table: Mapping[str, Any]) -> list[Sample]:
    samples: list[Sample] = []
    for test in table["tests"]:
        tokens = count(at(answer, test["tokens"]))
        if "rate" in test:
            rate = number(at(answer, test["rate"]))
            seconds = tokens / rate if rate else 0.0
        else:
            seconds = number(at(answer, test["time"])) * test["unit_s"]
        label = f"{'pp' if test['phase'] == 'prefill' else 'tg'}{tokens}"
        if samples:
            label += f" @ d{samples[0].token_count}"
        if seconds and tokens:
            samples.append(sample(test["phase"], label, tokens, seconds))
    return samples


def of_llama_bench(document: Any, source: Path | str) -> list[RunRecord]:
    """Records of llama-bench's rows, of JSON or JSON lines; fields come and go between its builds.

    Raises:
        BadDataError: A row holds no time.
    """
    runs: dict[tuple[str, ...], list[tuple[Mapping[str, Any], list[Sample]]]] = {}
    for index, row in enumerate(document if isinstance(document, list) else [document]):
        key = tuple(str(row.get(name, "")) for name in TOOLS["llama-bench"]["same"])
        runs.setdefault(key, []).append((row, samples_of(row, f"{source}[{index}]")))
    return [_record(members, source) for members in runs.values()]


def samples_of(row: Mapping[str, Any], place: str) -> list[Sample]:
    """Samples of one row: each repetition where the row holds them, else its average.

    Raises:
        BadDataError: It holds no time.
    """
    prompt, new, depth = count(row.get("n_prompt")), count(row.get("n_gen")), count(row.get("n_depth"))
    if not prompt and not new:
        raise BadDataError(place, "n_prompt", "no tokens", "n_prompt or n_gen above 0")
    phase: Phase = "workload" if prompt and new else "prefill" if prompt else "decode"
    label = {"workload": f"pp{prompt}+tg{new}", "prefill": f"pp{prompt}"}.get(phase, f"tg{new}")
    label += f" @ d{depth}" if depth else ""
    tokens = prompt + new
    taken, rate = row.get("samples_ns"), number(row.get("avg_ts"))
    listed = taken if isinstance(taken, list) and taken else [row.get("avg_ns")]
    seconds = [number(ns) / 1e9 for ns in listed]
    if listed is not taken and rate and not seconds[0]:
        seconds = [tokens / rate]
    if not all(seconds):
        raise BadDataError(place, "samples_ns", "no time", "samples_ns, avg_ns or avg_ts above 0")
    begun = datetime.fromisoformat(dated(row.get("test_time")))
    begun_unix_s = max(0.0, (begun if begun.tzinfo else begun.replace(tzinfo=UTC)).timestamp())
    return [sample(phase, label, tokens, s, begun_unix_s) for s in seconds]


def _record(members: Sequence[tuple[Mapping[str, Any], list[Sample]]], source: Path | str) -> RunRecord:
    row = members[0][0]
    depth = count(row.get("n_depth"))
    prompts = [count(r.get("n_prompt")) for r, _ in members]
    news = [count(r.get("n_gen")) for r, _ in members]
    layers = count(row.get("n_gpu_layers"), ALL_LAYERS)
    scenario = Scenario(
        context_tokens=max(1, depth + max(prompts) + max(news)),
        prompt_tokens=max(prompts),
        new_tokens=max(news),
        depth_tokens=depth,
        ubatch_tokens=count(row.get("n_ubatch"), 512),
        kv_type=text(row.get("type_k"), 10).upper() or "F16",
        flash_attention=str(row.get("flash_attn")) not in {"0", "False", "false"},
        thread_count=count(row.get("n_threads")),
        api=text(row.get("backends"), 40).split(",")[0].lower(),
        placement=Placement(gpu_layers=layers if layers < ALL_LAYERS else "all"),
    )
    kind, file = text(row.get("model_type")), text(row.get("model_filename"), 4000)
    name = PureWindowsPath(PurePosixPath(file).name).name.removesuffix(".gguf")
    samples = [each for _, taken in members for each in taken]
    return record(
        source,
        "llama-bench",
        samples,
        row,
        scenario=scenario,
        name=name or kind,
        quant=mixture_in(kind),
        architecture=kind.partition(" ")[0],
    )
