"""What each unit of a declared cost takes here: short loops of known counts, each timed several times, the best kept.

It runs in a child with the thread settings of the run it serves. No loop comes from a workload.
"""

import os
import sqlite3
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from harness.measure.interpreter import best, speed
from harness.measure.onnx_chain import chain

_LLC_STEPS: Final = (1 << 18, 1 << 20, 1 << 22, 1 << 23, 1 << 24, 1 << 25, 1 << 28)
_PRODUCT_DIMS: Final = (16, 64, 128, 256, 512, 1024)


def probe_units(arguments: Mapping[str, Any], emit: Callable[[str, Any], None]) -> None:
    """Entry point of the child: emits ``units``.

    ``arguments``: ``machine`` (label), ``engine`` (whether to ask ONNX Runtime too).
    """
    from harness.domain.workload import UnitCosts

    interpreter = speed()
    statement_s, row_s, commit_s = _sql()
    call_s, node_s = _engine() if arguments.get("engine") else (0.0, 0.0)
    units = UnitCosts(
        machine=str(arguments.get("machine", "")),
        python_op_s=interpreter.python_op_s,
        native_call_s=interpreter.native_call_s,
        regex_char_s=interpreter.regex_char_s,
        numpy_call_s=_numpy_calls(),
        element_s=_elements(),
        transcendental_s=_transcendentals(),
        sort_step_s=_sorts(),
        gather_s=_gathers(),
        sql_statement_s=statement_s,
        sql_row_s=row_s,
        commit_s=commit_s,
        flush_s=_flush(),
        fresh_byte_s=_fresh(),
        session_call_s=call_s,
        node_s=node_s,
        product_rates=tuple((n, _product(n)) for n in _PRODUCT_DIMS),
        read_rates=tuple((n, _read(n)) for n in _LLC_STEPS),
    )
    emit("units", units)


def _numpy_calls() -> float:
    a, b = np.arange(8.0), np.arange(8)
    calls: tuple[Callable[[], object], ...] = (
        lambda: a + a,
        lambda: np.maximum(a, 1.0),
        a.sum,
        lambda: np.searchsorted(b, 3),
        lambda: a[b],
        lambda: np.zeros(8),
        a.argmax,
        lambda: np.concatenate((a, a)),
    )
    return float(np.mean([best(c, passes=4) for c in calls]))


def _elements() -> float:
    """Passes over 32,768 values in single and double precision, arithmetic, comparison and choice."""
    times = []
    for dtype in (np.float32, np.float64):
        a: NDArray[Any] = np.linspace(0.1, 1.0, 1 << 15, dtype=dtype)
        b: NDArray[Any] = a[::-1].copy()
        mask = a > b
        calls: tuple[Callable[[], object], ...] = (
            lambda a=a, b=b: a * b,  # type: ignore[misc]
            lambda a=a, b=b: a > b,  # type: ignore[misc]
            lambda a=a, b=b, mask=mask: np.where(mask, a, b),  # type: ignore[misc]
            lambda a=a: a.astype(np.float64),  # type: ignore[misc]
            lambda a=a: a.sum(),  # type: ignore[misc]
            lambda a=a, b=b: np.maximum(a, b),  # type: ignore[misc]
        )
        times += [best(c, passes=4) / len(a) for c in calls]
    return float(np.mean(times))


def _transcendentals() -> float:
    a = np.linspace(0.1, 1.0, 1 << 14)
    calls: tuple[Callable[[], object], ...] = (lambda: np.exp(a), lambda: np.log(a), lambda: np.exp2(a))
    return float(np.mean([best(c, passes=4) / len(a) for c in calls]))


def _sorts() -> float:
    a = np.random.default_rng(1).random(1 << 14)
    steps = len(a) * 14
    return float(np.mean([best(lambda: np.argsort(a, kind="stable")) / steps, best(lambda: np.argsort(a)) / steps]))


def _gathers() -> float:
    rng = np.random.default_rng(1)
    a = rng.random(1 << 18)
    at = rng.integers(0, len(a), 1 << 15)
    into = np.zeros(len(a))

    def add() -> None:
        into[at] += 1.0

    calls: tuple[Callable[[], object], ...] = (lambda: a[at], lambda: np.bincount(at & 15, minlength=16), add)
    return float(np.mean([best(c, passes=4) / len(at) for c in calls]))


def _sql() -> tuple[float, float, float]:
    """(statement, row, commit): a select of one row, the rows of a long one, and an insert of its own transaction."""
    with tempfile.TemporaryDirectory(prefix="edge-harness-units-") as folder:
        db = sqlite3.connect(str(Path(folder) / "units.db"), isolation_level=None)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")
        db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT, b REAL, c INTEGER)")
        db.executemany("INSERT INTO t(a, b, c) VALUES (?, ?, ?)", ((f"row {i}", i / 7, i) for i in range(4000)))
        one = "SELECT a, b, c FROM t WHERE id = ?"
        statement_s = best(lambda: db.execute(one, (1234,)).fetchone())
        rows_s = best(lambda: db.execute("SELECT a, b, c FROM t").fetchall())

        def insert() -> None:
            db.execute("BEGIN IMMEDIATE")
            db.execute("INSERT INTO t(a, b, c) VALUES ('x', 1.0, 2)")
            db.execute("COMMIT")

        commit_s = best(insert) - statement_s
        db.close()
    return statement_s, max(rows_s - statement_s, 0.0) / 4000, max(commit_s, 0.0)


def _fresh() -> float:
    """Four arrays of one MiB made, filled and let go at once, less filling one that is there."""
    count = 1 << 17
    kept = np.empty(count)
    made_s = best(lambda: [np.full(count, 1.0) for _ in range(4)], passes=4) / 4
    return max(made_s - best(lambda: kept.fill(1.0), passes=4), 0.0) / (8 * count)


def _flush() -> float:
    """Middle time of a page written and waited for."""
    times = []
    with tempfile.TemporaryFile(prefix="edge-harness-units-", buffering=0) as file:
        for _ in range(9):
            file.seek(0)
            file.write(bytes(8192))
            begin = time.perf_counter()
            os.fsync(file.fileno())
            times.append(time.perf_counter() - begin)
    return sorted(times)[len(times) // 2]


def _engine() -> tuple[float, float]:
    """(call, node) of ONNX Runtime: chains of 1 and of 65 additions on eight values."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    feed = {"x": np.ones(8, np.float32)}
    times = []
    for count in (1, 65):
        session = onnxruntime.InferenceSession(chain(count), options, providers=["CPUExecutionProvider"])
        times.append(best(lambda session=session: session.run(None, feed)))  # type: ignore[misc]
    node_s = max((times[1] - times[0]) / 64, 1e-9)
    return max(times[0] - node_s, 1e-9), node_s


def _product(dim: int) -> float:
    a = np.full((dim, max(dim, 64)), 0.5, np.float32)
    b = np.full((max(dim, 64), max(dim, 64)), 0.5, np.float32)
    flops = 2.0 * a.shape[0] * a.shape[1] * b.shape[1]
    return flops / best(lambda: a @ b, passes=4)


def _read(size_bytes: int) -> float:
    a = np.full(size_bytes // 4, 0.5, np.float32)
    return size_bytes / best(lambda: np.dot(a, a), passes=4)
