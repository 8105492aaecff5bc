"""``edge-harness models``: the models there are, their shapes, and their files."""

from collections import Counter
from pathlib import Path
from typing import Annotated, Literal

import click
from msgspec import Meta

from harness.cli import _options as options
from harness.cli.command import Verbs, refuse_typed
from harness.core.option import Option
from harness.core.question import Quant
from harness.core.units import counted, format_bytes
from harness.show.output import Output, say, table

_LISTED = ("name", "title", "family", "licence", "parameter_count", "active_parameter_count", "default_quant")
"""Fields of a card that the list has."""
_CACHE_TOKENS = 32_768
"""Context at which the size of a model's cache is shown, where it takes as much."""


@click.group(cls=Verbs)
def models() -> None:
    """Show models, and fetch their files."""


@models.command()
def show(
    model: Annotated[str | None, Option(metavar="[MODEL]")] = None,
    quant: Quant = "",
) -> Output:
    """Show what MODEL is taken for and why: identity, shape, files, tensors, size of its cache.

    Without MODEL, list all models. MODEL is a name, hf:org/repo, or a path to a card, a config.json or a GGUF
    file.

    Example: edge-harness models show qwen3:8b
    """
    if model is None:
        refuse_typed({"quant"}, "without a MODEL")
        return _list()
    return _one(model, quant or None)


def _list() -> Output:
    from harness.models.cards import load_card, model_names

    document = []
    rows = []
    for card in map(load_card, model_names()):
        quants = [file.quant for file in card.files]
        context = card.shape.context_max_tokens
        architecture = card.shape.architecture
        said = {field: getattr(card, field) for field in _LISTED}
        document.append(
            said | {"architecture": architecture, "context_max_tokens": context, "quants": quants}
        )
        length = f"{context / 1024:g}k" if context else "any"
        counts = _count(card.parameter_count), _count(card.active_parameter_count)
        rows.append((card.name, *counts, length, architecture, " ".join(quants)))
    columns = ("model", "weights", "active", "context", "architecture", "files")
    return Output(document, lambda: say(table(f"{len(rows)} models", columns, rows)))


def _one(name: str, quant: str | None) -> Output:
    """What a name is taken for: a card, a file, a repository of the hub, or a bounded guess."""
    import msgspec

    from harness.answer.resolve import resolve_model
    from harness.core.scenario import Scenario
    from harness.memory.kv_cache import kv_cache_bytes
    from harness.models.guess import CACHE_RATIOS

    model = resolve_model(name, quant)
    card = model.card
    weights = model.weights
    context = min(weights.shape.context_max_tokens or _CACHE_TOKENS, _CACHE_TOKENS)
    cache_bytes = kv_cache_bytes(weights.shape, Scenario(context_tokens=context))
    low, high = CACHE_RATIOS if model.guess else (1.0, 1.0)
    sizes: Counter[str] = Counter()
    for tensor in weights.tensors:
        sizes[tensor.type_name] += tensor.size_bytes
    kinds = {"guess": model.guess, "card": card, "file": model.path, "hub": model.repo, "shape": True}
    document = {
        **(msgspec.to_builtins(card) if card else {"parameter_count": weights.weight_count}),
        "name": model.name,
        "shape": weights.shape,
        "kind": next(word for word, is_so in kinds.items() if is_so),
        "quant": model.quant,
        "file_bytes": weights.file_bytes,
        "synthetic": weights.synthetic,
        "size_bytes_by_type": sizes,
        "why": model.notes,
        "cache": {
            "context_tokens": context,
            "bytes": cache_bytes,
            "low_bytes": round(low * cache_bytes),
            "high_bytes": round(high * cache_bytes),
        },
    }
    between = f", {format_bytes(low * cache_bytes)} to {format_bytes(high * cache_bytes)}" * (low < high)
    by_type = ", ".join(f"{format_bytes(size)} of {kind}" for kind, size in sizes.items())
    rows = [
        ("taken for", f"{document['kind']} {model.name}"),
        (f"size in {model.quant}", f"{format_bytes(weights.file_bytes)}: {by_type}"),
        (f"cache of {context} tokens", f"{format_bytes(cache_bytes)} in F16{between}"),
    ]
    notes = list(model.notes)
    title = model.name
    if card:
        title = card.title
        notes.append(card.notes)
        parameters = f"{_count(card.parameter_count)}, {_count(card.active_parameter_count)} for each token"
        rows += [("licence", card.licence), ("source", card.source), ("parameters", parameters)]
    for key, value in msgspec.to_builtins(weights.shape).items():
        if isinstance(value, dict):
            rows += [(f"{key}.{inner}", str(each)) for inner, each in value.items()]
        elif value:
            rows.append((key, str(value)))
    shown = table(title, ("field", "value"), rows)
    return Output(document, lambda: say(shown, *(f"  {note}" for note in notes if note)))


@models.command()
def pull(model: options.Model, quant: Quant = "") -> Output:
    """Download a file of MODEL (a name or hf:org/repo) into the cache, verified.

    A pull that was interrupted goes on from where it stopped.

    Example: edge-harness models pull smollm2-135m -q Q8_0
    """
    from harness.models.file_hash import sha256_of
    from harness.show.progress_line import RunProgress
    from harness.verbs.locate import obtain

    with RunProgress(f"fetching {model}") as progress:
        located = obtain(model, quant, progress=progress.fetched)
    document = {"model": located.name, "quant": located.quant, "path": str(located.path)}
    return Output({**document, "sha256": sha256_of(located.path)}, lambda: click.echo(str(located.path)))


@models.command()
def export(
    model: options.Model,
    to: Annotated[Literal["onnx"], Option("--to", "Format to write.")] = "onnx",
    quant: Annotated[str, Option("--quant -q", "Precision of the graph's matrices: int4 or fp32.")] = "int4",
    out: Annotated[
        Path | None,
        Option("--out -o", "Folder to make.", metavar="FOLDER", default="MODEL-QUANT here"),
    ] = None,
) -> Output:
    """Export MODEL to a folder that `run --runtime ort` measures: by optimum, with ONNX Runtime's own quantiser.

    MODEL is a name or a GGUF file, whose weights are unpacked first, or the folder of a Hugging Face model. The
    first export installs optimum and torch in an environment of its own. Both models then read one text: what
    either says of it is printed, and kept in the folder as export.json.

    Example: edge-harness models export smollm2-135m --to onnx -q int4
    """
    from harness.onnx.export import PRECISIONS
    from harness.show.progress_line import RunProgress
    from harness.verbs.export import export_onnx

    if quant not in PRECISIONS:
        raise click.UsageError(f"--quant: found {quant!r}, expected {' or '.join(PRECISIONS)}")

    with RunProgress(f"exporting {model} to {to}") as progress:
        made = export_onnx(model, quant, out, progress)
    rows = [(side, f"{perplexity:.4g}") for side, perplexity in made.perplexities]
    shown = table(made.path, ("model", "perplexity"), rows)
    return Output(
        made, lambda: say(shown, *made.notes, f"edge-harness run {Path(made.path).parent} --runtime ort")
    )


@models.command()
def refresh(
    most: Annotated[
        int,
        Meta(ge=1, le=1000),
        Option("--most -n", "Repositories to read, the most downloaded ones first."),
    ] = 500,
    out: Annotated[
        Path | None,
        Option(
            "--out -o",
            "Folder for cards, and for tables in its folder hub.",
            metavar="FOLDER",
            default="your own models",
        ),
    ] = None,
) -> Output:
    """Read the hub's most downloaded GGUF repositories, and write what is new, what changed, what disagrees.

    Of each repository the header of one file is read, and no weights. A model that no card answers gets a card, so
    that its name is answered from then on, offline too. FOLDER/hub has the dated tables and a page of the files
    that contradict what their names are answered with. What was read within a day is not read again.

    Example: edge-harness models refresh --most 50
    """
    from harness.core.paths import home_dir
    from harness.show.progress_line import RunProgress
    from harness.verbs.refresh import refresh as refreshed_from_hub

    with RunProgress("reading the hub's ranking") as progress:
        refreshed = refreshed_from_hub(most, out or home_dir() / "models", progress)
    rows = [
        (row.repo, row.known_as or "no answer", "; ".join(row.contradictions))
        for row in refreshed.repositories
        if row.contradictions or not (row.known_as or row.fault)
    ]
    faults = [f"{row.repo} was not read: {row.fault}" for row in refreshed.repositories if row.fault]
    title = f"{len(rows)} of {len(refreshed.repositories)} repositories are not what their names say, {refreshed.seen}"
    shown = table(title, ("repository", "its name is answered by", "its file says"), rows)
    cards = f"{counted(len(refreshed.cards), 'card')} written: {', '.join(refreshed.cards) or 'every name has its own'}"
    return Output(refreshed, lambda: say(shown, *faults, *refreshed.changed, cards, *refreshed.files))


def _count(count: int) -> str:
    if count >= 999_500_000:  # what would print as 1000M
        return f"{count / 1e9:.3g}B"
    return f"{count / 1e6:.3g}M"
