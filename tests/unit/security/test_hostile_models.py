"""Model files made to hurt, given to the command line: one clear line each, or clean words.

Each file is well-formed GGUF; only what it says is impossible. The valid files it is made of are read well (last test),
so that a refusal is due to the one thing that was changed.
"""

from pathlib import Path

import msgspec
import pytest

from harness.core.errors import BadDataError, Exit
from harness.core.printable import clean, clean_lines, escaped
from harness.core.scenario import Scenario
from harness.memory.kv_cache import kv_cache_bytes
from harness.models.cards import load_card
from harness.models.facts import block_facts
from harness.models.gguf import read_gguf, read_weights
from tests.fuzzing.cases import _record_seeds
from tests.fuzzing.shown import COUNTS, DEVICE, FAMILIES, TEXTS, _Family, _file, check_printed, said

BY_NAME = {str(f.metadata["general.architecture"]): f for f in FAMILIES}
HUGE = (2**31, 2**32 - 1, 2**63, 2**64 - 1)
NO_COUNT = (-1.0, float("nan"), "7", (1.5, 2.5))

IMPOSSIBLE = {
    # The valid llama has 2 blocks, width 64, 4 heads on 2 KV heads of 16, 96 within, 300 tokens, 4096 of context.
    "llama": {
        "block_count": (0, 3, 10_001, *HUGE, *NO_COUNT),
        "embedding_length": (0, 63, 65, *HUGE, *NO_COUNT),
        "attention.head_count": (0, 3, 32, *HUGE),  # 32 heads of 16 are wider than any tensor
        "attention.head_count_kv": (0, 1, 3, (2,), (2, 2, 2), (2, -2), *HUGE),
        "attention.key_length": (0, 7, 17, 2**20, *HUGE),
        "attention.value_length": (2**20, *HUGE),
        "context_length": (2**33, *HUGE[2:]),
        "feed_forward_length": (0, 40, 97, ("96", "96"), (96, 96, 96), *HUGE, *NO_COUNT),
        "expert_used_count": (2, *HUGE),
        "nextn_predict_layers": (2, 3, *HUGE),
    },
    "qwen3moe": {
        "expert_count": (0, 1, 7, 9, *HUGE),
        "expert_used_count": (0, 9, *HUGE),
        "expert_feed_forward_length": (0, 301, *HUGE),
    },
    "gemma3": {"attention.sliding_window": (2**33, *HUGE[2:]), "attention.shared_kv_layers": (3, *HUGE)},
    "deepseek2": {"attention.kv_lora_rank": (301, *HUGE), "attention.value_length_mla": (0, *HUGE)},
    "mamba": {"ssm.inner_size": (301, *HUGE), "ssm.state_size": (0, 301, *HUGE), "ssm.conv_kernel": (0, *HUGE)},
}
CASES = [
    pytest.param(kind, f"{kind}.{key}", value, id=f"{kind} {key} {value}")
    for kind, keys in IMPOSSIBLE.items()
    for key, values in keys.items()
    for value in values
] + [pytest.param("llama", "general.alignment", v, id=f"alignment {v}") for v in (0, 3, 2**31, -1.0, "32")]


def write(folder: Path, family: _Family) -> Path:
    path = folder / "hostile.gguf"
    path.write_bytes(_file(family))
    return path


def test_there_are_a_hundred() -> None:
    assert len(CASES) >= 100


@pytest.mark.parametrize(("kind", "key", "value"), CASES)
def test_an_impossible_count_is_refused_in_one_line(kind: str, key: str, value: object, tmp_path: Path) -> None:
    family = BY_NAME[kind]
    path = write(tmp_path, family._replace(metadata=family.metadata | {key: value}))

    with pytest.raises(BadDataError, match=r"hostile\.gguf: .*found .*expected ") as caught:
        read_gguf(path).weights()

    check_printed(str(caught.value))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("text", TEXTS, ids=lambda t: ascii(t)[:20])
@pytest.mark.parametrize("place", ["general.name", "general.architecture", "a key", "a tensor's name"])
def test_no_text_of_a_file_steers_the_terminal(text: str, place: str, tmp_path: Path) -> None:
    """``said`` itself holds every byte printed, and the number of lines of an error, against the rules."""
    family = BY_NAME["llama"]
    if place == "a tensor's name":
        tensors = (msgspec.structs.replace(family.tensors[0], name=text[:100]), *family.tensors[1:])
        path = write(tmp_path, family._replace(tensors=tensors))
    else:
        key = text[:9000] if place == "a key" else place
        path = write(tmp_path, family._replace(metadata=family.metadata | {key: text[:9000]}))

    status = said("models", "show", str(path))

    assert status in {Exit.OK, Exit.USAGE}
    assert status == Exit.USAGE or place != "general.architecture", "the name of an architecture is a word"


@pytest.mark.parametrize("kind", BY_NAME)
def test_the_files_they_are_made_of_are_read_well(kind: str, tmp_path: Path) -> None:
    path = write(tmp_path, BY_NAME[kind])
    assert said("models", "show", str(path)) == Exit.OK
    assert said("fit", str(path), "-d", DEVICE, "--json") == Exit.OK


@pytest.mark.parametrize("form", [".html", ".txt", ".md", ".xml", ".svg"])
def test_no_text_of_a_record_steers_whoever_reads_a_report_of_it(form: str, tmp_path: Path) -> None:
    if form == ".html":
        pytest.importorskip("jinja2")
    evil = "a\x1b[31mX\u202ey\nz\x9b"
    document = msgspec.json.decode(_record_seeds(tmp_path)[0])
    for field in ("detail", "workload", "harness_version"):
        document[field] = evil
    document |= {"command": [evil], "extra": {"q": evil}}
    for part, field in (("model", "name"), ("machine", "cpu_model"), ("machine", "device"), ("engine", "name")):
        document[part][field] = evil
    document["samples"][0] |= {"label": evil}
    record, out, budget = tmp_path / "r.json", tmp_path / "out", tmp_path / "b.toml"
    record.write_bytes(msgspec.json.encode(document))
    budget.write_text('[[budget]]\nmetric = "decode_tokens_per_s"\nfloor = 1.0\n')

    out = out.with_suffix(form)
    if form == ".html":
        status = said("report", str(record), "--out", str(out))
    else:
        status = said("gate", "--budget", str(budget), str(record), "--format", "github", "--out", str(out))

    assert status in {Exit.OK, Exit.INCONCLUSIVE, Exit.COULD_NOT_RUN}
    check_printed(out.read_text(encoding="utf-8"), lines=False)


def test_a_part_of_a_split_model_may_lack_tensors(tmp_path: Path) -> None:
    family = BY_NAME["llama"]
    some = family._replace(metadata=family.metadata | {"split.count": 2, "llama.block_count": 40})
    assert read_gguf(write(tmp_path, some)).shape().layer_count == 40


PARTS = {
    "split.count": (0, 1, 3, -1.0, 65_535, "2"),
    "split.no": (1, 2, -1.0, "0"),
    "split.tensors.count": (-1.0, 0, 5, 99, 2**31 - 1),
}


def parts(folder: Path, **said_of_itself: object) -> Path:
    """A model in two files, the halves of the valid llama; the first says this of itself."""
    family = BY_NAME["llama"]
    half = len(family.tensors) // 2
    for number, tensors in enumerate((family.tensors[:half], family.tensors[half:])):
        told = {"split.no": number, "split.count": 2, "split.tensors.count": len(family.tensors)}
        metadata = {**family.metadata, **told} if number == 0 else told
        whole = family._replace(metadata={**metadata, **(said_of_itself if number == 0 else {})}, tensors=tensors)
        (folder / f"m-0000{number + 1}-of-00002.gguf").write_bytes(_file(whole))
    return folder / "m-00001-of-00002.gguf"


def test_a_model_in_parts_is_the_model(tmp_path: Path) -> None:
    alone, first = read_weights(write(tmp_path, BY_NAME["llama"])), parts(tmp_path)
    for path in (first, first.with_name("m-00002-of-00002.gguf")):
        found = read_weights(path)
        assert found.shape == alone.shape
        assert {t.name for t in found.tensors} == {t.name for t in alone.tensors}
    assert said("models", "show", str(first)) == said("fit", str(first), "-d", DEVICE) == Exit.OK
    assert said("stream", str(first), "--ram-budget", "1GiB", "--no-predict") == Exit.USAGE


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in PARTS.items() for value in values])
def test_parts_that_are_not_of_one_model_are_refused(key: str, value: object, tmp_path: Path) -> None:
    first = parts(tmp_path, **{key: value})
    with pytest.raises(BadDataError, match=rf"m-00001-of-00002\.gguf: {key}: found .*expected "):
        read_weights(first)


def test_parts_that_are_missing_or_twice_are_refused_by_name(tmp_path: Path) -> None:
    first = parts(tmp_path)
    second = first.with_name("m-00002-of-00002.gguf")
    for name in ("m-00001-of-00000.gguf", "m-00003-of-00002.gguf", "renamed.gguf"):
        other = first.with_name(name)
        other.write_bytes(first.read_bytes())
        with pytest.raises(BadDataError, match=rf"{name}: split\.count: found 2"):
            read_weights(other)
    second.unlink()
    assert said("models", "show", str(first)) == said("fit", str(first), "-d", DEVICE) == Exit.USAGE
    family = BY_NAME["llama"]
    told = {"split.no": 1, "split.count": 2, "split.tensors.count": 2 * (len(family.tensors) // 2)}
    second.write_bytes(_file(family._replace(metadata=told, tensors=family.tensors[: len(family.tensors) // 2])))
    parts_of_twice = {"split.tensors.count": told["split.tensors.count"]}
    whole = {**family.metadata, "split.no": 0, "split.count": 2, **parts_of_twice}
    first.write_bytes(_file(family._replace(metadata=whole, tensors=family.tensors[: len(family.tensors) // 2])))
    with pytest.raises(BadDataError, match="the tensor in several parts"):
        read_weights(first)


@pytest.mark.parametrize("name", ["head_dim", "head_count", "moe_expert_count", "latent_kv_rank_dim", "full", "routed"])
def test_an_architecture_that_is_called_like_a_fact_changes_none(name: str) -> None:
    shape = load_card("llama-3.1-8b").shape
    facts, own = block_facts(shape.replace(architecture=name), 0), block_facts(shape, 0)
    assert facts.get(name, 0) == own.get(name, 0)
    assert kv_cache_bytes(shape.replace(architecture=name), Scenario()) == kv_cache_bytes(shape, Scenario())


def test_cleaning() -> None:
    assert clean("a\x1b[31m b\u202e\n\tc") == "a [31m b c"
    assert clean("x" * 500, 10) == "x" * 9 + "…"
    assert clean("Gemma 3 – für 日本語 🙂") == "Gemma 3 – für 日本語 🙂"
    assert clean_lines("a\n\tb\x1b\u202e") == "a\n\tb\ufffd\ufffd"
    document = {"name": "a\x7f\u202e\x9b\u2028é\n"}
    assert msgspec.json.decode(escaped(msgspec.json.encode(document).decode())) == document
    assert escaped(msgspec.json.encode(document).decode()).isprintable()


def test_the_rules_of_the_fuzzer_see_each_offence() -> None:
    for sign in ("\x1b", "\x9b", "\x07", "\r", "\u202e", "\u2066", "\u2028"):
        with pytest.raises(AssertionError, match=f"U\\+{ord(sign):04X}"):
            check_printed(f"a{sign}b")
    check_printed("plain\n\ttext é")
    assert 0 in COUNTS
