"""Is the ladder's perplexity llama-perplexity's? The same files, the same text, the same chunks.

    python -m bench.versus_llama_perplexity MODEL.gguf --llama-perplexity PATH [--quants Q4_0,IQ2_XXS]
        [--chunks 8] [--keep FOLDER] [--json]

Each rung is made and scored by the ladder (in ``--keep``, what is there is not made again) and the very file is then
given to llama-perplexity. Wanted: equal to four digits, a relative difference below 5e-5 of theirs. Exit status 1 else.
"""

import json
import re
import subprocess
import tempfile
from importlib.resources import as_file, files
from pathlib import Path
from typing import Final, NamedTuple

import click

from harness.core.errors import CouldNotRunError, Exit, HarnessError
from harness.hardware.threads import default_thread_count
from harness.measure.pipeline import How, Listener
from harness.records.ladder import rungs_of
from harness.verbs.ladder import LadderRequest, ladder

MOST_DIFFERENCE: Final = 5e-5
_ESTIMATE: Final = re.compile(r"Final estimate: PPL = (\d+\.\d+) \+/- (\d+\.\d+)")


class Pair(NamedTuple):
    """One rung by both programs; ``difference`` is relative to theirs."""

    quant: str
    ours: float
    theirs: float
    our_error: float
    their_error: float

    @property
    def difference(self) -> float:
        """Relative difference of the perplexities."""
        return self.ours / self.theirs - 1


def read_estimate(text: str) -> tuple[float, float]:
    """Perplexity and its standard error from what llama-perplexity prints.

    Raises:
        CouldNotRunError: It printed none.
    """
    found = _ESTIMATE.findall(text)
    if not found:
        raise CouldNotRunError(f"llama-perplexity printed no final estimate: {text[-300:]}")
    value, error = found[-1]
    return float(value), float(error)


def run_theirs(program: Path, model: Path, text: Path, chunk_count: int) -> tuple[float, float]:
    """One run of llama-perplexity.

    Raises:
        CouldNotRunError: It failed.
    """
    # One sequence a batch: with several the kernels sum in another order than where a chunk is read alone.
    sizes = ("-c", "512", "-b", "512", "-ub", "512", "--chunks", str(chunk_count), "-t", str(default_thread_count()))
    command = [str(program), "-m", str(model), "-f", str(text), *sizes]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CouldNotRunError(f"llama-perplexity ended with {done.returncode}: {done.stderr[-300:]}")
    return read_estimate(done.stdout + done.stderr)


def compare(program: Path, model: Path, quants: list[str], chunk_count: int, keep: Path) -> list[Pair]:
    """Both programs on each rung.

    Raises:
        HarnessError: A rung could not be made or scored.
    """
    with as_file(files("harness") / "data" / "text" / "python-reference.txt") as text:
        records = ladder(
            model,
            quants,
            text=text,
            asked=LadderRequest(chunk_count=chunk_count, scenario=None),
            keep=keep,
            how=How(listener=Listener(lambda line: click.echo(line, err=True))),
        )
        pairs = []
        for rung in rungs_of(records):
            if rung.quality is None:
                raise CouldNotRunError(f"{rung.quant}: {rung.outcome}")
            score = rung.quality.score
            made = [path for path in keep.glob(f"*/{rung.quant}.gguf") if path.parent.name.startswith(model.stem)]
            (path,) = [path for path in made if path.stat().st_size == rung.size_bytes][:1]
            theirs, their_error = run_theirs(program, path, text, chunk_count)
            pairs.append(Pair(rung.quant, score.perplexity, theirs, score.perplexity_error, their_error))
    return pairs


@click.command()
@click.argument("model", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--llama-perplexity", "program", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--quants", default="Q4_0,IQ2_XXS", show_default=True)
@click.option("--chunks", default=8, show_default=True, type=click.IntRange(1))
@click.option("--keep", type=click.Path(file_okay=False, path_type=Path), help="A ladder's folder.")
@click.option("--json", "as_json", is_flag=True)
def main(model: Path, program: Path, quants: str, chunks: int, keep: Path | None, as_json: bool) -> None:
    """Compare perplexities of rungs of MODEL; exit 1 when one differs by more than half of the fourth digit's step."""
    try:
        with tempfile.TemporaryDirectory(prefix="edge-harness-versus-") as scratch:
            pairs = compare(program, model, quants.split(","), chunks, keep or Path(scratch))
    except HarnessError as error:
        click.echo(str(error), err=True)
        raise SystemExit(error.exit_code) from error
    if as_json:
        click.echo(json.dumps([pair._asdict() | {"difference": pair.difference} for pair in pairs], indent=1))
    else:
        for pair in pairs:
            click.echo(
                f"{pair.quant}: ours {pair.ours:.4f} ± {pair.our_error:.4f}, llama-perplexity {pair.theirs:.4f} ± "
                f"{pair.their_error:.4f}, difference {pair.difference:+.1e}"
            )
    raise SystemExit(Exit.OK if all(abs(p.difference) < MOST_DIFFERENCE for p in pairs) else Exit.BROKEN)


if __name__ == "__main__":
    main()
