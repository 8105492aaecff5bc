"""TopK autoencoders trained here and by SAELens on the same activations, steps and batch size; folders read both ways.

    python -m harness.testing.sae_versus_saelens MODEL.gguf --python PATH [--cache FOLDER] [--steps 400] [--json]

PATH is an interpreter with ``sae-lens`` (asked here: 6.54.12); it trains in a child process, at each of the given
learning rates with the same warm-up and decay, and its best result counts. Both are scored here, by the same code, on
the same held-out tokens. Then each side reads the other's folder: SAELens's features of ours, ours of SAELens's.
"""

import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Final

import click

from harness.errors import CouldNotRunError

RATES: Final = (4e-4, 1e-3, 2e-3)

CHILD: Final = """
import json, sys, time
from pathlib import Path
import numpy as np
import torch
from sae_lens import SAE, TopKTrainingSAE, TopKTrainingSAEConfig
from sae_lens.config import SAETrainerConfig
from sae_lens.training.sae_trainer import SAETrainer

job = json.loads(sys.argv[1])
torch.set_num_threads(job["thread_count"])
torch.manual_seed(1)
x = torch.from_numpy(np.load(job["train"]))
steps, size = job["step_count"], job["batch_tokens"]

def batches():
    while True:
        order = torch.randperm(len(x))
        for start in range(0, len(x) - size + 1, size):
            yield x[order[start:start + size]]

for rate in job["rates"]:
    config = TopKTrainingSAEConfig(
        d_in=x.shape[1], d_sae=job["feature_count"], k=job["active_count"],
        normalize_activations="expected_average_only_in",
    )
    sae = TopKTrainingSAE(config)
    with torch.no_grad():
        scale = x.shape[1] ** 0.5 / x.norm(dim=1).mean()
        sae.b_dec.copy_(x.mean(0) * scale)
    trainer = SAETrainer(
        SAETrainerConfig(
            total_training_samples=steps * size, train_batch_size_samples=size, lr=rate, lr_end=rate / 100,
            lr_warm_up_steps=int(0.05 * steps), lr_decay_steps=int(0.4 * steps), dead_feature_window=60,
            n_batches_for_norm_estimate=20,
        ),
        sae, batches(),
    )
    begin = time.perf_counter()
    trained = trainer.fit()
    trained.save_inference_model(f"{job['folder']}/{rate}")
    print(json.dumps({"rate": rate, "train_s": time.perf_counter() - begin}), flush=True)

ours = SAE.load_from_disk(job["ours"])
held = torch.from_numpy(np.load(job["held"]))
with torch.no_grad():
    np.save(f"{job['folder']}/their-features-of-ours.npy", ours.encode(held).numpy())
again = Path(job["folder"]) / "again"
ours.save_model(again)
"""


def compare(
    model: Path, python: Path, cache: Path | None, step_count: int, thread_count: int, rates: tuple[float, ...]
) -> dict[str, Any]:
    """Train both ways and read both ways.

    Raises:
        CouldNotRunError: SAELens's interpreter failed.
    """
    import numpy as np

    from harness.backends.llamacpp import BACKEND
    from harness.workloads._language.activations import ordinary
    from harness.workloads.sparse_autoencoder.metrics import quality
    from harness.workloads.sparse_autoencoder.saelens import load_folder, save_folder
    from harness.workloads.sparse_autoencoder.study import BATCH_TOKENS, EXPANSION_RATIO, gather
    from harness.workloads.sparse_autoencoder.training import Plan, train

    material = gather(BACKEND.open, model, thread_count=thread_count, cache=cache)
    x = material.train.values[ordinary(material.train.values, material.limit)]
    held = material.held_out.values[ordinary(material.held_out.values, material.limit)]
    plan = Plan(feature_count=EXPANSION_RATIO * x.shape[1], step_count=step_count, batch_tokens=BATCH_TOKENS)
    ours = train(x, plan)
    found: dict[str, Any] = {"train_tokens": len(x), "step_count": step_count, "theirs": []}
    found["ours_fvu_ratio"] = quality(ours, held).fvu_ratio
    with tempfile.TemporaryDirectory(prefix="edge-harness-saelens-") as name:
        folder = Path(name)
        np.save(folder / "train.npy", x)
        np.save(folder / "held.npy", held)
        save_folder(ours, folder / "ours")
        job = {
            "train": str(folder / "train.npy"),
            "held": str(folder / "held.npy"),
            "ours": str(folder / "ours"),
            "folder": str(folder),
            "step_count": step_count,
            "batch_tokens": plan.batch_tokens,
            "feature_count": plan.feature_count,
            "active_count": plan.active_count,
            "thread_count": thread_count,
            "rates": list(rates),
        }
        done = subprocess.run([str(python), "-c", CHILD, json.dumps(job)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise CouldNotRunError(f"{python} ended with {done.returncode}: {done.stderr[-400:]}")
        for line in done.stdout.splitlines():
            if not line.startswith("{"):
                continue
            told = json.loads(line)
            theirs = load_folder(folder / str(told["rate"]))
            found["theirs"].append({**told, "fvu_ratio": quality(theirs.autoencoder, held).fvu_ratio})
            save_folder(theirs, folder / "back")
            names = ("sae_weights.safetensors",)
            found["folder_identical"] = all(
                _tensors(folder / "back" / n) == _tensors(folder / str(told["rate"]) / n) for n in names
            ) and json.loads((folder / "back" / "cfg.json").read_text()) == json.loads(
                (folder / str(told["rate"]) / "cfg.json").read_text()
            )
        read = np.load(folder / "their-features-of-ours.npy")
        found["features_difference"] = float(np.max(np.abs(read - ours.encode(held))))
        found["features_scale"] = float(np.max(read))
        found["ours_through_saelens_identical"] = _tensors(folder / "ours" / names[0]) == _tensors(
            folder / "again" / names[0]
        )
    found["best_fvu_ratio"] = min(row["fvu_ratio"] for row in found["theirs"])
    return found


def _tensors(path: Path) -> dict[str, bytes]:
    from safetensors.numpy import load_file

    return {name: array.tobytes() for name, array in sorted(load_file(str(path)).items())}


@click.command()
@click.argument("model", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--python", "python", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--cache", type=click.Path(file_okay=False, path_type=Path), help="Keep activations there.")
@click.option("--steps", "step_count", type=click.IntRange(10), default=400, show_default=True)
@click.option("--threads", "thread_count", type=click.IntRange(1), default=1, show_default=True)
@click.option("--rate", "rates", type=float, multiple=True, help="Learning rates of SAELens; repeatable.")
@click.option("--json", "as_json", is_flag=True)
def main(
    model: Path,
    python: Path,
    cache: Path | None,
    step_count: int,
    thread_count: int,
    rates: tuple[float, ...],
    as_json: bool,
) -> None:
    """Compare autoencoders trained here and by SAELens."""
    found = compare(model, python.absolute(), cache, step_count, thread_count, rates or RATES)
    if as_json:
        click.echo(json.dumps(found))
        return
    click.echo(f"{found['train_tokens']} tokens, {found['step_count']} steps; FVU on held-out tokens")
    click.echo(f"  ours     {found['ours_fvu_ratio']:.4f}")
    for row in found["theirs"]:
        click.echo(f"  SAELens  {row['fvu_ratio']:.4f} at rate {row['rate']:g} ({row['train_s']:.0f} s)")
    click.echo(f"  its folder comes back identical: {found['folder_identical']}")
    click.echo(f"  ours through SAELens identical: {found['ours_through_saelens_identical']}")
    click.echo(
        f"  features by SAELens and here differ by {found['features_difference']:.2g} of {found['features_scale']:.3g}"
    )


if __name__ == "__main__":
    main()
