"""Sizes as people write them: decimal and binary units never mix."""

import pytest

from harness.core.units import format_number, parse_bytes


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("600MB", 600_000_000),
        ("1.5 GB", 1_500_000_000),
        ("1.5GiB", 1_610_612_736),
        ("2gib", 2**31),
        ("800M", 800 * 2**20),
        ("3Gi", 3 * 2**30),
        ("1T", 2**40),
        ("1kb", 1000),
        (".5 kb", 500),
        ("4096B", 4096),
        (" 12 b ", 12),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "x", "lots", "-1GiB", "1 XB", "1e9", "nan", "1iB", "0B", "0.2B", "0.6x", "9E9"])
def test_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="expected a size"):
        parse_bytes(text)


@pytest.mark.parametrize("text", ["10", " 10 ", "0.2", "4096"])
def test_a_bare_number_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match=rf"found {text.strip()}, expected a size with its unit: {text.strip()}GiB"):
        parse_bytes(text)


def test_a_share() -> None:
    assert parse_bytes("0.6x", 1000) == 600
    with pytest.raises(ValueError, match=r"0\.6x of the file"):
        parse_bytes("x", 1000)


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (234_123, 3, "234,000"),
        (190.2, 2, "190"),
        (999.6, 3, "1,000"),
        (0.7312, 3, "0.731"),
        (99.7, 2, "100"),
        (0, 3, "0"),
    ],
)
def test_numbers_have_no_exponent(value: float, digits: int, text: str) -> None:
    assert format_number(value, digits) == text
