"""The campaign as a command."""

import random
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import click

from harness.core.errors import Exit
from harness.show.output import json_document, table
from tests.faults import calls, children, commands, servers
from tests.faults.children import Inject
from tests.faults.place import HANG_S, Injected, Place


class Line(NamedTuple):
    """All injections of one kind."""

    kind: str
    injected: int
    outcomes: dict[str, int]
    lost: int
    torn: int
    hangs: int
    unnamed: int
    message: str
    failures: list[str]


def campaign(count: int, seed: int, kinds: Sequence[str] = ()) -> list[Line]:
    """Inject ``count`` faults, the kinds in turn.

    Args:
        count: Faults in all.
        seed: Same seed, same faults.
        kinds: Only these; all by default. Those of the real engine are left out where it is not installed.
    """
    engine = find_spec("llama_cpp") is not None
    known: dict[str, Inject] = {
        **children.KINDS,
        **(children.ENGINE_KINDS if engine else {}),
        **commands.KINDS,
        **servers.KINDS,
        **(calls.KINDS if calls.can_trace() else {}),
    }
    chosen = {name: known[name] for name in (kinds or known)}
    found: dict[str, list[Injected]] = {name: [] for name in chosen}
    with tempfile.TemporaryDirectory(prefix="edge-harness-faults-") as root:
        place = Place(Path(root), engine=engine)
        for index in range(count):
            name = list(chosen)[index % len(chosen)]
            found[name].append(_inject(chosen[name], place, random.Random(f"{seed} {index} {name}")))
    return [_line(name, results) for name, results in found.items() if results]


def _inject(inject: Inject, place: Place, draw: random.Random) -> Injected:
    began_s = time.monotonic()
    try:
        result = inject(place, draw)
    except Exception:
        result = Injected("traceback", traceback.format_exc(limit=-3), named=False)
    lost, torn = place.audit()
    return result._replace(
        lost=result.lost + lost, torn=result.torn + torn, hung=result.hung or time.monotonic() - began_s > 2 * HANG_S
    )


def _line(kind: str, results: list[Injected]) -> Line:
    bad = [r for r in results if not r.named or r.lost or r.torn or r.hung]
    message = next((r.message for r in results if r.message), "")
    return Line(
        kind,
        len(results),
        dict(Counter(r.outcome for r in results)),
        sum(r.lost for r in results),
        sum(r.torn for r in results),
        sum(r.hung for r in results),
        sum(not r.named for r in results),
        message.splitlines()[0] if message else "",
        [f"{r.outcome}: {r.message}" for r in bad],
    )


@click.command()
@click.option("--count", default=200, show_default=True, type=click.IntRange(1))
@click.option("--seed", default=0, show_default=True, type=int)
@click.option("--kind", "kinds", multiple=True, help="Only this kind; may be given several times.")
@click.option("--json", "as_json", is_flag=True)
def main(count: int, seed: int, kinds: tuple[str, ...], as_json: bool) -> None:
    """Inject faults into real runs; exit 1 when a result is lost, a record torn, something hangs or has no cause."""
    unknown = set(kinds) - {*children.KINDS, *children.ENGINE_KINDS, *commands.KINDS, *servers.KINDS, *calls.KINDS}
    if unknown:
        raise click.BadParameter(f"no kind {', '.join(sorted(unknown))}", param_hint="--kind")
    began_s = time.monotonic()
    lines = campaign(count, seed, kinds)
    broken = [line for line in lines if line.failures]
    if as_json:
        document = {
            "seconds": round(time.monotonic() - began_s, 1),
            "seed": seed,
            "kinds": [line._asdict() for line in lines],
        }
        click.echo(json_document(document, "tests faults").decode())
    else:
        columns = ("fault", "injected", "recorded", "lost", "torn", "hangs", "no cause", "what the user reads")
        rows = [
            (
                line.kind,
                str(line.injected),
                ", ".join(f"{n} {outcome}" for outcome, n in sorted(line.outcomes.items())),
                *(str(n) for n in (line.lost, line.torn, line.hangs, line.unnamed)),
                line.message[:80],
            )
            for line in lines
        ]
        total = [sum(n) for n in zip(*((s.injected, s.lost, s.torn, s.hangs, s.unnamed) for s in lines), strict=True)]
        click.echo(table("", columns, rows))
        click.echo(
            f"{total[0]} faults of {len(lines)} kinds in {time.monotonic() - began_s:.0f} s: {total[1]} results lost, "
            f"{total[2]} records torn, {total[3]} hangs, {total[4]} without a cause"
        )
        for line in broken:
            for failure in line.failures[:3]:
                click.echo(f"{line.kind}: {failure}", err=True)
    raise SystemExit(Exit.BROKEN if broken else Exit.OK)


if __name__ == "__main__":
    main()
