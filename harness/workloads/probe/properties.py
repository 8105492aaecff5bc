"""Properties of a token that its text decides: the right answer of a probe, computed and never guessed.

A property is decided at the last character of the token, from the text of its window up to there; ``word_goes_on``
also looks at the character after it.
"""

from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]


def in_parentheses(text: str) -> Bools:
    """Whether more round brackets were opened than closed, up to and with each character; a blank line closes all."""
    found = np.zeros(len(text), np.bool_)
    depth, blank = 0, False
    for i, c in enumerate(text):
        if c == "(":
            depth += 1
        elif c == ")":
            depth = max(0, depth - 1)
        if c == "\n":
            depth, blank = (0 if blank else depth), True
        elif not c.isspace():
            blank = False
        found[i] = depth > 0
    return found


def in_quotes(text: str) -> Bools:
    """Whether a double quote is open after each character; the end of a line closes it."""
    states = accumulate(text, lambda is_open, c: c != "\n" and is_open != (c == '"'), initial=False)
    return np.array([*states][1:], np.bool_)


def in_indented_line(text: str) -> Bools:
    """Whether the character's line begins with four blanks or more: code and grammar, not prose, in a reference text.

    The newline belongs to the line that it ends.
    """
    return np.array([line.startswith("    ") for line in text.splitlines(keepends=True) for _ in line], np.bool_)


def word_goes_on(text: str) -> Bools:
    """Whether a letter follows a letter: the token ends inside a word; a token's own text does not decide it."""
    return np.array([a.isalpha() and b.isalpha() for a, b in pairwise(text + " ")], np.bool_)


PROPERTIES: Final[dict[str, Callable[[str], Bools]]] = {
    "in parentheses": in_parentheses,
    "in quotes": in_quotes,
    "in indented line": in_indented_line,
    "word goes on": word_goes_on,
}


def token_labels(pieces: Sequence[str], of_text: Callable[[str], Bools]) -> Bools:
    """Label of each token: the property at its last character; a token of no text has the one before it."""
    characters = of_text("".join(pieces))
    ends = np.cumsum([len(p) for p in pieces]) - 1
    labels: Bools = characters[np.maximum(ends, 0)] if len(characters) else np.zeros(len(pieces), np.bool_)
    return labels
