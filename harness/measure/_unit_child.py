"""What each unit of a declared cost takes here: short loops of known counts, the middle of several passes each.

It runs in a child with the thread settings of the run it serves. No loop comes from a workload.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from harness.measure.interpreter import speed, usual

_LLC_STEPS: Final = (1 << 18, 1 << 20, 1 << 22, 1 << 23, 1 << 24, 1 << 25, 1 << 28)
_PASS_STEPS: Final = (1 << 17, 1 << 19, 1 << 20, 1 << 22, 1 << 24, 1 << 26, 3 << 26)
_BLOCK_STEPS: Final = (1 << 22, 1 << 24, 1 << 25, 1 << 26)
_BLOCK_VALUES: Final = 1 << 16
_PRODUCT_DIMS: Final = (8, 16, 64, 128, 256, 512, 1024)
_FRESH: Final = ((1 << 20, 9), (1 << 23, 5), (48 << 20, 3))
_PASSES: Final = 5
_SHORT_S: Final = 1.5e-3


def probe_units(arguments: Mapping[str, Any], emit: Callable[[str, Any], None]) -> None:
    """Entry point of the child: emits ``units``.

    ``arguments``: ``machine`` (label), ``engine`` (whether to ask ONNX Runtime too).
    """
    from harness.domain.workload import UnitCosts
    from harness.measure.sql_units import flush_s, sql_units
    from harness.predict.workload_units import REFERENCE

    # First: whether pages are new depends on the largest array that this process has let go before.
    fresh_rates = tuple((size, _fresh(size, count)) for size, count in _FRESH)
    interpreter = speed()
    sql = sql_units()
    call_s, node_s, engine = REFERENCE.session_call_s, REFERENCE.node_s, dict(REFERENCE.engine_rates)
    if arguments.get("engine"):
        from harness.measure.engine_units import call_and_node_s, engine_rates

        (call_s, node_s), engine = call_and_node_s(), engine_rates()
    numpy_call_s = _numpy_calls()
    units = UnitCosts(
        machine=str(arguments.get("machine", "")),
        python_op_s=interpreter.python_op_s,
        native_call_s=interpreter.native_call_s,
        regex_call_s=interpreter.regex_call_s,
        regex_char_s=interpreter.regex_char_s,
        numpy_call_s=numpy_call_s,
        transcendental_s=_transcendentals(),
        sort_step_s=_sorts(kind="quicksort"),
        stable_sort_step_s=_sorts(kind="stable"),
        partition_value_s=_partitions(),
        scan_value_s=_scans(),
        gather_s=_gathers(),
        fft_step_s=_transforms(),
        sql_statement_s=sql.statement_s,
        sql_row_s=sql.row_s,
        commit_s=sql.commit_s,
        log_byte_s=sql.log_byte_s,
        text_term_s=sql.text_term_s,
        checkpoint_s=sql.checkpoint_s,
        checkpoint_byte_s=sql.checkpoint_byte_s,
        flush_s=flush_s(),
        session_call_s=call_s,
        node_s=node_s,
        product_rates=tuple((n, _product(n)) for n in _PRODUCT_DIMS),
        read_rates=tuple((n, _read(n)) for n in _LLC_STEPS),
        matrix_rates=tuple((n, _matrix(n)) for n in _LLC_STEPS),
        pass_rates=tuple((n, _pass(n, numpy_call_s)) for n in _PASS_STEPS),
        block_rates=_blocks(),
        fresh_rates=fresh_rates,
        engine_rates=engine,
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
    return float(np.mean([usual(c, passes=_PASSES) for c in calls]))


def _pass(set_bytes: int, call_s: float) -> float:
    """Bytes/s of passes over three arrays of that many bytes together, in both precisions, less what a call takes."""
    moved, seconds = 0.0, 0.0
    for dtype in (np.float32, np.float64):
        a: NDArray[Any] = np.full(set_bytes // 3 // np.dtype(dtype).itemsize, 0.5, dtype)
        b, out, said = a / 2, np.empty_like(a), np.empty(len(a), np.bool_)
        width = a.itemsize
        calls: tuple[tuple[int, Callable[[], object]], ...] = (
            (3 * width, lambda a=a, b=b, out=out: np.multiply(a, b, out=out)),  # type: ignore[misc]
            (2 * width + 1, lambda a=a, b=b, said=said: np.greater(a, b, out=said)),  # type: ignore[misc]
            (3 * width, lambda a=a, b=b, out=out: np.maximum(a, b, out=out)),  # type: ignore[misc]
            (2 * width, lambda a=a, out=out: np.copyto(out, a)),  # type: ignore[misc]
            (2 * width, lambda a=a: np.add(a, 1, out=a)),  # type: ignore[misc]
        )
        for bytes_each, call in calls:
            seconds += max(usual(call, passes=3, pass_s=_SHORT_S) - call_s, 0.0)
            moved += bytes_each * len(a)
    return moved / max(seconds, 1e-9)


def _blocks() -> tuple[tuple[int, float], ...]:
    """Bytes/s at which blocks come to a pass that widens them, less what widening one block again and again takes."""
    scratch = np.empty(_BLOCK_VALUES, np.int32)
    found = []
    for set_bytes in _BLOCK_STEPS:
        waits = 0.0
        for dtype in (np.int8, np.int16):
            table = np.ones((set_bytes // np.dtype(dtype).itemsize // _BLOCK_VALUES, _BLOCK_VALUES), dtype)

            def over(table: NDArray[Any] = table, *, is_same: bool = False) -> None:
                for at in range(len(table)):
                    np.copyto(scratch, table[0 if is_same else at])

            again_s = usual(lambda over=over: over(is_same=True), passes=3)  # type: ignore[misc]
            waits += max(usual(over, passes=3) - again_s, 0.0)
        found.append((set_bytes, 2 * set_bytes / max(waits, 1e-9)))
    return tuple(found)


def _transcendentals() -> float:
    a = np.linspace(0.1, 1.0, 1 << 14)
    calls: tuple[Callable[[], object], ...] = (lambda: np.exp(a), lambda: np.log(a), lambda: np.exp2(a))
    return float(np.mean([usual(c, passes=_PASSES) / len(a) for c in calls]))


def _sorts(kind: Any) -> float:
    a = np.random.default_rng(1).random(1 << 15)
    return usual(lambda: np.argsort(a, kind=kind)) / (len(a) * 15)


def _partitions() -> float:
    a = np.random.default_rng(1).random(1 << 14, np.float32)
    return usual(lambda: np.argpartition(a, len(a) - 32)) / len(a)


def _scans() -> float:
    a = np.random.default_rng(1).random(1 << 14)
    return usual(lambda: np.cumsum(a)) / len(a)


def _transforms() -> float:
    a = np.random.default_rng(1).random(1 << 12)
    return usual(lambda: np.fft.rfft(a)) / (len(a) * 12)


def _gathers() -> float:
    rng = np.random.default_rng(1)
    a = rng.random(1 << 18)
    at = rng.integers(0, len(a), 1 << 15)
    into = np.zeros(len(a))

    def add() -> None:
        into[at] += 1.0

    calls: tuple[Callable[[], object], ...] = (lambda: a[at], lambda: np.bincount(at & 15, minlength=16), add)
    return float(np.mean([usual(c, passes=_PASSES) / len(at) for c in calls]))


def _fresh(size_bytes: int, count: int) -> float:
    """Bytes/s of new pages: so many arrays made, filled and let go at once, less filling one that is there."""
    values = size_bytes // 8
    kept = np.empty(values)
    made_s = usual(lambda: [np.full(values, 1.0) for _ in range(count)], passes=_PASSES) / count
    return size_bytes / max(made_s - usual(lambda: kept.fill(1.0), passes=_PASSES), 1e-9)


def _product(dim: int) -> float:
    """FLOP/s of a product whose other sides are larger: 256 for a small dimension, 1024 else."""
    other = 256 if dim <= 64 else 1024
    rng = np.random.default_rng(1)
    a, b = rng.random((dim, other), np.float32), rng.random((other, other), np.float32)
    return 2.0 * dim * other * other / usual(lambda: a @ b, passes=3)


def _read(size_bytes: int) -> float:
    a = np.full(size_bytes // 4, 0.5, np.float32)
    return size_bytes / usual(lambda: np.dot(a, a), passes=3)


def _matrix(size_bytes: int) -> float:
    """Bytes/s of a vector by a matrix four times as wide as high."""
    rows = round((size_bytes / 16) ** 0.5) // 8 * 8 + 8  # no power of two: such rows share their places in a cache
    a = np.full((rows, 4 * rows), 0.5, np.float32)
    x = np.full((1, rows), 0.5, np.float32)
    return a.nbytes / usual(lambda: x @ a, passes=3)
