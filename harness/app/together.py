"""Several models in one memory: which stay there together, and the command of each."""

from harness.app.case import Case
from harness.app.commands import commands_of
from harness.app.resolve import ResolvedModel
from harness.app.ways import ways
from harness.domain.base import Frozen
from harness.domain.way import Way


class Resident(Frozen):
    """One of several models.

    Attributes:
        needed_bytes: What it takes in the pool that is fullest, alone.
        stays: Whether it has room beside the ones before it; else it is loaded in place of others.
        command: What starts it, as it was placed.
    """

    name: str
    quant: str
    needed_bytes: int
    stays: bool
    command: str


def staying_together(case: Case) -> Case:
    """The case with those of the other models that stay where all before them and they have room together.

    The model that was asked about comes first: none of it is moved for another one.
    """
    kind = ways(case._replace(others=()))[0].kind
    staying = list[ResolvedModel]()
    for other in case.others:
        together = ways(case._replace(others=(*staying, other)))[0]
        if together.runs and together.has_room and together.kind is kind:
            staying.append(other)
    return case._replace(others=tuple(staying))


def residents(case: Case, staying: Case) -> tuple[Resident, ...]:
    """The model that was asked about and the others, in the order asked for; empty where it is alone.

    ``staying`` is what :func:`staying_together` makes of the case.
    """
    if not case.others:
        return ()
    alone = case._replace(others=())
    found = [_resident(alone, ways(staying)[0], stays=True)]
    for other in case.others:
        mine = alone._replace(model=other, draft=None, head="")
        found.append(_resident(mine, ways(mine)[0], stays=other in staying.others))
    return tuple(found)


def _resident(case: Case, way: Way, *, stays: bool) -> Resident:
    commands = commands_of(case, way)
    name, quant = case.model.shown
    return Resident(
        name=name,
        quant=quant,
        needed_bytes=way.prediction.verdict.needed_bytes,
        stays=stays,
        command=commands[0] if commands else "",
    )
