"""Export a model to ONNX and check what was made: its graph against torch's own answers, its storage by the lint."""

from collections.abc import Callable
from pathlib import Path

from harness.app.locate import obtain
from harness.catalog._progress import Progress
from harness.catalog.paths import as_path
from harness.domain.base import Frozen
from harness.measure.answers import AnswersJob
from harness.measure.pipeline import prepare
from harness.onnx.export import export, read_record
from harness.onnx.files import lint, quantization, size_bytes
from harness.onnx.graph import read_graph

ANSWERS_TARGET = "harness.measure.answers:run_answers"


class Exported(Frozen, frozen=True, kw_only=True):
    """What was made.

    ``greedy_count`` are tokens that torch chose from the float checkpoint (0 where it was not asked), and
    ``greedy_equal_count`` those that the exported graph chose too, from the first on.
    """

    path: str
    to: str
    quantization: str
    size_bytes: int
    greedy_count: int
    greedy_equal_count: int
    faults: tuple[str, ...]


def export_onnx(
    ref: str,
    target: Path,
    *,
    to: str = "onnx",
    quant: str = "int4",
    interpreter: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
    progress: Progress | None = None,
) -> Exported:
    """Export what ``ref`` names (a card, a GGUF file, a checkpoint folder) to the folder ``target``.

    Raises:
        HarnessError: As :func:`harness.onnx.export.export` and :func:`harness.app.locate.obtain`; the engine could not
            run what was made.
    """
    path = as_path(ref)
    checkpoint = path is not None and (path / "config.json").is_file()
    source = path if checkpoint and path is not None else obtain(ref, "", progress=progress).path
    made = export(source, target, to=to, quant=quant, interpreter=interpreter, say=say)
    record = read_record(target)
    expected = tuple(record.get("greedy_tokens", ()))
    found: tuple[int, ...] = ()
    if expected:
        say("checking its answers")
        prompt = tuple(record["prompt_tokens"])
        job = AnswersJob(path=str(made), runtime="ort", prompt_tokens=prompt, greedy_count=len(expected))
        found = tuple(prepare(ANSWERS_TARGET, job)["greedy"])
    return Exported(
        path=str(made),
        to=to,
        quantization=quantization(read_graph(made)),
        size_bytes=size_bytes(made),
        greedy_count=len(expected),
        greedy_equal_count=equal_count(expected, found),
        faults=tuple(f"{fault.level}: {fault.text}" for fault in lint(made)),
    )


def equal_count(expected: tuple[int, ...], found: tuple[int, ...]) -> int:
    """Tokens that agree before the first that does not."""
    pairs = enumerate(zip(expected, found, strict=False))
    return next((at for at, (mine, theirs) in pairs if mine != theirs), min(len(expected), len(found)))
