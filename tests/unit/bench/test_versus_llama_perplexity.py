"""What llama-perplexity prints, and when two perplexities are the same."""

import pytest

from bench.versus_llama_perplexity import MOST_DIFFERENCE, Pair, read_estimate
from harness.core.errors import CouldNotRunError


def test_the_last_estimate_counts() -> None:
    # As tools/perplexity/perplexity.cpp prints it.
    text = "[1]9.1,[2]10.2,\nFinal estimate: PPL = 9.9999 +/- 0.50000\nFinal estimate: PPL = 10.0958 +/- 0.59212\n"
    assert read_estimate(text) == (10.0958, 0.59212)
    with pytest.raises(CouldNotRunError, match="no final estimate: nan"):
        read_estimate("nan")


@pytest.mark.parametrize(("ours", "same"), [(10.0004, True), (10.0006, False), (9.9994, False), (10.0, True)])
def test_four_digits(ours: float, same: bool) -> None:
    # 5e-5 of 10 is 0.0005: better than half of the last digit of 10.00.
    assert (abs(Pair("Q4_0", ours, 10.0, 0.0, 0.0).difference) < MOST_DIFFERENCE) == same
