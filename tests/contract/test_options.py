"""Every option of every verb, found by asking the commands themselves: bounds, shared meanings, and an effect."""

import json
import math
import os
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, get_args

import click
import pytest
from click.testing import CliRunner
from msgspec import Meta
from msgspec.inspect import FloatType, IntType, type_info

from bench.renderers import verbs
from bench.tiny_gguf import synthesize_tiny
from harness.cli import cli
from harness.cli._parameters import Typed
from harness.core import plugins
from harness.core.errors import InputError, UnknownNameError
from harness.core.option import Option, item_of, kinds_of
from harness.core.question import EnginePart, New
from harness.core.units import parse_bytes

SHARED = {"--timeout", "--resume", "--out", "--json", "--cpus"}
"""What every verb that measures takes."""
MEASURING = {"run", "check", "speculate", "stream", "ladder"}
SYSTEMS = plugins.entry_names("edge_harness.workloads") if find_spec("harness.workloads") else []


COMMANDS = {v.command_path.removeprefix("edge-harness "): v.command for v in verbs()}
OPTIONS = [
    (name, option)
    for name, command in COMMANDS.items()
    for option in command.params
    if isinstance(option, click.Option)
]


def bad_values(option: click.Option) -> list[str]:
    """Values that a number or a size must refuse."""
    if not isinstance(option.type, Typed):
        return []
    if option.type.option.reads is parse_bytes:
        return ["0", "10", "-5MB", "nan", "", "5 parsecs", "99999999999GiB"]
    if option.type.option.reads:
        return []
    bounds = bounds_of(option.type)
    if int in bounds:
        least, most = bounds[int]
        return [str(least - 1), str(most + 1), "nan", "1.5", "", "1e3", "99999999999999999999"]
    if float in bounds:
        least, most = bounds[float]
        return ["nan", "inf", "-1", "", str(most * 99)] + (["0"] if least is None else [])
    return []


def bounds_of(kind: Typed) -> dict[type, tuple[float | None, float | None]]:
    """Least and most of the numbers that an option takes; no least where it must be above 0."""
    names = {IntType: int, FloatType: float}
    kinds = kinds_of(item_of(kind.kind) or kind.kind)
    return {names[type(each)]: (each.ge, each.le) for each in kinds if isinstance(each, IntType | FloatType)}


CASES = [(name, option.opts[0], value) for name, option in OPTIONS for value in bad_values(option)]


@pytest.mark.parametrize(("name", "option", "value"), CASES)
def test_numbers_have_bounds(name: str, option: str, value: str) -> None:
    """Out of bounds is exit 2 with the option's name, before anything is loaded, measured or fetched."""
    done = CliRunner().invoke(cli, [*name.split(), f"{option}={value}"], standalone_mode=True)
    assert done.exit_code == 2, done.output
    assert not isinstance(done.exception, ValueError | ZeroDivisionError | OverflowError)


def test_no_number_is_unbounded() -> None:
    """A number without bounds takes what no machine has."""
    loose = []
    for name, option in OPTIONS:
        kind = option.type
        if not isinstance(kind, Typed) or kind.option.reads:
            continue
        for each in kinds_of(item_of(kind.kind) or kind.kind):
            if isinstance(each, IntType | FloatType) and (each.le is None or (each.ge is None) == (each.gt is None)):
                loose.append(f"{name} {option.opts[0]}")
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
    given = {"recommend": ["iphone-12"], "speculate": [str(model), "--draft", "lookup"]}
    given["engines pull"] = []
    done = CliRunner().invoke(cli, [*name.split(), *given.get(name, [str(model)]), "--api", "vulcan"])
    assert isinstance(done.exception, UnknownNameError), done.output
    assert "no api named 'vulcan'. Did you mean 'vulkan'?" in str(done.exception)


def effects(option: click.Option) -> list[list[str]]:
    """Ways to type an option of `fit` with something else than its default."""
    name, kind = option.opts[0], option.type
    if option.is_flag:
        return [[flag] for flag in (option.secondary_opts or option.opts)]
    if isinstance(kind, click.Choice):
        return [[name, choice] for choice in kind.choices if choice != option.default]
    bounds = bounds_of(kind) if isinstance(kind, Typed) else {}
    if int in bounds:
        least, most = bounds[int]
        return [[name, str(n)] for n in (1, 3, 64, 999) if n != option.default and least <= n <= most]
    if float in bounds:
        return [[name, "5"], [name, "12345"]]
    words = {"--quant": "Q8_0", "--kv-type": "Q8_0", "--api": "vulkan", "--draft": "smollm2-135m"}
    words |= {"--ram-budget": "1GiB", "--with": "memory"}
    if name == "--placement":
        return [[name, flags] for flags in ("-ngl 3", "--n-cpu-moe 3", "-ts 1,2", "-sm row", "-mg 1", "-nkvo")]
    if name == "--without":
        return [[name, part] for part in get_args(EnginePart)]
    return [[name, words[name]]] if name in words else []


DEVICES = ("raspberry-pi-5-16gb", "rtx-4060-desktop", "iphone-15-pro")
NEVER_IDLE = {"--json", "--advice", "--explain", "--details", "--min-speed", "--minutes"}
"""How it is told; what is asked of the prediction, and may hold anyhow. Figures of the device may be no limit."""
EFFECTS = [
    pytest.param(device, words, id=f"{device} {' '.join(words)}")
    for device in DEVICES
    for name, option in OPTIONS
    if name == "fit" and option.opts[0] not in {*NEVER_IDLE, "--device"}
    for words in effects(option)
]


@cache
def predicted(*words: str) -> object:
    """What `fit` says besides repeating the question; None where it refuses."""
    done = CliRunner().invoke(cli, ["fit", "llama-3.2-3b", "--json", *words])
    if isinstance(done.exception, InputError) or done.exit_code == 2:
        return None
    assert done.exception is None or isinstance(done.exception, SystemExit), repr(done.exception)
    return {
        key: value for key, value in json.loads(done.stdout).items() if key not in {"question", "scenario", "commands"}
    }


@pytest.mark.parametrize(("device", "words"), EFFECTS)
def test_an_option_of_fit_changes_the_answer_or_is_refused(device: str, words: list[str]) -> None:
    found = predicted("-d", device, *words)
    assert found is None or found != predicted("-d", device)


def test_a_run_here_has_the_cpus_asked_for(tmp_path, monkeypatch) -> None:
    """So many threads as CPUs; that the process has them is shown where processes are started."""
    monkeypatch.setenv("EDGE_HARNESS_HOME", str(tmp_path))
    model = tmp_path / "m.json"
    model.write_text("{}")
    last = max(os.sched_getaffinity(0))
    asked = ["-c", "64", "-p", "4", "-n", "2", "-r", "1", "--cold-loads", "0", "--cpus", str(last)]
    done = CliRunner().invoke(cli, ["run", str(model), "--runtime", "fake", "--json", *asked])
    (record,) = json.loads(done.stdout)["items"]
    assert record["scenario"]["thread_count"] == 1
    assert record["extra"]["cpus"] == [last]


@pytest.mark.parametrize("name", sorted(MEASURING))
def test_verbs_that_measure_share_their_options(name: str) -> None:
    options = {opt for o in COMMANDS[name].params for opt in [*o.opts, *o.secondary_opts]}
    assert options >= SHARED


def test_an_option_means_the_same_in_every_verb() -> None:
    """One flag, one parameter and one kind of value, wherever it is taken."""
    meanings: dict[str, set[str]] = {}
    for _, option in OPTIONS:
        for opt in option.opts:
            if opt.startswith("--"):
                meanings.setdefault(opt, set()).add(type(option.type).__name__)
    assert {opt for opt, kinds in meanings.items() if len(kinds) > 1} == {
        "--out"
    }  # a folder, or a file with its ending


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "m", "--placement", "-ngl 1"], "--placement' has no meaning without the --api of a GPU"),
        (["soak", "m", "--placement", "-ngl 1", "--api", "cpu"], "--placement' has no meaning without the --api"),
        (["run", "--runtime", "server:http://h", "--threads", "3"], "'-t' has no meaning with --runtime server"),
        (["run", "--runtime", "ik,server:http://h", "m", "--resume"], "--resume' has no meaning with --runtime server"),
        (["run", "m", "--server-model", "x"], "--server-model' has no meaning without --runtime server:URL"),
        (["ladder", "m", "--no-speed", "--tokens", "5"], "'-n' has no meaning with --no-speed"),
        (["learn", ".", "--device", "iphone-12", "--forget"], "has no meaning with --forget"),
        (["history", "x", "--trend", "load_s"], "--trend' has no meaning with RUN"),
    ],
)
def test_what_says_nothing_beside_another_option_is_refused(arguments: list[str], words: str) -> None:
    done = CliRunner().invoke(cli, arguments)
    assert (done.exit_code, words in " ".join(done.output.split())) == (2, True), done.output


def test_every_verb_has_an_example_of_its_own() -> None:
    for name, command in COMMANDS.items():
        assert command.epilog.startswith(f"edge-harness {name.removesuffix(' judge')}"), name


def test_no_verb_has_more_options_than_a_person_reads() -> None:
    counts = {name: sum(isinstance(o, click.Option) for o in command.params) + 1 for name, command in COMMANDS.items()}
    assert {name: count for name, count in counts.items() if count > MOST_OPTIONS.get(name, 28)} == {}


MOST_OPTIONS = {"fit": 31}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["ladder", "m", "--quants", ","], "found ',', expected values with a comma between"),
        (["run", "m", "--depth", "0,,1"], "found '0,,1', expected values with a comma between"),
        (["speculate", "m", "--draft", "d", "--gamma", "many"], "found 'many', expected a whole number"),
        (["speculate", "m", "--draft", "d", "--gamma", "64"], "found 64, expected 1 to 63"),
        (["serve-load", "--url", "http://h", "--goodput", "ttft=1", "--goodput", "TTFT=2s"], "found ttft twice"),
        (["serve-load", "--users", "1.5"], "found '1.5', expected a whole number"),
        (["serve-load", "--users", "1000000"], "found 1000000, expected 1 to 10,000"),
        (["run", "m", "--cpus", "4095"], "--cpus: found [4095], expected some of"),
        (["run", "m", "--placement", "-ngl many"], "found '-ngl many', expected numbers"),
        (["run", "m", "--placement", "--fast"], "found '--fast', expected flags of llama.cpp"),
        (["run", "m", "--without", "gpu"], "found 'gpu', expected flash-attention or mmap or repack"),
        (["soak"], "Missing argument 'MODEL'"),
        (["check", "--runtime", "ik,llamacpp"], "no runtime named 'ik,llamacpp'"),
        (["check", "--runtime", "server:http://h"], "no runtime named 'server:http://h'"),
        (["run", "m", "--runtime", "server"], "expected names, each of them once, or server:URL"),
        (["run", "m", "--runtime", "ort,ort"], "expected names, each of them once"),
        (["soak", "m", "--minutes", "2000"], "found 2000, expected no more than --timeout allows"),
        (["report", "-o", "x.pdf"], "found 'x.pdf', expected an ending of .html"),
        (["run", "m", "--contxt", "20"], "Did you mean one of: '--context'"),
        (["run", "m", "--memory-limit", "10"], "found 10, expected a size with its unit: 10GiB"),
        (["fit", "m", "-c", "9"], "found 9, expected 64 to 16,777,216, or max"),
        (["spekulate", "m"], "No such command 'spekulate'. Did you mean 'speculate'"),
        (["models", "show", "smollm"], "'smollm3-3b'"),
        (["fit", "llama-3.2-3b", "-d", "iphone-15-po"], "Did you mean 'iphone-15-pro'"),
    ],
)
def test_conflicts_are_refused(arguments: list[str], words: str) -> None:
    done = CliRunner().invoke(cli, arguments)
    message = done.output if isinstance(done.exception, SystemExit) else str(done.exception)
    assert done.exit_code == 2 or isinstance(done.exception, InputError)
    assert words in " ".join(message.split())


def test_amounts_are_written_as_people_write_them() -> None:
    option = Option()
    assert [option.value(text, type_info(New)) for text in ("128k", "4096", "1m")] == [131072, 4096, 1 << 20]
    assert math.isclose(Option().value("2.5", type_info(Annotated[float, Meta(ge=0, le=9)])), 2.5)
    for slip in ("128kk", "1km", "k", "m", "4 k", "1_000", "٣"):
        with pytest.raises(ValueError, match="expected a whole number"):
            option.value(slip, type_info(New))


DOCUMENTED = sorted(
    {
        line.split("#")[0].strip()
        for page in [*Path("docs").rglob("*.md"), Path("README.md")]
        for line in page.read_text(encoding="utf-8").splitlines()
        if line.startswith("edge-harness workloads run ") and "--model" in line and line.split()[3] in SYSTEMS
    }
)


@pytest.mark.parametrize("line", DOCUMENTED)
def test_the_pages_model_is_what_a_workload_asks_for(line: str) -> None:
    """A workload that the pages run with a model looks for it, and does not say that the option has no meaning."""
    words = line.replace("FOLDER", ".").split()[1:]
    words[words.index("--model") + 1] = "no-such-model"
    if "--cases" in words:
        words[words.index("--cases") + 1] = __file__
    done = CliRunner().invoke(cli, words)
    assert "no model named 'no-such-model'" in str(done.output) + str(done.exception)
