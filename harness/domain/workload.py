"""What a workload costs, as it declares it itself.

How to count. A cost is counted from the algorithm at one size, in units that mean the same on every machine; a probe
of the machine (``edge-harness workloads`` makes it before each run) and a device's profile say what each unit takes.
Count what the operation does, never divide a time that was measured by a unit.

* Dense products: ``flops_count`` (2 m n k each), ``product_dim`` their smallest dimension m, n or k, ``dtype``.
* Streams: ``moved_bytes`` is every byte that the passes over arrays read or write, each pass counted again;
  ``working_set_bytes`` is how many different bytes those are. A set that fits into a cache is read at the cache's
  speed. Leave it 0 where every call reads memory that no cache holds.
* Passes of numpy over arrays: one *element* for each value that one simple function (add, compare, where, maximum,
  astype) makes; exp, log, pow and the like count as *transcendental*; sort, argsort, partition of n values count
  n log2 n *sort steps* (partition and argpartition: 2 n); picking by an index array (``a[i]``, ``bincount``,
  ``add.at``) counts one *gather* for each value. Results of 128 KiB and more are ``fresh_bytes`` as well: their pages
  come new from the system, which takes longer than to fill them. Beside it, each function called counts one
  ``numpy_calls_count``.
* Interpreted code: ``python_ops_count`` is bytecode instructions (``dis``: some 6 to 10 for a line of simple code, 25
  for a loop's step with a call), ``native_calls_count`` calls of C functions on small values (``len``, ``dict.get``,
  ``str.split``). ``python -m harness.testing.count_operations NAME`` counts both exactly by tracing. Regular
  expressions beside it: ``regex_chars_count``, the length of the text times the expressions tried on it, and 24
  more for each call, which is what setting it up takes.
* SQLite: ``sql_statements_count`` prepared statements run, ``sql_rows_count`` rows or index entries they read or
  write, ``commits_count`` transactions that change the file.
* Engines: ``session_calls_count`` calls of an ONNX Runtime session or another engine's entry point, ``nodes_count``
  nodes (kernels) it runs; the weights belong to ``moved_bytes``, the arithmetic to ``flops_count``.
* A language model: ``prefill_tokens_count`` tokens read in ``prefill_passes_count`` batches, ``decode_steps_count``
  forward passes that make tokens, each for ``decode_sequences_count`` sequences, ``depth_tokens`` tokens already in
  the cache on average. The speed comes from the feasibility model of the model file in use; what the workload does
  with the logits (a softmax over the vocabulary, sorting it) is counted as passes of numpy.
* ``call_overhead_s`` is for what none of these units names; say in a comment what it is.
"""

from harness.domain.base import Frozen


class Cost(Frozen, frozen=True, kw_only=True):
    """Cost of one operation of a workload at one size, counted from its algorithm, not measured.

    Attributes:
        operation: What one operation is (``retrieve``, ``encode one token`` ...).
        flops_count: Floating-point operations of dense products.
        moved_bytes: Bytes that passes over arrays read or write.
        resident_bytes: Memory held while it runs, anonymous.
        file_bytes: Mapped or cached file bytes.
        disk_read_bytes: Bytes read from storage for one operation.
        dtype: Arithmetic that does the work: ``fp32 fp16 int8``.
        parallel: Whether it uses all cores, or one.
        call_overhead_s: Fixed cost of one operation on the reference machine that no count names.
        product_dim: Smallest dimension of the products; small ones reach less of the peak. 0: large.
        working_set_bytes: Different bytes that the passes touch; 0: more than any cache holds.
        fresh_bytes: Bytes of arrays of 128 KiB and more that it makes: the allocator takes their pages from the system.
        elements_count: Values made by simple passes of numpy.
        transcendentals_count: Values of exp, log, pow and the like.
        sort_steps_count: Steps of sorting: n log2 n for a sort of n values, 2 n for a partition.
        gathers_count: Values picked or added by an index array.
        numpy_calls_count: Calls of numpy functions.
        python_ops_count: Bytecode instructions.
        native_calls_count: Calls of C functions on small values.
        regex_chars_count: Characters that regular expressions look at.
        sql_statements_count: SQLite statements run.
        sql_rows_count: Rows and index entries they read or write.
        commits_count: SQLite transactions that change the file (write-ahead log, no wait for the disk).
        flushes_count: Waits until the disk has what was written (fsync), a checkpoint of SQLite's log two of them.
        session_calls_count: Calls of an inference engine.
        nodes_count: Kernels that those calls run.
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
    working_set_bytes: float = 0.0
    fresh_bytes: float = 0.0
    elements_count: float = 0.0
    transcendentals_count: float = 0.0
    sort_steps_count: float = 0.0
    gathers_count: float = 0.0
    numpy_calls_count: float = 0.0
    python_ops_count: float = 0.0
    native_calls_count: float = 0.0
    regex_chars_count: float = 0.0
    sql_statements_count: float = 0.0
    sql_rows_count: float = 0.0
    commits_count: float = 0.0
    flushes_count: float = 0.0
    session_calls_count: float = 0.0
    nodes_count: float = 0.0
    prefill_tokens_count: float = 0.0
    prefill_passes_count: float = 1.0
    decode_steps_count: float = 0.0
    decode_sequences_count: int = 1
    depth_tokens: float = 0.0


class UnitCosts(Frozen, frozen=True, kw_only=True):
    """What each unit of a ``Cost`` takes on one machine, one thread.

    Attributes:
        machine: Whose they are: fingerprint and interpreter.
        python_op_s: One bytecode instruction.
        native_call_s: One call of a C function on small values, beside its instructions.
        regex_char_s: One character that a regular expression looks at.
        numpy_call_s: One call of a numpy function on a few values, beside its instructions.
        element_s: One value of a simple pass, operands in the second-level cache.
        transcendental_s: One value of exp, log or pow.
        sort_step_s: One step of a sort.
        gather_s: One value picked or added by an index array that a last-level cache holds.
        sql_statement_s: One prepared statement with its call.
        sql_row_s: One row or index entry.
        commit_s: One transaction that changes the file.
        fresh_byte_s: One byte of a new page, beside filling it.
        flush_s: One wait for the disk, in the folder for temporary files.
        session_call_s: One call of ONNX Runtime.
        node_s: One kernel in it.
        product_rates: Pairs (smallest dimension, fp32 FLOP/s) of dense products of one thread, in growing order.
        read_rates: Pairs (different bytes, bytes/s) of passes by one thread, in growing order; the last is memory.
    """

    machine: str
    python_op_s: float
    native_call_s: float
    regex_char_s: float
    numpy_call_s: float
    element_s: float
    transcendental_s: float
    sort_step_s: float
    gather_s: float
    sql_statement_s: float
    sql_row_s: float
    commit_s: float
    session_call_s: float
    node_s: float
    product_rates: tuple[tuple[int, float], ...]
    read_rates: tuple[tuple[int, float], ...]
    flush_s: float = 1e-3
    fresh_byte_s: float = 1.5e-10
