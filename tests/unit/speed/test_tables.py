"""Tables that cannot lie: each word is declared, each declared word is used, and no Python names an architecture."""

import ast
import csv
import io
import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import bench.made_models
import harness
from bench.made_models import metadata_of
from bench.memory_conformance import KINDS
from harness.core import tables
from harness.core.errors import BadDataError
from harness.core.tables import shipped_rows, shipped_table
from harness.models import architecture
from harness.models.architecture import ARCHITECTURES, WORDS, architecture_named, has
from harness.models.facts import BLOCK_WORDS, MODEL_WORDS, block_facts, checked_rows, model_facts
from harness.models.ggml import BLOCKS
from harness.models.quant import MIXTURES

SOURCES = {path: path.read_text(encoding="utf-8") for path in Path(harness.__file__).parent.rglob("*.py")}
TABLES = {
    "data/tensors.csv": (BLOCK_WORDS, ("sizes",)),
    "metadata.csv": (MODEL_WORDS, ("whole",)),
    "data/shape_checks.csv": (MODEL_WORDS, ()),
}
PACKAGES = {"metadata.csv": "bench"}
USED_AS_WORDS = {"llama", "qwen2"}
"""Names of architectures that are also names of other things: extras of a package, tokenizers, kinds of files."""


def _misspelled(text: str, draw: random.Random) -> str:
    """A word of a cell with two letters exchanged, or one left out."""
    found = draw.choice(list(re.finditer(r"[A-Za-z_][\w-]{3,}", text)))
    word, at = found[0], draw.randrange(1, len(found[0]) - 1)
    wrong = draw.choice((word[:at] + word[at + 1] + word[at] + word[at + 2 :], word[:at] + word[at + 1 :]))
    if wrong == word:
        wrong = word + "x"
    return text[: found.start()] + wrong + text[found.end() :]


@pytest.mark.parametrize("path", TABLES)
def test_a_slip_in_any_line_is_an_error_that_names_it(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words, sums = TABLES[path]
    rows, draw = shipped_rows(path, PACKAGES.get(path, "harness")), random.Random(path)
    for number, row in enumerate(rows, 1):
        columns = [name for name in ("when", *sums) if re.search(r"[A-Za-z_][\w-]{3,}", row[name])]
        for column in columns:
            wrong = [dict(one) for one in rows]
            wrong[number - 1][column] = _misspelled(row[column], draw)
            text = io.StringIO()
            writer = csv.DictWriter(text, row)
            writer.writeheader()
            writer.writerows(wrong)
            wrong_text = text.getvalue()
            monkeypatch.setattr(tables, "shipped_text", lambda *_args, _text=wrong_text: _text)
            with pytest.raises(BadDataError, match=f"line {number + 1}, {column}"):
                checked_rows(path, words, sums=sums)


def test_a_cell_that_no_column_knows_is_an_error() -> None:
    with pytest.raises(BadDataError, match="line 2, of"):
        shipped_rows("data/tensors.csv", columns={"of": {"block"}})


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda table: table["architectures"]["llama"].update(has="counted_as_70"), "counted_as_70"),
        (lambda table: table["architectures"]["llama"].update(like="lama"), "lama"),
        (lambda table: table["architectures"]["llama"].update(global_stop=3), "global_stop"),
        (lambda table: table["architectures"]["llama"].update(global_step="3"), "global_step"),
        (lambda table: table["words"].pop("delta_net"), "delta_net"),
    ],
)
def test_a_slip_in_an_architecture_is_an_error(change: Callable[[dict[str, dict]], object], found: str) -> None:
    shipped = shipped_table("data/architectures.toml")
    lines = {name: dict(one) for name, one in shipped["architectures"].items()}
    document = {"words": dict(shipped["words"]), "architectures": lines}
    change(document)
    with pytest.raises(BadDataError, match=found):
        architecture._read(document)


def test_an_architecture_has_the_words_of_those_that_it_is_like() -> None:
    assert has("gemma3n", "sentencepiece") and has("gemma3n", "post_norms") and has("gemma3n", "twenty_own_caches")
    assert not has("gemma3", "twenty_own_caches")
    assert not has("a stranger's", "tied")
    assert architecture_named("a stranger's").global_step == 0
    with pytest.raises(KeyError):
        has("llama", "no such word")


def test_what_is_told_of_a_block_is_declared() -> None:
    for shape in KINDS.values():
        assert model_facts(shape).keys() <= MODEL_WORDS
        for block in range(shape.layer_count):
            assert block_facts(shape, block).keys() <= BLOCK_WORDS
        assert metadata_of(shape, name="tiny", quant="Q4_0")["general.architecture"] == shape.architecture


def test_each_word_of_an_architecture_decides_something() -> None:
    rows = [row for path in TABLES for row in shipped_rows(path, PACKAGES.get(path, "harness"))]
    tables = " ".join(row["when"] for row in rows)
    written = Path(bench.made_models.__file__).read_text(encoding="utf-8")
    in_python = set(re.findall(r'"(\w+)"', " ".join([*SOURCES.values(), written])))
    assert WORDS - set(re.findall(r"\w+", tables)) - in_python == set()
    assert {word for one in ARCHITECTURES.values() for word in one.has.split()} == WORDS


def test_no_python_names_an_architecture() -> None:
    """One line of ``data/architectures.toml`` is all that it takes to add one."""
    named = []
    for path, text in SOURCES.items():
        for node in ast.walk(ast.parse(text)):
            is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
            if is_text and node.value in ARCHITECTURES and node.value not in USED_AS_WORDS:
                named.append((path.name, node.lineno, node.value))
    assert named == []


CHOSEN = {
    *(
        "F32",
        "F16",
        "BF16",
        "Q8_0",
        "Q6_K",
        "Q5_K",
        "Q5_K_M",
        "Q5_0",
        "Q5_1",
        "Q4_K",
        "Q4_K_M",
        "Q4_K_S",
        "Q4_0",
        "Q4_1",
    ),
    *(
        "IQ4_NL",
        "IQ4_XS",
        "Q3_K",
        "Q3_K_M",
        "IQ3_S",
        "IQ3_XXS",
        "Q2_K",
        "IQ2_M",
        "IQ2_XXS",
        "MXFP4",
        "MXFP4_MOE",
        "NVFP4",
    ),
}
"""Types and mixtures that Python names since it chooses them: the usual, the timed, smaller ones, those of a cache."""


def test_a_type_or_a_mixture_that_nothing_chooses_is_named_in_its_row_alone() -> None:
    named = set()
    for text in SOURCES.values():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and "\n" not in node.value:
                named |= set(re.findall(r"[A-Z0-9_]+", node.value)) & {*BLOCKS, *MIXTURES}
    assert named <= CHOSEN


ADDED = r"""
import harness.core.tables as tables
plain = tables.shipped_text
more = {"data/ggml_types.csv": "Q9_X,99,32,38\nBFP8,98,32,34\n", "data/mixtures.csv": "Q9_X,77,,\nBFP8,76,,\n"}
tables.shipped_text = lambda path, package="harness": plain(path, package) + more.get(path, "")
from harness.answer.resolve import resolve_model
from bench.made_models import metadata_of
model = resolve_model("llama-3.2-1b", "q9_x")
assert metadata_of(model.weights.shape, name="x", quant="Q9_X")["general.file_type"] == 77
print(sum(t.size_bytes for t in model.weights.tensors if t.type_name == "Q9_X"), model.quant)
for written in ("llama-3.2-1b-BFP8", "llama-3.2-1b:bfp8", "Llama-3.2-1B-Instruct-BFP8.gguf"):
    print(resolve_model(written, "").quant)
print(resolve_model("llama-3.2-1b", "bfp8").quant)
"""


def test_one_row_adds_a_type_and_one_a_mixture() -> None:
    """Of 32 weights in 38 bytes: 16 blocks of 2 x 2048 x 2048, 2 x 2048 x 512 and 3 x 2048 x 8192 weights.

    A name that no pattern of ours foresaw (BFP8) is understood behind a model's name as with ``-q``.
    """
    done = subprocess.run([sys.executable, "-c", ADDED], capture_output=True, text=True, check=True)
    weights = 16 * (2 * 2048 * 2048 + 2 * 2048 * 512 + 3 * 2048 * 8192)
    assert done.stdout.split() == [str(weights * 38 // 32), "Q9_X", *["BFP8"] * 4]
