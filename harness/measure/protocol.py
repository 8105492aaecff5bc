"""The measuring protocol, run in the child process: what llama-bench does, and what it leaves out.

Kept as llama-bench has it, so that the numbers can be compared: random tokens, one warm-up of each test,
prompt processing (``pp``) and generation (``tg``) timed apart, generation from an empty cache (or from
``depth`` tokens in it), logits of one token computed at each step and not read, no sampling inside the clock.

Several sequences (``b4``) go through the model together, as llama-batched-bench has it: each has its own
prompt and its own place in the cache, one pass computes one token of each, and rates are those of all of
them.

Added: load time with the file out of the page cache and in it, time to first token cold and warm, the time of
every single token, the validity of each sample, and a check outside the clock that the logits are numbers at
all.

Source of the reference protocol: llama.cpp, tools/llama-bench/llama-bench.cpp (``test_prompt``, ``test_gen``)
and tools/batched-bench/batched-bench.cpp.
"""

import contextlib
import os
import random
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np

from harness.core import plugins
from harness.core.base import Frozen
from harness.core.errors import EngineError
from harness.core.ports import Emit, Runtime, Session
from harness.core.scenario import Scenario
from harness.measure import page_cache
from harness.measure.memory_watch import memory_mark, reset_peak
from harness.measure.sensors import EnergyMeter
from harness.measure.validity import Watch, child_probe
from harness.onnx.files import model_files

PAUSE_S: Final = 0.25
LONGEST_PAUSE_S: Final = 2.0
_ATTEMPTS_RATIO: Final = 3
"""Samples of each test at most, over those that are to be clean."""
COLD_CACHED_RATIO: Final = 0.02
"""A load counts as cold when no more than this share of the file was in the page cache."""


class GenerateJob(Frozen):
    """What the child is to measure; one that many runs have in common names no ``path`` yet.

    Attributes:
        cold_loads: Loads past the page cache, each with its time to first token; 0 to leave the cache alone.
        patience_s: Longest time spent on disturbed samples and the pauses after them.
    """

    path: str = ""
    scenario: Scenario = Scenario()
    runtime: str = "llamacpp"
    repetitions: int = 5
    cold_loads: int = 1
    seed: int = 1
    patience_s: float = 20.0


def run_generate(job: GenerateJob, emit: Emit) -> None:
    """Entry point of the child: measure one model as :class:`GenerateJob` says, telling each sample at once.

    Raises:
        HarnessError: The runtime or the model cannot be used.
    """
    runtime: Runtime = plugins.usable_runtime(job.runtime)
    if (mirror := getattr(runtime, "mirror_log", None)) is not None:
        mirror(
            lambda line: os.write(2, line.encode() + b"\n")
        )  # the parent keeps its end: it survives an abort

    Protocoller(job, runtime, emit).run()


class Protocoller:
    """Runs one job, telling ``engine``, ``memory`` and ``sample``.

    A runtime with a clock of its own (``now_s``) is timed by that.
    """

    def __init__(self, job: GenerateJob, runtime: Runtime, emit: Emit) -> None:
        self.job = job
        self.runtime = runtime
        self.emit = emit
        self.sleep, self._meter = time.sleep, EnergyMeter()
        self.now_s: Callable[[], float] = getattr(runtime, "now_s", time.perf_counter)
        self._random = random.Random(job.seed)
        self._patience_s = job.patience_s
        self._filled = False
        self.pid: int | None = None
        self.sequence_count = job.scenario.batch_count
        self.suffix = ""
        if job.scenario.depth_tokens:
            self.suffix = f" @ d{job.scenario.depth_tokens}"
        if self.sequence_count > 1:
            self.suffix += f" b{self.sequence_count}"

    def run(self) -> None:
        """All tests of the job, in order: cold loads, warm loads, prefill with first token, decode."""
        job = self.job
        s = self.job.scenario
        identity = self.runtime.identity(s)
        self.emit("engine", identity)
        for _ in range(job.cold_loads):
            self._cold()
        session = self._warm()
        # What the earlier loads held at their peak is not what one load of the model needs.
        reset_peak()
        memory_mark("loaded", self.emit)
        if told := getattr(session, "buffers", ()):
            self.emit("buffers", list(told))
        try:
            if s.prompt_tokens:
                self._prefill(session)
            if s.new_tokens:
                self._decode(session)
            memory_mark("end", self.emit)
        finally:
            session.close()

    def watch(self, meter: EnergyMeter | None = None, *, disk_expected: bool = False) -> Watch:
        """A watch of the machine, unless the clock is another machine's.

        ``disk_expected`` says that the run reads the disk on purpose, which is no disturbance then.
        """
        probe = None
        if self.now_s is time.perf_counter:
            probe = child_probe(self.pid, disk_expected=disk_expected)
        return Watch(probe, meter, self.now_s)

    # -- loading
    # ------------------------------------------------------------------------------------------------

    def _open(self) -> Session:
        try:
            return self.runtime.open(Path(self.job.path), self.job.scenario)
        except EngineError as error:
            raise EngineError(str(error), "refused") from error

    def _cold(self) -> None:
        files = model_files(Path(self.job.path))
        page_cache.drop(*files)
        cached = page_cache.cached_ratio(*files)
        with contextlib.ExitStack() as opened:
            with self.watch(disk_expected=True) as watch:
                session = self._open()
                load_s = self.now_s() - watch.start_s
                opened.callback(session.close)
                prompt = self._tokens(session, max(1, self.job.scenario.prompt_tokens))
                begin_s = self.now_s()
                session.decode(prompt, position=0)
                session.greedy()
                first_s = self.now_s()
            self._check_numbers(session)
        if cached is None:
            watch.doubt("not a cold load: an unknown share of the file stayed in the page cache")
        elif cached > COLD_CACHED_RATIO:
            watch.doubt(f"not a cold load: {cached:.0%} of the file stayed in the page cache")
        self.emit("sample", watch.sample("load", "load @ cold", 0, load_s))
        # Choosing the random prompt is not part of the wait.
        label = f"ttft{len(prompt)} @ cold"
        wait_s = load_s + (first_s - begin_s)
        self.emit("sample", watch.sample("first_token", label, len(prompt), wait_s))

    def _warm(self) -> Session:
        # With the file cold it would be a cold load by accident: read it in first.
        for file in model_files(Path(self.job.path)):
            page_cache.read_through(file)
        with self.watch() as watch:
            session = self._open()
        self.emit("sample", watch.sample("load", "load", 0))
        return session

    # -- tests
    # --------------------------------------------------------------------------------------------------

    def _prefill(self, session: Session) -> None:
        label = f"{self.job.scenario.prompt_tokens}{self.suffix}"

        def once(warm_up: bool) -> bool:
            position = self._at_depth(session)
            prompt = self._tokens(session, self.job.scenario.prompt_tokens * self.sequence_count)
            with self.watch(self._meter) as watch:
                self._pass(session, prompt, position)
                done_s = self.now_s() - watch.start_s
                session.greedy()
            self._check_numbers(session)
            # One pass gives both: the first token is known once the prompt is in and the largest logit is
            # found.
            prompted = watch.sample("prefill", f"pp{label}", len(prompt), done_s)
            first = watch.sample("first_token", f"ttft{label}", len(prompt)).replace(energy_joules=None)
            for sample in (prompted, first):
                self.emit("sample", sample.replace(warm_up=warm_up))
            return not watch.validity.doubts

        self._repeat(once)

    def _decode(self, session: Session) -> None:
        label = f"tg{self.job.scenario.new_tokens}{self.suffix}"
        row = self.sequence_count

        def once(warm_up: bool) -> bool:
            position = self._at_depth(session)
            count = 1 if warm_up else self.job.scenario.new_tokens
            tokens = self._tokens(session, count * row)
            ends_s = []
            with self.watch(self._meter) as watch:
                begin_s = self.now_s()
                for start in range(0, len(tokens), row):
                    self._pass(session, tokens[start : start + row], position + start // row)
                    ends_s.append(self.now_s())
            self._check_numbers(session)
            times_s = tuple(end_s - last_s for last_s, end_s in pairwise((begin_s, *ends_s)))
            made = watch.sample("decode", label, len(tokens))
            self.emit("sample", made.replace(warm_up=warm_up, token_times_s=times_s))
            return not watch.validity.doubts

        self._repeat(once)

    def _pass(self, session: Session, tokens: Sequence[int], position: int) -> None:
        """The next tokens of each sequence, one sequence after the other, in as few batches as they fit in.

        Returns the logits of the last token of each sequence.
        """
        if self.sequence_count == 1:
            session.decode(tokens, position=position)
            return
        length = len(tokens) // self.sequence_count
        room = int(getattr(session, "batch_tokens", len(tokens)))
        sequences = [i // length for i in range(len(tokens))]
        positions = [position + i % length for i in range(len(tokens))]
        ends = [i % length == length - 1 for i in range(len(tokens))]
        for start in range(0, len(tokens), room):
            part = slice(start, start + room)
            session.decode_rows(tokens[part], positions[part], sequences[part], ends[part])

    def _repeat(self, once: Callable[[bool], bool]) -> None:
        """Warm up, then go on until ``repetitions`` samples are clean, or the attempts or the patience are spent.

        Disturbed samples cost patience as the pauses after them do: beside a busy neighbour one sample can
        take a minute, and no further one would be believed.
        """
        clean = attempts = 0
        pause_s = PAUSE_S
        start_s = self.now_s()
        if not once(True):
            self._patience_s -= self.now_s() - start_s
        while clean < self.job.repetitions and attempts < _ATTEMPTS_RATIO * self.job.repetitions:
            attempts += 1
            start_s = self.now_s()
            if once(False):
                clean += 1
                continue
            self._patience_s -= self.now_s() - start_s
            if self._patience_s > 0:
                self.sleep(min(pause_s, self._patience_s))
                self._patience_s -= pause_s
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            if self._patience_s <= 0:
                break

    def _at_depth(self, session: Session) -> int:
        """Bring the cache to exactly ``depth_tokens``, outside the clock, and return that position."""
        depth = self.job.scenario.depth_tokens
        if depth and self._filled:
            with contextlib.suppress(EngineError):  # a recurrent state cannot be cut: compute it again
                for sequence in range(self.sequence_count):
                    session.truncate(depth, sequence=sequence)
                return depth
        session.clear()
        if depth:
            session.decode(self._tokens(session, depth), position=0, logits="none")
            for sequence in range(1, self.sequence_count):
                session.fork(0, sequence)
            self._filled = True
        return depth

    def _tokens(self, session: Session, count: int) -> list[int]:
        """Random tokens."""
        return [self._random.randrange(session.vocab_count) for _ in range(count)]

    def _check_numbers(self, session: Session) -> None:
        row = session.logits()
        if wrong_count := int(row.size - np.count_nonzero(np.isfinite(row))):
            raise EngineError(
                f"{wrong_count} of {row.size} logits are NaN or infinite: the file is damaged, or the model overflows; "
                "check its hash"
            )
        if row.size > 1 and row.min() == row.max():
            # Quantising activations turns NaN into zeros: a model that is all NaN inside may end in equal
            # logits.
            raise EngineError("all logits are the same: the file is damaged; check its hash")
