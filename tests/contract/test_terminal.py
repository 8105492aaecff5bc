"""What the command line does with a terminal: narrow tables, colours, near misses, its own failures, completion."""

import json
import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.renderers import verbs
from harness.cli import cli
from harness.show.output import table

WORDS = st.text("abcdefgh-0123456789", min_size=1, max_size=12)
CELLS = st.lists(WORDS, max_size=4).map(" ".join)


def shown(width: int, *given: object, **named: object) -> list[str]:
    with mock.patch.dict(os.environ, COLUMNS=str(width)):
        return table(*given, **named).splitlines()


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # on a machine that others use
@given(st.data(), st.integers(1, 9), st.sampled_from([60, 80, 120]))
def test_a_table_fits_and_breaks_no_word(data: st.DataObject, count: int, width: int) -> None:
    columns = data.draw(st.lists(WORDS, min_size=count, max_size=count))
    rows = data.draw(st.lists(st.lists(CELLS, min_size=count, max_size=count), min_size=1, max_size=5))
    lines = shown(width, "", columns, rows)
    assert max(map(len, lines)) <= width
    whole = {word for row in [columns, *rows] for cell in row for word in cell.split()}
    printed = [word for line in lines if "─" not in line and "not shown in" not in line for word in line.split()]
    below = "not shown in" in " ".join(lines)
    assert below or set(printed) <= whole, "a word is not one that was given"


def test_columns_that_can_be_spared_go_first_and_are_named() -> None:
    row = ("iphone-15-pro", "llama-3.2-3b", "2.97 GiB", "x" * 30)
    lines = shown(60, "", ("device", "model", "needs", "source"), [row], spare=("needs",))
    assert not any("2.97" in line for line in lines)
    assert "x" * 30 in " ".join(lines)
    assert "not shown in 60 columns, but by --json: needs" in " ".join(lines)


def test_the_column_that_wraps_is_never_spared() -> None:
    lines = shown(60, "", ("a", "words", "b"), [("x" * 20, "a b " * 30, "y" * 20)], spare=("words", "b"))
    assert "not shown in 60 columns, but by --json: b" in lines
    assert max(map(len, lines)) <= 60


def test_a_table_without_rows_is_its_headings() -> None:
    assert shown(80, "", ("runs", "", "last"), [])[0] == "runs     last"


TABLES = (
    ["devices", "show"],
    ["devices", "show", "iphone-15-pro"],
    ["models", "show"],
    ["models", "show", "llama-3.2-3b"],
    ["fit", "llama-3.2-3b", "-d", "iphone-15-pro"],
    ["fit", "qwen3-30b-a3b", "-d", "rtx-4060-desktop, 32GB"],
    ["fit", "llama-3.1-8b", "-d", "raspberry-pi-5-16gb", "--ram-budget", "3GiB"],
    ["fit", "llama-3*", "-d", "iphone-*"],
    ["recommend", "macbook-air-m3"],
    ["history", "tests/records/v2-generate.json", "tests/records/v2-speculate.json"],
    ["doctor"],
    ["history"],
)


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("words", TABLES, ids=" ".join)
def test_every_table_fits_the_terminal(words: list[str], width: int) -> None:
    done = CliRunner(env={"COLUMNS": str(width)}).invoke(cli, words)
    assert done.exception is None or isinstance(done.exception, SystemExit), repr(done.exception)
    inside = False
    for line in done.stdout.splitlines():
        inside = line != "" and (inside or "──" in line)
        assert not inside or len(line) <= width, line


CONTEXTS = list(verbs())
HELP = [v.command_path.removeprefix("edge-harness ") for v in CONTEXTS]


def test_each_verb_says_what_itself_does() -> None:
    """The list of verbs has one sentence of each: that of its own function."""
    for context in CONTEXTS:
        own = (context.command.callback.__doc__ or "").partition("\n")[0].strip() if context.command.callback else ""
        assert context.command.get_short_help_str(400).startswith(own.rstrip(".")), context.command_path
    shown = CliRunner().invoke(cli, ["--help"], terminal_width=200).output.partition("Predict:")[2]
    sentences = [line.split(None, 1)[1] for line in shown.splitlines() if line.startswith("  ") and line[2] != " "]
    assert len(sentences) > 15
    assert len(set(sentences)) == len(sentences)


@pytest.mark.parametrize("verb", ["", *HELP])
def test_help_has_an_example_and_no_broken_flag(verb: str) -> None:
    text = CliRunner().invoke(cli, [*verb.split(), "--help"], prog_name="edge-harness", terminal_width=80).output
    assert not [line for line in text.splitlines() if line.endswith("-") and not line.endswith(" -")]
    assert not verb or "Example:\n  edge-harness " in text
    assert "..." not in text.partition("Commands:")[2]


def test_colours_are_off_where_they_are_not_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[3" not in CliRunner().invoke(cli, ["devices", "show", "iphone-12"]).stdout


def run(*words: str, redirect: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    script = f'exec "$@" {redirect}'
    command = ["sh", "-c", script, "sh", sys.executable, "-m", "harness", *words]
    return subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_or_closed_output_is_one_sentence() -> None:
    full, closed = run("devices", "show", redirect=">/dev/full"), run("devices", "show", redirect=">&-")
    assert (full.returncode, closed.returncode) == (4, 4)
    assert full.stderr.startswith(
        "edge-harness: cannot go on: the output: No space left on device (the traceback is in "
    )
    assert closed.stderr == "edge-harness: standard output is closed; send it to a file, or to /dev/null\n"
    assert run("devices", "show", redirect="2>&-").returncode == 0


def test_an_unknown_home_is_one_sentence() -> None:
    done = run("history", "--json", EDGE_HARNESS_HOME="~no-such-user/x")
    assert done.returncode == 4
    assert done.stderr == "edge-harness: no home folder is known. Name one with EDGE_HARNESS_HOME\n"
    assert json.loads(done.stdout) == {
        "schema": "edge-harness error",
        "version": 1,
        "error": {"message": done.stderr.removeprefix("edge-harness: ").strip(), "exit_status": 4},
    }


def test_the_doctor_examines_what_it_can_without_a_home() -> None:
    done = run("doctor", "--json", EDGE_HARNESS_HOME="~no-such-user/x")
    states = {row["name"]: row for row in json.loads(done.stdout)["items"]}
    assert (done.returncode, done.stderr, states["folders"]["state"]) == (4, "", "broken")
    assert states["folders"]["detail"].startswith("no home folder is known")
    assert "runtime server" in states


def test_an_unknown_home_in_a_path_is_one_sentence() -> None:
    done = run("fit", "~no-such-user/model.gguf", "-d", "iphone-12")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "found ~no-such-user, expected the home of a user who exists" in done.stderr


@pytest.mark.parametrize(
    "words", [("devices", "show"), ("fit", "llama-3.2*", "-d", "iphone-1*", "--json"), ("models", "show")]
)
def test_a_broken_file_of_the_users_is_named_and_skipped(words: tuple[str, ...], tmp_path: Path) -> None:
    for kind in ("devices", "models"):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "iphone-1-broken.toml").write_text("title = 3\n")
    done = run(*words, EDGE_HARNESS_HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith(f"edge-harness: skipped {tmp_path}")
    assert done.stderr.count("\n") == (2 if words[0] == "fit" else 1)
    assert "broken" not in done.stdout


def test_what_nobody_foresaw_leaves_its_traceback_in_a_file(tmp_path: Path) -> None:
    code = (
        "import sys; from harness import cli; from harness.verbs import doctor; sys.argv = ['edge-harness', 'doctor']\n"
        "def broken(): raise KeyError('planted')\n"
        "doctor.examine = broken; cli.main()"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 4
    assert done.stderr.count("\n") == 1
    (kept,) = tmp_path.glob("edge-harness-*.txt")
    assert f"KeyError: 'planted' (the traceback is in {kept})" in done.stderr
    assert "in broken" in kept.read_text()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="needs a mount of its own")
def test_no_proc_is_no_traceback() -> None:
    script = 'mount -t tmpfs none /proc && exec "$@"'
    command = ["unshare", "-m", "sh", "-c", script, "sh", sys.executable, "-m", "harness", "doctor"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if "unshare" in done.stderr or "mount" in done.stderr:
        pytest.skip("no mounts here")
    assert "Traceback" not in done.stderr
    assert done.returncode in {0, 4}


def test_variables_set_defaults_and_what_is_typed_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_HARNESS_FIT_CONTEXT_TOKENS", "2k")
    monkeypatch.setenv("EDGE_HARNESS_FIT_DEVICES", "iphone-15-pro")
    monkeypatch.setenv("EDGE_HARNESS_FIT_ADVISES", "false")

    def asked(*words: str) -> dict:
        return json.loads(CliRunner().invoke(cli, ["fit", "llama-3.2-3b", "--json", *words], prog_name="x").stdout)

    found = asked()
    assert found["prediction"]["device"] == "iphone-15-pro"
    assert (found["scenario"]["context_tokens"], found["advice"]) == (2048, [])
    assert asked("-c", "4k")["scenario"]["context_tokens"] == 4096
    monkeypatch.setenv("EDGE_HARNESS_FIT_CONTEXT_TOKENS", "9")
    wrong = CliRunner().invoke(cli, ["fit", "llama-3.2-3b"])
    assert (wrong.exit_code, "found 9, expected 64 to 16,777,216, or max" in wrong.output) == (2, True)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_made_from_the_commands(shell: str) -> None:
    assert "_EDGE_HARNESS_COMPLETE" in run(_EDGE_HARNESS_COMPLETE=f"{shell}_source").stdout
    environment = {
        "_EDGE_HARNESS_COMPLETE": "bash_complete",
        "COMP_WORDS": "edge-harness fit --dev",
        "COMP_CWORD": "2",
    }
    assert "plain,--device" in run(**environment).stdout


def test_numbers_are_aligned_right_and_a_column_with_a_word_is_not() -> None:
    rows = [("1.5e-08", "12", "1.04 GiB"), ("–", "no draft", "fits"), ("23.4 tokens/s", "7", "2 GiB")]
    head, _, first, second, _ = shown(80, "", ("a", "b", "c"), rows)
    assert head == "            a         b  c"
    assert (first, second) == ("      1.5e-08        12  1.04 GiB", "            –  no draft  fits")


@pytest.mark.parametrize("words", [["--help"], ["fit", "llama-3.2-3b", "-d", "iphone-12", "--details"]])
def test_what_is_predicted_imports_no_engine_and_no_numpy(words: list[str]) -> None:
    code = (
        f"import sys; sys.argv = {['edge-harness', *words]}\n"
        "try:\n  from harness.cli import main; main()\n"
        "except SystemExit: print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stderr.split())
    heavy = {"numpy", "scipy", "llama_cpp", "onnxruntime", "torch", "jinja2", "psutil"}
    assert loaded & heavy == set()
