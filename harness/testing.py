"""Suites that a plug-in's device or runtime must pass, for its author's own tests.

One test in the plug-in's package is enough::

    from harness.testing import check_runtime
    def test_my_runtime(tmp_path):
        check_runtime(MyRuntime(), my_model(tmp_path))  # an AssertionError names the broken promise

The product itself imports none of these suites, so that it needs no test package.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from harness.core.ports import Runtime, Session
from harness.core.record import EngineIdentity
from harness.core.scenario import Scenario
from harness.hardware.devices import load_device
from harness.runtimes.simple import SimpleRuntime

_SCENARIO = Scenario(context_tokens=128, prompt_tokens=8, new_tokens=4, thread_count=1)


def check_device(path: Path) -> None:
    """A device file is read, names its sources, and its figures agree with each other.

    Raises:
        BadDataError: It breaks the schema; names the field.
        AssertionError: A promise is broken.
    """
    device = load_device(str(path))
    assert device.name == path.stem, f"the name is the stem of the file: {device.name!r} is not {path.stem!r}"
    for engine in device.engines:
        assert engine.apis, f"{engine.name}: at least one api"
        for api in engine.apis:
            device.pool(device.pool_for(api))
    for pool in device.pools:
        for figure in (pool.total_bytes, pool.usable_bytes, pool.bandwidth_bytes_per_s):
            assert figure.source, f"{pool.name}: each figure names its source"


def check_runtime(runtime: Runtime, model: Path, *, tolerance: float = 1e-2) -> None:
    """A runtime says whether it can be used, who it is, and opens sessions that keep the promises of the port.

    ``model`` is a small file that it reads; ``tolerance`` the largest difference of a logit between a batch
    and single steps, relative to the largest logit.

    Raises:
        AssertionError: A promise is broken.
    """
    assert runtime.name.isidentifier(), f"the name is an identifier: {runtime.name!r}"
    reason = runtime.missing()
    assert reason is None or reason, "missing() is None, or a reason in words"
    assert reason is None, f"it cannot be used here: {reason}"
    identity = runtime.identity(_SCENARIO)
    assert isinstance(identity, EngineIdentity)
    assert identity.name, "the engine has a name"
    assert identity.version, "the engine has a version"
    session = runtime.open(model, _SCENARIO)
    try:
        _check_session(session, tolerance)
    finally:
        session.close()


def check_simple_runtime(runtime: SimpleRuntime, model: Path) -> None:
    """Check an engine of three methods: it yields tokens one at a time, and loads and closes twice.

    Args:
        runtime: The engine under test.
        model: A small file that the engine reads.

    Raises:
        AssertionError: A promise is broken.
    """
    assert runtime.name.isidentifier(), f"the name is an identifier: {runtime.name!r}"
    reason = runtime.missing()
    assert reason is None, f"it cannot be used here: {reason}"
    assert runtime.identity(_SCENARIO).version, "the engine has a version"
    unknown = set(runtime.honours).difference(Scenario.__struct_fields__)
    assert not unknown, f"honours names fields of a scenario: {', '.join(sorted(unknown))} are none"
    prompts: tuple[Sequence[int] | str, ...] = ("one two three", "four five")
    if runtime.vocab_count:
        ids = [t % runtime.vocab_count for t in (3, 14, 15, 92, 6, 5)]
        prompts = (ids, ids[:1])
    for attempt in ("the first load", "a second load"):
        loaded = runtime.load(model, _SCENARIO)
        try:
            for prompt, count in itertools.product(prompts, (1, _SCENARIO.new_tokens)):
                found = len(list(itertools.islice(runtime.generate(loaded, prompt, count), count + 1)))
                assert found == count, f"{attempt}: generate(model, prompt, {count}) gave {found} items"
            tokens = iter(runtime.generate(loaded, prompts[0], _SCENARIO.new_tokens))
            next(tokens)
            del tokens  # whoever stops early leaves an engine that still answers
            assert list(runtime.generate(loaded, prompts[1], 1)), f"{attempt}: it answers after a stop"
        finally:
            runtime.close(loaded)


def _check_session(session: Session, tolerance: float) -> None:
    assert isinstance(session, Session), "open() gives a Session"
    assert session.vocab_count > 0
    assert session.context_tokens >= _SCENARIO.context_tokens
    tokens = session.tokenize("one two three")
    assert tokens, "text has tokens"
    assert all(0 <= t < session.vocab_count for t in tokens), "tokens are of the vocabulary"
    assert isinstance(session.detokenize(tokens), str)
    ids = [t % session.vocab_count for t in (3, 14, 15, 92, 6, 5)]
    session.decode(ids, position=0)
    whole = np.array(session.logits())
    assert whole.shape == (session.vocab_count,), "logits of the last token: [vocab_count]"
    assert np.isfinite(whole).all(), "logits are numbers"
    assert session.greedy() == int(whole.argmax()), "greedy() is the largest logit"
    session.clear()
    for position, token in enumerate(ids):
        session.decode([token], position=position)
    single = np.array(session.logits())
    scale = float(np.abs(whole).max()) or 1.0
    assert np.abs(single - whole).max() <= tolerance * scale, "a batch and single steps give the same logits"
    session.truncate(len(ids) - 1)
    session.decode(ids[-1:], position=len(ids) - 1)
    again = np.array(session.logits())
    assert np.abs(again - single).max() <= tolerance * scale, "after truncate() a token can be computed again"
