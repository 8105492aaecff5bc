"""Damaged files of every kind end in a value or in one clear error, in little time and memory."""

from pathlib import Path

import pytest

from harness.core.errors import BadDataError
from harness.core.foreign import read_limited
from harness.hardware.devices import load_device
from harness.models.hf_config import read_hf_config
from harness.records.store import load
from tests.fuzzing.__main__ import run
from tests.fuzzing.cases import TARGETS
from tests.fuzzing.shown import TARGETS as SHOWN


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_files(name: str) -> None:
    summary = run(TARGETS[name], cases=250, seed=1)

    assert summary.failures == []
    assert summary.read, "some damage does not matter"
    assert summary.refused


@pytest.mark.parametrize("name", SHOWN)
def test_words_and_numbers_of_hostile_files(name: str) -> None:
    summary = run(SHOWN[name], cases=60 if name.startswith("computed") else 30, seed=2)

    assert summary.failures == []
    assert summary.refused


@pytest.mark.parametrize("name", TARGETS)
def test_the_files_that_are_damaged_are_good(name: str, tmp_path: Path) -> None:
    for seed in TARGETS[name].seeds(tmp_path):
        path = tmp_path / f"good{TARGETS[name].ending}"
        path.write_bytes(seed)
        TARGETS[name].read(path)


def test_an_exponent_beyond_all_decimals(tmp_path: Path) -> None:
    path = tmp_path / "d.toml"
    path.write_text("year = 1e" + "9" * 400)
    with pytest.raises(BadDataError, match="year: found inf, expected a whole number"):
        load_device(str(path))


@pytest.mark.parametrize("kind", ['["llama"]', '{"a": 1}', "null", "3"])
def test_a_model_type_that_is_no_word(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(f'{{"model_type": {kind}}}')
    with pytest.raises(BadDataError, match="model_type"):
        read_hf_config(path)


def test_a_file_of_just_the_limit_is_read_and_one_byte_more_is_not(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(b"x" * 200_000)  # more than one piece of 64 KiB
    assert read_limited(path, 200_000) == b"x" * 200_000
    with pytest.raises(BadDataError, match="more than 199999 bytes"):
        read_limited(path, 199_999)
    with pytest.raises(BadDataError):
        load(path)
