"""What a device does with a task: an ordinary measured run of its own, sent back as the bytes of its record."""

import msgspec

from harness.app.run import Options, cells_of, run_cells
from harness.app.this_machine import this_machine
from harness.domain.record import MachineFingerprint, Outcome, RunRecord
from harness.errors import BadDataError, HarnessError
from harness.fleet.matrix import Task
from harness.measure.child import Limits
from harness.measure.pipeline import How
from harness.measure.runner import new_record
from harness.records.store import encode


def measure(task_json: bytes) -> bytes:
    """Measure one cell, a ``Task`` as JSON, on this machine.

    Returns:
        A run record as JSON; whatever went wrong is its outcome. It is in this device's own history too.

    Raises:
        BadDataError: That is no task.
    """
    try:
        task = msgspec.json.decode(task_json, type=Task)
    except msgspec.MsgspecError as error:
        raise BadDataError("task", "", str(error), "a task of this version of edge-harness") from error
    options = Options(
        runtime=task.runtime,
        repetitions=task.repetitions,
        cold_loads=task.cold_loads,
        how=How(limits=Limits(wall_s=task.timeout_s, memory_bytes=task.memory_limit_bytes)),
        patience_s=task.patience_s,
    )
    try:
        (record,) = run_cells(cells_of([task.model], task.quant, task.scenario), options, device=this_machine())
    except HarnessError as error:
        return encode(could_not_run(task, str(error), outcome="refused"))
    machine = msgspec.structs.replace(record.machine, device=task.device)
    return encode(msgspec.structs.replace(record, machine=machine))


def could_not_run(task: Task, detail: str, *, outcome: Outcome = "failed") -> RunRecord:
    """The record of a cell that has no result; nothing is known of its machine but the name."""
    machine = MachineFingerprint(
        system="",
        kernel="",
        cpu_model="",
        core_count=0,
        ram_bytes=0,
        memory_limit_bytes=0,
        isa=(),
        python="",
        device=task.device,
    )
    return new_record(
        scenario=task.scenario,
        workload="generate",
        outcome=outcome,
        detail=detail,
        machine=machine,
        extra={"model": task.model, "quant": task.quant},
    )
