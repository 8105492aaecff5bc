"""Training on a device: real steps of llama.cpp's own optimiser on a model.

A step is forward, backward and AdamW over one batch, through ``llama_opt_epoch``; it works on a copy of the model
with F32 weights, which is made once. FLOP of training: 6 N for a token (2 forward, 4 backward; N the weights that a
token is multiplied with; Kaplan et al. 2020). MFU = FLOP of the model / (peak FLOP/s x device-seconds); Chowdhery
et al. 2022 (PaLM, arXiv:2204.02311), appendix B.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from harness.core.base import REFERENCE
from harness.core.errors import RefusedError
from harness.core.tables import shipped_text
from harness.measure.pipeline import make
from harness.measure.probe.machine_profile import own_profile
from harness.models.gguf import read_weights
from harness.runtimes.llamacpp.optimiser import TrainingSession
from harness.workloads.chain import Op, RecordedPass, read
from harness.workloads.scores import figure
from harness.workloads.system import Answers, Cases, Context, PartWeights, Scores, Size, System, WorkloadCase


class Step(WorkloadCase):
    """One batch of tokens from this place of the text that ships."""

    needs = ("language",)
    place: int


class TrainSystem(System):
    """Steps of training."""

    name = "train"
    title = "Training: real steps of llama.cpp's optimiser, with tokens a second and MFU"
    kinds = (Step,)
    context_tokens = 64
    sizes = {"default": {"step_count": 3, "batch_tokens": 256, "cents_per_hour": 0, "lora_rank": 0}}

    def passes(self, size: Size) -> Mapping[str, Sequence[Sequence[RecordedPass]]]:
        """A step of training."""
        return {"step": [(read(size["batch_tokens"], op=Op.TRAIN),)]}

    def part_files(self, paths: Mapping[str, str], cache: Path) -> dict[str, str]:
        """A copy of the model with F32 weights, made once."""
        source = Path(paths["language"])
        target = cache / "trainable" / f"{source.stem}-f32.gguf"
        if not target.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            job = {"source": str(source), "quant": "F32"}
            make("harness.runtimes.llamacpp.quantize:run_quantize", job, target)
        return {"language": str(target)}

    def cases(self, size: Size) -> Cases:
        """Batches of the text that ships, one after the other, and a first one that warms up."""
        return [Step(place=at * size["batch_tokens"]) for at in range(size["step_count"] + 1)]

    def prepare(self, context: Context) -> Any:
        """The parts, the model in memory of its own with room for gradients and moments, and the text."""
        if context.size["lora_rank"]:
            raise RefusedError(
                "lora_rank: found a rank, expected 0: llama.cpp trains whole matrices; fit --with counts it"
            )
        path = context.parts.language.path
        session = TrainingSession(path, context.size["batch_tokens"], context.thread_count)
        return (
            context.parts,
            session,
            session.tokenize(shipped_text(REFERENCE)),
            context.size["cents_per_hour"],
        )

    def step(self, state: Any, case: Any) -> Any:
        """The loss of a batch, tokens a second, and MFU: None where nobody knows the chip's peak."""
        parts, session, tokens, cents = state
        count = session.batch_tokens
        start = case.place % (len(tokens) - count - 1)
        with parts.meter.timed(RecordedPass(part="language", op=Op.TRAIN, tokens=count)):
            loss = session.step(tokens[start : start + count + 1])
        rate = count / (parts.meter.taken[-1].seconds or 1e-9)
        mfu = None
        device = own_profile()
        for engine in device.engines if device else ():
            if engine.kind == "cpu" and "fp32" in engine.peak_flops_per_s:
                flops = 6 * read_weights(parts.language.path).weight_count * rate
                mfu = flops / engine.peak_flops_per_s["fp32"].value
        return {
            "loss": loss,
            "tokens_per_s": rate,
            "mfu": mfu,
            "tokens_per_dollar": 360_000 * rate / cents if cents else None,
        }

    def held_bytes(self, size: Size, weights: PartWeights) -> int:
        """Weights, gradients and two moments in F32, and the activations of a batch."""
        if "language" not in weights:
            return 0
        shape = weights["language"].shape
        trained = weights["language"].weight_count
        if rank := size[
            "lora_rank"
        ]:  # two thin matrices beside each matrix of a block; the others stay as they are
            wide = [one.dims for one in weights["language"].tensors if one.block >= 0 and len(one.dims) == 2]
            trained = rank * sum(map(sum, wide))
        activations = 8 * shape.hidden_dim * shape.layer_count + 2 * shape.vocab_count
        return 4 * (4 * trained + size["batch_tokens"] * activations)

    def score(self, cases: Cases, answers: Answers) -> Scores:
        """Medians of tokens a second and MFU, and the loss that the steps took off, beside no step at all."""
        scores = []
        for name in ("tokens_per_s", "mfu", "tokens_per_dollar"):
            found = [answer[name] for answer in answers if answer.get(name) is not None]
            if found:
                scores.append(figure(name, median(found), "step", len(found)))
        gained = figure("loss_gained_nats", answers[0]["loss"] - answers[-1]["loss"], "step", len(answers))
        return [*scores, gained.replace(nulls={"no step": 0.0})]


SYSTEM = TrainSystem()
