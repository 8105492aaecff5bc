"""The fastest way to run a model on this machine: settings predicted, the rest raced in turns.

A *race* has rounds. In each round every setting that is still in it runs once, in an order that turns round,
so that what drifts falls on all alike. A setting leaves the race when it is slower than the best one by more
than chance: its ratio to the best, turn by turn, lies above 1 with its whole interval. The race ends when one
is left, when those left do not differ enough to matter, or when its time is up.

There are two races: one of runtimes, threads and layouts of weights, which hang together, and one of the
winner against what differs from it in one more thing (micro-batch, flash attention, cache, placement on a
GPU). The winner then meets the defaults again, in turns of their own, and only these say how much faster it
is: a winner of many is flattered by the turns that made it win.

Sources:
    K. Jamieson and A. Talwalkar 2016, "Non-stochastic best arm identification and hyperparameter
    optimization", AISTATS (successive halving); S. Falkner et al. 2018, arXiv:1807.01774, on the winner's
    optimism.
"""

import itertools
import math
import re
import shlex
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from statistics import fmean, geometric_mean, median, stdev
from typing import Any, Final

from msgspec.structs import asdict

from harness.answer.resolve import Model, resolve_model, scenario_from
from harness.core import plugins
from harness.core.base import Frozen
from harness.core.device import Device
from harness.core.errors import EngineError, RefusedError, installing
from harness.core.model import ModelShape
from harness.core.placement import Placement, placement_of
from harness.core.record import Record
from harness.core.scenario import Scenario
from harness.core.stats.intervals import Estimate, ratio_interval
from harness.hardware.threads import default_thread_count
from harness.measure.machine import cpu
from harness.measure.pipeline import How, Listener, Pipeline
from harness.measure.protocol import GenerateJob
from harness.memory.splits import best_split, steps
from harness.runtimes.simple import SimpleRuntime
from harness.verbs.locate import obtain
from harness.verbs.run import RunCell, answers_of, prediction_of, run_cell

MATTERS_RATIO: Final = 0.02
"""A difference below this is not worth another round."""
_LEVEL: Final = 0.95
_FINAL_LEVEL: Final = 0.99
_FINAL_TURNS: Final = 8
_LEAST_PAIRS: Final = 3
"""Turns against the defaults without which no interval can be told: the races leave time for them."""
LEAD_RATIO: Final = 1.01
"""A gain whose interval begins below is told to be none: of equal settings one in 250 then seems to be
faster."""
_DECODED_TOKENS: Final = 32
"""Tokens of the answer that one turn decodes: enough for the speed of a token, whatever the answer's length."""
_CHUNKS: Final = 1
"""Chunks of 512 tokens of the shipped text that each kind of setting reads once."""
_HOPELESS_RATIO: Final = 1.5
"""A setting that took so many times as long as the best in the first round leaves. One that is predicted to
take so many times as long as the first one of its runtime never runs."""
_SLOWEST_TURN_RATIO: Final = 3.0
"""A turn is ended when it takes so many times as long as the shortest one."""
_LEAST_TURN_S: Final = 15.0
"""No turn is ended before: a model's first load is none of its speed."""
NOT_RUN: Final = "the time was up before it ran"
_BLOCKS: Final = 9998
"""More than any model has: the layers of a whole one."""
_STEPS: Final = 2
"""Placements looked at on each side of the best one."""
_NLL_TOLERANCE: Final = 0.005
"""Nats a token by which answers may differ where they are to be kept: other kernels round otherwise."""

GOALS: Final[dict[str, dict[str, Any]]] = {
    "chat": {"prompt_tokens": 512, "new_tokens": 128},
    "prompt": {"prompt_tokens": 2048, "new_tokens": 16},
    "agent": {"prompt_tokens": 256, "new_tokens": 64, "depth_tokens": 2048},
}
"""What one request is, for each purpose; ``users=N`` is the chat of N users at a time."""


class Setting(Frozen):
    """One way to run the model: the runtime, or the program, and what it is told."""

    runtime: str
    thread_count: int
    ubatch_tokens: int = 512
    kv_type: str = "F16"
    flash_attention: bool = True
    repack: bool = True
    api: str = ""
    placement: Placement = Placement()

    def scenario(self, asked: Scenario) -> Scenario:
        """What is asked, in this way."""
        return asked.replace(**{name: value for name, value in asdict(self).items() if name != "runtime"})

    @property
    def words(self) -> str:
        """The setting for people."""
        return " ".join(
            filter(None, [self.runtime, self.scenario(Scenario()).flags, self.api and self.where])
        )

    @property
    def where(self) -> str:
        """Where the layers lie, as options of llama.cpp's programs."""
        if self.api in {"", "cpu"}:
            return "-ngl 0"
        return self.placement.flags(_BLOCKS)


class Runner(Frozen, kw_only=False):
    """What became of one setting.

    Attributes:
        turns_s: Seconds of one request in each turn, of an undisturbed or least disturbed sample.
        slower_ratio: How many times the winner's seconds it took, turn by turn: seconds of other minutes say
            little on a machine that drifts. None where it never ran.
        left: Why it left the race; empty for the winner and those that do not differ from it.
    """

    setting: Setting
    turns_s: tuple[float, ...] = ()
    slower_ratio: float | None = None
    left: str = ""


class Tuned(Frozen):
    """The result of a race.

    Attributes:
        gain: How many times faster the winner is than the defaults, from turns of their own; its ends, of 99
            %, are None where the time was up before three turns.
        runners: All settings, the winner first, then by their speed; those that never ran last.
        unproven: What was ahead in the races and not faster than the defaults in turns of their own, or had
            too few of them: the defaults are then the winner. None where there is no such.
    """

    model: str
    goal: str
    winner: Setting
    defaults: Setting
    gain: Estimate
    runners: tuple[Runner, ...]
    rounds: int
    seconds: float
    commands: dict[str, str] = {}
    unproven: Setting | None = None


def tune(
    model: str,
    quant: str = "",
    *,
    goal: str = "chat",
    within_s: float = 600.0,
    quality_ratio: float = 0.0,
    runtimes: Sequence[str] = (),
    api: str = "",
    device: Device | None = None,
    how: How = How(),
) -> Tuned:
    """Find the fastest setting on this machine.

    Args:
        model: As every verb takes it.
        quant: The file's mixture.
        goal: ``chat``, ``prompt``, ``agent`` or ``users=N``.
        within_s: Time of the whole race.
        quality_ratio: Growth of perplexity that may be paid for speed; 0 keeps the answers, and the cache in
            F16.
        runtimes: Those to race; all that can be used here unless given.
        api: Driver of the GPU whose placements are raced; empty for the CPU.
        device: The profile of this machine, from which settings are predicted.
        how: As for every measurement.

    Raises:
        RefusedError: No such goal, no runtime that can be used, or no setting that ran.
        UnknownNameError: Nothing is driven by that api.
        CouldNotRunError: Another measured run held the machine for too long.
    """
    began_s = time.monotonic()
    asked = scenario_of(goal)
    api = scenario_from({"api": api}).api
    resolved = resolve_model(model, quant or None)
    path = obtain(model, quant, progress=how.listener.fetched).path
    how.listener.begin(f"tuning {resolved.name}", within_s=within_s)
    say = how.listener.say
    limits = how.limits._replace(wall_s=min(how.limits.wall_s, within_s))
    # Some hundred short runs are no history of the machine.
    how = how._replace(keep=False, listener=Listener(say), limits=limits)
    split = None
    if device and device.has_own_memory(api):
        split = best_split(resolved.weights, device, asked)
    threads = len(how.limits.cpus) or default_thread_count()
    first = Setting(runtime="", thread_count=threads, api=api, placement=split or Placement())
    most_threads = len(how.limits.cpus) or cpu().logical_cpu_count
    stage = list(candidates(usable(runtimes), first, most_threads, cpu().isa or ()))
    winner = defaults = stage[0]
    settings: list[Setting] = []
    with Pipeline(how) as pipeline:
        allowed_nats = _NLL_TOLERANCE + math.log1p(quality_ratio)
        race = Race(door(RunCell(model, quant, asked), pipeline, defaults, allowed_nats), say=say)
        # The rest of the time is for turns against the defaults.
        for share in (0.4, 0.6):
            settings += stage
            until_s = began_s + min(within_s * share, within_s - race.final_s())
            if race.turns and time.monotonic() > until_s:
                # the first race took all of the time there is for races
                race.left |= dict.fromkeys(stage[1:], NOT_RUN)
                break
            predicted_s = {setting: _predicted_s(resolved, setting, asked, device) for setting in stage}
            none = hopeless(predicted_s)
            race.left |= none
            racing = [setting for setting in stage if setting not in none]
            winner = race.run(sorted(racing, key=predicted_s.__getitem__), until_s=until_s)
            stage = list(neighbours(winner, asked, resolved.weights.shape, kept=quality_ratio == 0))
        least_s = min(time.monotonic() + race.final_s(), began_s + within_s)
        gain = race.against(winner, defaults, until_s=max(began_s + within_s * 0.9, least_s))
    unproven = None
    # Who met the defaults was not faster, or in too few turns.
    if gain.sample_count and (gain.low is None or gain.mid <= 1.0):
        unproven = winner
        winner = defaults
        gain = Estimate(1.0, 1.0, 1.0, 0)
    beside = race.beside(winner)
    if gain.low is not None and winner != defaults:
        beside[defaults] = gain.mid  # from turns of their own
    runners = [
        Runner(setting, tuple(race.turns.get(setting, ())), beside.get(setting), race.left.get(setting, ""))
        for setting in dict.fromkeys(settings)
    ]
    runners.sort(key=lambda each: (each.setting != winner, beside.get(each.setting, math.inf)))
    return Tuned(
        model=f"{resolved.name} {resolved.quant}".strip(),
        goal=goal,
        winner=winner,
        defaults=defaults,
        gain=gain,
        runners=tuple(runners),
        rounds=race.rounds,
        seconds=time.monotonic() - began_s,
        commands=commands(winner, path, asked),
        unproven=unproven,
    )


def door(
    asked: RunCell, pipeline: Pipeline, defaults: Setting, allowed_nats: float = _NLL_TOLERANCE
) -> Callable[[Setting], float]:
    """What runs a setting once by its runtime, and gives the seconds of one request.

    Its errors are those of :func:`request_s`; RefusedError too where the answers are worse than those of the
    ``defaults`` by more than ``allowed_nats`` a token.
    """

    def member(setting: Setting) -> tuple[RunCell, GenerateJob]:
        new_tokens = min(_DECODED_TOKENS, asked.scenario.new_tokens)
        cell = asked._replace(scenario=setting.scenario(asked.scenario.replace(new_tokens=new_tokens)))
        return cell, GenerateJob(runtime=setting.runtime, repetitions=1, cold_loads=0, patience_s=0.0)

    @cache  # each kind is asked once for its answers: threads and micro-batches do not change them
    def losses(setting: Setting) -> tuple[float, ...]:
        return answers_of(*member(setting), pipeline, _CHUNKS)

    usual = losses(defaults)
    limits = pipeline.how.limits
    walls_s: list[float] = []

    def seconds(setting: Setting) -> float:
        kind = setting.replace(thread_count=defaults.thread_count, ubatch_tokens=defaults.ubatch_tokens)
        worse = worse_nats(losses(kind), usual)
        if worse > allowed_nats:
            raise RefusedError(
                f"worse answers: by {worse:.3f} nats a token at least, {allowed_nats:.3f} are allowed"
            )
        # One that loses by ten would take the time of ten others.
        most_s = max(_LEAST_TURN_S, _SLOWEST_TURN_RATIO * min(walls_s, default=math.inf))
        pipeline.how = pipeline.how._replace(limits=limits._replace(wall_s=min(limits.wall_s, most_s)))
        began_s = time.monotonic()
        cell, job = member(setting)
        found_s = request_s(run_cell(cell, job, None, pipeline), asked.scenario)
        walls_s.append(time.monotonic() - began_s)
        return found_s

    return seconds


def worse_nats(own: Sequence[float], usual: Sequence[float]) -> float:
    """By how much a token's loss is greater than another's at least: the mean difference less two standard errors.

    Kernels that round otherwise differ at random from token to token. Minus infinity where one of them tells
    nothing.
    """
    differences = [a - b for a, b in zip(own, usual, strict=False)]
    if len(differences) < 2:
        return -math.inf
    return fmean(differences) - 2.0 * stdev(differences) / math.sqrt(len(differences))


def hopeless(predicted_s: Mapping[Setting, float]) -> dict[Setting, str]:
    """Why a setting need not run, by its predicted seconds beside those of the first one of its runtime.

    A setting without a prediction is given infinity, and runs all the same.
    """
    first: dict[str, Setting] = {}
    left = {}
    for setting, seconds in predicted_s.items():
        usual = first.setdefault(setting.runtime, setting)
        ratio = seconds / predicted_s[usual]
        if _HOPELESS_RATIO < ratio < math.inf:
            left[setting] = f"predicted to take {ratio:.2f} times as long as {usual.words}"
    return left


class Race:
    """Settings against each other; ``take`` runs one of them once and gives its seconds.

    A setting whose run raises RefusedError or EngineError leaves with that reason.
    """

    def __init__(
        self,
        take: Callable[[Setting], float],
        *,
        say: Callable[[str], None] = lambda _line: None,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._take = take
        self._say = say
        self._now_s = now_s
        self.turns: dict[Setting, list[float]] = {}
        self.left: dict[Setting, str] = {}
        self.rounds = 0
        self._winner: Setting | None = None  # of the last race
        self._slower: dict[Setting, float] = {}  # how many times slower than that each was
        self._walls_s: list[float] = []

    def run(self, settings: Sequence[Setting], *, until_s: float) -> Setting:
        """The winner; RefusedError where none ran.

        The winner of an earlier race, if it runs in this one, is beaten by who was faster in three turns or
        more.
        """
        racing = list(settings)
        # Turns of an earlier race were taken in other minutes: no pairs are made of them.
        for setting in racing:
            self.turns.pop(setting, None)
        done = 0
        is_settled = False
        round_s = 0.0
        while racing and not is_settled and (not done or self._now_s() + round_s < until_s):
            began_s = self._now_s()
            for setting in reversed(racing) if done % 2 else racing:
                if not done and self._now_s() > until_s and self.turns.keys() & set(settings):
                    self.left[setting] = NOT_RUN
                else:
                    self._turn(setting)
            done += 1
            self.rounds += 1
            round_s = self._now_s() - began_s
            running = [each for each in racing if each not in self.left]
            racing, is_settled = self._still_in(running, is_first=done == 1)
            left_s = max(0.0, until_s - self._now_s())
            ahead = racing[0].words if racing else "none"
            self._say(f"round {self.rounds}: {len(racing)} left, {ahead} ahead, at most {left_s:.0f} s more")
        if not racing:
            raise RefusedError("no setting ran: " + "; ".join(dict.fromkeys(self.left.values())))
        winner = racing[0]
        holder = self._winner
        count = len(self.turns[winner])
        if holder in racing and holder != winner and count < _LEAST_PAIRS:
            self.left[winner] = f"ahead in {count} of the {_LEAST_PAIRS} turns that it takes to win"
            winner = holder
        ratios = {each: self._ratio(each, winner, _LEVEL).mid for each in settings if self.turns.get(each)}
        # The last winner runs in both: it tells how far the new one is from those that it has beaten.
        between = ratios.get(holder, 1.0) if holder else 1.0
        self._slower = {each: ratio * between for each, ratio in self._slower.items()} | ratios
        self._winner = winner
        return winner

    def beside(self, setting: Setting) -> dict[Setting, float]:
        """How many times as long as this one each took that ran."""
        own = self._slower.get(setting, 1.0)
        return {each: ratio / own for each, ratio in self._slower.items()}

    def against(self, winner: Setting, defaults: Setting, *, until_s: float) -> Estimate:
        """How many times faster the winner is than the defaults, from turns of their own.

        The ratio of a setting to itself is exactly 1.
        """
        if winner == defaults:
            return Estimate(1.0, 1.0, 1.0, 0)
        turns: dict[Setting, list[float]] = {winner: [], defaults: []}
        order = list(turns)
        pair_s = 0.0
        for count in range(_FINAL_TURNS):
            began_s = self._now_s()
            if count and began_s + pair_s >= until_s:
                break
            try:
                for setting in order:
                    turns[setting].append(self._take(setting))
            except (RefusedError, EngineError):  # the defaults do not run here: nothing to compare with
                return Estimate(math.inf, None, None, 0)
            order.reverse()
            pair_s = self._now_s() - began_s
        return ratio_interval(turns[defaults], turns[winner], confidence=_FINAL_LEVEL)

    def final_s(self) -> float:
        """What the fewest turns against the defaults that tell an interval take, by the turns so far."""
        return 2 * _LEAST_PAIRS * median(self._walls_s or [0.0])

    def _turn(self, setting: Setting) -> None:
        began_s = self._now_s()
        try:
            seconds = self._take(setting)
        except (RefusedError, EngineError) as error:
            self.left[setting] = str(error)
        else:
            self.turns.setdefault(setting, []).append(seconds)
            self._walls_s.append(self._now_s() - began_s)

    def _still_in(self, racing: list[Setting], *, is_first: bool) -> tuple[list[Setting], bool]:
        """Those that may still win, best first, and whether none of them can be faster by what matters.

        The settings that leave the race are kept, each with its reason.
        """
        ordered = sorted(racing, key=lambda each: geometric_mean(self.turns[each]))
        kept = ordered[:1]
        # Every one is compared with the best: each comparison has its share of the level.
        level = 1.0 - (1.0 - _LEVEL) / max(1, len(ordered) - 1)
        for setting in ordered[1:]:
            slower = self._ratio(setting, kept[0], level)
            low = slower.low or 0.0
            if is_first and slower.mid > _HOPELESS_RATIO:
                self.left[setting] = f"{slower.mid:.2f} times the best's time in the first round"
            elif low > 1.0:
                self.left[setting] = (
                    f"{slower.mid:.2f} times the best's time ({low:.2f} to {slower.high:.2f})"
                )
            else:
                kept.append(setting)
        lows = [self._ratio(each, kept[0], _LEVEL).low or 0.0 for each in kept[1:]]
        return kept, min(lows, default=1.0) > 1.0 - MATTERS_RATIO

    def _ratio(self, setting: Setting, best: Setting, level: float) -> Estimate:
        count = min(len(self.turns[setting]), len(self.turns[best]))
        return ratio_interval(self.turns[setting][:count], self.turns[best][:count], confidence=level)


def scenario_of(goal: str) -> Scenario:
    """One request of that purpose; RefusedError for another word."""
    name, _, count = goal.partition("=")
    if name == "users" and count.isdigit() and 0 < int(count) <= 256:
        users = int(count)
        room = users * (GOALS["chat"]["prompt_tokens"] + GOALS["chat"]["new_tokens"])
        return Scenario(**GOALS["chat"], batch_count=users, context_tokens=max(4096, room))
    if goal not in GOALS:
        raise RefusedError(f"--for: found {goal!r}, expected one of {', '.join(GOALS)}, users=N")
    return Scenario(**GOALS[goal])


def usable(runtimes: Sequence[str]) -> list[str]:
    """Runtimes that read GGUF files in process and can be used here; RefusedError where there is none.

    One that was asked for by name and cannot be used is refused with its reason.
    """
    by_package: dict[str, str] = {}
    for name in runtimes or sorted(plugins.names("harness.runtimes"), key=lambda name: name != "llamacpp"):
        runtime = plugins.load("harness.runtimes", name, "RUNTIME")
        reads = "gguf" in getattr(runtime, "formats", ()) and not hasattr(runtime, "attach")
        reads = reads and not isinstance(runtime, SimpleRuntime)  # its settings are its own
        why = plugins.missing_reason(runtime, name) or ("" if reads else "it reads no GGUF file in process")
        if runtimes and why:
            raise RefusedError(f"{name}: {why}")
        if not why:
            # Without llama-cpp-python llamacpp is driven through another package: one runtime by two names.
            has_package = not runtimes and hasattr(runtime, "package")
            by_package.setdefault(runtime.package() if has_package else name, name)
    if not by_package:
        raise RefusedError(f"no runtime to race: {installing('llama')}, or {installing('ik')}")
    return list(by_package.values())


def candidates(
    runtimes: Sequence[str], first: Setting, most_threads: int, isa: Collection[str] = ()
) -> Iterator[Setting]:
    """Settings of the first race: the threads of ``first`` in each runtime, then other numbers.

    All are repacked or not, but with AMX among the instruction sets: it multiplies packed weights alone, and
    without it a prompt took twelve times as long (98.9 s a request for 8.3).
    """
    layouts = (True,) if "amx" in isa else (True, False)
    usual = first.thread_count
    threads = dict.fromkeys([usual, *sorted({max(1, usual // 2), max(1, usual - 1), most_threads})])
    for count, repack, runtime in itertools.product(threads, layouts, runtimes):
        yield first.replace(runtime=runtime, thread_count=count, repack=repack)


def neighbours(winner: Setting, asked: Scenario, shape: ModelShape, *, kept: bool) -> Iterator[Setting]:
    """The winner, and what differs from it in one thing; a cache of fewer bits only where answers may change.

    On a GPU also the next placements with less on it, and with more.
    """
    yield winner
    for ubatch in (64, 128, 1024, 2048):
        if ubatch < asked.prompt_tokens * asked.batch_count or ubatch < winner.ubatch_tokens:
            yield winner.replace(ubatch_tokens=ubatch)
    yield winner.replace(flash_attention=False)
    placements = list(steps(shape, winner.placement.tensor_split))
    if winner.api not in {"", "cpu"} and winner.placement in placements:
        at = placements.index(winner.placement)
        for placement in placements[max(0, at - _STEPS) : at + _STEPS + 1]:
            if placement != winner.placement:
                yield winner.replace(placement=placement)
    if not kept:
        yield winner.replace(kv_type="Q8_0")


def request_s(record: Record, asked: Scenario) -> float:
    """Seconds of one request as ``asked``: the prompt at the best rate of prefill, the answer at that of decode.

    Samples that were disturbed count too: all settings are disturbed alike, and turns tell them apart.

    Raises:
        RefusedError: The run did not end well.
        KeyboardInterrupt: It was interrupted.
    """
    if record.outcome == "interrupted":
        raise KeyboardInterrupt
    if record.outcome not in {"ok", "inconclusive"}:
        raise RefusedError(
            f"{record.outcome}: {record.detail.splitlines()[0] if record.detail else 'no reason given'}"
        )
    rates = []
    for phase in ("prefill", "decode"):
        samples = [s for s in record.samples if s.phase == phase and not s.warm_up and s.duration_s > 0]
        if not samples:
            raise RefusedError(f"the run holds no sample of {phase}")
        rates.append(max(s.token_count / s.duration_s for s in samples))
    return _seconds(asked, *rates)


def _seconds(asked: Scenario, prefill_tokens_per_s: float, decode_tokens_per_s: float) -> float:
    return asked.batch_count * (
        asked.prompt_tokens / prefill_tokens_per_s + asked.new_tokens / decode_tokens_per_s
    )


def commands(setting: Setting, file: Path, asked: Scenario) -> dict[str, str]:
    """The winner as commands of the programs that people run, on the model's ``file``; ik's is that of its own build.

    What a Modelfile cannot set stands there as a remark.

    Source:
        llama.cpp, common/arg.cpp; ik_llama.cpp, common/common.cpp (``-rtr``, ``-fa``); Ollama,
        docs/modelfile.md (parameters num_thread, num_batch, num_ctx, num_gpu).
    """
    scenario = setting.scenario(asked)
    given = f"-m {shlex.quote(str(file))} -c {asked.context_tokens} {setting.where}"
    if setting.runtime == "ik":
        repacking = " -rtr" if setting.repack else ""
        flags = scenario.replace(repack=True).flags
        return {"ik_llama.cpp's llama-server": f"llama-server {given} {flags}{repacking}"}
    if setting.api in {"", "cpu"}:
        given += " -dev none"  # with -ngl 0 alone a GPU computes long prompts
    modelfile = [
        f"FROM {file}",
        f"PARAMETER num_thread {setting.thread_count}",
        f"PARAMETER num_ctx {asked.context_tokens}",
        f"PARAMETER num_batch {setting.ubatch_tokens}",
        f"PARAMETER num_gpu {placement_of(setting.where).gpu_layers}",
    ]
    flags = f"{scenario.replace(batch_count=1).flags} {setting.where}"
    rest = re.sub(r"-(t|ub|ngl) \S+ ?", "", flags).strip()
    if rest:
        modelfile.append(f"# A Modelfile cannot set: {rest}")
    return {
        "llama-server": f"llama-server {given} {scenario.flags}",
        "Ollama Modelfile": "\n".join(modelfile),
    }


def _predicted_s(model: Model, setting: Setting, asked: Scenario, device: Device | None) -> float:
    """Seconds of one request by llama.cpp's law; infinity where nothing can be predicted."""
    prediction = prediction_of(model, device, setting.scenario(asked), runtime=setting.runtime)
    if prediction is None:
        return math.inf
    speed = prediction.speed
    return _seconds(asked, speed.prefill_tokens_per_s.mid, speed.decode_tokens_per_s.mid)
