"""Which of the results that are there may decide: what was meant to run, what came of it, and what is left out and why."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from harness.core.record import Record
from harness.gates.pins import build_of
from harness.gates.sittings import time_of
from harness.records.manifest import Manifest
from harness.records.possible import impossible

_CLOCKS_APART: Final = timedelta(minutes=10)
"""By which the clock of another machine may be ahead."""


class GateEvidence(NamedTuple):
    """What a gate may judge.

    Attributes:
        records: Runs that count, in their order.
        faults: Commands that were meant to measure and left no evidence, a sentence each.
        left_out: Runs that do not count, each with the reason.
    """

    records: list[Record]
    faults: list[str]
    left_out: list[tuple[str, str]]


def evidence_of(
    records: Sequence[Record], manifests: Sequence[Manifest] = (), now: datetime | None = None
) -> GateEvidence:
    """Sort out what a folder of results holds.

    Left out are runs that cannot be, runs of the future, copies of a run, and runs of a command that a newer
    one of the same models stands in for. A newest command without records, or whose records are not there, is
    a fault; so is a run that cannot be, if it is the newest of its model.
    """
    now = now or datetime.now(UTC)
    reasons: dict[str, str] = {}
    for record in records:
        if why := impossible(record):
            reasons[record.run_id] = f"it cannot be: {why[0]}"
        elif time_of(record) > now + _CLOCKS_APART:
            reasons[record.run_id] = f"it was made at {record.created}, which is still to come"
    faults = [
        f"{record.run_id}: {reasons[record.run_id]}"
        for record in _newest_of_each(records)
        if record.run_id in reasons
    ]
    measured = [one for one in records if one.run_id not in reasons and one.outcome in {"ok", "inconclusive"}]
    for copy, first in _copies(measured):
        reasons[copy.run_id] = f"its samples are those of {first.run_id}"
    faults += _of_commands(records, manifests, reasons)
    kept = [record for record in records if record.run_id not in reasons]
    return GateEvidence(
        kept,
        faults,
        [(record.run_id, reasons[record.run_id]) for record in records if record.run_id in reasons],
    )


def _newest_of_each(records: Iterable[Record]) -> Iterable[Record]:
    """The newest run of each model and kind of work."""
    newest: dict[tuple[str, str], Record] = {}
    for record in sorted(records, key=time_of):
        newest[record.workload, record.name] = record
    return newest.values()


def _copies(records: Iterable[Record]) -> Iterable[tuple[Record, Record]]:
    """Runs whose samples are those of an earlier one, with that one: no two runs take the same nanoseconds."""
    seen: dict[str, Record] = {}
    for record in records:
        key = repr((record.workload, record.name, record.samples))
        if record.samples and key in seen:
            yield record, seen[key]
        seen.setdefault(key, record)


def _of_commands(
    records: Sequence[Record], manifests: Sequence[Manifest], reasons: dict[str, str]
) -> list[str]:
    """Faults of the newest command of each subject; runs of the commands it stands in for get their reason."""
    by_id = {record.run_id: record for record in records}
    subjects: defaultdict[tuple[str, ...], list[Manifest]] = defaultdict(list)
    for one in sorted(manifests, key=lambda one: one.created):
        subjects[one.subject].append(one)
    faults = []
    for *earlier, newest in subjects.values():
        if newest.fault:
            faults.append(newest.fault)
        missing = [run for run in newest.records if run not in by_id]
        if missing and len(missing) == len(newest.records):
            faults.append(f"`{newest.words}` made {missing[0]}, which is not there")
        builds = {build_of(by_id[run]) for run in newest.records if run in by_id}
        for one in earlier:
            for run in one.records:
                if run in by_id and not (one.command == newest.command and build_of(by_id[run]) in builds):
                    reasons.setdefault(run, f"`{newest.words}` of {newest.created} stands in its place")
    return faults
