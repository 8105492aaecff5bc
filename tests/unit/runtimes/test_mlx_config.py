"""What a folder in MLX's form says of itself, also where its language model is one of several parts."""

import json
from pathlib import Path
from typing import Any

import pytest

from harness.errors import BadDataError
from harness.runtimes.mlx import _config_of


@pytest.mark.parametrize(
    ("config", "vocab_size", "ends"),
    [
        ({"vocab_size": 96, "eos_token_id": 2}, 96, 2),
        ({"model_type": "gemma3", "text_config": {"vocab_size": 262208}, "eos_token_id": [1, 106]}, 262208, [1, 106]),
        ({"text_config": {"vocab_size": 32, "eos_token_id": 7}, "vocab_size": 64}, 64, 7),
    ],
)
def test_the_language_model_s_part_is_read(tmp_path: Path, config: dict[str, Any], vocab_size: int, ends: Any) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = _config_of(tmp_path)
    assert (found["vocab_size"], found["eos_token_id"]) == (vocab_size, ends)


@pytest.mark.parametrize("config", [{}, [], {"text_config": {}}, {"text_config": 3, "vocab_size": "96"}])
def test_a_vocabulary_of_no_size_is_refused(tmp_path: Path, config: Any) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(BadDataError, match="vocab_size"):
        _config_of(tmp_path)
