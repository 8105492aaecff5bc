"""What is said of hostile files: every word that is printed, and every number that is computed from a parsed shape.

A case is a model file, a config.json, a card, a profile, a record or a budget with texts that could steer a terminal
and counts that no model has. It is given to the command line itself; a failure is a traceback, a sign that a terminal
obeys, an error of more than one line, or a number that is none.
"""

import io
import math
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from bench.made_models import metadata_of
from harness.answer.case import Case
from harness.answer.resolve import resolve_device, resolve_model
from harness.answer.ways import predict
from harness.core.errors import BadDataError, Exit, HarnessError
from harness.core.model import Experts, LatentAttention, ModelShape, Recurrent, Tensor
from harness.core.scenario import Scenario
from harness.models.gguf_write import Value, header_bytes
from harness.models.weights import weights_of
from tests.fuzzing.cases import Target, _budget_seeds, _config_seeds, _data_seeds, _record_seeds

DEVICE: Final = "raspberry-pi-5"
MODEL: Final = "smollm2-135m"
LINE_MAX: Final = 2_300
_LARGEST: Final = 1e21

TEXTS: Final = (
    *("\x1b[31mred", "\x1b]0;title\x07", "\x9b31m", "\x1bc", "\x1b[2J\x1b[H", "\x1b]8;;http://x.example\x1b\\link"),
    *("a\u202egnp.exe", "\u2066\u2069", "one\ntwo", "one\r\x08\x08two", "\u2028\u2029", "\x00", "\x7f", "\ufeff"),
    *("x" * 70_000, "\u0301" * 500, "<script>alert(1)</script>", "[red]markup[/red]", "[/]", "%s%n{0}", "$(reboot)"),
    *("../../../../etc/passwd", "-rf", "'; DROP TABLE runs; --", "=cmd()", "| a | b |", "::error::x", " ", "\t"),
)
COUNTS: Final[tuple[Value, ...]] = (
    *(0, 1, 2, 3, 5, 7, 31, 255, 256, 4097, 65_535, 2**20, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**62, 2**63, 2**64 - 1),
    *(float("nan"), float("inf"), -1.0, 1e30, True, "7", (0, 0), (-1, -1), (0, 1), (1, 0), (2**31 - 1, 1), (1.5, 2.5)),
)


class _Family(NamedTuple):
    """One valid model file in parts."""

    metadata: dict[str, Value]
    tensors: tuple[Tensor, ...]


def _shapes() -> Iterator[ModelShape]:
    plain: dict[str, Any] = {"layer_count": 2, "hidden_dim": 64, "vocab_count": 300, "head_count": 4,
                             "kv_head_count": 2, "head_dim": 16, "feed_forward_dim": 96,
                             "context_max_tokens": 4096}  # fmt: skip
    routed = Experts(expert_count=8, used_count=2, feed_forward_dim=32)
    yield ModelShape(architecture="llama", **plain)
    yield ModelShape(architecture="qwen3moe", **plain | {"experts": routed, "feed_forward_dim": 0})
    yield ModelShape(architecture="gemma3", **plain | {"sliding_window_tokens": 512, "sliding_step_count": 6})
    latent = LatentAttention(q_rank_dim=32, kv_rank_dim=32, rope_head_dim=16, nope_head_dim=16, value_head_dim=32)
    heads = {"kv_head_count": 4, "head_dim": 32, "latent": latent}
    yield ModelShape(architecture="deepseek2", **plain | heads | {"experts": routed})
    state = Recurrent(inner_dim=128, state_dim=16, head_count=4, group_count=1, attention_step_count=2)
    yield ModelShape(architecture="granitehybrid", **plain | {"recurrent": state})
    none = {"head_count": 0, "kv_head_count": 0, "head_dim": 0, "feed_forward_dim": 0}
    yield ModelShape(architecture="mamba", **plain | none | {"recurrent": Recurrent(inner_dim=128, state_dim=16)})


def _families() -> list[_Family]:
    found = []
    for shape in _shapes():
        metadata = {k: v for k, v in metadata_of(shape, name="seed", quant="F16").items() if "scores" not in k}
        found.append(_Family(metadata, weights_of(shape, "F16").tensors))
    return found


FAMILIES: Final = _families()


def _file(family: _Family) -> bytes:
    head = header_bytes(family.metadata, family.tensors)
    return head + bytes(sum(t.size_bytes + -t.size_bytes % 32 for t in family.tensors))


def _model_seeds(folder: Path) -> list[bytes]:
    del folder
    return [_file(family) for family in FAMILIES]


def hostile_model(data: bytes, draw: random.Random) -> bytes:
    """A well-formed model file that says what no model says; what it is made of is drawn, not ``data``."""
    del data
    family = FAMILIES[draw.randrange(len(FAMILIES))]
    metadata, tensors = dict(family.metadata), list(family.tensors)
    architecture = str(metadata["general.architecture"])
    numbers = [k for k in metadata if k.startswith(architecture)]
    numbers += [f"{architecture}.{k}" for k in ("nextn_predict_layers", "attention.sliding_window_pattern",
                "full_attention_interval", "attention.shared_kv_layers", "expert_count", "attention.kv_lora_rank",
                "ssm.inner_size", "attention.key_length", "attention.value_length")]  # fmt: skip
    numbers.append("general.alignment")
    for _ in range(draw.choice((1, 1, 2, 3))):
        match draw.randrange(6):
            case 0 | 1 | 2:
                metadata[draw.choice(numbers)] = draw.choice(COUNTS)
            case 3:
                metadata[draw.choice(("general.name", "general.architecture", "general.license"))] = draw.choice(TEXTS)
            case 4:
                metadata[draw.choice(TEXTS)[:9_000]] = draw.choice(COUNTS)
            case _:
                at = draw.randrange(len(tensors))
                name = draw.choice((*TEXTS, f"blk.{'9' * 50}.ffn_gate_inp.weight", f"blk.{2**40}.x.weight"))
                tensors[at] = msgspec.structs.replace(tensors[at], name=name[:120])
    return _file(_Family(metadata, tuple(tensors)))


def hostile_text(data: bytes, draw: random.Random) -> bytes:
    """A text file with some of its strings and numbers exchanged; escapes are those of JSON, which TOML shares."""
    out = data.decode()
    for _ in range(draw.choice((1, 1, 2, 3))):
        places = [i for i in range(len(out) - 1) if out[i] in "=:" and out[i + 1] == " "] or [
            i for i in range(len(out) - 1) if out[i] == ":"
        ]
        if not places:
            return out.encode()
        begin = draw.choice(places) + 1
        end = next((i for i in range(begin, len(out)) if out[i] in ",}\n"), len(out))
        if draw.random() < (0.9 if out[begin : begin + 2].strip() == '"' else 0.1):
            word = msgspec.json.encode(draw.choice(TEXTS)).decode().replace("\x7f", "\\u007f")
        else:
            word = draw.choice(
                ("0", "1", "2", "3", "7", "65535", "4294967295", "1000000000000", "1e300", "1e-300", "-1")
            )
        out = f"{out[:begin]} {word}{out[end:]}"
    return out.encode()


@contextmanager
def _caught() -> Iterator[tuple[io.BytesIO, io.BytesIO]]:
    before, held = (sys.stdout, sys.stderr), (io.BytesIO(), io.BytesIO())
    sys.stdout, sys.stderr = (io.TextIOWrapper(b, encoding="utf-8") for b in held)
    try:
        yield held
    finally:
        sys.stdout.detach(), sys.stderr.detach()  # type: ignore[union-attr, unused-ignore]
        sys.stdout, sys.stderr = before


def said(*words: str) -> int:
    """Give the words to the command line, in this process, and hold what it prints against the rules.

    Returns:
        The exit status.

    Raises:
        AssertionError: Something printed breaks a rule.
    """
    from harness.cli import main

    before = sys.argv
    with _caught() as (out, err):
        sys.argv = ["edge-harness", *words]
        try:
            main()
        except SystemExit as end:
            status = int(end.code or 0)
        finally:
            sys.argv = before
    for text in (out.getvalue().decode(), err.getvalue().decode()):
        check_printed(text)
    lines = err.getvalue().decode().splitlines()
    refused = status == Exit.USAGE or (status == Exit.COULD_NOT_RUN and not out.getvalue())
    if refused and not (len(lines) == 1 and lines[0].startswith("edge-harness: ")):
        raise AssertionError(f"not one clear line: {lines[:3]}")
    return status


def check_printed(text: str, *, lines: bool = True) -> None:
    """Refuse text that a terminal would obey, that turns other text around, or that has no end.

    Raises:
        AssertionError: It does.
    """
    for sign in set(text):
        code = ord(sign)
        if sign not in "\n\t" and (
            code < 32 or 127 <= code < 160 or 0x2028 <= code <= 0x202E or 0x2066 <= code <= 0x2069
        ):
            raise AssertionError(f"U+{code:04X} was printed")
    longest = max(map(len, text.splitlines()), default=0)
    if lines and longest > LINE_MAX and text[0] not in "[{":  # a document holds what the file holds
        raise AssertionError(f"a line of {longest} characters was printed")


def check_numbers(value: Any, place: str = "") -> None:
    """Refuse a prediction with a number that is none, is negative, or is more than any machine holds.

    Raises:
        AssertionError: There is one.
    """
    if isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            check_numbers(getattr(value, name), f"{place}.{name}")
    elif isinstance(value, dict):
        for name, inner in value.items():
            check_numbers(inner, f"{place}.{name}")
    elif isinstance(value, tuple):
        for inner in value:
            check_numbers(inner, place)
    elif isinstance(value, int | float) and not (math.isfinite(value) and 0 <= value <= _LARGEST):
        raise AssertionError(f"{place} is {value}")


def _told(status: int) -> None:
    if status in {Exit.USAGE, Exit.COULD_NOT_RUN}:
        raise BadDataError("case", "", "refused", "as it should be")


def _show_model(path: Path) -> None:
    said("models", "show", str(path), "--json")
    said("fit", str(path), "-d", DEVICE, "--json")
    _told(max(said("models", "show", str(path)), said("fit", str(path), "-d", DEVICE)))


def _show_fit(path: Path) -> None:
    _told(said("fit", str(path), "-d", DEVICE))


def _show_data(path: Path) -> None:
    if b"[shape]" in path.read_bytes():
        said("models", "show", str(path), "--json")
        _told(max(said("models", "show", str(path)), said("fit", str(path), "-d", DEVICE)))
    else:
        said("devices", "show", str(path), "--json")
        _told(max(said("devices", "show", str(path)), said("fit", MODEL, "-d", str(path))))


def _show_record(path: Path) -> None:
    said("history", str(path))
    page = path.with_name("page.html")
    status = said("report", str(path), "--out", str(page))
    if status == Exit.OK:
        check_printed(page.read_text(encoding="utf-8"), lines=False)
    _told(status)


def _show_budget(path: Path) -> None:
    record = path.with_name("record.json")
    record.write_bytes(_record_seeds(path.parent)[0])
    forms = ("terminal", "markdown", "junit", "github")
    _told(max(said("gate", "--budget", str(path), str(record), "--format", form) % 3 for form in forms))


def _compute(path: Path) -> None:
    """Predict at two depths and batches: every number that comes of the shape."""
    try:
        if path.suffix == ".toml" and b"[shape]" not in path.read_bytes():
            model, device = resolve_model(MODEL), resolve_device(str(path))
        else:
            model, device = resolve_model(str(path)), resolve_device(DEVICE)
        for scenario in (Scenario(), Scenario(context_tokens=131_072, depth_tokens=100_000, batch_count=8)):
            check_numbers(predict(Case.of(model, device, scenario)))
    except HarnessError as error:
        check_printed(str(error))
        if "\n" in str(error) or len(str(error)) > LINE_MAX:
            raise AssertionError("not one clear line") from error
        raise BadDataError(path, "", "refused", "as it should be") from error


TARGETS: Final = {
    target.name: target
    for target in (
        Target("shown-gguf", ".gguf", _model_seeds, hostile_model, _show_model),
        Target("shown-config", ".json", _config_seeds, hostile_text, _show_fit),
        Target("shown-data", ".toml", _data_seeds, hostile_text, _show_data),
        Target("shown-record", ".json", lambda folder: _record_seeds(folder)[1:], hostile_text, _show_record),
        Target("shown-budget", ".toml", _budget_seeds, hostile_text, _show_budget),
        Target("computed-gguf", ".gguf", _model_seeds, hostile_model, _compute),
        Target("computed-config", ".json", _config_seeds, hostile_text, _compute),
        Target("computed-data", ".toml", _data_seeds, hostile_text, _compute),
    )
}
