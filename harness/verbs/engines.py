"""Which engine runs here, whether it uses what the machine has, and one that does."""

from collections.abc import Collection
from contextlib import suppress

from harness.core.base import Frozen
from harness.core.errors import CouldNotRunError, EngineError, FetchError, HarnessError
from harness.core.isa import ISA
from harness.measure import machine
from harness.measure.engine_devices import Engine, ask_engine
from harness.measure.pipeline import Listener
from harness.runtimes.llamacpp.builds import Build, all_here, builds_here, install, pulled
from harness.runtimes.llamacpp.library import installed


class Lack(Frozen):
    """An instruction set that the machine has and the engine does not use, and what using it is likely to gain."""

    isa: str
    prompt_gain: tuple[float, float]
    decode_gain: tuple[float, float]

    @property
    def line(self) -> str:
        """One sentence."""
        prompt = "{:g} to {:g}".format(*self.prompt_gain)
        decode = "{:g} to {:g}".format(*self.decode_gain)
        return (
            f"the engine does not use this machine's {self.isa}: one that does reads prompts {prompt} times as fast, "
            f"and writes {decode} times as fast, by model and type"
        )


class EnginesHere(Frozen):
    """Builds for this machine, the one that was pulled, the engine that runs, and what it leaves unused."""

    builds: tuple[Build, ...]
    pulled: Build | None
    in_use: Engine | None
    machine_isa: tuple[str, ...]
    lack: Lack | None
    fault: str = ""


def show() -> EnginesHere:
    """All of it; an engine that cannot be asked is told in ``fault``."""
    engine = None
    fault = ""
    try:
        if installed():
            engine, _ = ask_engine()
    except CouldNotRunError as error:
        fault = str(error)
    isa = machine.cpu().isa or ()
    lack = None
    if engine:
        lack = lacking(engine.isa, isa)
    return EnginesHere(
        builds=tuple(all_here()), pulled=pulled(), in_use=engine, machine_isa=isa, lack=lack, fault=fault
    )


def lacking(engine_isa: Collection[str], machine_isa: Collection[str]) -> Lack | None:
    """The set whose lack costs most; None where the engine uses all whose gain has been measured."""
    lacks = [
        Lack(isa=name, prompt_gain=one.prompt_gain, decode_gain=one.decode_gain)
        for name, one in ISA.items()
        if name in machine_isa and name not in engine_isa and one.prompt_gain and one.decode_gain
    ]
    return max(lacks, key=lambda lack: lack.prompt_gain[1], default=None)


def pull(api: str, heard: Listener) -> tuple[Build, Engine]:
    """Fetch the first build for this machine and api that can be had and answers here.

    Raises:
        InputError: None is known, there is no room, or another pull is going on.
        FetchError: None could be had, or none runs here; each reason is told.
    """
    failures = []
    for build in builds_here(api):
        heard.begin(f"fetching {build.place}", within_s=30.0)
        try:
            engine, _ = install(build, lambda folder: ask_engine(folder=str(folder)), heard.fetched)
        except CouldNotRunError as error:
            failures.append(str(error))
            continue
        return build, engine.replace(brought_by=build.title)
    raise FetchError("; ".join(failures))


def improve(heard: Listener, *, agreed: bool) -> None:
    """Say what the engine that runs leaves of this machine unused, or, where the user ``agreed``, fetch a better one.

    An engine that cannot be fetched is no reason to stop: it is said, and what is installed runs.
    """
    lack = None
    if installed():
        with suppress(EngineError):  # it is told by the run that needs it
            lack = lacking(ask_engine()[0].isa, machine.cpu().isa or ())
        if lack is None:
            return
        heard.say(f"{lack.line}{'' if agreed else ' (edge-harness engines pull)'}")
    if not agreed:
        return
    try:
        build, engine = pull("", heard)
        heard.say(f"fetched {build.title}, variant {engine.variant or 'its only one'}")
    except HarnessError as error:
        heard.say(f"no engine made for this machine could be fetched: {error}")
