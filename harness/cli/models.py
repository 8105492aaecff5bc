"""``edge-harness models``: the models there are, their shapes, and their files: fetched, made, exported."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli import _options as options
from harness.cli._command import Verbs
from harness.cli._effect import refuse_typed
from harness.cli._output import Answer, answers, bar, say, table
from harness.errors import RefusedError
from harness.units import format_bytes

if TYPE_CHECKING:
    from harness.app.resolve import ResolvedModel
    from harness.domain.model import ModelCard


@click.group(cls=Verbs)
def models() -> None:
    """List and show models, fetch them, make and export files."""


@models.command("list")
@answers
def list_models() -> Answer:
    """List every model with its size, shape and the files that can be pulled."""
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
    view = table(f"{len(rows)} models", columns, rows, right=(1, 2, 3))
    return Answer([_summary(card) for card in cards], lambda: say(view))


@models.command()
@click.argument("model")
@click.option("--provider", default="", help="Of an ONNX graph: run it there, and show which nodes did run there.")
@click.option("--provider-option", "given", multiple=True, metavar="KEY=VALUE", help="Option of the provider.")
@answers
def show(model: str, provider: str, given: tuple[str, ...]) -> Answer:
    """Show MODEL: identity, shape, files or tensors.

    MODEL is a name, hf:org/repo, or a path to a card, a config.json, a GGUF file or an ONNX folder.
    """
    from harness.app.resolve import resolve_model
    from harness.catalog.paths import as_path

    path = as_path(model)
    if path is not None and path.suffix not in {".gguf", ".toml"}:
        from harness.onnx.files import onnx_model

        if (graph := onnx_model(path)) is not None:
            return _onnx(graph, provider, given)
    refuse_typed({"provider"}, "but for an ONNX graph")
    if path is not None and path.suffix == ".gguf" and path.exists():
        return _gguf(path)
    meant = resolve_model(model)
    card = meant.card or _nobodys(meant)

    def tell() -> None:
        say(table(f"{card.title} ({card.family})", ("field", "value"), _rows(card)))
        for note in filter(None, (*meant.notes, card.notes)):
            click.echo(f"  {note}")

    return Answer(card, tell)


@models.command()
@click.argument("model")
@click.option("--quant", "-q", help="Which of its files; its default where not given.")
@answers
def pull(model: str, quant: str | None) -> Answer:
    """Fetch a file of MODEL (a name or hf:org/repo) into the cache, verified; an interrupted pull goes on."""
    from harness.app.locate import obtain
    from harness.catalog.file_hash import sha256_of

    with bar(model) as progress:
        located = obtain(model, quant or "", progress=progress)
    document = {"model": located.name, "quant": located.quant, "path": str(located.path)}
    return Answer({**document, "sha256": sha256_of(located.path)}, lambda: click.echo(str(located.path)))


@models.command()
@click.argument("model")
@click.option("--quant", "-q", help="Mixture, such as IQ2_XXS; the model's default where not given.")
@click.option("--out", "-o", type=options.FILE, help="File; in the cache by default.")
@options.seed("the weights")
@click.option(
    "--routing-skew",
    type=options.Amount(most=3, or_zero=True),
    metavar="Z",
    help="Experts are chosen by a Zipf law of this exponent (0: evenly), independently for each token.",
)
@answers
def synthesize(model: str, quant: str | None, out: Path | None, seed: int, routing_skew: float | None) -> Answer:
    """Write a file with MODEL's true shapes and random weights: real size and speed, no meaning."""
    from harness.app.resolve import resolve_model, routing_of
    from harness.catalog.gguf import read_weights
    from harness.catalog.paths import cache_dir
    from harness.catalog.synthesize import synthesize as write

    found = resolve_model(model, quant)
    routing = None if routing_skew is None else routing_of(found.weights.shape, routing_skew)
    name = f"{found.name}-{found.quant.lower()}-synthetic" + ("" if routing is None else f"-z{routing_skew:g}")
    path = out or cache_dir() / "synthetic" / f"{name}.gguf"
    with bar(name) as progress:
        write(found.weights, path, seed=seed, name=name, routing=routing, progress=progress)
    if read_weights(path).shape != found.weights.shape:
        path.unlink()
        architecture = found.weights.shape.architecture
        raise RefusedError(f"{found.name}: a file of {architecture} cannot say how its layers differ; it was removed")
    document = {"path": str(path), "quant": found.quant, "size_bytes": path.stat().st_size, "weights": "synthetic"}
    return Answer({**document, "routing_skew": routing_skew}, lambda: click.echo(str(path)))


@models.command()
@click.argument("model")
@click.option(
    "--precision",
    "quant",
    type=click.Choice(["fp32", "int4"]),
    default="int4",
    show_default=True,
    help="Precision of the graph's weights.",
)
@click.option(
    "--by",
    type=click.Choice(["genai", "optimum"]),
    default="genai",
    show_default=True,
    help="Exporter: onnxruntime-genai's builder, or optimum, which makes fp32 graphs (--precision fp32).",
)
@click.option("--out", "-o", required=True, type=options.FOLDER, help="Folder to make.")
@click.option(
    "--python",
    "interpreter",
    type=options.FILE_HERE,
    help="Interpreter that has torch and the exporter (extra `genai-build` or `export`); this one unless given.",
)
@answers
def export(model: str, quant: str, out: Path, **asked: Any) -> Answer:
    """Export MODEL (a name, a GGUF file or a checkpoint folder) to an ONNX folder for `ort` and `genai`, offline."""
    from harness.app.export_onnx import export_onnx

    with bar(model) as progress:
        made = export_onnx(model, out, quant=quant, say=partial(click.echo, err=True), progress=progress, **asked)

    def show() -> None:
        click.echo(f"{made.path}: {made.quantization}, {format_bytes(made.size_bytes)}")
        for fault in made.faults:
            click.echo(f"  {fault}")

    return Answer(made, show)


@models.command()
@click.argument("name")
@click.option("--quant", "-q", help="Quantisation, where the name has none.")
@answers
def resolve(name: str, quant: str | None) -> Answer:
    """Say what NAME is taken for, and why: a card, a repository of the hub, a file, or a bounded guess."""
    from harness.app.resolve import resolve_model
    from harness.predict.kv_cache import kv_cache_bytes

    found = resolve_model(name, quant)
    context = min(found.weights.shape.context_max_tokens or 32768, 32768)
    shapes = found.guess.around if found.guess else ()
    caches = sorted(kv_cache_bytes(shape, context) for shape in (found.weights.shape, *shapes))
    kind = "guess" if found.guess else "card" if found.card else "file" if found.path else "hub"
    count = sum(t.element_count for t in found.weights.tensors)
    document = {
        "name": name, "kind": kind, "model": found.name, "quant": found.quant, "why": found.notes,
        "parameter_count": count, "file_bytes": found.weights.file_bytes, "shape": found.weights.shape,
        "cache": {"context_tokens": context, "bytes": kv_cache_bytes(found.weights.shape, context),
                  "low_bytes": caches[0], "high_bytes": caches[-1]},
        "like": found.guess.like if found.guess else (),
    }  # fmt: skip
    between = f", {format_bytes(caches[0])} to {format_bytes(caches[-1])}" if found.guess else ""
    lines = [
        f"{name}: {kind} {found.name}, {found.quant}, {format_bytes(found.weights.file_bytes)}",
        f"cache of {context} tokens in F16: {format_bytes(kv_cache_bytes(found.weights.shape, context))}{between}",
        *found.notes,
    ]
    return Answer(document, lambda: click.echo("\n  ".join(lines)))


def _nobodys(model: "ResolvedModel") -> "ModelCard":
    """What there is to show of a model without a card: a config.json, a repository of the hub, or a bounded guess."""
    from harness.domain.model import ModelCard

    shape, count = model.weights.shape, sum(tensor.element_count for tensor in model.weights.tensors)
    active = round(model.guess.active_b * 1e9) if model.guess else 0
    return ModelCard(
        name=model.name,
        title=model.name,
        family=shape.architecture,
        licence="not told",
        shape=shape,
        source="; ".join(model.notes[:1]) or "its file",
        parameter_count=count,
        active_parameter_count=active,
    )


def _gguf(path: Path) -> Answer:
    """What a GGUF file says of itself: its shape, and its tensors by type."""
    import msgspec

    from harness.catalog.gguf import read_whole
    from harness.domain.ggml import BLOCKS

    header = read_whole(path)
    weights = header.weights()
    sums: dict[str, tuple[int, int, int]] = {}
    for tensor in weights.tensors:
        count, elements, size = sums.get(tensor.type_name, (0, 0, 0))
        sums[tensor.type_name] = count + 1, elements + tensor.element_count, size + tensor.size_bytes
    by_type = sorted(((name, *of_type) for name, of_type in sums.items()), key=lambda row: -row[3])
    document = {
        "name": header.name,
        "quant": weights.quant,
        "synthetic": weights.synthetic,
        "file_bytes": weights.file_bytes,
        "shape": weights.shape,
        "types": [{"type": t, "tensors": n, "weights": c, "size_bytes": b} for t, n, c, b in by_type],
    }
    kind = "random weights, " if weights.synthetic else ""
    title = f"{header.name}: {weights.quant}, {kind}{format_bytes(weights.file_bytes)}, {len(weights.tensors)} tensors"
    shape = [(k, str(v)) for k, v in msgspec.to_builtins(weights.shape).items() if v not in (None, 0, False)]
    rows = [(t, str(n), f"{c:,}", format_bytes(b), f"{BLOCKS[t].bits_per_weight:.4g}") for t, n, c, b in by_type]
    types = table("", ("type", "tensors", "weights", "bytes", "bits/weight"), rows, right=(1, 2, 3, 4))
    return Answer(document, lambda: say(table(title, ("field", "value"), shape), types))


def _onnx(path: Path, provider: str, given: tuple[str, ...]) -> Answer:
    """What an ONNX file says of itself, what is wrong with how it is stored, and what runs on a provider."""
    from harness.onnx.files import lint, quantization, size_bytes
    from harness.onnx.graph import read_graph
    from harness.onnx.providers import ProviderShare, example_feeds, provider_named, provider_shares

    graph, faults = read_graph(path), lint(path)
    size = 0 if any(f.level == "broken" for f in faults) else size_bytes(path)
    shares: tuple[ProviderShare, ...] = ()
    if provider:
        asked = {provider_named(provider): dict(option.partition("=")[::2] for option in given)} if given else None
        shares = provider_shares(path, example_feeds(path), [provider], options=asked)
    document = {
        "path": str(path),
        "producer": graph.producer,
        "quantization": quantization(graph),
        "size_bytes": size,
        **{name: getattr(graph, name) for name in ("weight_bytes", "inline_bytes", "opsets")},
        "operations": dict(graph.op_counts.most_common()),
        "inputs": [p._asdict() for p in graph.inputs],
        "outputs": [p._asdict() for p in graph.outputs],
        "faults": [f._asdict() for f in faults],
        "providers": [s._asdict() for s in shares],
    }
    title = f"{path}: {quantization(graph)}, {format_bytes(size)}, {len(graph.nodes)} nodes, by {graph.producer}"
    rows = [("in", p.name, p.dtype, " x ".join(map(str, p.dims))) for p in graph.inputs]
    rows += [("out", p.name, p.dtype, " x ".join(map(str, p.dims))) for p in graph.outputs]

    def show() -> None:
        say(table(title, ("", "port", "type", "shape"), rows))
        for fault in faults:
            click.echo(f"  {fault.level}: {fault.text}")
        for share in shares:
            nodes = f"{share.node_count} nodes ({share.node_ratio:.0%})"
            click.echo(f"  {share.provider} ran {nodes}, {share.time_ratio:.0%} of the time")

    return Answer(document, show)


def _rows(card: "ModelCard") -> list[tuple[str, str]]:
    import msgspec

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
