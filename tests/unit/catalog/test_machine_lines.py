"""Lines that describe a machine: what a stranger may write, several cards, names that mean several parts."""

import time

import pytest

from harness.catalog.devices import load_device
from harness.catalog.parts import MOST_WORDS, is_room
from harness.errors import UnknownNameError


@pytest.mark.parametrize(
    "words",
    [
        "book2 " * 200 + "zzzz",
        "book2 " * (MOST_WORDS - 1) + "zzzz",
        "nitro " * (MOST_WORDS - 1) + "zzzz",
        "nitro" * 200 + "zzzz",
        "rog " * 200,
    ],
)
def test_words_beside_a_part_are_told_at_once(words: str) -> None:
    begun = time.process_time()
    assert not is_room(words.strip())
    assert time.process_time() - begun < 0.1


@pytest.mark.parametrize(
    "words", ["asus rog strix g16 g614jv (2023)", "acer nitro 5 an515-58", "nitro+ oc", "book2 pro"]
)
def test_lines_of_products_may_stand_beside_a_part(words: str) -> None:
    assert is_room(words)


def test_a_line_of_many_words_is_refused_at_once() -> None:
    begun = time.process_time()
    with pytest.raises(UnknownNameError):
        load_device("book2 " * 200 + "zzzz")
    assert time.process_time() - begun < 1
