"""``edge-harness models``: the models there are, their shapes, and their files: fetched or made."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click
from msgspec import Meta

from harness.cli import _options as options
from harness.cli._command import Verbs, refuse_typed
from harness.cli._output import Answer, say, table
from harness.domain.option import Option
from harness.domain.question import Quant
from harness.errors import RefusedError
from harness.units import format_bytes

if TYPE_CHECKING:
    from harness.domain.model import ModelCard

_CACHE_TOKENS = 32_768
"""Context at which the size of a model's cache is shown, where it takes as much."""


@click.group(cls=Verbs)
def models() -> None:
    """Show models; fetch or make their files."""


@models.command()
def show(
    model: Annotated[str | None, Option(metavar="[MODEL]", names="models")] = None,
    quant: Quant = "",
) -> Answer:
    """Show what MODEL is taken for and why: identity, shape, files, tensors, size of its cache.

    Without it, list all.

    MODEL is a name, hf:org/repo, or a path to a card, a config.json, a GGUF file or an ONNX folder.
    """
    from harness.catalog.paths import as_path

    if model is None:
        refuse_typed({"quant"}, "without a MODEL")
        return _list()
    path = as_path(model)
    if path is not None and path.suffix not in {".gguf", ".toml"}:
        from harness.onnx.files import onnx_model

        if (graph := onnx_model(path)) is not None:
            refuse_typed({"quant"}, "for an ONNX graph")
            return _onnx(graph)
    return _decoder(model, quant or None)


def _list() -> Answer:
    from harness.catalog.models import load_card, model_names

    cards = [load_card(name) for name in model_names()]
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
    view = table(f"{len(rows)} models", columns, rows)
    return Answer([_summary(card) for card in cards], lambda: say(view))


def _decoder(name: str, quant: str | None) -> Answer:
    """What a name is taken for: a card, a file, a repository of the hub, or a bounded guess."""
    import msgspec

    from harness.app.resolve import resolve_model
    from harness.domain.ggml import BLOCKS
    from harness.domain.model import ModelCard
    from harness.domain.scenario import Scenario
    from harness.predict.kv_cache import kv_cache_bytes

    model = resolve_model(name, quant)
    shape = model.weights.shape
    guess = model.guess
    card = model.card or ModelCard(
        name=model.name,
        title=model.name,
        family=shape.architecture,
        licence="not known",
        shape=shape,
        source="; ".join(model.notes[:1]) or "its file",
        parameter_count=model.weights.weight_count,
        active_parameter_count=round(guess.active_b * 1e9) if guess else 0,
    )
    context = min(shape.context_max_tokens or _CACHE_TOKENS, _CACHE_TOKENS)
    scenario = Scenario(context_tokens=context)
    cache = kv_cache_bytes(shape, scenario)
    low, high = guess.cache_ratios if guess else (1.0, 1.0)
    types: dict[str, dict[str, int]] = {}
    for tensor in model.weights.tensors:
        sums = types.setdefault(tensor.type_name, {"tensors": 0, "weights": 0, "size_bytes": 0})
        sums["tensors"] += 1
        sums["weights"] += tensor.element_count
        sums["size_bytes"] += tensor.size_bytes
    if guess:
        kind = "guess"
    elif model.card:
        kind = "card"
    elif model.path:
        kind = "file"
    elif model.repo:
        kind = "hub"
    else:
        kind = "shape"
    document = msgspec.to_builtins(card) | {
        "kind": kind,
        "quant": model.quant,
        "file_bytes": model.weights.file_bytes,
        "synthetic": model.weights.synthetic,
        "types": types,
        "why": model.notes,
        "cache": {
            "context_tokens": context,
            "bytes": cache,
            "low_bytes": round(low * cache),
            "high_bytes": round(high * cache),
        },
    }
    between = ""
    if guess:
        between = f", {format_bytes(low * cache)} to {format_bytes(high * cache)}"
    rows = [
        ("taken for", f"{kind} {model.name}"),
        (f"size in {model.quant}", format_bytes(model.weights.file_bytes)),
        (f"cache of {context} tokens", f"{format_bytes(cache)} in F16{between}"),
        *_rows(card),
    ]

    def tell() -> None:
        say(table(f"{card.title} ({card.family})", ("field", "value"), rows))
        by_type = [
            (
                name,
                str(sums["tensors"]),
                f"{sums['weights']:,}",
                format_bytes(sums["size_bytes"]),
                f"{bits:.4g}",
            )
            for name, sums in types.items()
            if (bits := BLOCKS[name].bits_per_weight)
        ]
        say(table("", ("type", "tensors", "weights", "bytes", "bits/weight"), by_type))
        for note in filter(None, (*model.notes, card.notes)):
            click.echo(f"  {note}")

    return Answer(document, tell)


@models.command()
def pull(model: options.Model, quant: Quant = "") -> Answer:
    """Download a file of MODEL (a name or hf:org/repo) into the cache, verified.

    An interrupted pull is resumed.
    """
    from harness.app.locate import obtain
    from harness.catalog.file_hash import sha256_of
    from harness.cli._progress import RunProgress

    with RunProgress(f"fetching {model}") as progress:
        located = obtain(model, quant, progress=progress.fetched)
    document = {"model": located.name, "quant": located.quant, "path": str(located.path)}
    return Answer({**document, "sha256": sha256_of(located.path)}, lambda: click.echo(str(located.path)))


@models.command()
def synthesize(
    model: options.Model,
    quant: Quant = "",
    out: Annotated[
        Path | None,
        Meta(description="File to write."),
        Option("--out -o", "Output", path="file", default="in the cache"),
    ] = None,
    seed: options.Seed = 0,
) -> Answer:
    """Write a file with MODEL's true shapes and random weights: real size and speed, meaningless answers.

    The router of a mixture of experts chooses all experts evenly: the worst case for streaming them.
    """
    from harness.app.resolve import resolve_model
    from harness.catalog.gguf import read_weights
    from harness.catalog.paths import cache_dir
    from harness.catalog.synthesize import synthesize as write
    from harness.cli._progress import RunProgress

    source = resolve_model(model, quant or None)
    name = f"{source.name}-{source.quant.lower()}-synthetic"
    path = out or cache_dir() / "synthetic" / f"{name}.gguf"
    with RunProgress(f"writing {name}") as progress:
        write(source.weights, path, seed=seed, name=name, progress=progress.fetched)
    if read_weights(path).shape != source.weights.shape:
        path.unlink()
        architecture = source.weights.shape.architecture
        raise RefusedError(
            f"{source.name}: a file of {architecture} cannot say how its layers differ; it was removed"
        )
    document = {
        "path": str(path),
        "quant": source.quant,
        "size_bytes": path.stat().st_size,
        "weights": "synthetic",
    }
    return Answer(document, lambda: click.echo(str(path)))


def _onnx(path: Path) -> Answer:
    """What an ONNX file says of itself."""
    from harness.onnx.files import quantization, size_bytes
    from harness.onnx.graph import read_graph

    graph = read_graph(path)
    size = size_bytes(path)
    document = {
        "path": str(path),
        "producer": graph.producer,
        "quantization": quantization(graph),
        "size_bytes": size,
        **{name: getattr(graph, name) for name in ("weight_bytes", "inline_bytes", "opsets")},
        "operations": dict(graph.op_counts.most_common()),
        "inputs": [port._asdict() for port in graph.inputs],
        "outputs": [port._asdict() for port in graph.outputs],
    }

    def show() -> None:
        click.echo(
            f"{path}: {quantization(graph)}, {format_bytes(size)}, {len(graph.nodes)} nodes, by {graph.producer}"
        )
        for port in (*graph.inputs, *graph.outputs):
            click.echo(f"  {port.name}: {port.dtype} {' x '.join(map(str, port.dims))}")
        if graph.inline_bytes:
            click.echo(
                f"  {format_bytes(graph.inline_bytes)} of weights inside the model file are held twice"
            )

    return Answer(document, show)


def _rows(card: "ModelCard") -> list[tuple[str, str]]:
    import msgspec

    rows = [
        ("licence", card.licence),
        ("source", card.source),
        (
            "parameters",
            f"{_count(card.parameter_count)}, {_count(card.active_parameter_count)} for each token",
        ),
        ("default quant", card.default_quant),
    ]
    for key, value in msgspec.to_builtins(card.shape).items():
        if isinstance(value, dict):
            rows += [(f"{key}.{inner}", str(v)) for inner, v in value.items()]
        elif value not in {None, 0, ""}:
            rows.append((key, str(value)))
    for file in card.files:
        if file.hub:
            origins = [f"hub {file.hub.repo}/{file.hub.file}"]
        else:
            origins = []
        if file.registry:
            origins += [f"registry {' '.join(file.registry.packages)}"]
        if file.path:
            origins += [file.path]
        where = "; ".join(origins) or "no source"
        rows.append((f"file {file.quant}", f"{format_bytes(file.size_bytes)}, sha256 {file.sha256}, {where}"))
    return rows


def _summary(card: "ModelCard") -> dict[str, object]:
    own = ("name", "title", "family", "licence", "parameter_count", "active_parameter_count", "default_quant")
    of_shape = {name: getattr(card.shape, name) for name in ("architecture", "context_max_tokens")}
    fields = {name: getattr(card, name) for name in own} | of_shape
    return fields | {"kind": _kind(card), "quants": [f.quant for f in card.files]}


def _kind(card: "ModelCard") -> str:
    shape = card.shape
    if shape.recurrent:
        parts = ["recurrent" if not shape.recurrent.attention_step_count else "hybrid"]
    else:
        parts = []
    parts += ["mla"] * (shape.latent is not None) + ["moe"] * (shape.experts is not None)
    parts += ["sliding"] * (shape.sliding_window_tokens > 0)
    return "+".join(parts) or "dense"


def _count(count: int) -> str:
    for unit, letter in ((10**9, "B"), (10**6, "M")):
        if count >= 0.9995 * unit:  # what would print as 1000 of the unit below
            return f"{count / unit:.3g}{letter}"
    if count:
        return str(count)
    return "?"
