"""Training on a device: real steps of llama.cpp's own optimiser on a model, and published runs by the formulas.

``step``: forward, backward and AdamW over one batch, through ``llama_opt_epoch``; it works on a copy of the
model with F32 weights, which is made once. FLOP of training: 6 N for a token (2 forward, 4 backward; N the
weights that a token is multiplied with; Kaplan et al. 2020), and 12 A s for attention, A = layers x heads x
head width, s the tokens that a token is scored against. MFU = FLOP of the model / (peak FLOP/s x
device-seconds); Chowdhery et al. 2022 (PaLM, arXiv:2204.02311), appendix B. ``run``: the same of a published
run.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from harness.app.this_machine import this_machine
from harness.catalog.gguf import read_weights
from harness.domain.base import REFERENCE, shipped_rows, shipped_text
from harness.domain.model import Weights
from harness.measure.pipeline import make
from harness.runtimes.llamacpp.training import TrainingSession
from harness.workloads.passes import Op, Pass
from harness.workloads.scores import figure, of_kind
from harness.workloads.system import Answers, Case, Cases, Context, Scores, Size, System


class Step(Case):
    """One batch of tokens from this place of the text that ships."""

    needs = ("language",)
    place: int


class Run(Case):
    """A training run: weights that a token is multiplied with, tokens, hours x devices, dense peak of one device."""

    name: str
    parameter_count: float
    token_count: float
    device_hours: float
    peak_flops_per_s: float
    attention_dim: float = 0
    attended_tokens: float = 0
    stated_mfu: float | None = None


def run_flops(case: Run) -> float:
    """FLOP of a run's model."""
    return (6 * case.parameter_count + 12 * case.attention_dim * case.attended_tokens) * case.token_count


def mfu(case: Run) -> float:
    """Model FLOP utilisation of a run."""
    return run_flops(case) / (case.device_hours * 3600 * case.peak_flops_per_s)


class TrainState(NamedTuple):
    """What it runs with; the model that is trained, the text, and FLOP/s of the chip: None where no peak is known."""

    context: Context
    session: Any = None
    tokens: Sequence[int] = ()
    peak_flops_per_s: float | None = None


class TrainSystem(System):
    """Steps of training, and runs by the formulas."""

    name = "train"
    title = "Training: real steps of llama.cpp's optimiser with tokens a second and MFU; published runs by the formulas"
    kinds = (Step, Run)
    context_tokens = 64
    sizes = {
        "default": {"step_count": 3, "batch_tokens": 256},
        "formulas": {"step_count": 0, "batch_tokens": 0},
    }

    def part_files(self, paths: Mapping[str, str], cache: Path) -> dict[str, str]:
        """A copy of the model with F32 weights, made once."""
        if "language" not in paths:
            return {}
        source = Path(paths["language"])
        target = cache / "trainable" / f"{source.stem}-f32.gguf"
        if not target.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            make(
                "harness.runtimes.llamacpp.quantize:run_quantize",
                {"source": str(source), "quant": "F32"},
                target,
            )
        return {"language": str(target)}

    def cases(self, size: Size) -> Cases:
        """Batches of the text that ships, one after the other; published runs."""
        cases: list[Any] = []
        if size["step_count"]:  # and the first one, which warms up
            cases += [Step(place=at * size["batch_tokens"]) for at in range(size["step_count"] + 1)]
        for row in shipped_rows("training_runs.csv", "harness.workloads"):
            name = row.pop("name")
            cases.append(Run(name=name, **{key: float(value) for key, value in row.items() if value}))
        return cases

    def prepare(self, context: Context) -> TrainState:
        """Read the model into memory of its own, and make room for gradients and moments."""
        if context.parts.language is None:
            return TrainState(context)
        session = TrainingSession(
            context.parts.language.path, context.size["batch_tokens"], context.thread_count
        )
        peak = None
        device = this_machine()
        for engine in device.engines if device else ():
            if engine.kind == "cpu" and "fp32" in engine.peak_flops_per_s:
                peak = engine.peak_flops_per_s["fp32"].value
        return TrainState(context, session, session.tokenize(shipped_text(REFERENCE)), peak)

    def step(self, state: TrainState, case: Any) -> Any:
        """The loss of a batch, or the MFU of a run."""
        if isinstance(case, Run):
            return {"mfu": mfu(case)}
        parts = state.context.parts
        count = state.session.batch_tokens
        start = case.place % (len(state.tokens) - count - 1)
        with parts.meter.timed(Pass(part="language", op=Op.TRAIN, tokens=count)):
            loss = state.session.step(state.tokens[start : start + count + 1])
        seconds = parts.meter.taken[-1].seconds or 1e-9
        achieved = None
        if state.peak_flops_per_s:
            flops = 6 * read_weights(parts.language.path).weight_count * count
            achieved = flops / (seconds * state.peak_flops_per_s)
        return {"loss": loss, "tokens_per_s": count / seconds, "mfu": achieved}

    def held_bytes(self, size: Size, weights: Mapping[str, Weights]) -> int:
        """Weights, gradients and two moments in F32, and the activations of a batch."""
        if "language" not in weights:
            return 0
        shape = weights["language"].shape
        activations = 8 * shape.hidden_dim * shape.layer_count + 2 * shape.vocab_count
        return 4 * (4 * weights["language"].weight_count + size["batch_tokens"] * activations)

    def score(self, cases: Cases, answers: Answers) -> Scores:
        """Tokens a second and MFU of steps, the loss they took off, and how far the formula is from stated MFU."""
        scores = []
        steps = [answer for _, answer in of_kind(cases, answers, Step)]
        for name in ("tokens_per_s", "mfu"):
            found = [answer[name] for answer in steps if answer[name] is not None]
            if found:
                scores.append(figure(name, median(found), "step", len(found)))
        if len(steps) > 1:
            gained = steps[0]["loss"] - steps[-1]["loss"]
            scores.append(figure("loss_gained_nats", gained, "step", len(steps)))
        errors = [
            abs(answer["mfu"] - case.stated_mfu)
            for case, answer in of_kind(cases, answers, Run)
            if case.stated_mfu is not None
        ]
        if errors:
            scores.append(figure("mfu_error", median(errors), "run", len(errors), more_is_better=False))
        return scores


SYSTEM = TrainSystem()
