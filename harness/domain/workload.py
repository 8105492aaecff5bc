"""What a workload costs, as it declares it itself."""

from harness.domain.base import Frozen


class Cost(Frozen, frozen=True, kw_only=True):
    """Cost of one operation of a workload at one size, counted from its algorithm, not measured.

    Attributes:
        operation: What one operation is (``retrieve``, ``encode one token`` ...).
        flops_count: Floating-point operations.
        moved_bytes: Bytes that must be read or written, from memory above the last-level cache.
        resident_bytes: Memory held while it runs, anonymous.
        file_bytes: Mapped or cached file bytes.
        disk_read_bytes: Bytes read from storage for one operation.
        dtype: Arithmetic that does the work: ``fp32 fp16 int8``.
        parallel: Whether it uses all cores, or one.
        call_overhead_s: Fixed cost of one operation on the reference machine (interpreter, session call).
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
