"""A faster chip of a series is never told slower, unless two sources measured both and say so."""

import math

import pytest

from bench.fits.order import excess, ordered, pairs, pooled
from harness.answer.nearest import shipped_rows
from harness.speed.coefficients import Coefficient, engine_key, shipped
from harness.speed.published.rows import predictable

NOISE = 0.002
"""ln, of rounding: two that are pooled are equally fast but for the digits that are kept."""
SAID = {("m2-ultra-76", "m3-ultra-80")}
"""Found slower by two sources of Apple GPUs."""


@pytest.mark.parametrize("pair", pairs(), ids=lambda pair: f"{pair.before.chip} {pair.after.chip} {pair.after.api}")
def test_a_series_keeps_its_order(pair):
    if (pair.before.chip, pair.after.chip) not in SAID:
        assert excess(pair, shipped()) <= NOISE


def test_two_out_of_order_meet_by_what_each_is_sure_of():
    # variances of 0.04 and 0.01: of 0.5 between them the earlier moves 0.4, and the later 0.1
    pair = next(pair for pair in pairs() if pair.after.chip == "4090")
    before, after = (f"w/chip {engine_key(machine)}" for machine in pair)
    terms = {before: Coefficient(value=0.3, spread=0.2), after: Coefficient(value=0.7, spread=0.1)}
    found = pooled(pair, 0.5, shipped().replace(terms=terms))
    assert found.values == pytest.approx({before: 0.7, after: 0.6})


def test_sources_are_believed():
    rows = predictable(shipped_rows())
    found = ordered(shipped(), [row for row in rows if row.chip in {"m2-ultra-76", "m3-ultra-80"}])
    pair = next(pair for pair in pairs() if (pair.before.chip, pair.after.chip) in SAID)
    assert excess(pair, found) > math.log(1.01)
