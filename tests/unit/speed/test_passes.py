"""Seconds of a pass by hand: engines that take a second a byte, and a link of round figures."""

import math
from typing import NamedTuple

import pytest

from harness.speed.passes import (
    MEETING_SPREAD,
    MEETINGS,
    NO_LINK,
    NOTHING,
    OFFLOAD_TOKENS,
    Engines,
    Link,
    Meeting,
    Part,
    Pass,
    Split,
    Terms,
    Work,
    pass_terms,
    scaled,
    whole,
)


class Plain(NamedTuple):
    """An engine that takes so many seconds a byte, of weights and of cache."""

    seconds_a_byte: float = 1.0
    bandwidth_bytes_per_s: float = 1.0

    def seconds(self, parts, _asked):
        weights = sum(part.work.weight_bytes for part in parts)
        cache = sum(part.work.kv_bytes for part in parts)
        return Terms(0.0, self.seconds_a_byte * weights, 0.0, self.seconds_a_byte * cache)


def part(weight_bytes, kv_bytes=0.0):
    return Part(Work(weight_bytes, 0.0, 0.0, kv_bytes, "q4"))


LINK = Link(
    crossing_s=0.01,
    bytes_per_s=1000,
    copy_bytes_per_s=10,
    main=1.1,
    cpu=1.2,
    experts=1.3,
    prompt_experts=1.5,
    prompt_cpu=2.0,
)
SPLIT = Split(
    main=part(1.0),
    cpu=part(0.5),
    experts=part(0.25),
    crossing_count=3,
    hidden_dim=5,
    copied_bytes=20,
    copied_expert_bytes=40,
    expert_ratio=0.5,
)
HOST = Plain(2.0)


@pytest.mark.parametrize(
    ("asked", "changed", "link_s", "total_s"),
    [
        # a token: 1.1 + 1.2 x 2 x .5 + 1.3 x 2 x .25; three crossings of .01 s, and of 8 x 5 bytes at 1,000 a second
        (Pass(1), {}, 0.03 + 0.12, 1.1 + 1.2 + 0.65 + 0.15),
        # four sequences cross together
        (Pass(1, sequences=4), {}, 0.03 + 0.48, 2.95 + 0.51),
        # in two batches of two they cross twice
        (Pass(1, sequences=4, ubatch_tokens=2), {}, 2 * (0.03 + 0.24), 2.95 + 0.54),
        # a prompt's batch has 20 + 40 bytes copied at 10 a second
        (Pass(64), {}, 6.0, 1.75 * 1.5 + 6.0),
        # three batches copy three times
        (Pass(96, ubatch_tokens=32), {}, 18.0, 1.75 * 1.5 + 18.0),
        # 32 tokens that each want one in a hundred touch 1 - .99^32 = .27502 of the experts
        (Pass(32), {"expert_ratio": 0.01}, 2.0 + 4 * 0.27502, 2.625 + 2.0 + 4 * 0.27502),
        # a dense model's part on the card takes what it takes, and all bytes are copied
        (Pass(64), {"expert_ratio": 1.0}, 6.0, 1.75 + 6.0),
        # batches of 31 compute at the CPU: 2 x 2 x .75; three times three crossings of 31 tokens
        (Pass(64, ubatch_tokens=31), {}, 3 * (0.03 + 3.72), 1.5 + 3.0 + 11.25),
        # 31 tokens are no prompt, and 31 batches of one token neither
        (Pass(31), {}, 0.03 + 31 * 0.12, 2.95 + 0.03 + 3.72),
        (Pass(31, ubatch_tokens=1), {}, 31 * 0.15, 2.95 + 31 * 0.15),
        # nothing away: neither the card beside a CPU nor a crossing of a prompt
        (Pass(1), {"cpu": NOTHING, "experts": NOTHING, "crossing_count": 0}, 0.0, 1.0),
        (Pass(64), {"cpu": NOTHING, "experts": NOTHING}, 0.0, 1.0),
        # all away
        (Pass(1), {"main": NOTHING}, 0.15, 1.2 + 0.65 + 0.15),
    ],
)
def test_a_pass_by_hand(asked, changed, link_s, total_s):
    found = pass_terms(SPLIT._replace(**changed), Engines((Plain(),), HOST, LINK), asked)
    assert found.link_s == pytest.approx(link_s, rel=1e-4)
    assert found.total_s == pytest.approx(total_s, rel=1e-4)


def test_a_link_that_never_copies():
    never = Engines((Plain(),), HOST, LINK._replace(copies_from=math.inf))
    # 2 x 2 x .75 at the CPU, and 64 tokens cross three times
    assert pass_terms(SPLIT, never, Pass(64)).total_s == pytest.approx(1.5 + 3.0 + 0.03 + 64 * 0.12)


@pytest.mark.parametrize(
    ("asked", "meeting", "total_s"),
    [
        # one after the other: half on each, of 1 and 3 seconds a byte, a crossing from card to card and its 40 bytes
        (Pass(1), None, 0.5 + 1.5 + 0.01 + 0.04),
        (Pass(1, sequences=2), None, 2.0 + 0.01 + 0.08),
        # four sequences in two batches of two go through both cards once, and cross twice
        (Pass(1, sequences=4, ubatch_tokens=2), None, 2.0 + 2 * (0.01 + 0.08)),
        # at once: the slower; 2 x 4 meetings of 2 crossings, and 3 times the 40 bytes
        (Pass(1), Meeting(2.0, 3.0), 1.5 + 8 * (0.02 + 0.12)),
        (Pass(1, sequences=2), Meeting(2.0, 3.0), 1.5 + 8 * (0.02 + 0.24)),
        # two batches of a prompt wait twice, their bytes go once
        (Pass(64, ubatch_tokens=32), Meeting(2.0, 3.0), 1.5 + 8 * (0.04 + 64 * 0.12)),
        # three batches follow one another: (2 + 2 x 1.5) / 3, without a crossing
        (Pass(96, ubatch_tokens=32), None, 5 / 3),
    ],
)
def test_two_cards_by_hand(asked, meeting, total_s):
    model = Split(Part(Work(1.0, 0.0, 4.0, 0.0, "q4")), NOTHING, NOTHING, hidden_dim=5)
    engines = Engines((Plain(1.0), Plain(3.0)), HOST, LINK, (0.5, 0.5), meeting)
    assert pass_terms(model, engines, asked).total_s == pytest.approx(total_s)


def test_a_card_without_a_share_is_no_step_of_the_way():
    engines = Engines((Plain(1.0), Plain(9.0)), HOST, LINK, (1.0, 0.0))
    assert pass_terms(whole(part(1.0, 0.5)), engines, Pass(1)) == Terms(0.0, 1.0, 0.0, 0.5, 0.0)


def test_a_whole_model_crosses_nothing():
    found = pass_terms(whole(part(2.0, 1.0)), Engines((Plain(),), HOST, NO_LINK), Pass(1))
    assert found == Terms(0.0, 2.0, 0.0, 1.0, 0.0)


@pytest.mark.parametrize(("tokens", "sequences", "ubatch", "count", "batches"), [
    (1, 1, 512, 1, 1), (512, 1, 512, 512, 1), (513, 1, 512, 513, 2), (100, 3, 64, 300, 5),
])  # fmt: skip
def test_batches_of_a_pass(tokens, sequences, ubatch, count, batches):
    asked = Pass(tokens, sequences=sequences, ubatch_tokens=ubatch)
    assert (asked.token_count, asked.batch_count) == (count, batches)


def test_what_is_empty_and_what_is_away():
    assert NOTHING.is_empty
    assert not part(0.0, 1.0).is_empty
    assert not part(1.0).is_empty
    assert SPLIT.away == [SPLIT.cpu, SPLIT.experts]
    assert whole(part(1.0)).away == []


def test_a_share_of_a_part_has_that_share_of_everything():
    whole_part = Part(Work(8.0, 16.0, 32.0, 64.0, "q4", True, 128.0, 256.0), None, 512.0)
    half = scaled(whole_part, 0.5)
    assert half == Part(Work(4.0, 8.0, 16.0, 32.0, "q4", True, 64.0, 128.0), None, 256.0)


def test_what_nobody_says_costs_nothing():
    plain = Link(crossing_s=0.01, bytes_per_s=1000, copy_bytes_per_s=10)
    model = Split(part(1.0), part(0.5), part(0.25))
    engines = Engines((Plain(),), HOST, plain)
    # 1 at the card, 2 x .75 at the CPU, no crossing; a prompt computes all at the card and has nothing to copy
    assert pass_terms(model, engines, Pass(1)).total_s == pytest.approx(2.5)
    assert pass_terms(model, engines, Pass(64)).total_s == pytest.approx(1.75)
    assert pass_terms(model._replace(expert_ratio=0.5), engines, Pass(64)).total_s == pytest.approx(1.75)
    never = engines._replace(link=plain._replace(copies_from=math.inf))
    assert pass_terms(model, never, Pass(64)).total_s == pytest.approx(2.5)
    assert pass_terms(model, engines._replace(link=NO_LINK), Pass(1)).link_s == 0.0
    assert Pass(1).depth_tokens == part(1.0).attention_flops == 0.0
    assert Pass(1).kv_type == "F16"


def test_figures_of_llama_cpp():
    # GGML_OP_OFFLOAD_MIN_BATCH of ggml-cuda is 32; meetings by rows cost more than by tensors in each published run
    assert OFFLOAD_TOKENS == 32
    assert Pass(1).ubatch_tokens == 512
    assert MEETING_SPREAD == 0.5  # builds of one program differ by twice as much as e^.5 either way
    assert (MEETINGS["row"], MEETINGS["tensor"]) == (Meeting(2.5, 8.0), Meeting(0.9, 2.0))
