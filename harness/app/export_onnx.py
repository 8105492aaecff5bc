"""Export a model to ONNX and check what was made: its storage by the lint."""

from collections.abc import Callable
from pathlib import Path

from harness.app.locate import obtain
from harness.catalog._progress import Progress
from harness.catalog.paths import as_path
from harness.domain.base import Frozen
from harness.onnx.export import export
from harness.onnx.files import lint, quantization, size_bytes
from harness.onnx.graph import read_graph


class Exported(Frozen, frozen=True, kw_only=True):
    """What was made."""

    path: str
    quantization: str
    size_bytes: int
    faults: tuple[str, ...]


def export_onnx(
    ref: str,
    target: Path,
    *,
    by: str = "genai",
    quant: str = "int4",
    interpreter: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
    progress: Progress | None = None,
) -> Exported:
    """Export what ``ref`` names (a card, a GGUF file, a checkpoint folder) to the folder ``target``.

    Raises:
        HarnessError: As :func:`harness.onnx.export.export` and :func:`harness.app.locate.obtain`.
    """
    path = as_path(ref)
    checkpoint = path is not None and (path / "config.json").is_file()
    source = path if checkpoint and path is not None else obtain(ref, "", progress=progress).path
    made = export(source, target, by=by, quant=quant, interpreter=interpreter, say=say)
    return Exported(
        path=str(made),
        quantization=quantization(read_graph(made)),
        size_bytes=size_bytes(made),
        faults=tuple(f"{fault.level}: {fault.text}" for fault in lint(made)),
    )
