"""Our speculation beside llama.cpp's own program, on the same prompts, in turns.

    python -m bench.versus_speculative TARGET.gguf DRAFT.gguf --program .../llama-speculative-simple

Both decode greedily with the same draft file; the program drafts by its own rule, ours by its adaptive one. Its speed
is what it prints (tokens decoded after the prompt, and their seconds), summed over the prompts; ours likewise.
"""

import re
import subprocess
import tempfile
from pathlib import Path
from statistics import median

import click

from harness.app.speculate import load_prompts, speculate
from harness.domain.result import Speculation
from harness.errors import CouldNotRunError
from harness.measure.jobs.speculate import SpeculationJob
from harness.runtimes._threads import default_thread_count

_PRINTED = re.compile(r"decoded\s+(\d+) tokens in\s+([0-9.]+) seconds")


def theirs(program: Path, target: Path, draft: Path, prompts: list[str], new_tokens: int) -> float:
    """Tokens per second of the program over all prompts.

    Raises:
        CouldNotRunError: It failed or printed no speed.
    """
    tokens, seconds = 0, 0.0
    threads = str(default_thread_count())
    with tempfile.TemporaryDirectory() as folder:
        for number, prompt in enumerate(prompts):
            text = Path(folder) / f"{number}.txt"
            text.write_text(prompt)
            command = [
                str(program),
                "-m",
                str(target),
                "-md",
                str(draft),
                "--spec-type",
                "draft-simple",
                "-f",
                str(text),
            ]
            command += ["-n", str(new_tokens), "-c", "1024", "-t", threads, "--temp", "0", "-ngl", "0"]
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
            found = _PRINTED.search(done.stdout + done.stderr)
            if found is None:
                raise CouldNotRunError(f"{program.name}: {(done.stdout + done.stderr)[-300:]}")
            tokens += int(found[1])
            seconds += float(found[2])
    return tokens / seconds


@click.command()
@click.argument("target", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("draft", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--program", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--prompts", default="code", show_default=True)
@click.option("--prompt-count", default=8, show_default=True, help="The first four are our pilot's only.")
@click.option("--tokens", default=40, show_default=True)
@click.option("--turns", default=2, show_default=True)
def main(target: Path, draft: Path, program: Path, prompts: str, prompt_count: int, tokens: int, turns: int) -> None:
    """Compare our speculation with PROGRAM's on TARGET drafted by DRAFT."""
    texts = list(load_prompts(prompts)[:prompt_count])
    job = SpeculationJob(target=str(target), drafts=(str(draft),), prompts=tuple(texts), new_tokens=tokens)
    ratios = []
    for turn in range(turns):
        sides: dict[str, float] = {}
        for side in ("ours", "theirs") if turn % 2 == 0 else ("theirs", "ours"):
            if side == "theirs":
                sides[side] = theirs(program, target, draft, list(job.split()[1]), tokens)
            else:
                record = speculate(job)
                run = record.result
                assert isinstance(run, Speculation), record.detail
                sides[side] = run.speculative.tokens_per_s
                sides["plain"] = run.plain.tokens_per_s
        ratios.append(sides["ours"] / sides["theirs"])
        click.echo(
            f"turn {turn + 1}: ours {sides['ours']:.2f}, {program.name} {sides['theirs']:.2f} tokens/s "
            f"(plain decoding {sides['plain']:.2f}); ratio {ratios[-1]:.3f}"
        )
    click.echo(f"median ratio {median(ratios):.3f}")


if __name__ == "__main__":
    main()
