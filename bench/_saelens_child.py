"""Runs by its path in an interpreter that has ``sae-lens``: what SAELens itself makes of the same data and folders.

Takes one JSON object as its argument and imports nothing of the harness. ``to`` is ``train`` (TopK at each of ``rates``
on the rows of each step in the file ``rows``; a folder each), ``make`` (an autoencoder of each architecture with random
weights; a folder each) or ``read`` (load each of ``folders``, save it again beside). Both of the last two leave what
SAELens encodes and decodes of ``held`` beside the folder, as ``NAME.npz``. Prints a line of JSON for each folder.
"""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sae_lens import SAE


def main() -> None:
    """Do the job."""
    job = json.loads(sys.argv[1])
    torch.set_num_threads(job["thread_count"])
    torch.manual_seed(1)
    {"train": train, "make": make, "read": read}[job["to"]](job)


def train(job: dict[str, Any]) -> None:
    """Train at each rate."""
    from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.config import SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    x, rows = torch.from_numpy(np.load(job["train"])), np.load(job["rows"])
    step_count, size = rows.shape
    norm_batches = min(20, step_count)

    def batches() -> Iterator[torch.Tensor]:
        # The first ones serve the estimate of the norm only; then every step has the rows it had on the other side.
        for step in (*range(norm_batches), *range(step_count)):
            yield x[rows[step]]

    for rate in job["rates"]:
        torch.manual_seed(1)
        config = TopKTrainingSAEConfig(
            d_in=x.shape[1],
            d_sae=job["feature_count"],
            k=job["active_count"],
            normalize_activations="expected_average_only_in",
        )
        sae = TopKTrainingSAE(config)
        with torch.no_grad():  # the mean as pre-bias, as on the other side: SAELens begins with zeros
            sae.b_dec.copy_(x.mean(0) * x.shape[1] ** 0.5 / x.norm(dim=1).mean())
        settings = SAETrainerConfig(
            total_training_samples=step_count * size,
            train_batch_size_samples=size,
            lr=rate,
            lr_end=rate / 100,
            lr_warm_up_steps=int(job["warm_up_share"] * step_count),
            lr_decay_steps=int(job["decay_share"] * step_count),
            dead_feature_window=max(1, job["dead_after_tokens"] // size),
            n_batches_for_norm_estimate=norm_batches,
        )
        begin = time.perf_counter()
        trained = SAETrainer(settings, sae, batches()).fit()
        train_s = time.perf_counter() - begin
        name = f"rate-{rate:g}"
        trained.save_inference_model(f"{job['folder']}/{name}")
        told(name, rate=rate, train_s=train_s)


def make(job: dict[str, Any]) -> None:
    """Save an autoencoder of each architecture, and a TopK that chooses by its decoder's norms."""
    from sae_lens import JumpReLUSAE, JumpReLUSAEConfig, StandardSAE, StandardSAEConfig, TopKSAE, TopKSAEConfig

    held = torch.from_numpy(np.load(job["held"]))
    d, m, k = held.shape[1], job["feature_count"], job["active_count"]
    made = {
        "standard": StandardSAE(StandardSAEConfig(d_in=d, d_sae=m)),
        "jumprelu": JumpReLUSAE(JumpReLUSAEConfig(d_in=d, d_sae=m)),
        "topk": TopKSAE(TopKSAEConfig(d_in=d, d_sae=m, k=k)),
        "topk-uncentred": TopKSAE(TopKSAEConfig(d_in=d, d_sae=m, k=k, apply_b_dec_to_input=False)),
        "topk-rescaled": TopKSAE(TopKSAEConfig(d_in=d, d_sae=m, k=k, rescale_acts_by_decoder_norm=True)),
    }
    spread = float(held.std())
    for name, sae in made.items():
        with torch.no_grad():
            sae.W_enc.normal_(std=d**-0.5)
            sae.W_dec.normal_(std=d**-0.5)
            sae.W_dec.mul_(torch.rand(m, 1) + 0.5)
            sae.b_enc.normal_(std=0.1 * spread)
            sae.b_dec.copy_(held.mean(0))
            if hasattr(sae, "threshold"):
                sae.threshold.uniform_(0.5 * spread, 1.5 * spread)
        sae.cfg.metadata.model_name = "of their own"
        sae.save_model(f"{job['folder']}/{name}")
        answers(sae, held, Path(job["folder"]) / name)
        told(name)


def read(job: dict[str, Any]) -> None:
    """Load folders of the other side, say what they encode and decode, save them again."""
    held = torch.from_numpy(np.load(job["held"]))
    for name in job["folders"]:
        folder = Path(job["folder"]) / name
        sae = SAE.load_from_disk(folder)
        answers(sae, held, folder)
        sae.save_model(folder.with_name(f"{name}-again"))
        told(name)


def answers(sae: Any, held: torch.Tensor, folder: Path) -> None:
    """What SAELens encodes and decodes."""
    with torch.no_grad():
        z = sae.encode(held)
        np.savez(folder.with_name(f"{folder.name}.npz"), encoded=z.numpy(), decoded=sae.decode(z).numpy())


def told(name: str, **more: Any) -> None:
    """One line on what is done."""
    sys.stdout.write(json.dumps({"name": name, **more}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
