"""Detection's exact test against an enumeration, snippets, steering's tokens, patches on a tiny real model."""

from itertools import combinations

import numpy as np
import pytest

from bench.patching import CAPITALS, Patch, Prompt, _pairs
from bench.probe_truth import row_of, statements
from bench.sae_interpretability import (
    AFTER,
    BEFORE,
    PER_KIND,
    chance,
    detection_row,
    likelier_half,
    own_tokens,
    snippets,
)
from harness.workloads._language.activations import Captured


def test_the_likelier_half_is_yes_and_ties_go_against_a_firing():
    scores = np.arange(16.0)[::-1]
    assert likelier_half(scores).tolist() == [True] * PER_KIND + [False] * PER_KIND
    assert likelier_half(np.zeros(16)).tolist() == [False] * PER_KIND + [True] * PER_KIND


@pytest.mark.parametrize("hits", range(9))
def test_chance_is_that_of_all_ways_to_say_yes(hits):
    said = np.zeros(16, bool)
    said[:hits] = True
    said[PER_KIND : 2 * PER_KIND - hits] = True
    found = [sum(at < PER_KIND for at in way) for way in combinations(range(16), 8)]
    counts = np.bincount(found, minlength=9)
    expected = counts[counts <= counts[hits]].sum() / counts.sum()
    assert chance([said]) == pytest.approx(expected)


def test_guesses_have_no_signal_and_knowledge_has():
    rng = np.random.default_rng(2)
    guesses = [likelier_half(rng.standard_normal(16)) for _ in range(24)]
    assert detection_row("guess", guesses)[-1] == "no signal"
    known = [likelier_half(rng.standard_normal(16) + np.repeat([1.5, 0], 8)) for _ in range(24)]
    assert detection_row("known", known)[-1] == "better than chance"


def test_snippets_hold_a_firing_or_none_and_stay_in_their_window():
    count = 600
    captured = Captured(np.zeros((count, 1), np.float32), np.arange(count), np.array([0, 300]))
    active = np.zeros(count, np.float32)
    active[20:280:8] = 1.0
    pieces = snippets(active, captured, lambda tokens: " ".join(map(str, tokens)), np.random.default_rng(1))
    spans = [list(map(int, piece.split())) for piece in pieces]
    assert len(spans) == 2 * PER_KIND
    assert all(len(s) == BEFORE + AFTER + 1 and (s[-1] < 300) == (s[0] < 300) for s in spans)
    assert all(active[s[BEFORE]] > 0 for s in spans[:PER_KIND])
    assert not any(active[s].any() for s in spans[PER_KIND:])
    active[:] = 0
    assert snippets(active, captured, str, np.random.default_rng(1)) == []


def test_own_tokens_followed_the_firings_within_a_window():
    captured = Captured(np.zeros((6, 1), np.float32), np.array([5, 7, 5, 9, 5, 4]), np.array([0, 4]))
    # fires on the 5s: 7 follows the strongest, 9 and 4 the others; the 9 ends its window
    assert own_tokens(np.array([3.0, 0, 1, 9, 2, 0], np.float32), captured) == [7, 4, 9]


def test_a_patch_replaces_one_token_of_one_block():
    tap = Patch()
    assert tap.wants("l_out-3") and not tap.wants("ffn_out-3") and not tap.wants("l_out-x")
    tap.place = 1
    assert tap("l_out-0", np.full((3, 2), 7, np.float32)) is None
    tap.layer, tap.value = 2, tap.kept[0]
    assert tap("l_out-1", np.zeros((3, 2), np.float32)) is None
    assert tap("l_out-2", np.zeros((3, 2), np.float32)).tolist() == [[0, 0], [7, 7], [0, 0]]


def test_pairs_are_alike_in_length_and_each_country_is_clean_once():
    known = [Prompt(f"c{at}", list(range(5 + at % 2)), 2 + at % 2, at) for at in range(9)]
    pairs = _pairs(known)
    assert len(pairs) == 9 and len({clean.country for clean, _, _ in pairs}) == 9
    assert all(len({len(p.tokens) for p in pair}) == 1 and len({p.country for p in pair}) == 3 for pair in pairs)


def test_statements_are_decided_by_no_word():
    made = statements()
    for form in range(3):
        of_form = [s for s in made if s.form == form]
        for capital, country in ((c, n) for n, c in CAPITALS.items()):
            named = [s for s in of_form if capital in s.text]
            assert sorted(s.is_true for s in named) == [False, True]
            assert all((country in s.text) == s.is_true for s in named)


def test_a_planted_truth_is_read_on_countries_not_seen_and_noise_is_not():
    made, rng = statements(), np.random.default_rng(5)
    x = rng.standard_normal((len(made), 24)).astype(np.float32)
    assert row_of(0, x, made)[-1] != "better than chance"
    x[:, 3] += np.where([s.is_true for s in made], 3, -3)
    assert row_of(0, x, made)[-1] == "better than chance"
    assert float(row_of(0, x, made)[1].split()[0]) > 0.95
