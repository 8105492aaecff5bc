"""Throw damaged files at the readers and watch time and memory.

    python -m harness.testing.fuzz gguf --cases 20000

Cases are a small valid file with bytes flipped, numbers replaced by extreme ones, parts cut, doubled or swapped; and
plain random bytes. Anything but a header or ``BadDataError`` is a failure, as is a case over the limits.
"""

import json
import os
import random
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import click
import psutil

from harness.catalog.gguf import read_gguf
from harness.catalog.synthesize import synthesize_tiny
from harness.errors import BadDataError, Exit
from harness.units import MIB

TIME_LIMIT_S: Final = 2.0
MEMORY_LIMIT_BYTES: Final = 64 * MIB
_EXTREMES: Final = (0, 1, 2, 8, 9, 12, 13, 255, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**62, 2**63, 2**64 - 1)
_HEADER_BYTES: Final = 4096
"""Mutations aim at the first part of the file: further back is only data."""


class Summary(NamedTuple):
    """What a fuzz run found."""

    cases: int
    seconds: float
    read: int
    refused: int
    slowest_case_s: float
    python_peak_bytes: int
    resident_growth_bytes: int
    failures: list[str]


def valid_gguf(folder: Path) -> bytes:
    """A small file that reads well: every kind of value and 20 tensors."""
    path = synthesize_tiny(
        folder / "seed.gguf", "Q4_0", hidden_dim=32, feed_forward_dim=32, vocab_count=300, head_count=2, kv_head_count=1
    )
    return path.read_bytes()


def mutate(data: bytes, draw: random.Random) -> bytes:
    """One damaged file."""
    if draw.random() < 0.1:
        return (b"GGUF\x03\0\0\0" if draw.random() < 0.7 else b"") + draw.randbytes(draw.randrange(512))
    out = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 4, 16))):
        _damage(out, draw)
    return bytes(out)


def _damage(out: bytearray, draw: random.Random) -> None:
    if len(out) < 32:
        return
    at = draw.randrange(min(len(out) - 16, _HEADER_BYTES))
    if draw.random() < 0.3:
        at = draw.choice((4, 8, 16))  # version, tensor count, metadata count
    size = draw.choice((1, 4, 8))
    match draw.randrange(6):
        case 0:
            out[at] ^= 1 << draw.randrange(8)
        case 1:
            out[at : at + size] = (draw.choice(_EXTREMES) % 256**size).to_bytes(size, "little")
        case 2:
            del out[draw.randrange(len(out)) :]
        case 3:
            del out[at : at + draw.randrange(1, 64)]
        case 4:
            out[at:at] = out[at : at + draw.randrange(1, 256)]
        case _:
            other = draw.randrange(min(len(out) - 16, _HEADER_BYTES))
            out[at : at + 8], out[other : other + 8] = out[other : other + 8], out[at : at + 8]


def _read(path: Path) -> None:
    header = read_gguf(path)
    end = path.stat().st_size
    if any(t.offset_bytes + t.size_bytes > end for t in header.tensors):
        raise AssertionError("a tensor past the end of the file was let through")
    header.weights()


def run(read: Callable[[Path], None], seed_file: bytes, *, cases: int, seed: int) -> Summary:
    """Read ``cases`` damaged files.

    Memory is the peak of Python's own allocations in a case (tracemalloc) and the growth of the process over all.
    """
    draw, failures = random.Random(seed), list[str]()
    done, refused, slowest, peak = 0, 0, 0.0, 0
    process = psutil.Process(os.getpid())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "case.gguf"
        tracemalloc.start()
        resident, begin = process.memory_info().rss, time.perf_counter()
        for index in range(cases):
            path.write_bytes(mutate(seed_file, draw))
            tracemalloc.reset_peak()
            held, start = tracemalloc.get_traced_memory()[0], time.perf_counter()
            try:
                read(path)
                done += 1
            except BadDataError:
                refused += 1
            except Exception as error:  # noqa: BLE001 - whatever escapes is what is looked for
                failures.append(f"case {index} (seed {seed}): {type(error).__name__}: {error}")
            took = time.perf_counter() - start
            used = tracemalloc.get_traced_memory()[1] - held
            slowest, peak = max(slowest, took), max(peak, used)
            if took > TIME_LIMIT_S or used > MEMORY_LIMIT_BYTES:
                failures.append(f"case {index} (seed {seed}): {took:.2f} s, {used} bytes")
        seconds = time.perf_counter() - begin
        grown = process.memory_info().rss - resident
        tracemalloc.stop()
    return Summary(cases, seconds, done, refused, slowest, peak, grown, failures)


@click.group()
def main() -> None:
    """Fuzz the readers of foreign files."""


@main.command()
@click.option("--cases", default=20_000, show_default=True, type=click.IntRange(1))
@click.option("--seed", default=0, show_default=True, type=int)
@click.option("--json", "as_json", is_flag=True)
def gguf(cases: int, seed: int, as_json: bool) -> None:
    """Fuzz the reader of GGUF headers."""
    with tempfile.TemporaryDirectory() as folder:
        summary = run(_read, valid_gguf(Path(folder)), cases=cases, seed=seed)
    if as_json:
        click.echo(json.dumps(summary._asdict()))
    else:
        click.echo(
            f"{summary.cases} cases in {summary.seconds:.1f} s: {summary.read} read, {summary.refused} refused, "
            f"{len(summary.failures)} failed; slowest {1e3 * summary.slowest_case_s:.1f} ms, "
            f"peak {summary.python_peak_bytes / MIB:.2f} MiB in a case, "
            f"process grew by {summary.resident_growth_bytes / MIB:.1f} MiB"
        )
        for line in summary.failures[:20]:
            click.echo(line, err=True)
    raise SystemExit(Exit.BROKEN if summary.failures else Exit.OK)


if __name__ == "__main__":
    main()
