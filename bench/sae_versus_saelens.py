"""TopK autoencoders trained here and by SAELens on the same batches; folders of each side read by the other.

    python -m bench.sae_versus_saelens MODEL.gguf --python PATH [--part train|folders|all] [--cache FOLDER]

PATH is an interpreter with ``sae-lens`` (asked here: 6.54.12), which works in a child process. Training: the same rows
in every step, the same width, k, warm-up and decay; SAELens at each of the given learning rates, whose best result
counts, ours at its default. Both are scored here, by the same code, on the same held-out tokens.

Folders: SAELens writes one of each architecture, we load it, encode and decode the held-out tokens as SAELens did, and
write it again byte for byte; then the other way round. Without ``--part train`` no model is read: tokens are random.
"""

import json
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import click
import numpy as np

from harness.errors import CouldNotRunError

RATES: Final = (1e-3, 2e-3, 4e-3)
NOISE: Final = 1e-5
"""Largest difference, as a share of the largest value, that float32 sums in another order may leave."""
FILES: Final = ("cfg.json", "sae_weights.safetensors")


def compare(
    model: Path, python: Path, cache: Path | None, step_count: int, thread_count: int, rates: Sequence[float]
) -> dict[str, Any]:
    """Train both ways on the same batches.

    Raises:
        CouldNotRunError: SAELens's interpreter failed.
    """
    from bench.saelens_folder import load_folder
    from harness.runtimes.llamacpp import RUNTIME
    from harness.workloads.sparse_autoencoder.metrics import quality
    from harness.workloads.sparse_autoencoder.study import BATCH_TOKENS, EXPANSION_RATIO, gather
    from harness.workloads.sparse_autoencoder.training import Plan, Trainer

    material = gather(RUNTIME.open, model, thread_count=thread_count, cache=cache)
    x, held = material.rows()
    plan = Plan(feature_count=EXPANSION_RATIO * x.shape[1], step_count=step_count, batch_tokens=BATCH_TOKENS)
    trainer = Trainer(x, plan)
    rows = []
    for _ in range(step_count):
        rows.append(trainer.draw())
        trainer.step(rows[-1])
    ours = quality(trainer.result(), held).fvu_ratio
    click.echo(f"ours: {ours:.4f}", err=True)
    theirs = []
    with tempfile.TemporaryDirectory(prefix="edge-harness-saelens-") as name:
        folder = Path(name)
        np.save(folder / "train.npy", x)
        np.save(folder / "rows.npy", np.stack(rows))
        job = {
            "to": "train",
            "train": str(folder / "train.npy"),
            "rows": str(folder / "rows.npy"),
            "folder": str(folder),
            "feature_count": plan.feature_count,
            "active_count": plan.active_count,
            "warm_up_share": plan.warm_up_share,
            "decay_share": plan.decay_share,
            "dead_after_tokens": plan.dead_after_tokens,
            "rates": list(rates),
            "thread_count": thread_count,
        }
        for told in _child(python, job):
            found = load_folder(folder / told["name"]).autoencoder
            theirs.append({**told, "fvu_ratio": quality(found, held).fvu_ratio})
            click.echo(f"SAELens at {told['rate']:g}: {theirs[-1]['fvu_ratio']:.4f}", err=True)
    return {
        "train_tokens": len(x),
        "held_tokens": len(held),
        "step_count": step_count,
        "batch_tokens": plan.batch_tokens,
        "feature_count": plan.feature_count,
        "ours_fvu_ratio": ours,
        "theirs": theirs,
        "best_fvu_ratio": min(row["fvu_ratio"] for row in theirs),
        "no_worse": ours <= min(row["fvu_ratio"] for row in theirs),
    }


def exchange(
    python: Path, *, input_dim: int = 64, feature_count: int = 512, active_count: int = 16, token_count: int = 256
) -> list[dict[str, Any]]:
    """Folders of each side, of every architecture, read and written by the other; a row each.

    Raises:
        CouldNotRunError: SAELens's interpreter failed.
    """
    from bench.other_autoencoders import OtherAutoencoder
    from bench.saelens_folder import load_folder, save_folder

    rng = np.random.default_rng(1)
    rows = []
    with tempfile.TemporaryDirectory(prefix="edge-harness-saelens-") as name:
        folder = Path(name)
        held = rng.standard_normal((token_count, input_dim), dtype=np.float32) * 3 + 1
        np.save(folder / "held.npy", held)
        job = {
            "to": "make",
            "held": str(folder / "held.npy"),
            "folder": str(folder),
            "feature_count": feature_count,
            "active_count": active_count,
            "thread_count": 1,
        }
        for told in _child(python, job):
            theirs = load_folder(folder / told["name"])
            save_folder(theirs, folder / "back")
            identical = _same(folder / told["name"], folder / "back", FILES)
            rows.append(_row("SAELens's", told["name"], theirs.autoencoder, held, folder, identical))
        ours = {}
        for activation in ("relu", "topk", "jumprelu"):
            decoder = rng.standard_normal((feature_count, input_dim), dtype=np.float32) / np.float32(input_dim**0.5)
            ours[activation] = OtherAutoencoder(
                encoder=np.ascontiguousarray(decoder.T),
                encoder_bias=(rng.standard_normal(feature_count) / 4).astype(np.float32),
                decoder=decoder,
                decoder_bias=held.mean(axis=0),
                activation=activation,
                active_count=active_count,
                threshold=rng.uniform(1, 3, feature_count).astype(np.float32) if activation == "jumprelu" else None,
            )
            save_folder(ours[activation], folder / f"ours-{activation}", metadata={"hook_name": "l_out-15"})
        job |= {"to": "read", "folders": [f"ours-{activation}" for activation in ours]}
        for told in _child(python, job):
            sae = ours[told["name"].removeprefix("ours-")]
            identical = _same(folder / told["name"], folder / f"{told['name']}-again", FILES)
            rows.append(_row("ours", sae.activation, sae, held, folder, identical, at=told["name"]))
    return rows


def _row(
    written_by: str,
    name: str,
    sae: Any,
    held: Any,
    folder: Path,
    same: dict[str, bool],
    *,
    at: str = "",
) -> dict[str, Any]:
    """How far both sides are apart, as shares of the largest value, and which files came back byte for byte."""
    with np.load(folder / f"{at or name}.npz") as answers:
        encoded, decoded = answers["encoded"], answers["decoded"]
    z = sae.encode(held)
    row: dict[str, Any] = {
        "written_by": written_by,
        "architecture": name,
        "active_count": float(np.count_nonzero(encoded) / len(held)),
        "encode_difference": float(np.max(np.abs(z - encoded)) / np.max(np.abs(encoded))),
        "decode_difference": float(np.max(np.abs(sae.decode(z) - decoded)) / np.max(np.abs(decoded))),
        "identical": same,
    }
    row["passes"] = bool(max(row["encode_difference"], row["decode_difference"]) <= NOISE and all(same.values()))
    return row


def _same(first: Path, second: Path, names: Sequence[str]) -> dict[str, bool]:
    return {name: (first / name).read_bytes() == (second / name).read_bytes() for name in names}


def _child(python: Path, job: dict[str, Any]) -> list[dict[str, Any]]:
    command = [str(python), str(Path(__file__).with_name("_saelens_child.py")), json.dumps(job)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CouldNotRunError(f"{python} ended with {done.returncode}: {done.stderr[-400:]}")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"name"')]


def _training_text(found: dict[str, Any]) -> str:
    lines = [
        f"{found['train_tokens']} tokens, {found['step_count']} steps of {found['batch_tokens']}, "
        f"{found['feature_count']} features; FVU on {found['held_tokens']} held-out tokens",
        f"  ours     {found['ours_fvu_ratio']:.4f}",
        *(f"  SAELens  {r['fvu_ratio']:.4f} at rate {r['rate']:g} ({r['train_s']:.0f} s)" for r in found["theirs"]),
        f"  no worse than SAELens's best: {'yes' if found['no_worse'] else 'NO'}",
    ]
    return "\n".join(lines)


def _exchange_text(rows: Sequence[dict[str, Any]]) -> str:
    lines = [f"folders read by the other side (differences as shares of the largest value, at most {NOISE:g})"]
    for row in rows:
        files = ", ".join(f"{n} {'identical' if same else 'DIFFERS'}" for n, same in row["identical"].items())
        lines.append(
            f"  {row['written_by']:9} {row['architecture']:15} L0 {row['active_count']:5.1f}  encode "
            f"{row['encode_difference']:.1e}  decode {row['decode_difference']:.1e}  saved again: {files}"
        )
    return "\n".join(lines)


@click.command()
@click.argument("model", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--python", "python", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--part", type=click.Choice(["train", "folders", "all"]), default="all", show_default=True)
@click.option("--cache", type=click.Path(file_okay=False, path_type=Path), help="Keep activations there.")
@click.option("--steps", "step_count", type=click.IntRange(10), default=400, show_default=True)
@click.option("--threads", "thread_count", type=click.IntRange(1), default=1, show_default=True)
@click.option("--rate", "rates", type=float, multiple=True, help="Learning rates of SAELens; repeatable.")
@click.option("--json", "as_json", is_flag=True)
def main(
    model: Path,
    python: Path,
    part: str,
    cache: Path | None,
    step_count: int,
    thread_count: int,
    rates: tuple[float, ...],
    as_json: bool,
) -> None:
    """Compare autoencoders trained here and by SAELens on activations of MODEL, and exchange folders."""
    python = python.absolute()
    found: dict[str, Any] = {}
    if part != "train":
        found["folders"] = exchange(python)
    if part != "folders":
        found["training"] = compare(model, python, cache, step_count, thread_count, rates or RATES)
    if as_json:
        click.echo(json.dumps(found))
        return
    if "folders" in found:
        click.echo(_exchange_text(found["folders"]))
    if "training" in found:
        click.echo(_training_text(found["training"]))


if __name__ == "__main__":
    main()
