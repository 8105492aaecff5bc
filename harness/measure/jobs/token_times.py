"""The measuring protocol on an engine that only streams tokens: :class:`harness.runtimes.simple.SimpleRuntime`.

``ttft`` is the time from the call to the first token, and so is ``pp`` where the prompt is token ids; ``tg`` is
the time between the first token and the last, with each gap beside it.
"""

import contextlib
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from harness.core import plugins
from harness.core.errors import EngineError, RefusedError
from harness.core.ports import Emit
from harness.core.scenario import Scenario
from harness.measure import page_cache
from harness.measure.memory_watch import memory_mark, reset_peak
from harness.measure.protocol import COLD_CACHED_RATIO, GenerateJob, Protocoller
from harness.onnx.files import model_files
from harness.runtimes.server import WORDS
from harness.runtimes.simple import SimpleRuntime

_OF_EVERY: Final = {"context_tokens", "prompt_tokens", "new_tokens", "thread_count", "program"}
"""Fields of a scenario that the harness itself, or every engine, follows."""


def run_simple(job: GenerateJob, emit: Emit) -> None:
    """Entry point of the child: measure one model by an engine of three methods, telling each sample at once.

    Raises:
        HarnessError: The runtime or the model cannot be used.
    """
    SimpleProtocol(job, plugins.usable_runtime(job.runtime), emit).run()


class SimpleProtocol(Protocoller):
    """Runs one job by a :class:`SimpleRuntime`; other arguments as :class:`Protocoller`."""

    def __init__(self, job: GenerateJob, engine: SimpleRuntime, emit: Emit) -> None:
        super().__init__(job, engine, emit)
        self.engine = engine

    def run(self) -> None:
        """Cold loads, a warm load, prefill with first token, decode.

        Raises:
            RefusedError: The scenario asks for what the engine does not follow.
            EngineError: The engine refused the file, or gave fewer or more tokens than were asked for.
        """
        check_honoured(self.engine, self.job.scenario)
        self.emit("engine", self.engine.identity(self.job.scenario))
        for _ in range(self.job.cold_loads):
            self._load_cold()
        # With the file cold this would be a cold load by accident: read it in first.
        for file in model_files(Path(self.job.path)):
            page_cache.read_through(file)
        with self.watch() as watch:
            model = self._load()
        try:
            self.emit("sample", watch.sample("load", "load", 0))
            # What the earlier loads held at their peak is not what one load of the model needs.
            reset_peak()
            memory_mark("loaded", self.emit)
            if self.job.scenario.prompt_tokens:
                self._repeat(lambda warm_up: self._first_token(model, warm_up))
            if self.job.scenario.new_tokens:
                self._repeat(lambda warm_up: self._later_tokens(model, warm_up))
            memory_mark("end", self.emit)
        finally:
            self.engine.close(model)

    def _load(self) -> Any:
        try:
            return self.engine.load(Path(self.job.path), self.job.scenario)
        except EngineError as error:
            raise EngineError(str(error), "refused") from error

    def _load_cold(self) -> None:
        files = model_files(Path(self.job.path))
        page_cache.drop(*files)
        cached = page_cache.cached_ratio(*files)
        with contextlib.ExitStack() as opened, self.watch(disk_expected=True) as watch:
            model = self._load()
            load_s = self.now_s() - watch.start_s
            opened.callback(self.engine.close, model)
            prompt, label, count = self._prompt(max(1, self.job.scenario.prompt_tokens))
            begin_s = self.now_s()
            self._arrivals(model, prompt, 1)
            first_s = self.now_s()
        if cached is None or cached > COLD_CACHED_RATIO:
            share = "an unknown share" if cached is None else f"{cached:.0%}"
            watch.doubt(f"not a cold load: {share} of the file stayed in the page cache")
        self.emit("sample", watch.sample("load", "load @ cold", 0, load_s))
        wait_s = load_s + (first_s - begin_s)
        self.emit("sample", watch.sample("first_token", f"ttft{label} @ cold", count, wait_s))

    def _first_token(self, model: Any, warm_up: bool) -> bool:
        prompt, label, count = self._prompt(self.job.scenario.prompt_tokens)
        with self.watch(self._meter) as watch:
            self._arrivals(model, prompt, 1)
        first = watch.sample("first_token", f"ttft{label}", count)
        if count:
            self.emit("sample", watch.sample("prefill", f"pp{label}", count).replace(warm_up=warm_up))
            first = first.replace(energy_joules=None)
        self.emit("sample", first.replace(warm_up=warm_up))
        return not watch.validity.doubts

    def _later_tokens(self, model: Any, warm_up: bool) -> bool:
        # The first token belongs to the prompt: one more is asked for, and gaps are counted from it.
        count = 1 if warm_up else self.job.scenario.new_tokens
        with self.watch(self._meter) as watch:
            ends_s = self._arrivals(model, self._prompt(1)[0], count + 1)
        if ends_s[-1] <= ends_s[0]:
            watch.doubt(f"no time between tokens: {count + 1} came at once")
        made = watch.sample(
            "decode", f"tg{self.job.scenario.new_tokens}", count, max(0.0, ends_s[-1] - ends_s[0])
        )
        gaps_s = tuple(end_s - last_s for last_s, end_s in pairwise(ends_s))
        self.emit("sample", made.replace(warm_up=warm_up, token_times_s=gaps_s))
        return not watch.validity.doubts

    def _prompt(self, token_count: int) -> tuple[Sequence[int] | str, str, int]:
        """A random prompt, the end of its test's name, and its tokens: 0 for a text, whose tokens nobody counted."""
        vocab_count = self.engine.vocab_count
        if vocab_count:
            ids = [self._random.randrange(vocab_count) for _ in range(token_count)]
            return ids, str(token_count), token_count
        return " ".join(self._random.choices(WORDS, k=token_count)), f" of {token_count} words", 0

    def _arrivals(self, model: Any, prompt: Sequence[int] | str, count: int) -> list[float]:
        """When each of ``count`` tokens came, by the clock of the run."""
        ends_s = []
        for _ in self.engine.generate(model, prompt, count):
            ends_s.append(self.now_s())
            if len(ends_s) > count:
                break
        check_count(self.engine, len(ends_s), count)
        return ends_s


def check_count(engine: SimpleRuntime, found: int, count: int) -> None:
    """EngineError unless ``generate`` yielded as many items as it was asked for."""
    if found != count:
        more = "at least " if found > count else ""
        raise EngineError(
            f"{engine.name}: generate(model, prompt, {count}) gave {more}{found} items, expected {count}"
        )


def check_honoured(engine: SimpleRuntime, scenario: Scenario) -> None:
    """RefusedError where a scenario asks for what the engine does not follow: nothing asked for is dropped."""
    usual = Scenario()
    followed = _OF_EVERY.union(engine.honours)
    asked = [
        name
        for name in Scenario.__struct_fields__
        if name not in followed and getattr(scenario, name) != getattr(usual, name)
    ]
    if asked:
        raise RefusedError(
            f"{', '.join(asked)}: the runtime {engine.name} does not follow this; leave the option out, or choose "
            "another --runtime"
        )
