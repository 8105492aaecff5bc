"""Records by the hundred thousand: JSON lines, Parquet or another history, decoded by every core; Parquet out."""

import gc
import io
import os
import signal
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from functools import partial
from itertools import accumulate, chain, islice, pairwise
from pathlib import Path
from typing import Any, Final

from harness.errors import BadDataError, CouldNotRunError, optional
from harness.records.history import History, HistoryEntry, Row, is_history, row_of
from harness.records.metrics import UNITS
from harness.records.store import RECORD_MAX_BYTES, decode, write_atomically

_PART_BYTES: Final = 4 << 20
_PART_RUNS: Final = 500
_MOST_PROCESSES: Final = 8
_AHEAD: Final = 32
"""Parts that are decoded, or wait to be, before they are asked for: what bounds the memory."""

Part = Callable[[], list[Row]]


def rows(path: Path) -> Iterator[list[Row]]:
    """Rows of a file for ``History.keep``, a part at a time, in the file's order; every record is checked in full.

    Args:
        path: JSON lines (.jsonl), another history (.sqlite), or a table with a column ``record`` (.parquet).

    Raises:
        BadDataError: A record breaks the schema: names file and line, or file and run.
        CouldNotRunError: A process that decoded was killed.
        MissingPackageError: Parquet without pyarrow.
    """
    parts = iter(_PARTS[path.suffix](path))
    first = list(islice(parts, 2))
    pool = _pool() if len(first) > 1 else None
    if pool is None:
        yield from (part() for part in chain(first, parts))
        return
    try:
        with pool:
            ahead = deque(pool.submit(part) for part in chain(first, islice(parts, _AHEAD)))
            while ahead:
                yield ahead.popleft().result()
                ahead.extend(pool.submit(part) for part in islice(parts, 1))
    except BrokenProcessPool as error:
        raise CouldNotRunError(f"{path}: a process that read it was killed. Is the memory full?") from error


def _pool() -> ProcessPoolExecutor | None:
    """Processes for the parts; None on a system without semaphores, such as Android's."""
    with suppress(NotImplementedError, OSError):
        return ProcessPoolExecutor(min(_MOST_PROCESSES, os.cpu_count() or 1), initializer=_begin)
    return None


def _begin() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the process that asked
    gc.disable()  # rows hold no cycles


def _lines(path: Path) -> Iterator[Part]:
    begins = range(0, path.stat().st_size, _PART_BYTES)
    return (partial(_of_lines, path, begin, begin + _PART_BYTES) for begin in begins)


def _of_lines(path: Path, begin: int, end: int) -> list[Row]:
    """Rows of the lines that begin in this part of the file."""
    found, at = [], begin
    with path.open("rb") as file:
        read = partial(file.readline, RECORD_MAX_BYTES + 1)
        if begin:  # a line that began before is read by the part before
            file.seek(begin - 1)
            at += len(read()) - 1
        try:
            while at < end and (line := read()):
                found.append(row_of(decode(line, path), line.rstrip()))
                at += len(line)
        except BadDataError as error:
            file.seek(0)
            number = next(n for n, end in enumerate(accumulate(map(len, iter(read, b""))), 1) if end > at)
            raise BadDataError(f"{path}:{number}", error.field, error.found, error.expected) from error
    return found


def _history(path: Path) -> Iterator[Part]:
    history = History(path)
    begins = sorted(entry.run_id for entry in history.entries(limit=2**62))[::_PART_RUNS]
    return (partial(history.part, *ends) for ends in pairwise([*begins, "\U0010ffff"]))


def _table(path: Path) -> Iterator[Part]:
    with _told(path):
        schema = (file := _parquet().ParquetFile(path)).schema_arrow
    if "record" not in schema.names or str(schema.field("record").type) not in {"string", "large_string", "binary"}:
        raise BadDataError(path, "record", "no such column of texts", "run records as JSON, one in each row")
    return (partial(_of_group, path, group) for group in range(file.num_row_groups))


def _of_group(path: Path, group: int) -> list[Row]:
    found, file = [], _parquet().ParquetFile(path)
    at = sum(file.metadata.row_group(i).num_rows for i in range(group))
    with _told(path):
        for batch in file.iter_batches(_PART_RUNS, row_groups=[group], columns=["record"]):
            for data in batch.column(0).cast("binary").to_pylist():
                at += 1
                found.append(row_of(decode(data or b"", f"{path} row {at}"), data))
    return found


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """What pyarrow finds wrong with a file, as one error."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise BadDataError(path, "", f"no Parquet ({error})", "a Parquet file") from error


_PARTS: Final[dict[str, Callable[[Path], Iterator[Part]]]] = {".jsonl": _lines, ".sqlite": _history, ".parquet": _table}


def holds_rows(path: Path) -> bool:
    """Whether ``rows`` is for that file; an SQLite file may be another tool's."""
    return path.suffix in _PARTS and path.is_file() and (path.suffix != ".sqlite" or is_history(path))


def export(history: History, path: Path, *, limit: int, **wanted: str) -> int:
    """Write runs to Parquet, newest first: what the list shows, believed values of each metric, the record as JSON.

    Returns:
        Number of runs.

    Raises:
        MissingPackageError: No pyarrow.
    """
    parquet = _parquet()
    import pyarrow
    import pyarrow.json

    names = HistoryEntry.__struct_fields__
    metrics = pyarrow.schema([(metric, pyarrow.list_(pyarrow.float64())) for metric in UNITS])
    schema = pyarrow.schema([*((name, pyarrow.string()) for name in names), *metrics, ("record", pyarrow.string())])
    stream, count = io.BytesIO(), 0
    with parquet.ParquetWriter(stream, schema, compression="zstd", use_dictionary=list(names[2:])) as writer:
        for batch in history.exported(limit=limit, **wanted):
            *columns, values, records = zip(*batch, strict=True)
            lines = b"\n".join(values)
            figures = pyarrow.json.read_json(
                io.BytesIO(lines),
                pyarrow.json.ReadOptions(block_size=len(lines) + 1),
                pyarrow.json.ParseOptions(explicit_schema=metrics),
            )
            columns += [figures.column(metric) for metric in UNITS]
            writer.write_table(pyarrow.table([*columns, pyarrow.array(records, pyarrow.string())], schema=schema))
            count += len(batch)
    write_atomically(path, stream.getvalue())
    return count


def _parquet() -> Any:
    with optional("pyarrow", "parquet"):
        import pyarrow.parquet
    return pyarrow.parquet
