"""Budget files: what is read, and one clear error for each way to get it wrong."""

from pathlib import Path

import pytest

from harness.core.errors import BadDataError
from harness.gates.budget_file import load_budgets


def write(folder: Path, text: str) -> Path:
    path = folder / "budgets.toml"
    path.write_text(text)
    return path


def test_a_good_file(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        '[[budget]]\nmetric = "decode_tokens_per_s"\nfloor = 15\nmodel = "smollm2*"\n'
        '[[budget]]\nmetric = "peak_memory_bytes"\nceiling = 3e9\ndevice = "iphone-16-pro"\n'
        'model = "llama-3.1-8b"\npredicted = true\n',
    )

    first, second = load_budgets(path)

    assert (first.floor, first.model, first.device) == (15.0, "smollm2*", "*")
    assert (second.ceiling, second.predicted) == (3e9, True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "budget"),
        ("[[budget]]\n", "metric"),
        ('[[budget]]\nmetric = "speed"\nfloor = 1\n', "metric"),
        ('[[budget]]\nmetric = "ttft_s"\n', "exactly one of"),
        ('[[budget]]\nmetric = "ttft_s"\nceiling = 1\nbaseline_ratio = 1.1\n', "ceiling and baseline_ratio"),
        ('[[budget]]\nmetric = "ttft_s"\nfloor = 1\n', "a ceiling for this metric"),
        ('[[budget]]\nmetric = "decode_tokens_per_s"\nceiling = 1\n', "a floor for this metric"),
        ('[[budget]]\nmetric = "ttft_s"\nceiling = -1\n', "found -1, expected above 0"),
        ('[[budget]]\nmetric = "ttft_s"\nceiling = nan\n', "ceiling"),
        ('[[budget]]\nmetric = "ttft_s"\nceiling = "1"\n', "ceiling"),
        ('[[budget]]\nmetric = "ttft_s"\nroofline_ratio = 0.5\n', "decode_tokens_per_s"),
        ('[[budget]]\nmetric = "ttft_s"\nceiling = 1\nconfidence = 1\n', "confidence"),
        ('[[budget]]\nmetric = "ttft_s"\nceiling = 1\npredicted = true\n', "one device"),
        ('[[budget]]\nmetric = "ttft_s"\nceilling = 1\n', "ceilling"),
        ("budget = 3\n", "budget"),
        ("not toml", "TOML"),
    ],
)
def test_a_bad_file_names_file_and_field(tmp_path: Path, text: str, words: str) -> None:
    path = write(tmp_path, text)

    with pytest.raises(BadDataError) as error:
        load_budgets(path)

    assert str(path) in str(error.value)
    assert words in str(error.value)
