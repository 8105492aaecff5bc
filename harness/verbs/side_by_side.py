"""The same verb on several targets at once, each by an edge-harness of its own: what a fleet is measured with."""

import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from harness.core.errors import CouldNotRunError, Exit, HarnessError
from harness.core.foreign import json_of
from harness.core.outside import output_of
from harness.core.record import UNKNOWN_MACHINE, Record
from harness.core.scenario import Scenario
from harness.measure.runner import new_record
from harness.records.store import from_document

_LONGEST_S: Final = 7 * 86_400.0
_ENDS: Final = {Exit.OK, Exit.INCONCLUSIVE, Exit.COULD_NOT_RUN}


def on_each(
    targets: Sequence[str],
    words: Sequence[str],
    scenario: Scenario,
    *,
    told: Callable[[str, list[Record]], None],
) -> list[Record]:
    """Records of ``words``, a verb with its options, on each target, in the order of the targets.

    What a target could not begin is a failed record of its name (and of ``scenario``), so that the others are
    not lost with it.
    ``told`` hears what came of a target as soon as it has ended.
    """

    def one(target: str) -> list[Record]:
        command = [sys.executable, "-m", "harness", words[0], "--on", target, "--json", *words[1:]]
        try:
            printed = output_of(command, target, timeout_s=_LONGEST_S, ends=_ENDS)
            documents = json_of(printed, target, "the records of a run")
            if isinstance(documents, dict):
                raise CouldNotRunError(documents["error"]["message"])
            records = [from_document(document, target) for document in documents]
        except HarnessError as error:
            failed = new_record(
                workload="generate",
                scenario=scenario,
                outcome="failed",
                detail=str(error),
                machine=UNKNOWN_MACHINE.replace(device=target),
            )
            records = [failed]
        told(target, records)
        return records

    with ThreadPoolExecutor(len(targets)) as pool:
        return [record for records in pool.map(one, targets) for record in records]
