"""What each unit of a declared cost takes here: short loops of known counts, the middle of several passes each.

They run in a child with the thread settings of the run that they serve. No loop comes from a workload.
"""

import os
import platform
import sqlite3
import tempfile
import timeit
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import median, median_high
from typing import Any, Final

import msgspec
import numpy as np

from harness.domain.workload import UnitCosts
from harness.errors import CouldNotRunError
from harness.measure.child import Limits, run_child
from harness.measure.interpreter import python_op_s, usual
from harness.measure.machine import fingerprint
from harness.measure.workload_runner import THREAD_VARIABLES

_READ_STEPS: Final = (1 << 20, 1 << 22, 1 << 24, 1 << 25, 1 << 28)
_PASS_STEPS: Final = (1 << 20, 1 << 22, 1 << 24, 1 << 26, 3 << 26)
_PRODUCT_DIM: Final = 1024
_ENGINE_DIM: Final = 512
_FRESH_BYTES: Final = 1 << 20
_FRESH_ARRAYS: Final = 9
_SQL_ROWS: Final = 128
_SQL_UPDATES: Final = 8
_SQL_UNITS: Final = _SQL_UPDATES * (1 + 0.1 + 0.65) + 1 + 2
"""Statements that a transaction of one-row updates, each in a page of 4 KiB, counts as; BEGIN and COMMIT are two."""
_FLUSHES: Final = 15
_DRAWS: Final = 3
"""Processes in which the interpreter alone is timed, before the one of all units and again after it."""


def probe_units(*, engine: bool = False) -> UnitCosts:
    """Unit costs of this machine, one thread, in about five seconds.

    The interpreter's is the median of several processes, and its range is told with it.

    With ``engine`` those of ONNX Runtime too; it and ``onnx``, which makes its graphs, must be installed.

    Raises:
        CouldNotRunError: The probe failed.
    """

    def child(entry: str) -> dict[str, Any]:
        limits, environment = Limits(wall_s=120.0), dict.fromkeys(THREAD_VARIABLES, "1")
        result = run_child(entry, {"engine": engine}, limits=limits, environment=environment)
        if result.outcome != "ok":
            raise CouldNotRunError(f"the probe of unit costs ended as {result.outcome}: {result.detail}")
        return dict(result.events)

    alone = ["harness.measure.interpreter:run"] * _DRAWS
    told = [child(entry) for entry in (*alone, f"{__name__}:run", *alone)]
    units = msgspec.convert(told[_DRAWS]["units"], UnitCosts)
    drawn = sorted([units.python_op_s, *(t["python_op_s"] for t in told if "python_op_s" in t)])
    label = f"{fingerprint().fingerprint} {platform.python_implementation()} {platform.python_version()}"
    return msgspec.structs.replace(
        units, machine=label, python_op_s=median(drawn), python_op_range_s=(drawn[0], drawn[-1])
    )


def run(arguments: Mapping[str, Any], emit: Callable[[str, Any], None]) -> None:
    """Entry point of the child: emits ``units``."""
    from harness.predict.workload_units import REFERENCE

    fresh = _fresh()  # first: whether pages are new depends on the largest array that this process let go before
    product = _product()
    if arguments["engine"]:
        call_s, flops_per_s, int8_flops_per_s = _engine()
    else:
        ratio = product / REFERENCE.product_flops_per_s
        call_s = REFERENCE.session_call_s / ratio
        flops_per_s = REFERENCE.engine_flops_per_s * ratio
        int8_flops_per_s = REFERENCE.engine_int8_flops_per_s * ratio
    emit(
        "units",
        UnitCosts(
            machine="",
            python_op_s=python_op_s(),
            numpy_call_s=_numpy_call(),
            array_step_s=_array_step(),
            sql_statement_s=_sql_statement(),
            flush_s=_flush(),
            session_call_s=call_s,
            fresh_bytes_per_s=fresh,
            product_flops_per_s=product,
            engine_flops_per_s=flops_per_s,
            engine_int8_flops_per_s=int8_flops_per_s,
            read_rates=tuple((n, _read(n)) for n in _READ_STEPS),
            pass_rates=tuple((n, _pass(n)) for n in _PASS_STEPS),
        ),
    )


def _numpy_call() -> float:
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
    return float(np.mean([usual(c) for c in calls]))


def _array_step() -> float:
    """Mean of a gather and two values of a function: each should take one step."""
    rng = np.random.default_rng(1)
    a = rng.random(1 << 18)
    at = rng.integers(0, len(a), 1 << 15)
    picked = np.mean([usual(lambda: a[at]), usual(lambda: np.bincount(at & 15, minlength=16))]) / len(at)
    values = np.linspace(0.1, 1.0, 1 << 14)
    function = np.mean([usual(lambda: np.exp(values)), usual(lambda: np.log(values))]) / len(values)
    return float(picked + 2 * function) / 2


def _pass(set_bytes: int) -> float:
    """Bytes/s of passes over three arrays of that many bytes together."""
    a = np.full(set_bytes // 12, 0.5, np.float32)
    b, out = a / 2, np.empty_like(a)
    calls: tuple[tuple[int, Callable[[], object]], ...] = (
        (3, lambda: np.multiply(a, b, out=out)),
        (3, lambda: np.maximum(a, b, out=out)),
        (2, lambda: np.copyto(out, a)),
        (2, lambda: np.add(a, 1, out=a)),
    )
    seconds = sum(usual(call, passes=3, pass_s=1.5e-3) for _, call in calls)
    return sum(arrays for arrays, _ in calls) * a.nbytes / seconds


def _fresh() -> float:
    """Bytes/s of new pages: arrays made, filled and let go at once, less filling one that is there."""
    values = _FRESH_BYTES // 8
    kept = np.empty(values)
    made_s = usual(lambda: [np.full(values, 1.0) for _ in range(_FRESH_ARRAYS)]) / _FRESH_ARRAYS
    return _FRESH_BYTES / max(made_s - usual(lambda: kept.fill(1.0)), 1e-9)


def _product() -> float:
    a = np.random.default_rng(1).random((_PRODUCT_DIM, _PRODUCT_DIM), np.float32)
    return 2.0 * _PRODUCT_DIM**3 / usual(lambda: a @ a, passes=3)


def _read(size_bytes: int) -> float:
    a = np.full(size_bytes // 4, 0.5, np.float32)
    return size_bytes / usual(lambda: np.dot(a, a), passes=3)


def _sql_statement() -> float:
    """A transaction of updates, each of a row in a page of its own, over the statements that it counts as."""
    with tempfile.TemporaryDirectory(prefix="edge-harness-units-") as folder:
        db = sqlite3.connect(str(Path(folder) / "units.db"), isolation_level=None)
        for pragma in ("page_size=4096", "journal_mode=WAL", "synchronous=NORMAL", "wal_autocheckpoint=0"):
            db.execute(f"PRAGMA {pragma}")
        db.execute("CREATE TABLE wide(id INTEGER PRIMARY KEY, a TEXT, c INTEGER)")
        db.execute("BEGIN")
        db.executemany("INSERT INTO wide(a, c) VALUES (?, ?)", (("x" * 2048, i) for i in range(_SQL_ROWS)))
        db.execute("COMMIT")

        def change() -> None:
            db.execute("BEGIN")
            for at in range(_SQL_UPDATES):
                db.execute("UPDATE wide SET c = c + 1 WHERE id = ?", (4 * at + 1,))
            db.execute("COMMIT")

        found = usual(change) / _SQL_UNITS
        db.close()
    return found


def _flush() -> float:
    """Middle time of two pages written behind the end of a file and waited for."""
    with tempfile.TemporaryFile(prefix="edge-harness-units-", buffering=0) as file:
        flush, write = partial(os.fsync, file.fileno()), partial(file.write, bytes(8192))
        return median_high(timeit.repeat(flush, write, number=1, repeat=_FLUSHES))


def _engine() -> tuple[float, float, float]:
    """(seconds of a call, FLOP/s in fp32, in 8 bits) of ONNX Runtime: chains of one and five nodes, the difference."""
    n = _ENGINE_DIM
    x = np.random.default_rng(1).standard_normal((256, n)).astype(np.float32)
    flops = 2.0 * 4 * 256 * n * n
    rates = []
    for kind in ("MatMul", "DynamicQuantizeMatMul"):
        five_s = _chain(5, kind, x)
        rates.append(flops / max(five_s - _chain(1, kind, x), five_s / 5))  # on a busy machine the one may take longer
    return max(_chain(1, "Add", x[:1, :8]), 1e-9), rates[0], rates[1]


def _chain(node_count: int, kind: str, x: Any) -> float:
    """Seconds of a session that applies an operator so many times."""
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(1)
    width = x.shape[1]
    stored = {
        "Add": {"w": np.ones(width, np.float32)},
        "MatMul": {"w": rng.standard_normal((width, width)).astype(np.float32)},
        "DynamicQuantizeMatMul": {"w": rng.integers(-9, 9, (width, width), np.int8), "s": np.array([4e-4], np.float32)},
    }[kind]
    domain = "com.microsoft" if kind == "DynamicQuantizeMatMul" else ""
    nodes = [helper.make_node(kind, [f"v{i}", *stored], [f"v{i + 1}"], domain=domain) for i in range(node_count)]
    ports = [helper.make_tensor_value_info(f"v{i}", TensorProto.FLOAT, list(x.shape)) for i in (0, node_count)]
    tensors = [numpy_helper.from_array(value, name) for name, value in stored.items()]
    graph = helper.make_graph(nodes, "units", ports[:1], ports[1:], tensors)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(
        helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString(),
        options,
        providers=["CPUExecutionProvider"],
    )
    return usual(lambda: session.run(None, {"v0": x}))
