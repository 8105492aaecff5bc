"""What a workload costs, as it declares it itself.

How to count. A cost is counted from the algorithm at one size, in units that mean the same on every machine; a probe
of the machine (``edge-harness workloads`` makes it before each run) and a device's profile say what each unit takes.
Count what the operation does, never divide a time that was measured by a unit.

* Dense products of numpy: ``flops_count`` (2 m n k each, twice that in double precision), ``product_dim`` their
  smallest dimension m, n or k.
* Reading in order, products of a matrix and one vector among it: ``moved_bytes`` is every byte read,
  ``working_set_bytes`` how many different ones. Leave that 0 where every call reads memory that no cache holds.
* Passes of numpy over arrays: ``pass_bytes`` are the bytes that simple functions (add, compare, maximum, a copy, a
  cast between widths of floats) read and write, each function for itself: ``a * b`` of n doubles is 24 n. Sums,
  divisions, and casts of or to whole numbers count twice; ``clip`` is two functions. ``pass_set_bytes`` is how many
  different bytes the passes of one round touch.
* Work on single values: ``array_steps_count``. A value picked or added by an index array, or copied into another order,
  is one step, and so is one given to a partition; exp and log are a half; a step of a stable sort (n log2 n of them)
  is three; a value of a running sum two and a half; a step of a Fourier transform of n real values (n log2 n of them) a
  quarter; pow one and a half, logaddexp ten. Sorting in any order depends on the processor too much for a multiple (0.6
  ns a step with AVX-512, 2.9 without): none is counted.
* New pages: ``fresh_bytes`` of results whose pages come from the system in each call, by ``new_page_bytes``.
* Each function of numpy called counts one ``numpy_calls_count``.
* Interpreted code: ``python_ops_count`` is bytecode instructions, ``NATIVE_OPS`` more for each call of a C function on
  small values (``len``, ``dict.get``, ``str.split``). ``python -m bench.count_operations NAME`` counts both exactly by
  tracing. Regular expressions beside it: ``regex_chars_count``, the lengths of the texts that expressions are tried
  on, and 13 more for each expression tried.
* SQLite: ``sql_statements_count`` prepared statements run. A transaction that changes the file counts as one more, a
  page of 8 KiB put into the log or copied from it 1.3, a term of a full-text index 1.4, ten rows or index entries one.
  ``flushes_count`` waits until the disk has what was written (fsync); a truncating checkpoint waits for about six.
* Engines: ``session_calls_count`` calls of an inference engine or another library's entry point, and ``kernels``: the
  nodes that take time, one after the other, with their arithmetic and what they read and write (``Kernel``).
* A language model: ``prefill_tokens_count`` tokens read in ``prefill_passes_count`` batches, ``decode_steps_count``
  forward passes that make tokens, each for ``decode_sequences_count`` sequences, ``depth_tokens`` tokens already in
  the cache on average. The speed comes from the model of speed of the file in use; what the workload does with the
  logits (a softmax over the vocabulary, sorting it) is counted as passes of numpy.
"""

from typing import Final

from harness.domain.base import Frozen

NATIVE_OPS: Final = 4
"""Bytecode instructions that take as long as a call of a C function on small values (3.8 on the reference machine)."""

LEAST_KEPT_BYTES: Final = 330 << 10
"""The largest block that an interpreter lets go of while it imports numpy: half of the 600 to 700 KiB that were seen
to stay in a process that had done nothing else."""
MOST_KEPT_BYTES: Final = 32 << 20
HUGE_PAGED_BYTES: Final = 4 << 20


def new_page_bytes(held_bytes: float, largest_bytes: float) -> float:
    """Bytes of a call's temporary arrays whose pages are new in every call, by the rules of glibc's ``malloc``.

    An array of more than 128 KiB is mapped at first; once one was let go, arrays up to its size come from the heap, and
    what is free at its end goes back to the system only when it is more than twice that size. Above 32 MiB an array is
    always mapped. So the temporaries of a call stay in the process, unless they are more than two of the largest at
    once. Source: mallopt(3), M_MMAP_THRESHOLD and M_TRIM_THRESHOLD, dynamic adjustment. Arrays of several MiB come in
    huge pages, a third as dear by the byte (measured: 3.2 GB/s at 1 MiB, 10.4 at 8), and count a third.

    ``held_bytes`` are those arrays that are there at the same time at most, and let go by the end of the call;
    ``largest_bytes`` is the largest array that the process ever let go.
    """
    is_kept = largest_bytes <= MOST_KEPT_BYTES and held_bytes <= 2 * max(largest_bytes, LEAST_KEPT_BYTES)
    return 0.0 if is_kept else held_bytes / (3 if largest_bytes > HUGE_PAGED_BYTES else 1)


class Kernel(Frozen, frozen=True, kw_only=True):
    """Kernels of an inference engine that are alike.

    One takes what its arithmetic takes and the time to bring its operands; what has no products (``pass``) only moves.

    Attributes:
        kind: ``product`` (a matrix by a matrix), ``vector`` (a matrix by one vector), ``convolution``, ``depthwise``
            (a convolution of each channel for itself), ``pass`` (add, clip, copy), ``softmax`` or ``gelu``; a norm
            of rows counts two softmax values each.
        dtype: ``fp32``, ``int8`` (products of 8-bit integers) or ``int4`` (weights of 4 bits).
        flops_count: 2 for each multiply-add; for ``softmax`` and ``gelu`` the values made.
        moved_bytes: Inputs, outputs and weights as they lie in memory.
        dim: Smallest dimension of a product; of a convolution the smaller of inputs and outputs.
        working_set_bytes: Different bytes touched from call to call; 0: more than any cache holds.
    """

    kind: str
    dtype: str = "fp32"
    flops_count: float = 0.0
    moved_bytes: float = 0.0
    dim: int = 0
    working_set_bytes: float = 0.0


class Cost(Frozen, frozen=True, kw_only=True):
    """Cost of one operation of a workload at one size, counted from its algorithm, not measured.

    Attributes:
        operation: What one operation is (``retrieve``, ``encode one token`` ...).
        resident_bytes: Memory held while it runs, anonymous.
        file_bytes: Mapped or cached file bytes.
        disk_read_bytes: Bytes read from storage for one operation.
        dtype: Arithmetic that does the work: ``fp32 fp16 int8``.
        parallel: Whether products, streams and kernels use all cores, or one.

    How the others are counted stands at the top of this file; 0 of a working set or a dimension means: large.
    """

    operation: str
    resident_bytes: int
    file_bytes: int = 0
    disk_read_bytes: float = 0.0
    dtype: str = "fp32"
    parallel: bool = True
    flops_count: float = 0.0
    product_dim: int = 0
    moved_bytes: float = 0.0
    working_set_bytes: float = 0.0
    pass_bytes: float = 0.0
    pass_set_bytes: float = 0.0
    array_steps_count: float = 0.0
    fresh_bytes: float = 0.0
    numpy_calls_count: float = 0.0
    python_ops_count: float = 0.0
    regex_chars_count: float = 0.0
    sql_statements_count: float = 0.0
    flushes_count: float = 0.0
    session_calls_count: float = 0.0
    kernels: tuple[Kernel, ...] = ()
    prefill_tokens_count: float = 0.0
    prefill_passes_count: float = 1.0
    decode_steps_count: float = 0.0
    decode_sequences_count: int = 1
    depth_tokens: float = 0.0


Rate = tuple[int, float]
"""A size, and the rate there."""


class UnitCosts(Frozen, frozen=True, kw_only=True):
    """What each unit of a ``Cost`` takes on one machine, one thread: twelve figures.

    Attributes:
        machine: Whose they are: fingerprint and interpreter.
        python_op_s: One bytecode instruction: the median of several processes ...
        python_op_range_s: ... and the fastest and slowest of them; None where nobody knows.
        numpy_call_s: One call of a numpy function on a few values, beside its instructions.
        array_step_s: One step on a single value of an array.
        sql_statement_s: One prepared statement with its call.
        flush_s: One wait for the disk, in the folder for temporary files.
        session_call_s: One call of ONNX Runtime.
        fresh_bytes_per_s: Bytes/s at which new pages come, beside filling them.
        product_flops_per_s: fp32 FLOP/s of large dense products of numpy.
        engine_flops_per_s: FLOP/s of large products of ONNX Runtime in fp32 ...
        engine_int8_flops_per_s: ... and in 8 bits.
        read_rates: (different bytes, bytes/s) of reading in order, in growing order; the last is memory.
        pass_rates: The same for simple passes of numpy, bytes read and written.
    """

    machine: str
    python_op_s: float
    numpy_call_s: float
    array_step_s: float
    sql_statement_s: float
    flush_s: float
    session_call_s: float
    fresh_bytes_per_s: float
    product_flops_per_s: float
    engine_flops_per_s: float
    engine_int8_flops_per_s: float
    read_rates: tuple[Rate, ...]
    pass_rates: tuple[Rate, ...]
    python_op_range_s: tuple[float, float] | None = None
