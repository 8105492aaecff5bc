"""``edge-harness fit``: does this model fit on that device, how fast, and what would help."""

from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING, Annotated, Final, Literal

import click
import msgspec
from msgspec import Meta

from harness.cli.command import verb
from harness.core.errors import Exit, InputError, RefusedError
from harness.core.option import Option
from harness.core.question import MOST_TOKENS, Asked, Question
from harness.show.output import Output, say

MOST_QUESTIONS: Final = 2000
"""Models times devices of one command: at some ten milliseconds each, well under a minute."""

if TYPE_CHECKING:
    from harness.answer.answer import Answer as Answered
    from harness.answer.pasted import Seen

Format = Literal["llama-swap", "models-ini"]


class _GridAsked(Asked):
    """What is asked, with several quantisations and contexts where a table of them is wanted."""

    quant: Annotated[
        tuple[str, ...],
        Meta(description="Quantisation, such as Q4_K_M; several with commas make a table."),
        Option("--quant -q", default="the model's usual one"),
    ] = ()  # type: ignore[assignment]
    context_tokens: Annotated[
        tuple[Annotated[int, Meta(ge=64, le=MOST_TOKENS)] | Literal["max"], ...],
        Meta(
            description="Tokens that the context holds, or `max` for as many as fit; several with commas make a table."
        ),
        Option("--context -c", heading="Request", default="4096, or more where the request needs it"),
    ] = ()  # type: ignore[assignment]


@verb
def fit(
    models: Annotated[tuple[str, ...], Option(metavar="MODEL...")],
    asked: _GridAsked,
    devices: Annotated[
        tuple[str, ...],
        Option(
            "--device -d",
            "Device: a name, a pattern ('iphone-*'), a line of parts or a file; repeat it to compare "
            "several.",
            default="this machine",
            is_repeated=True,
        ),
    ] = (),
    measured: Annotated[
        Annotated[float, Meta(gt=0, le=1e9)] | None,
        Option(
            "--measured",
            "Decode speed that you measured, in tokens/s: explain how it differs from the prediction.",
        ),
    ] = None,
    log: Annotated[
        str,
        Option(
            "--log",
            "What the program printed: load lines of llama.cpp, `ollama ps`, LM Studio's log, nvidia-smi; a file, or - "
            "for standard input. Confirms or excludes causes of a slow speed.",
            metavar="FILE",
        ),
    ] = "",
    price: Annotated[
        str,
        Option(
            "--price",
            "Price of a kWh, and of a million tokens from a cloud to compare with: 0.30,0.60.",
            metavar="KWH[,ELSEWHERE]",
        ),
    ] = "",
    advises: Annotated[
        bool, Option("--advice/--no-advice", "Look for what would make it fit, or run faster.", "Output")
    ] = True,
    details: Annotated[
        bool,
        Option(
            "--details",
            "Show memory part by part, all speeds, other ways to run it, and what would help.",
            "Output",
        ),
    ] = False,
    form: Annotated[
        Format | None,
        Option(
            "--format",
            "Write the models of --with as the configuration of llama-swap or of llama-server's router.",
            "Output",
        ),
    ] = None,
    explained: Annotated[
        bool,
        Option(
            "--explain",
            "Show the published measurements nearest to the answer, and what is predicted of them.",
            "Output",
        ),
    ] = False,
) -> Output:
    """Predict whether a model fits on a device, and how fast it runs; several of either are compared.

    Several quantisations or contexts (-q Q4_K_M,Q8_0 -c 8k,32k) make a table of what fits where.

    MODEL is a name, a pattern ('llama-3*'), a .gguf, a config.json or a .toml. The fastest way to run it is found: whole, split, by
    the CPU or from storage.

    Exit status: 0 it fits (of several: one does), 1 it does not, or is slower than --min-speed.

    Example: edge-harness fit llama-3.2-3b -d iphone-15-pro -q Q4_K_M
    """
    from harness.answer.answer import answer
    from harness.answer.matrix import matching
    from harness.hardware.devices import device_names
    from harness.models.cards import model_names
    from harness.show.configurations import configuration

    fields = msgspec.structs.asdict(asked)
    quants = fields.pop("quant") or ("",)
    contexts = fields.pop("context_tokens") or (None,)
    pairs = list(
        product(
            matching("model", models, model_names), matching("device", devices or ("this",), device_names)
        )
    )
    if len(quants) * len(contexts) > 1:
        if len(pairs) > 1 or measured or log or price or explained or details or form:
            raise RefusedError(
                "several quantisations or contexts make a table of one model on one device, and nothing else"
            )
        return _table(Question(model=pairs[0][0], device=pairs[0][1], **fields), quants, contexts)
    fields |= {"quant": quants[0], "context_tokens": contexts[0]}
    questions = [Question(model=model, device=device, **fields) for model, device in pairs]
    if len(questions) > 1:
        if measured or log or price or explained or details:
            raise RefusedError(
                "--measured, --log, --price, --details and --explain are about one model on one device"
            )
        return _several(questions)
    if form is not None:
        found = answer(questions[0], advises=False)
        if not found.residents:
            raise RefusedError(f"--format {form}: name another model with --with MODEL")
        text = configuration(found.residents, form)
        return Output(found.residents, lambda: click.echo(text, nl=False))
    seen = None
    if log:
        from harness.answer.pasted import seen_in_file

        seen = seen_in_file(log)
        measured = measured or seen.tokens_per_s
        if measured is None:
            raise RefusedError(f"--log: {log} tells no speed: add --measured with the tokens/s that you saw")
    found = answer(questions[0], advises=advises, takes_idle=measured is not None)
    return _one(found, measured, seen, price, details=details, explained=explained)


def _table(
    question: Question, quants: Sequence[str], contexts: Sequence[int | Literal["max"] | None]
) -> Output:
    """Quantisations by contexts: how fast each writes, and whether it lies whole in memory."""
    from harness.answer.matrix import types_and_contexts
    from harness.show.grid import grid_lines

    rows = types_and_contexts(question, quants, contexts)
    answers = [one for _, cells in rows for one in cells if one is not None]
    if not answers:
        raise RefusedError(f"{question.model} on {question.device}: none of these can be asked for")
    status = Exit.OK if any(one.is_wanted for one in answers) else Exit.BROKEN
    return Output(answers, lambda: say(*grid_lines(rows)), status)


def _several(questions: Sequence[Question]) -> Output:
    """Several models or devices beside each other."""
    from harness.answer.answer import answer
    from harness.show.first_screen import several

    if len(questions) > MOST_QUESTIONS:
        raise InputError(
            f"found {len(questions):,} pairs of a model and a device, expected {MOST_QUESTIONS:,}"
        )
    answers = [answer(question, advises=False) for question in questions]
    if len({one.reads_only for one in answers}) > 1:
        raise RefusedError("an encoder, which writes nothing, is compared with encoders only")

    return Output(
        answers,
        lambda: say(*several(answers)),
        Exit.OK if any(one.is_wanted for one in answers) else Exit.BROKEN,
    )


def _one(
    found: "Answered",
    measured: float | None,
    seen: "Seen | None",
    price: str,
    *,
    details: bool,
    explained: bool,
) -> Output:
    """One model on one device, with what was asked beside the answer."""
    from harness.answer.answer import best_case
    from harness.show.first_screen import first_screen, instead_line
    from harness.show.measured_speed import electricity_line, measured_lines

    document = msgspec.structs.asdict(found)
    says = list[str]()
    if measured is not None:
        from harness.answer.causes import slow
        from harness.answer.pasted import Seen

        why = slow(measured, found, best_case(found), seen or Seen())
        says += measured_lines(why, found)
        document["measured_speed"] = {"says": says[0], "is_expected": why.is_expected, "may_be": why.causes}
    if price:
        cost, line = electricity_line(price, found.energy)
        says.append(line)
        document["electricity"] = cost
    if explained:
        from harness.answer.nearest import neighbours

        document["explanation"] = neighbours(best_case(found))
    more = ["--details"] * (not details)
    if found.sustained is not None and found.question.minutes is None and found.runs:
        more.append("--minutes N")
    more += ["--explain"] * (not explained)

    def show() -> None:
        from harness.show import details as _details

        say(*first_screen(found, more, instead_line(found), says))
        if details:
            say("", *_details.tables(found))
        if document.get("explanation"):
            say(_details.nearest(document["explanation"]))

    return Output(document, show, Exit.OK if found.is_wanted else Exit.BROKEN)
