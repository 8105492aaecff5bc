"""Drafters and the adaptive draft length, on rules small enough to compute by hand."""

import pytest

from harness.runtimes.llamacpp.speculative import NOTHING, CostTable, DraftPolicy, LookupDrafter

FREE = {1: 1.0, 16: 1.0}
LINEAR = {1: 1.0, 16: 16.0}


def drafted_tokens(policy: DraftPolicy, bucket: int) -> int:
    """Tokens that the policy drafts when each comes with this confidence."""
    limit = policy.limit()
    buckets: list[int] = []
    while len(buckets) < limit:
        buckets.append(bucket)
        if not policy.go_on(buckets):
            break
    return len(buckets)


def test_free_verification_and_draft_take_all() -> None:
    policy = DraftPolicy(CostTable(FREE, 0.0), most_tokens=8, seen=[(7, True)] * 50)
    assert drafted_tokens(policy, 7) == 8


def test_linear_verification_never_pays() -> None:
    policy = DraftPolicy(CostTable(LINEAR, 0.0), seen=[(7, True)] * 50)
    assert policy.best() == (0, 1.0)
    assert policy.limit() == 0


def test_stops_where_confidence_falls() -> None:
    seen = [(7, True)] * 60 + [(0, False)] * 60
    policy = DraftPolicy(CostTable(FREE, 0.2), most_tokens=8, seen=seen)
    policy.limit()
    assert policy.go_on([7])
    assert not policy.go_on([7, 0])


def test_best_length_of_free_verification_is_leviathans() -> None:
    # Acceptance a, draft cost c of a pass, verification free: (1 - a**(m + 1)) / ((1 - a) (1 + m c)), here with the
    # one catch-up step after a fully accepted draft. a = 0.8 (79 + 1 of 98 + 2), c = 0.1, computed for each m:
    seen = [(7, True)] * 79 + [(7, False)] * 19
    policy = DraftPolicy(CostTable(FREE, 0.1), most_tokens=8)
    policy._tried[7], policy._agreed[7] = 98.0, 79.0
    assert len(seen) == 98
    a, c = 0.8, 0.1
    rates = {m: (1 - a ** (m + 1)) / (1 - a) / (1 + (m + a**m) * c) for m in range(1, 9)}
    best = max(rates, key=lambda m: rates[m])
    assert policy.best() == (best, pytest.approx(rates[best]))


def run_for(policy: DraftPolicy, cycles: int, pass_s: float, accepted: int, plain_s: float = 1.0) -> int:
    """Cycles that drafted, of so many whose passes take that long; what a plain pass takes."""
    drafted = 0
    for _ in range(cycles):
        tokens = [7] * drafted_tokens(policy, 7)
        drafted += bool(tokens)
        seconds = pass_s if tokens else plain_s
        policy.saw_cycle(tokens, min(accepted, len(tokens)), 0.01 * len(tokens), seconds)
    return drafted


def test_turns_off_when_the_clock_says_so() -> None:
    """Costs measured beforehand were wrong: passes take twice as long as promised, none is accepted."""
    policy = DraftPolicy(CostTable({1: 1.0, 4: 1.1, 16: 2.0}, 0.01), most_tokens=3, seen=[(7, True)] * 20)
    assert run_for(policy, 100, 2.5, 0) <= 20
    assert run_for(policy, 100, 2.5, 0) == 0  # no token was taken, so it does not try again by itself


def test_a_moment_of_the_machine_does_not_turn_it_off() -> None:
    policy = DraftPolicy(CostTable({1: 1.0, 4: 1.1, 16: 2.0}, 0.01), most_tokens=3, seen=[(7, True)] * 20)
    for duration_s in (1.1, 9.0, 9.0, 1.1, 1.1, 1.1, 1.1, 1.1, 1.1, 1.1, 1.1):
        assert policy.limit() > 0
        policy.saw_cycle([7, 7, 7], 3, 0.03, duration_s)


def test_a_machine_that_is_slow_throughout_is_no_reason_to_stop() -> None:
    """Everything takes three times as long: a plain step now and then says so, and drafting goes on."""
    policy = DraftPolicy(CostTable({1: 1.0, 4: 1.1, 16: 2.0}, 0.01), most_tokens=3, seen=[(7, True)] * 20)
    run_for(policy, 100, 3.3, 3, plain_s=3.0)
    assert run_for(policy, 100, 3.3, 3, plain_s=3.0) >= 90


def test_looks_again_and_turns_on() -> None:
    policy = DraftPolicy(CostTable({1: 1.0, 16: 1.1}, 0.01), seen=[(7, False)] * 50)
    assert policy.limit() == 0
    assert not policy.wants_look(10)
    run_for(policy, 40, 1.1, 0)
    assert policy.wants_look(10)
    policy.saw_look([(7, True)] * 300, 0.1)
    assert policy.limit() > 0


def test_looks_stay_within_their_share() -> None:
    policy = DraftPolicy(CostTable({1: 1.0, 16: 1.1}, 1.0), seen=[(7, False)] * 50)
    run_for(policy, 40, 1.1, 0)
    assert not policy.wants_look(10)  # 10 tokens at 1 s each are more than 1 % of 40 s


def test_table_interpolates_and_learns() -> None:
    costs = CostTable({1: 1.0, 5: 3.0}, 0.1)
    assert costs.verify_s(3) == pytest.approx(2.0)
    costs.saw_pass(5, 4.0)  # the first one counts half
    assert costs.verify_s(5) == pytest.approx(3.5)
    costs.saw_pass(5, 100.0)  # an outlier counts as twice what was expected, by a third
    assert costs.verify_s(5) == pytest.approx(3.5 + 3.5 / 3)
    with pytest.raises(ValueError, match="batch 1"):
        CostTable({2: 1.0}, 0.1)


def test_fixed_policy() -> None:
    policy = DraftPolicy(CostTable(LINEAR, 0.1), draft_tokens=3)
    assert policy.limit() == 3
    assert [policy.go_on([0] * n) for n in (1, 2, 3)] == [True, True, False]


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        ([1, 2, 3, 4, 1, 2], [3, 4, 1]),
        ([1, 2, 3, 4, 5], []),
        ([7, 7, 7], [7, 7, 7]),
        ([1, 2, 9, 1, 2, 8, 1, 2], [8, 1, 2]),  # the latest match wins
    ],
)
def test_lookup(history: list[int], expected: list[int]) -> None:
    assert LookupDrafter().propose(history, 3, lambda _: True).tokens == expected


def test_lookup_agreement_by_hand() -> None:
    # At position 4 nothing stood before 1; at 5 the run (4, 1) is new; at 6 after (1, 2) came 3, and 3 it is.
    assert LookupDrafter().agreement([1, 2, 3, 4, 1, 2, 3], 1) == [(NOTHING, False)] * 5 + [(0, True)]


def test_a_replay_by_hand() -> None:
    # Drafts of 2 at 0.1 s a token, passes over 1, 2, 3 tokens in 1, 1.25, 1.5 s. The first answer: nothing proposed (1
    # token in 1 s); two accepted, and one more (3 in 1.7 s); one rejected at once (1 in 1.7 s); the last one accepted
    # and one more (2 in 1.35 s). The second: 2 in 1.35 s.
    answers = [[(NOTHING, False), (7, True), (7, True), (5, False), (5, False), (5, True)], [(7, True)]]
    policy = DraftPolicy(CostTable({1: 1.0, 3: 1.5}, 0.1), draft_tokens=2)
    assert policy.replay(answers) == pytest.approx(9 / 7.1)
    assert policy.replay([]) == 1.0
    assert DraftPolicy(CostTable(LINEAR, 0.0), seen=[(7, True)] * 9).replay(answers) == 1.0
