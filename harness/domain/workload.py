"""What a workload costs, as it declares it itself.

How to count. A cost is counted from the algorithm at one size, in units that mean the same on every machine; a probe
of the machine (``edge-harness workloads`` makes it before each run) and a device's profile say what each unit takes.
Count what the operation does, never divide a time that was measured by a unit.

* Dense products of numpy: ``flops_count`` (2 m n k each, twice that in double precision), ``product_dim`` their
  smallest dimension m, n or k. Products of a matrix and one vector are bound by reading: ``matrix_bytes`` of the
  matrices, ``working_set_bytes`` of them if a cache may hold them from call to call.
* Streams: ``moved_bytes`` is every byte that is only read in order (a sum of products row by row),
  ``working_set_bytes`` how many different bytes those are. A set that fits into a cache is read at the cache's speed.
  Leave it 0 where every call reads memory that no cache holds.
* Passes of numpy over arrays: ``pass_bytes`` are the bytes that simple functions (add, compare, maximum, a copy, a
  cast between widths of floats) read and write, each function for itself: ``a * b`` of n doubles is 24 n. Sums,
  divisions, and casts of or to whole numbers count twice, as they take about that; ``clip`` is two functions.
  ``pass_set_bytes`` is how many different bytes the passes of one round touch. exp and log count as *transcendental*
  values, pow three of them, logaddexp twenty (numpy asks the C library for one value after the other).
* Blocks: passes over blocks that fit a cache, of a table that does not, count as passes in the cache, and the table
  as ``block_bytes`` (``block_set_bytes`` different ones) beside it: loops of numpy wait for what they read.
* Sorting: n log2 n ``sort_steps_count`` for a sort in any order, ``stable_sort_steps_count`` for a stable one
  (``lexsort`` as well), ``partition_values_count`` the values that partition or argpartition is given. Running sums
  (cumsum) count ``scan_values_count``; picking by an index array (``a[i]``, ``bincount``, ``a[i] += b``) one *gather*
  for each value, and so does a copy in another order (transposed); a Fourier transform of n real values n log2 n
  ``fft_steps_count``.
* New pages: ``fresh_bytes`` are bytes of results whose pages come from the system in each call, ``new_page_bytes``
  tells which; ``fresh_array_bytes`` is the size of one of them. ``python -m bench.count_operations`` counts
  them.
* Each function of numpy called counts one ``numpy_calls_count``.
* Interpreted code: ``python_ops_count`` is bytecode instructions (``dis``: some 6 to 10 for a line of simple code, 25
  for a loop's step with a call), ``native_calls_count`` calls of C functions on small values (``len``, ``dict.get``,
  ``str.split``). ``python -m bench.count_operations NAME`` counts both exactly by tracing. Regular
  expressions beside it: ``regex_calls_count`` expressions tried on a text, ``regex_chars_count`` the lengths of those
  texts.
* SQLite: ``sql_statements_count`` prepared statements run, ``sql_rows_count`` rows or index entries they read or
  write, ``commits_count`` transactions that change the file, ``log_bytes`` the pages that those put into the
  write-ahead log (its size tells), ``text_terms_count`` terms that are put into or taken out of a full-text index, and
  ``checkpoints_count`` truncating checkpoints, each of which waits for the disk and copies ``checkpoint_bytes``.
* Engines: ``session_calls_count`` calls of an ONNX Runtime session or another engine's entry point, ``nodes_count``
  nodes it runs, and ``kernels``: the ones that take time, one after the other, with their arithmetic and what they
  read and write (``Kernel``).
* A language model: ``prefill_tokens_count`` tokens read in ``prefill_passes_count`` batches, ``decode_steps_count``
  forward passes that make tokens, each for ``decode_sequences_count`` sequences, ``depth_tokens`` tokens already in
  the cache on average. The speed comes from the feasibility model of the model file in use; what the workload does
  with the logits (a softmax over the vocabulary, sorting it) is counted as passes of numpy.
* ``call_overhead_s`` is for what none of these units names; say in a comment what it is.
"""

from typing import Final

from harness.domain.base import Frozen

LEAST_KEPT_BYTES: Final = 330 << 10
"""The largest block that an interpreter lets go of while it imports numpy: half of the 600 to 700 KiB that were seen
to stay in a process that had done nothing else."""
MOST_KEPT_BYTES: Final = 32 << 20


def new_page_bytes(held_bytes: float, largest_bytes: float) -> float:
    """Bytes of a call's temporary arrays whose pages are new in every call, by the rules of glibc's ``malloc``.

    An array of more than 128 KiB is mapped at first; once one was let go, arrays up to its size come from the heap, and
    what is free at its end goes back to the system only when it is more than twice that size. Above 32 MiB an array is
    always mapped. So the temporaries of a call stay in the process, unless they are more than two of the largest at
    once. Source: mallopt(3), M_MMAP_THRESHOLD and M_TRIM_THRESHOLD, dynamic adjustment.

    Args:
        held_bytes: Arrays that are there at the same time at most, and let go by the end of the call.
        largest_bytes: The largest array that the process ever let go.
    """
    if largest_bytes > MOST_KEPT_BYTES:
        return held_bytes
    return held_bytes if held_bytes > 2 * max(largest_bytes, LEAST_KEPT_BYTES) else 0.0


class Kernel(Frozen, frozen=True, kw_only=True):
    """Kernels of an inference engine that are alike.

    One takes what its arithmetic takes on operands in a cache, and the time to bring them there; without products the
    longer of the two; a ``vector`` what reading and arithmetic take together at the size of its matrix.

    Attributes:
        kind: ``product`` (a matrix by a matrix), ``vector`` (a matrix by one vector), ``convolution``, ``depthwise``
            (a convolution of each channel for itself), ``pass`` (add, clip, copy), ``softmax`` or ``gelu``; a norm
            of rows counts two softmax values each.
        dtype: ``fp32``, ``int8`` (products of 8-bit integers) or ``int4`` (weights of 4 bits).
        flops_count: 2 for each multiply-add; for ``pass``, ``softmax`` and ``gelu`` the values made.
        moved_bytes: Inputs, outputs and weights as they lie in memory.
        dim: Smallest dimension of a product; of a convolution the smaller of inputs and outputs; of a depthwise one
            the kernel's side.
        working_set_bytes: Different bytes touched from call to call; 0: more than any cache holds.
    """

    kind: str
    dtype: str = "fp32"
    flops_count: float
    moved_bytes: float = 0.0
    dim: int = 0
    working_set_bytes: float = 0.0


class Cost(Frozen, frozen=True, kw_only=True):
    """Cost of one operation of a workload at one size, counted from its algorithm, not measured.

    Attributes:
        operation: What one operation is (``retrieve``, ``encode one token`` ...).
        flops_count: Floating-point operations of dense products.
        moved_bytes: Bytes that are read in order.
        resident_bytes: Memory held while it runs, anonymous.
        file_bytes: Mapped or cached file bytes.
        disk_read_bytes: Bytes read from storage for one operation.
        dtype: Arithmetic that does the work: ``fp32 fp16 int8``.
        parallel: Whether products, streams and kernels use all cores, or one.
        call_overhead_s: Fixed cost of one operation on the reference machine that no count names.
        product_dim: Smallest dimension of the products; small ones reach less of the peak. 0: large.
        matrix_bytes: Bytes of matrices that one vector is multiplied with.
        working_set_bytes: Different bytes of ``moved_bytes`` and ``matrix_bytes``; 0: more than any cache holds.
        fresh_bytes: Bytes of arrays whose pages the system has to give in every call.
        fresh_array_bytes: Size of one of those arrays.
        pass_bytes: Bytes read and written by simple passes of numpy.
        pass_set_bytes: Different bytes that those passes touch; 0: more than any cache holds.
        block_bytes: Bytes that come block by block from beyond the cache that the passes are counted in.
        block_set_bytes: Different bytes of those; 0: more than any cache holds.
        transcendentals_count: Values of exp, log and the like.
        sort_steps_count: Steps of sorting in any order: n log2 n for n values.
        stable_sort_steps_count: Steps of stable sorting.
        partition_values_count: Values given to a partition.
        scan_values_count: Values of running sums.
        gathers_count: Values picked or added by an index array.
        fft_steps_count: n log2 n for a Fourier transform of n real values.
        numpy_calls_count: Calls of numpy functions.
        python_ops_count: Bytecode instructions.
        native_calls_count: Calls of C functions on small values.
        regex_calls_count: Regular expressions tried on a text.
        regex_chars_count: Characters that they look at.
        sql_statements_count: SQLite statements run.
        sql_rows_count: Rows and index entries they read or write.
        commits_count: SQLite transactions that change the file (write-ahead log, no wait for the disk).
        log_bytes: Bytes of pages that those put into the log.
        text_terms_count: Terms put into or taken out of a full-text index on disk.
        checkpoints_count: Truncating checkpoints.
        checkpoint_bytes: Bytes of pages that those copy.
        flushes_count: Waits until the disk has what was written (fsync), beside those of checkpoints.
        session_calls_count: Calls of an inference engine.
        nodes_count: Nodes that those calls run.
        kernels: The nodes that take time.
        prefill_tokens_count: Tokens a language model reads in batches.
        prefill_passes_count: Those batches.
        decode_steps_count: Forward passes of a language model that make tokens.
        decode_sequences_count: Sequences in each of those passes.
        depth_tokens: Tokens already in the cache, on average over those passes.
    """

    operation: str
    flops_count: float
    moved_bytes: float
    resident_bytes: int
    file_bytes: int = 0
    disk_read_bytes: float = 0.0
    dtype: str = "fp32"
    parallel: bool = True
    call_overhead_s: float = 0.0
    product_dim: int = 0
    matrix_bytes: float = 0.0
    working_set_bytes: float = 0.0
    fresh_bytes: float = 0.0
    fresh_array_bytes: float = 0.0
    pass_bytes: float = 0.0
    pass_set_bytes: float = 0.0
    block_bytes: float = 0.0
    block_set_bytes: float = 0.0
    transcendentals_count: float = 0.0
    sort_steps_count: float = 0.0
    stable_sort_steps_count: float = 0.0
    partition_values_count: float = 0.0
    scan_values_count: float = 0.0
    gathers_count: float = 0.0
    fft_steps_count: float = 0.0
    numpy_calls_count: float = 0.0
    python_ops_count: float = 0.0
    native_calls_count: float = 0.0
    regex_calls_count: float = 0.0
    regex_chars_count: float = 0.0
    sql_statements_count: float = 0.0
    sql_rows_count: float = 0.0
    commits_count: float = 0.0
    log_bytes: float = 0.0
    text_terms_count: float = 0.0
    checkpoints_count: float = 0.0
    checkpoint_bytes: float = 0.0
    flushes_count: float = 0.0
    session_calls_count: float = 0.0
    nodes_count: float = 0.0
    kernels: tuple[Kernel, ...] = ()
    prefill_tokens_count: float = 0.0
    prefill_passes_count: float = 1.0
    decode_steps_count: float = 0.0
    decode_sequences_count: int = 1
    depth_tokens: float = 0.0


Rate = tuple[int, float]
"""A size, and the rate there."""


class UnitCosts(Frozen, frozen=True, kw_only=True):
    """What each unit of a ``Cost`` takes on one machine, one thread.

    Attributes:
        machine: Whose they are: fingerprint and interpreter.
        python_op_s: One bytecode instruction.
        native_call_s: One call of a C function on small values, beside its instructions.
        regex_call_s: One regular expression tried on a text.
        regex_char_s: One character that it looks at.
        numpy_call_s: One call of a numpy function on a few values, beside its instructions.
        transcendental_s: One value of exp, log or a division.
        sort_step_s: One step of a sort in any order.
        stable_sort_step_s: One step of a stable sort.
        partition_value_s: One value given to a partition.
        scan_value_s: One value of a running sum.
        gather_s: One value picked or added by an index array that a last-level cache holds.
        fft_step_s: One of the n log2 n steps of a Fourier transform of n real values.
        sql_statement_s: One prepared statement with its call.
        sql_row_s: One row or index entry.
        commit_s: One transaction that changes the file, beside the bytes of its pages.
        log_byte_s: One byte of a page put into the log or copied from it.
        text_term_s: One term put into or taken out of a full-text index.
        checkpoint_s: One truncating checkpoint beside the bytes it copies, in the folder for temporary files.
        checkpoint_byte_s: One byte of a page that it copies; the log grows by it anew and the disk takes it.
        flush_s: One wait for the disk, in the folder for temporary files.
        session_call_s: One call of ONNX Runtime.
        node_s: One node in it.
        product_rates: (smallest dimension, fp32 FLOP/s) of dense products of one thread, in growing order.
        read_rates: (different bytes, bytes/s) of reading in order by one thread, in growing order; the last is memory.
        matrix_rates: The same for a matrix that one vector is multiplied with.
        pass_rates: The same for simple passes of numpy, bytes read and written.
        block_rates: The same for what passes over cached blocks wait for.
        fresh_rates: (bytes of one array, bytes/s) at which new pages come, beside filling them.
        engine_rates: By kind and dtype of a kernel (``convolution int8``): (smallest dimension, FLOP/s) of one thread.
    """

    machine: str
    python_op_s: float
    native_call_s: float
    regex_call_s: float
    regex_char_s: float
    numpy_call_s: float
    transcendental_s: float
    sort_step_s: float
    stable_sort_step_s: float
    partition_value_s: float
    scan_value_s: float
    gather_s: float
    fft_step_s: float
    sql_statement_s: float
    sql_row_s: float
    commit_s: float
    log_byte_s: float
    text_term_s: float
    checkpoint_s: float
    checkpoint_byte_s: float
    flush_s: float
    session_call_s: float
    node_s: float
    product_rates: tuple[Rate, ...]
    read_rates: tuple[Rate, ...]
    matrix_rates: tuple[Rate, ...]
    pass_rates: tuple[Rate, ...]
    block_rates: tuple[Rate, ...]
    fresh_rates: tuple[Rate, ...]
    engine_rates: dict[str, tuple[Rate, ...]]
