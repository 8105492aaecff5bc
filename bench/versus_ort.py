"""ONNX Runtime against llama.cpp on the same weights: speed in turns, quality on the same tokens, memory, answers.

    python -m bench.versus_ort MODEL.gguf --onnx INT4_FOLDER --fp32 FP32_FOLDER
        [--int8 FOLDER] [--only speed|quality|memory|answers] [--rounds 5] [--json]

docs/onnx.md says how the folders are made. llama.cpp runs Q4_0 and F32, made from MODEL.gguf by its own
quantizer. Every run is a child of its own; the order within a round turns, so that drift of the machine hits all sides.
A speed stands only beside its quality: the mean negative log-likelihood of held-out tokens that ship with the harness,
the same for all, paired against llama.cpp's Q4_0. Wanted: ONNX Runtime at 0.9 of llama.cpp's decode or more; resident
memory of the float graph within 1.15 of its files; its 32 greedy tokens those of llama.cpp's F32 and of torch.
"""

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import as_file, files
from math import sqrt
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any, Final, NamedTuple

import click
import msgspec

from bench.engine_answers import AnswersJob, ask
from harness.domain.record import Sample
from harness.domain.scenario import Scenario
from harness.errors import CouldNotRunError, Exit, HarnessError
from harness.measure.child import Limits, run_child
from harness.measure.jobs.generate import ENTRY
from harness.measure.protocol import GenerateJob
from harness.onnx.files import MODEL_FILE, quantization, size_bytes
from harness.onnx.graph import read_graph
from harness.runtimes._threads import default_thread_count
from harness.runtimes.llamacpp.quantize import QuantizeJob

LEAST_DECODE_RATIO: Final = 0.9
MOST_RSS_RATIO: Final = 1.15
GREEDY_COUNT: Final = 32
PREFILL_TOKENS: Final = 64
REFERENCE: Final = "llama.cpp Q4_0"
PROMPT: Final = "def fibonacci(n):\n    "


class InconclusiveError(HarnessError):
    """The machine was never quiet for long enough."""

    exit_code = Exit.INCONCLUSIVE


class Side(NamedTuple):
    """One engine with one file."""

    name: str
    runtime: str
    path: Path


class Speed(NamedTuple):
    """Tokens per second in one child: medians of its samples; how many of them were disturbed."""

    prefill: float
    decode: float
    doubted_count: int
    sample_count: int


def run_speed(side: Side, scenario: Scenario, repetitions: int) -> Speed:
    """One child: ``repetitions`` samples of each test.

    Raises:
        CouldNotRunError: It failed.
    """
    job = GenerateJob(
        path=str(side.path.absolute()),
        runtime=side.runtime,
        scenario=scenario,
        repetitions=repetitions,
        retries=0,
        cold_loads=0,
        patience_s=600.0,
    )
    done = run_child(ENTRY, job, limits=Limits(wall_s=600.0))
    if done.outcome != "ok":
        raise CouldNotRunError(f"{side.name}: {done.outcome}: {done.detail}")
    samples = [msgspec.convert(data, Sample) for name, data in done.events if name == "sample"]
    timed = [s for s in samples if not s.warm_up and s.phase in {"prefill", "decode"}]
    clean = [s for s in timed if not s.validity.doubts] or timed

    def rate(phase: str) -> float:
        chosen = [s for s in clean if s.phase == phase] or [s for s in timed if s.phase == phase]
        return median(s.token_count / s.duration_s for s in chosen)

    return Speed(rate("prefill"), rate("decode"), sum(bool(s.validity.doubts) for s in timed), len(timed))


def speeds(
    sides: Sequence[Side], scenario: Scenario, *, rounds: int, repetitions: int, say: Callable[[str], None]
) -> dict[str, list[Speed]]:
    """All sides in turns, the order turning with each round.

    Raises:
        CouldNotRunError: A run failed.
    """
    found: dict[str, list[Speed]] = {side.name: [] for side in sides}
    for number in range(rounds):
        turned = [*sides[number % len(sides) :], *sides[: number % len(sides)]]
        for side in turned:
            found[side.name].append(run_speed(side, scenario, repetitions))
        texts = (f"{s.name} {found[s.name][-1].prefill:.0f}/{found[s.name][-1].decode:.1f}" for s in sides)
        say(f"round {number + 1}: " + ", ".join(texts))
    return found


def ratios(found: dict[str, list[Speed]]) -> dict[str, dict[str, float]]:
    """Median over the rounds of each side's rate over the reference's in the same round.

    Raises:
        InconclusiveError: More than half of all samples were disturbed.
    """
    everything = [speed for row in found.values() for speed in row]
    doubted, all_count = sum(s.doubted_count for s in everything), sum(s.sample_count for s in everything)
    if 2 * doubted > all_count:
        raise InconclusiveError(f"{doubted} of {all_count} samples were disturbed")
    base = found[REFERENCE]
    return {
        name: {
            "prefill": median(a.prefill / b.prefill for a, b in zip(row, base, strict=True)),
            "decode": median(a.decode / b.decode for a, b in zip(row, base, strict=True)),
        }
        for name, row in found.items()
    }


def quality(sides: Sequence[Side], text: Path, chunk_count: int) -> dict[str, dict[str, Any]]:
    """Mean negative log-likelihood of the same tokens for each side, and its difference to the reference's.

    Raises:
        CouldNotRunError: A side tokenizes the text otherwise.
        EngineError: A side could not run.
    """
    asked = {
        side.name: ask(AnswersJob(path=str(side.path), runtime=side.runtime, text=str(text), chunk_count=chunk_count))
        for side in sides
    }
    base = asked[REFERENCE]
    found = {}
    for name, answers in asked.items():
        if answers.tokens_hash != base.tokens_hash:
            raise CouldNotRunError(f"{name} and {REFERENCE} tokenize the text differently: nothing can be compared")
        gaps = [a - b for a, b in zip(answers.nll, base.nll, strict=True)]
        error = stdev(gaps) / sqrt(len(gaps)) if name != REFERENCE else 0.0
        found[name] = {
            "nll": fmean(answers.nll), "token_count": len(gaps), "difference": fmean(gaps), "difference_error": error
        }  # fmt: skip
    return found


def memory(side: Side) -> dict[str, float]:
    """Resident memory after a prompt of 64 tokens, over the size of the model's files."""
    told = ask(AnswersJob(path=str(side.path), runtime=side.runtime, prefill_tokens=PREFILL_TOKENS))
    size = size_bytes(side.path)
    return {
        "file_bytes": size,
        "rss_bytes": told.rss_bytes,
        "rss_ratio": told.rss_bytes / size,
        "peak_ratio": told.peak_rss_bytes / size,
        "base_bytes": told.base_rss_bytes,
    }


def answers(fp32: Side, llama: Side) -> dict[str, int]:
    """Greedy tokens of the float graph that llama.cpp's F32 chose too."""
    job = AnswersJob(path=str(fp32.path), runtime="ort", prompt_tokens=(), prompt=PROMPT, greedy_count=GREEDY_COUNT)
    ours = ask(job)
    theirs = ask(
        msgspec.structs.replace(job, path=str(llama.path), runtime="llamacpp", prompt_tokens=ours.prompt, prompt="")
    )
    equal = next(
        (i for i, pair in enumerate(zip(theirs.greedy, ours.greedy, strict=False)) if pair[0] != pair[1]), None
    )
    return {"as_llamacpp_f32": len(ours.greedy) if equal is None else equal}


@contextmanager
def llama_files(source: Path, quants: Sequence[str]) -> Iterator[dict[str, Path]]:
    """The source as each of these mixtures, by llama.cpp's own quantizer.

    Raises:
        CouldNotRunError: It failed.
    """
    with tempfile.TemporaryDirectory(prefix="edge-harness-versus-") as folder:
        made = {}
        for quant in quants:
            target = Path(folder) / f"{source.stem}-{quant}.gguf"
            job = QuantizeJob(source=str(source.absolute()), target=str(target), quant=quant)
            done = run_child("harness.runtimes.llamacpp.quantize:run_quantize", job)
            if done.outcome != "ok":
                raise CouldNotRunError(f"{quant} of {source.name}: {done.detail}")
            made[quant] = target
        yield made


@click.command()
@click.argument("model", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--onnx", type=click.Path(exists=True, file_okay=False, path_type=Path), help="INT4 folder for ort.")
@click.option("--int8", type=click.Path(exists=True, file_okay=False, path_type=Path), help="INT8 folder for ort.")
@click.option("--fp32", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Float folder for ort.")
@click.option("--side", "more", multiple=True, metavar="NAME=RUNTIME:FOLDER", help="One more, of any name.")
@click.option(
    "--only", type=click.Choice(["speed", "quality", "memory", "answers"]), help="One part; all if not given."
)
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1, 100))
@click.option("--repetitions", default=3, show_default=True, type=click.IntRange(1, 100))
@click.option("--chunks", default=4, show_default=True, type=click.IntRange(1), help="Of 512 tokens; half are scored.")
@click.option("--threads", default=0, help="0: all physical cores.", type=click.IntRange(0))
@click.option("--json", "as_json", is_flag=True)
def main(
    model: Path,
    onnx: Path | None,
    int8: Path | None,
    fp32: Path | None,
    more: tuple[str, ...],
    only: str | None,
    rounds: int,
    repetitions: int,
    chunks: int,
    threads: int,
    as_json: bool,
) -> None:
    """Compare on MODEL; exit 1 when something wanted is not reached, 3 when the machine was too busy to say."""
    scenario = Scenario(
        context_tokens=256, prompt_tokens=128, new_tokens=64, thread_count=threads or default_thread_count()
    )
    folders = (
        ("ORT INT4", "ort", onnx),
        ("ORT INT8", "ort", int8),
    )
    found: dict[str, Any] = {"model": model.name, "thread_count": scenario.thread_count}
    try:
        with llama_files(model, ("Q4_0", "F32") if only in {None, "quality", "answers"} else ("Q4_0",)) as made:
            sides = [Side(REFERENCE, "llamacpp", made["Q4_0"])]
            sides += [Side(name, runtime, folder / MODEL_FILE) for name, runtime, folder in folders if folder]
            sides += [_side(text) for text in more]
            floats = [Side("ORT FP32", "ort", fp32 / MODEL_FILE)] if fp32 else []
            found["sides"] = {s.name: _words(s) for s in (*sides, *floats)}
            if only in {None, "quality"}:
                with as_file(files("harness") / "data" / "text" / "python-reference.txt") as text:
                    whole = [*sides, *floats, Side("llama.cpp F32", "llamacpp", made["F32"])]
                    found["quality"] = quality(whole, text, chunks)
            if only in {None, "memory"}:
                found["memory"] = {s.name: memory(s) for s in (*floats, *sides)}
            if only in {None, "answers"} and floats:
                found["answers"] = answers(floats[0], Side("llama.cpp F32", "llamacpp", made["F32"]))
            if only in {None, "speed"}:
                timed = speeds(
                    sides, scenario, rounds=rounds, repetitions=repetitions, say=lambda t: click.echo(t, err=True)
                )
                found["speed"] = {name: [s._asdict() for s in row] for name, row in timed.items()}
                found["ratios"] = ratios(timed)
    except HarnessError as error:
        click.echo(str(error), err=True)
        raise SystemExit(error.exit_code) from error
    found["missed"] = missed(found)
    click.echo(json.dumps(found, indent=1) if as_json else "\n".join(_lines(found)))
    raise SystemExit(Exit.BROKEN if found["missed"] else Exit.OK)


def _side(text: str) -> Side:
    name, _, rest = text.partition("=")
    runtime, _, folder = rest.partition(":")
    if not (Path(folder) / MODEL_FILE).is_file():
        raise click.BadParameter(f"{text!r} is no NAME=RUNTIME:FOLDER with a {MODEL_FILE}")
    return Side(name, runtime, Path(folder) / MODEL_FILE)


def missed(found: dict[str, Any]) -> list[str]:
    """What was wanted, looked at, and not reached."""
    wrong = []
    ratio = found.get("ratios", {}).get("ORT INT4", {}).get("decode")
    if ratio is not None and ratio < LEAST_DECODE_RATIO:
        wrong.append(f"ONNX Runtime decodes at {ratio:.3f} of {REFERENCE}, wanted {LEAST_DECODE_RATIO}")
    resident = found.get("memory", {}).get("ORT FP32", {}).get("rss_ratio")
    if resident is not None and resident > MOST_RSS_RATIO:
        wrong.append(f"the float graph holds {resident:.3f} of its files, wanted at most {MOST_RSS_RATIO}")
    wrong += [
        f"greedy tokens {name.replace('_', ' ')}: {count} of {GREEDY_COUNT}"
        for name, count in found.get("answers", {}).items()
        if count < GREEDY_COUNT
    ]
    return wrong


def _words(side: Side) -> str:
    if side.path.suffix != ".onnx":
        return f"{side.path.stat().st_size / 1e6:.1f} MB"
    return f"{quantization(read_graph(side.path))}, {size_bytes(side.path) / 1e6:.1f} MB"


def _lines(found: dict[str, Any]) -> Iterator[str]:
    yield f"{found['model']}, {found['thread_count']} threads"
    for name, words in found["sides"].items():
        yield f"  {name}: {words}"
    for name, row in found.get("quality", {}).items():
        yield (
            f"  NLL {name}: {row['nll']:.4f} over {row['token_count']} tokens, "
            f"{row['difference']:+.4f} +- {row['difference_error']:.4f} to {REFERENCE}"
        )
    for name, ratio in found.get("ratios", {}).items():
        rows = found["speed"][name]
        prefill, decode = (median(r[k] for r in rows) for k in ("prefill", "decode"))
        doubted = sum(r["doubted_count"] for r in rows)
        yield (
            f"  speed {name}: prefill {prefill:.0f}/s, decode {decode:.1f}/s; of {REFERENCE} {ratio['prefill']:.3f} "
            f"and {ratio['decode']:.3f}; {doubted} of {sum(r['sample_count'] for r in rows)} samples disturbed"
        )
    for name, row in found.get("memory", {}).items():
        yield (
            f"  memory {name}: {row['rss_bytes'] / 1e6:.0f} MB after {PREFILL_TOKENS} tokens, {row['rss_ratio']:.3f} "
            f"of its files (peak {row['peak_ratio']:.3f}; {row['base_bytes'] / 1e6:.0f} MB before loading)"
        )
    for name, count in found.get("answers", {}).items():
        yield f"  greedy tokens {name.replace('_', ' ')}: {count} of {GREEDY_COUNT}"
    for line in found["missed"]:
        yield f"  MISSED: {line}"


if __name__ == "__main__":
    main()
