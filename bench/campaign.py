"""The real runs behind the pages, as records in ``reports/``: checks, speculation, streaming, a ladder, systems.

    python -m bench campaign                         # all parts, about a quarter of an hour on a quiet machine
    python -m bench campaign --only check,stream
    python -m bench campaign --only systems          # times and figures of systems that need no judge: some minutes
    python -m bench campaign --only systems --on ssh://user@board     # the same there
    python -m bench campaign --only judged           # those that a language model judges: hours
    python -m bench docs                             # then the pages show them

Nothing else may run meanwhile: records of a disturbed machine are kept, and say so.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import click

REPORTS = Path(__file__).resolve().parents[1] / "reports"
TARGET, DRAFT = "qwen2.5-coder-1.5b", "qwen2.5-coder-0.5b"
CASES = REPORTS.parent / "docs" / "workloads" / "cases"
SYSTEMS = ("memory", "reason")
SMALL = "smollm2-135m"
JUDGED = {"answer": "support", "oversight": "debates"}
"""Systems with cases that a language model judges."""
_JUDGING = ("--evaluate", "--model", TARGET, "--timeout", "7200")
PARTS: dict[str, tuple[str, list[list[str]]]] = {
    "check": ("check/default.json", [["check", "-n", "64"]]),
    "models": (
        "check/models.json",
        [["check", "qwen2.5-coder-0.5b", "gemma-3-270m", "-r", "3", "-p", "256", "-n", "32"]],
    ),
    "speculation": (
        "speculation/records.json",
        [
            ["speculate", TARGET, "--draft", DRAFT, "--prompts", kind, "--prompt-count", "8", "--tokens", "40"]
            for kind in ("code", "prose")
        ],
    ),
    "stream": (
        "stream/records.json",
        [["stream", TARGET, "--ram-budget", share, "--tokens", "24", "--plain-mmap"] for share in ("0.6x", "0.9x")]
        + [
            ["stream", TARGET, "--ram-budget", share, "--tokens", "48", "--draft", name]
            for share, name in (("0.6x", "lookup"), ("0.9x", DRAFT))
        ],
    ),
    "systems": (
        "workloads/systems.json",
        [
            *(["workloads", "run", name, "--evaluate"] for name in SYSTEMS),
            *(["workloads", "run", name, "--model", SMALL, "--evaluate"] for name in ("inspect", "train")),
        ],
    ),
    "judged": (
        "workloads/judged.json",
        [
            ["workloads", "run", name, *_JUDGING, "--cases", str(CASES / f"{cases}.jsonl")]
            for name, cases in JUDGED.items()
        ],
    ),
    "ladder": (
        f"ladder/{TARGET}.json",  # whose rows are long enough for true types of two bits and one
        [
            [
                *("ladder", TARGET, "--chunks", "2", "--tokens", "32", "--prompt", "256"),
                *("--quants", "F16,Q8_0,Q4_K_M,Q2_K,IQ2_XXS,IQ1_S"),
            ]
        ],
    ),
}
_LONG = {"systems", "judged"}


def run(arguments: list[str], folder: Path) -> None:
    """One command, its records into ``folder``."""
    command = [sys.executable, "-m", "harness", *arguments, "--out", str(folder)]
    click.echo("+ edge-harness " + " ".join(arguments), err=True)
    subprocess.run(command, check=False)


def gathered(folder: Path) -> str:
    """All records of a folder as one JSON list, oldest first, without the folder's name in their commands."""
    import msgspec

    from harness.records.store import load

    records = sorted((load(p) for p in folder.glob("*.json")), key=lambda r: r.created)
    clean = []
    for record in records:
        words = list(record.command)
        if "--out" in words:
            at = words.index("--out")
            words = words[:at] + words[at + 2 :]
        clean.append(msgspec.structs.replace(record, command=("edge-harness", *words[1:])))
    return msgspec.json.format(msgspec.json.encode(clean), indent=1).decode() + "\n"


@click.command()
@click.option(
    "--only", default=",".join(name for name in PARTS if name not in {"systems", "judged"}), show_default=True
)
@click.option("--on", metavar="TARGET", help="Run the parts on a target; their records get a file of its own.")
def main(only: str, on: str | None) -> None:
    """Run the parts and write their records."""
    for name in only.split(","):
        path, commands = PARTS[name]
        with tempfile.TemporaryDirectory() as folder:
            for arguments in commands:
                run([*arguments, "--on", on] if on else arguments, Path(folder))
            target = REPORTS / path
            if on:
                target = target.with_stem(f"{target.stem}-{on.partition(':')[0]}")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(gathered(Path(folder)), encoding="utf-8")


if __name__ == "__main__":
    main()
