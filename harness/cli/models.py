"""``edge-harness models``: the models there are, their shapes, and where their files can be had."""

from typing import TYPE_CHECKING

import click

from harness.cli._model_files import add, export, gguf, onnx, pull, resolve, synthesize
from harness.cli._output import Answer, answers, say, table

if TYPE_CHECKING:
    from harness.domain.model import ModelCard


@click.group()
def models() -> None:
    """List and show models, fetch them, add your own."""


@models.command("list")
@answers
def list_models() -> Answer:
    """List every model with its size, shape and the files that can be pulled."""
    from harness.catalog.models import model_names
    from harness.catalog.names import load_model

    cards = [load_model(name) for name in model_names()]
    columns = ("model", "weights", "active", "context", "kind", "files")
    rows = [
        (
            card.name,
            _count(card.parameter_count),
            _count(card.active_parameter_count),
            f"{card.shape.context_max_tokens / 1024:g}k" if card.shape.context_max_tokens else "any",
            _kind(card),
            " ".join(f.quant for f in card.files),
        )
        for card in cards
    ]
    view = table(f"{len(rows)} models", columns, rows, right=(1, 2, 3))
    view.columns[0].no_wrap = view.columns[4].no_wrap = True
    return Answer([_summary(card) for card in cards], lambda: say(view))


@models.command()
@click.argument("model")
@click.option("--provider", default="", help="Of an ONNX graph: run it there, and show which nodes did run there.")
@click.option("--provider-option", "options", multiple=True, metavar="KEY=VALUE", help="Option of the provider.")
@answers
def show(model: str, provider: str, options: tuple[str, ...]) -> Answer:
    """Show MODEL (a name, or a path to a card, a GGUF file or an ONNX folder): identity, shape, files or tensors."""
    from harness.catalog.names import load_model
    from harness.catalog.paths import as_path

    path = as_path(model)
    if path is not None and path.suffix == ".gguf":
        return gguf(path)
    if path is not None and path.suffix != ".toml":
        from harness.onnx.files import onnx_model

        if (graph := onnx_model(path)) is not None:
            return onnx(graph, provider, options)
    if provider or options:
        raise click.UsageError("--provider is for an ONNX graph")
    card = load_model(model)

    def tell() -> None:
        say(table(f"{card.title} ({card.family})", ("field", "value"), _rows(card)))
        if card.notes:
            click.echo(f"  {card.notes}")

    return Answer(card, tell)


def _rows(card: "ModelCard") -> list[tuple[str, str]]:
    import msgspec

    from harness.units import format_bytes

    rows = [
        ("licence", card.licence),
        ("source", card.source),
        ("parameters", f"{_count(card.parameter_count)}, {_count(card.active_parameter_count)} for each token"),
        ("default quant", card.default_quant),
    ]
    for key, value in msgspec.to_builtins(card.shape).items():
        if isinstance(value, dict):
            rows += [(f"{key}.{inner}", str(v)) for inner, v in value.items()]
        elif value is not None:
            rows.append((key, str(value)))
    for file in card.files:
        origins = [f"hub {file.hub.repo}/{file.hub.file}"] if file.hub else []
        origins += [f"registry {' '.join(file.registry.packages)}"] if file.registry else []
        origins += [file.path] if file.path else []
        where = "; ".join(origins) or "no source"
        rows.append((f"file {file.quant}", f"{format_bytes(file.size_bytes)}, sha256 {file.sha256}, {where}"))
    return rows


def _summary(card: "ModelCard") -> dict[str, object]:
    own = ("name", "title", "family", "licence", "parameter_count", "active_parameter_count", "default_quant")
    of_shape = {name: getattr(card.shape, name) for name in ("architecture", "context_max_tokens")}
    found = {name: getattr(card, name) for name in own} | of_shape
    return found | {"kind": _kind(card), "quants": [f.quant for f in card.files]}


def _kind(card: "ModelCard") -> str:
    shape = card.shape
    parts = ["recurrent" if not shape.recurrent.attention_step_count else "hybrid"] if shape.recurrent else []
    parts += ["mla"] * (shape.latent is not None) + ["moe"] * (shape.experts is not None)
    parts += ["sliding"] * (shape.sliding_window_tokens > 0)
    return "+".join(parts) or "dense"


def _count(count: int) -> str:
    for unit, letter in ((10**9, "B"), (10**6, "M")):
        if count >= 0.9995 * unit:  # what would print as 1000 of the unit below
            return f"{count / unit:.3g}{letter}"
    return str(count) if count else "?"


for _command in (pull, add, resolve, synthesize, export):
    models.add_command(_command)

COMMAND = models
