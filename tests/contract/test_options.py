"""Every option of every verb, found by asking the commands themselves: bounds, shared meanings, and an effect."""

import json
import math
import os
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from bench.renderers import verbs
from bench.tiny_gguf import synthesize_tiny
from harness.cli import cli
from harness.cli._options import Amount, Count, Size
from harness.errors import InputError, UnknownNameError
from harness.workloads import registry

SHARED = {"--timeout", "--wait", "--resume", "--out", "--json", "--nice", "--cpus"}
"""What every verb that measures takes."""
MEASURING = {"run", "check", "speculate", "stream", "ladder", "emulate", "workloads run"}


COMMANDS = {v.command_path.removeprefix("edge-harness "): v.command for v in verbs()}
OPTIONS = [
    (name, option)
    for name, command in COMMANDS.items()
    for option in command.params
    if isinstance(option, click.Option)
]


def bad_values(option: click.Option) -> list[str]:
    """Values that a number or a size must refuse."""
    kind = option.type
    if isinstance(kind, Count):
        return [str(kind.least - 1), str(kind.most + 1), "nan", "1.5", "", "1e3", "99999999999999999999"]
    if isinstance(kind, Amount):
        return [str(kind.above) if not kind.or_zero else "-0.1", "nan", "inf", "-1", "", str(kind.most * 99)]
    if isinstance(kind, Size):
        return ["0", "-5MB", "nan", "", "5 parsecs", "99999999999GiB"]
    if isinstance(kind, click.IntRange | click.FloatRange):
        found = ["nan", ""] if isinstance(kind, click.IntRange) else [""]
        found += [str(kind.min - 1)] if kind.min is not None else []
        return found + ([str(kind.max + 1)] if kind.max is not None else [])
    return []


CASES = [(name, option.opts[0], value) for name, option in OPTIONS for value in bad_values(option)]


@pytest.mark.parametrize(("name", "option", "value"), CASES)
def test_numbers_have_bounds(name: str, option: str, value: str) -> None:
    """Out of bounds is exit 2 with the option's name, before anything is loaded, measured or fetched."""
    done = CliRunner().invoke(cli, [*name.split(), f"{option}={value}"], standalone_mode=True)
    assert done.exit_code == 2, done.output
    assert not isinstance(done.exception, ValueError | ZeroDivisionError | OverflowError)


def test_no_number_is_unbounded() -> None:
    """A plain ``int`` or ``float`` takes nan, 99 times too much and what no machine has; a ``FloatRange`` takes nan."""
    loose = [
        f"{name} {o.opts[0]}"
        for name, o in OPTIONS
        if o.type in {click.INT, click.FLOAT} or isinstance(o.type, click.FloatRange)
    ]
    assert loose == []


@pytest.mark.parametrize(("name", "option"), [(n, o) for n, o in OPTIONS if not o.is_flag], ids=str)
def test_a_value_without_text_is_refused(name: str, option: click.Option) -> None:
    """It is a script's variable that was never set; taken for "not given", it would drop the option in silence."""
    for flag in option.opts:
        for words in ([flag, ""], [flag, "  "], *([[f"{flag}="]] if flag.startswith("--") else [])):
            done = CliRunner().invoke(cli, [*name.split(), *words])
            assert (done.exit_code, f"{flag}: found ''" in done.output) == (2, True), done.output


@pytest.mark.parametrize("name", [n for n, o in OPTIONS if "--api" in o.opts])
def test_an_api_that_is_none_is_told_before_anything_is_measured(name: str, tmp_path: Path) -> None:
    model = synthesize_tiny(tmp_path / "m.gguf", "Q8_0")
    given = {"recommend": ["iphone-12"], "matrix": [], "speculate": [str(model), "--draft", "lookup"]}
    done = CliRunner().invoke(cli, [name, *given.get(name, [str(model)]), "--api", "vulcan"])
    assert isinstance(done.exception, UnknownNameError), done.output
    assert "no api named 'vulcan'. Did you mean 'vulkan'?" in str(done.exception)


def effects(option: click.Option) -> list[list[str]]:
    """Ways to type an option of `fit` with something else than its default."""
    name, kind = option.opts[0], option.type
    if option.is_flag:
        return [[flag] for flag in (option.secondary_opts or option.opts)]
    if isinstance(kind, click.Choice):
        return [[name, choice] for choice in kind.choices if choice != option.default]
    if isinstance(kind, Count):
        return [[name, str(n)] for n in (1, 3, 64, 999) if n != option.default and kind.least <= n <= kind.most]
    if isinstance(kind, Amount):
        return [[name, "5"], [name, "12345"]]
    words = {"--quant": "Q8_0", "--kv-type": "Q8_0", "--api": "vulkan", "--draft": "smollm2-135m"}
    words |= {"--ram-budget": "1GiB", "--verifier": DEVICES[0], "--with": "memory_store", "--tensor-split": "1,2"}
    return [[name, words[name]]] if name in words else []


DEVICES = ("raspberry-pi-5-16gb", "rtx-4060-desktop", "iphone-15-pro")
NEVER_IDLE = {"--json", "--advice", "--other-devices", "--explain", "--target", "--minutes"}
"""How it is told; what is asked of the prediction, and may hold anyhow. Figures of the device may be no limit."""
EFFECTS = [
    pytest.param(device, words, id=f"{device} {' '.join(words)}")
    for device in DEVICES
    for name, option in OPTIONS
    if name == "fit" and option.opts[0] not in {*NEVER_IDLE, "--device"}
    for words in effects(option)
]


def predicted(*words: str) -> object:
    """What `fit` says besides repeating the question; None where it refuses."""
    done = CliRunner().invoke(cli, ["fit", "llama-3.2-3b", "--json", *words])
    if isinstance(done.exception, InputError) or done.exit_code == 2:
        return None
    assert done.exception is None or isinstance(done.exception, SystemExit), repr(done.exception)
    return {key: value for key, value in json.loads(done.stdout).items() if key != "scenario"}


@pytest.mark.parametrize(("device", "words"), EFFECTS)
def test_an_option_of_fit_changes_the_answer_or_is_refused(device: str, words: list[str]) -> None:
    found = predicted("-d", device, *words)
    assert found is None or found != predicted("-d", device)


def test_a_run_here_has_the_cpus_and_the_priority_asked_for(tmp_path, monkeypatch) -> None:
    """So many threads as CPUs; that the process has them is shown where processes are started."""
    monkeypatch.setenv("EDGE_HARNESS_HOME", str(tmp_path))
    model = tmp_path / "m.json"
    model.write_text("{}")
    last = max(os.sched_getaffinity(0))
    asked = ["-c", "64", "-p", "4", "-n", "2", "-r", "1", "--cold-loads", "0", "--cpus", str(last), "--nice", "2"]
    done = CliRunner().invoke(cli, ["run", str(model), "--runtime", "fake", "--json", *asked])
    (record,) = json.loads(done.stdout)
    assert record["scenario"]["thread_count"] == 1
    assert (record["extra"]["cpus"], record["extra"]["nice"]) == ([last], 2)


@pytest.mark.parametrize("name", sorted(MEASURING))
def test_verbs_that_measure_share_their_options(name: str) -> None:
    options = {opt for o in COMMANDS[name].params for opt in [*o.opts, *o.secondary_opts]}
    assert options >= SHARED


def test_an_option_means_the_same_in_every_verb() -> None:
    """One flag, one parameter and one kind of value, wherever it is taken."""
    meanings: dict[str, set[tuple[str, str]]] = {}
    for name, option in OPTIONS:
        if name.split()[0] in {"run", "check", "speculate", "stream", "ladder", "emulate", "fit"}:
            for opt in option.opts:
                if opt.startswith("--"):
                    kind = type(option.type).__name__
                    meanings.setdefault(opt, set()).add((option.name or "", kind))
    several = {opt: found for opt, found in meanings.items() if len(found) > 1}
    # Lists where a verb runs several at once; a share of the file where a budget is the limit; an old name.
    for opt in (
        "--threads",
        "--memory-limit",
        "--depth",
        "--draft",
        "--ram-budget",
        "--as",
        "--device",
        "--backend",
        "--batch",
    ):
        several.pop(opt, None)
    assert several == {}


LOAD = ["serve-load", "--url", "http://127.0.0.1:1"]
UNTIMED = (["--repetitions", "5"], ["--tokens", "5"], ["--prompt", "5"], ["--api", "cpu"])
NOT_DRAFTED = (
    ["lookup", "--draft-quant", "keep"],
    ["self", "--draft-quant", "Q4_0"],
    ["lookup", "--draft-api", "cpu"],
    ["lookup", "--draft-gpu-layers", "3"],
    ["lookup", "--seed", "3"],
)
NOT_STREAMED = (
    ["--draft-quant", "keep"],
    ["--draft", "lookup", "--draft-quant", "keep"],
    ["--plain-mmap", "--schedule", "experts"],
    ["--plain-mmap", "--expert-policy", "lfu"],
    ["--schedule", "blocks", "--expert-policy", "lru"],
)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "m", "--draft", "d", "--depth", "8"], "--depth has no meaning with --draft"),
        (["run", "m", "--ram-budget", "1GB", "--cold-loads", "2"], "--cold-loads has no meaning with --ram-budget"),
        (["run", "m", "n", "--draft", "d"], "exactly one MODEL"),
        (["run", "m", "-t", "1,2", "--draft", "d"], "one number with --draft"),
        (["ladder", "m", "--quants", ","], "found ',', expected names with a comma between"),
        (["matrix", "-c", "4096,"], "found '', expected a whole number"),
        (["run", "m", "--depth", "0,,1"], "found '', expected a whole number"),
        (["speculate", "m", "--draft", "d", "--gamma", "many"], "found 'many', expected a whole number"),
        (["speculate", "m", "--draft", "d", "--gamma", "64"], "found 64, expected 1 to 63"),
        *((["ladder", "m", "--no-speed", *words], f"{words[0]} has no meaning with --no-speed") for words in UNTIMED),
        (["ladder", "m", "--context", "1k"], "--context has no meaning without --device"),
        *((["speculate", "m", "--draft", *words], f"{words[1]} has no meaning") for words in NOT_DRAFTED),
        *((["stream", "m", "--ram-budget", "1GB", *words], f"{words[-2]} has no meaning") for words in NOT_STREAMED),
        *(
            (["recommend", "iphone-12", "--quality-of", "qwen3-4b", words, "5"], f"{words} has no meaning")
            for words in ("--min-speed", "--minutes")
        ),
        *(
            ([*LOAD, "--trace", __file__, words, "5"], f"{words} has no meaning with --trace")
            for words in ("--requests", "--prompt", "--tokens", "--turns")
        ),
        ([*LOAD, "--users", "1", "--limit", "ttft=1", "--limit", "TTFT=2s"], "found ttft twice"),
        ([*LOAD, "--users", "1.5"], "found '1.5', expected a whole number"),
        ([*LOAD, "--users", "1000000"], "found 1000000, expected 1 to 10000"),
        (["report", "--json", "-o", "x.md"], "--out has no meaning with --json"),
        (["report", "--json", "-f", "md"], "--format has no meaning with --json"),
        (["models", "show", "qwen3-4b", "--provider", "cpu"], "--provider has no meaning but for an ONNX graph"),
        (["models", "show", "m.gguf", "--provider", "cpu"], "--provider has no meaning but for an ONNX graph"),
        (["models", "show", "qwen3-4b", "--provider-option", "a=b"], "--provider-option has no meaning without"),
        (["run", "m", "--cpus", "4095"], "--cpus: found [4095], expected some of"),
        *(
            (["run", "--runtime", "server", "--url", "http://127.0.0.1:1", *words], f"{words[0]} is not for a server")
            for words in (["--nice", "3"], ["--memory-limit", "1GiB"], ["--as", "iphone-15-pro"], ["--resume"])
        ),
        (["speculate", "m", "--draft", "d", "--verifier", "http://127.0.0.1:1", "--resume"], "no --resume"),
        *(
            (["soak", "--runtime", "server", "--url", "http://127.0.0.1:1", *words], said)
            for words, said in (
                (["--nice", "3"], "--nice is not for a server"),
                (["--threads", "3"], "--threads: a server has its own"),
                (["--prefix-cache"], "No such option"),
            )
        ),
        (["soak"], "Missing argument MODEL"),
        (["soak", "m", "--runtime", "ik,llamacpp"], "found 'ik,llamacpp', expected one"),
        (["soak", "m", "--url", "http://127.0.0.1:1"], "--url has no meaning without --runtime server"),
        (["run", "m", "--silence", "3"], "--silence has no meaning without --runtime server"),
        (["run", "m", "--key-variable", "K"], "--key-variable has no meaning without --runtime server"),
        (["run", "m", "--runtime", "ort,ort"], "expected each of them once"),
        (["run", "m", "--no-kv-on-gpu"], "--kv-on-gpu has no meaning without a GPU's --api"),
        (["soak", "m", "--api", "cpu", "--main-gpu", "1"], "--main-gpu has no meaning without a GPU's --api"),
        (["speculate", "m", "--draft", "lookup", "--cpu-moe", "1"], "--cpu-moe has no meaning without a GPU's --api"),
        (["ladder", "m", "--gpu-layers", "1"], "--gpu-layers has no meaning without a GPU's --api"),
        (["soak", "m", "--minutes", "2000"], "found 2000, expected no more than --timeout allows"),
        (["report", "--no-predictions", "-d", "iphone-12"], "--devices has no meaning with --no-predictions"),
        (["devices", "probe", "--programs", "."], "--programs has no meaning without --on"),
        (["check", "--report", "x.pdf"], "found 'x.pdf', expected an ending of .html"),
        (["workloads", "table", "--table", "x.csv"], "expected an ending of .md, .json"),
        (["history", "--export", "x.csv"], "expected an ending of .jsonl"),
        (["run", "m", "--programs", "."], "name it with --on"),
    ],
)
def test_conflicts_are_refused(arguments: list[str], words: str) -> None:
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 2
    assert words in " ".join(done.output.split())


def test_amounts_are_written_as_people_write_them() -> None:
    count = Count(1)
    assert [count.convert(t, None, None) for t in ("128k", "4096", "1m")] == [131072, 4096, 1 << 20]
    assert math.isclose(Amount().convert("2.5", None, None), 2.5)
    for slip in ("128kk", "1km", "k", "m", "4 k", "1_000", "٣"):
        with pytest.raises(click.BadParameter, match="expected a whole number"):
            count.convert(slip, None, None)


DOCUMENTED = sorted(
    {
        line.split("#")[0].strip()
        for page in [*Path("docs").rglob("*.md"), Path("README.md")]
        for line in page.read_text(encoding="utf-8").splitlines()
        if line.startswith("edge-harness workloads run ") and "--model" in line and line.split()[3] in registry.names()
    }
)


@pytest.mark.parametrize("line", DOCUMENTED)
def test_the_pages_model_is_what_a_workload_asks_for(line: str) -> None:
    """A workload that the pages run with a model looks for it, and does not say that the option has no meaning."""
    words = line.replace("FOLDER", ".").split()[1:]
    words[words.index("--model") + 1] = "no-such-model"
    done = CliRunner().invoke(cli, words)
    assert "no model named 'no-such-model'" in str(done.output) + str(done.exception)
