"""Training efficiency by formulas: FLOP, MFU and cost of a run in exact fractions; memory and time of LoRA on a device.

FLOP of training: 6 N per token (2 forward, 4 backward; N the weights that a token is multiplied with; Kaplan et al.
2020), and 12 A s for attention, A = layers x heads x head width (where keys and values differ in width, the mean of
both), s the tokens that a token is scored against. Reports differ in whether causality halves s: PaLM counts all of it.
MFU = FLOP of the model / (peak FLOP/s x device-seconds); Chowdhery et al. 2022 (PaLM, arXiv:2204.02311), appendix B.

LoRA (Hu et al. 2021) on the query, key, value and output matrices. Memory: frozen weights; 16 bytes for each adapter
weight (fp32 weight, gradient, two Adam moments); activations with checkpointing: of one layer about 34 bytes x tokens x
width without scores (Korthikanti et al. 2022, equation 2), the inputs of all layers in fp16; fp32 logits and their
gradient. Time: 6 N per token (forward, again for the checkpoint, backward through frozen weights), and 6 for each
adapter weight.
"""

from fractions import Fraction
from statistics import median
from typing import Any

from harness.catalog.devices import load_device
from harness.catalog.names import load_model
from harness.domain.base import shipped_rows
from harness.workloads.predict import machine_there
from harness.workloads.system import Answers, Case, Cases, Cost, Costs, Figures, PartNames, Size, System

_LORA = {"rank": 16, "batch_tokens": 512, "train_tokens": 1_000_000, "bits_per_weight": 4.5, "assumed_mfu": 0.3}


def run_flops(case: Case) -> Fraction:
    """FLOP of a run's model, exact."""
    per_token = 6 * Fraction(case["parameter_count"]) + 12 * case["attention_dim"] * Fraction(case["attended_tokens"])
    return Fraction(per_token * case["token_count"])


def mfu(case: Case) -> Fraction:
    """Model FLOP utilisation of a run, exact; a number is read as it is written in decimals."""
    return run_flops(case) / (_exact(case["device_hours"]) * 3600 * _exact(case["peak_flops_per_s"]))


def lora(case: Case) -> dict[str, Any]:
    """Whether LoRA of ``model`` fits what one app may hold on ``device``, and how long ``train_tokens`` take there."""
    told = _LORA | dict(case)
    card, device = load_model(told["model"]), load_device(told["device"])
    shape, tokens = card.shape, told["batch_tokens"]
    h, layers = shape.hidden_dim, shape.layer_count
    queries, keys = shape.head_count * shape.head_dim, shape.kv_head_count * shape.head_dim
    adapters = layers * told["rank"] * (2 * (h + queries) + 2 * (h + keys))
    activations = ((34 + 2 * layers) * h + 8 * shape.vocab_count) * tokens
    memory = round(card.parameter_count * told["bits_per_weight"] / 8) + 16 * adapters + activations
    engine = device.engine()
    peaks = engine.peak_flops_per_s
    assumed = machine_there(device, None, {}).flops_per_s * max(1, engine.core_count)
    peak = next((peaks[dtype].value for dtype in ("fp16", "fp32") if dtype in peaks), assumed)
    rate = told["assumed_mfu"] * peak / (6 * (card.parameter_count + adapters))
    available = int(device.pool(engine.pool).usable_bytes.value)
    return {
        "adapter_count": adapters,
        "memory_bytes": memory,
        "available_bytes": available,
        "fits": memory <= available,
        "tokens_per_s": rate,
        "hours": told["train_tokens"] / rate / 3600,
    }


def _exact(number: object) -> Fraction:
    return Fraction(str(number))


class TrainingEfficiency(System, table="training_efficiency"):
    """A run or a fine-tuning as a case; needs no model."""

    def cases(self, size: Size, seed: int) -> Cases:
        """Published runs, then LoRA of a small model on five devices."""
        rows = shipped_rows("training_runs.csv", "harness.workloads")
        runs = [{"kind": "mfu"} | {k: self.columns[k].kind(v) for k, v in row.items() if v} for row in rows]
        devices = ("iphone-16-pro", "pixel-9-pro", "raspberry-pi-5", "macbook-air-m3", "ryzen-7-7840hs")
        return [*runs, *({"kind": "lora", "model": "llama-3.2-1b", "device": device} for device in devices)]

    def step(self, state: Any, case: Case) -> dict[str, Any]:
        """FLOP and MFU of a run, or what a fine-tuning takes."""
        if case.get("kind") == "lora":
            return lora(case)
        exact = mfu(case)
        return {"flops": float(run_flops(case)), "mfu": float(exact), "exact": str(exact)}

    def cost(self, parts: PartNames, size: Size) -> Costs:
        """A few fractions; files of the catalogue."""
        return {"mfu": Cost(glue_s=6.6e-5), "lora": Cost(glue_s=1.75e-3)}

    def score(self, cases: Cases, answers: Answers) -> Figures:
        """How far the formula is from what the reports state, in points of MFU (0.01 is a hundredth of the peak)."""
        gaps = [abs(a["mfu"] - c["stated_mfu"]) for c, a in zip(cases, answers, strict=True) if c.get("stated_mfu")]
        if not gaps:
            return {"stated_count": 0}
        return {"stated_count": len(gaps), "mfu_error_median": median(gaps), "mfu_error_max": max(gaps)}


SYSTEM = TrainingEfficiency()
