"""Results of other tools as run records: recognised by what is in a file, read leniently, bounded in size."""

from contextlib import suppress
from pathlib import Path

import msgspec

from harness.core.errors import BadDataError
from harness.core.foreign import json_of, read_limited
from harness.core.record import Record
from harness.records.imports.bench_rows import of_answer, of_llama_bench
from harness.records.imports.pasted import from_text
from harness.records.store import from_document

_TIMES = frozenset(("avg_ns", "avg_ts", "samples_ns"))


def read_results(path: Path) -> list[Record]:
    """Records of a file: ours (one, or a list of them), what another tool or server wrote, or what a person pasted.

    What the verbs that measure print with ``--json`` is read too.

    Raises:
        BadDataError: There is none, or it is none of these.
    """
    data = read_limited(path)
    encoding = "utf-8-sig"
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):  # as PowerShell writes what is redirected
        encoding = "utf-16"
    text = data.decode(encoding, errors="replace")
    if not text.lstrip().startswith(("{", "[")):
        return from_text(text, path)
    document = _document(text, path)
    if isinstance(document, dict):
        if "schema_version" in document:
            return [from_document(document, path)]
        document = document.get("records", [document.get("record", document)])
    if isinstance(document, list) and document and all(isinstance(one, dict) for one in document):
        if all("run_id" in one for one in document):
            return [from_document(one, f"{path}[{index}]") for index, one in enumerate(document)]
        if all(_TIMES & one.keys() for one in document):
            return of_llama_bench(document, path)
        answered = [of_answer(one, f"{path}[{index}]") for index, one in enumerate(document)]
        if None not in answered:
            return [one for one in answered if one]
    raise BadDataError(
        path,
        "",
        "results of no tool known here",
        "a run record, or what llama-bench, Ollama, LM Studio or llama-server wrote",
    )


def _document(text: str, path: Path) -> object:
    """The file as one JSON document, or else the list of its JSON lines."""
    try:
        return json_of(text.encode(), path, "results of a tool")
    except BadDataError:
        with suppress(msgspec.DecodeError, RecursionError):
            return msgspec.json.Decoder().decode_lines(text)
        raise
