"""Exporting a model to another format, and what the copy lost."""

import math
from pathlib import Path
from typing import Final

import msgspec

from harness.core.errors import CouldNotRunError
from harness.core.scenario import Scenario
from harness.measure.child import run_helper
from harness.measure.jobs.score import CHUNK_TOKENS, TextJob
from harness.measure.pipeline import Listener
from harness.models.file_hash import sha256_of
from harness.onnx.export import export
from harness.verbs.locate import obtain

KEPT: Final = "export.json"
"""File of the new folder that says what it was made from, and how well either side reads a text."""
_CHUNKS: Final = 8


class Exported(msgspec.Struct, frozen=True):
    """A model that was exported.

    Attributes:
        path: The graph.
        source: Name of the file or folder that it was made from.
        source_sha256: Hash of that file; empty for a folder.
        precision: Of the graph's matrices.
        token_count: Tokens of the shipped text that either side was scored on; 0 where neither could be.
        perplexities: By side: the original, and the copy.
        notes: What could not be checked, and why.
    """

    path: str
    source: str
    source_sha256: str
    precision: str
    token_count: int
    perplexities: tuple[tuple[str, float], ...]
    notes: tuple[str, ...]


def export_onnx(model: str, precision: str, folder: Path | None, listener: Listener) -> Exported:
    """Export ``model`` to ``folder``, and let both read the shipped text.

    Raises:
        HarnessError: The model cannot be had, or cannot be exported.
    """
    source = Path(model)
    if source.is_dir():
        name, digest = source.name, ""
    else:
        located = obtain(model, "", progress=listener.fetched)
        source, name, digest = located.path, located.name, sha256_of(located.path)
    path = export(source, folder or Path(f"{name}-{precision}"), precision, listener.say)
    listener.say("reading a text with both")
    sides = {f"ONNX {precision}": ("ort", path)}
    if source.is_file():
        sides = {f"original, {source.name}": ("llamacpp", source), **sides}
    found, notes, token_count = [], [], 0
    for side, (runtime, place) in sides.items():
        try:
            losses = losses_of(runtime, place)
        except CouldNotRunError as error:
            notes.append(f"{side}: not checked: {error}")
            continue
        token_count = len(losses)
        found.append((side, math.exp(sum(losses) / len(losses))))
    made = Exported(str(path), source.name, digest, precision, token_count, tuple(found), tuple(notes))
    document = msgspec.structs.replace(made, path=path.name)
    (path.parent / KEPT).write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=1))
    return made


def losses_of(runtime: str, path: Path) -> list[float]:
    """Negative log-probability (nats) of each scored token of the shipped text, read in a child process.

    Raises:
        CouldNotRunError: The runtime gives none.
    """
    job = TextJob(
        runtime=runtime,
        scenario=Scenario(context_tokens=CHUNK_TOKENS),
        path=str(path.absolute()),
        chunk_count=_CHUNKS,
    )
    ended = run_helper(f"{TextJob.__module__}:run_text", job)
    told: list[list[float]] = ended.told("nll")
    if not told or not told[0]:
        raise CouldNotRunError(ended.detail or ended.outcome)
    return told[0]
