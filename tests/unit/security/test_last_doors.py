"""What ended a run, a report or a build in silence, or in the words of a stranger."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from msgspec import structs

from harness.core import plugins
from harness.core.errors import EngineError
from harness.records.store import load, save

GOOD = load(Path(__file__).parents[2] / "records" / "v2-smollm2-135m.json")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_is_told_whatever_python_buffers(unbuffered: str) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    words = [sys.executable, "-m", "harness", "devices", "show", "--json"]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, env=environment, timeout=60, check=False)

    assert done.returncode == 4
    assert b"the output" in done.stderr


def test_json_is_whole_on_a_pipe_without_a_buffer(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "harness", "devices", "show", "--json"]
    plain = subprocess.run(words, capture_output=True, timeout=60, check=True)
    bare = subprocess.run(
        words, capture_output=True, timeout=60, check=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    )
    assert len(plain.stdout) > 10_000
    assert bare.stdout == plain.stdout


@pytest.mark.parametrize("verb", ["gate", "history"])
def test_no_line_of_a_stranger_begins_a_command_of_a_workflow(verb: str, tmp_path: Path) -> None:
    evil = "x\n::error::owned"
    assert GOOD.model is not None
    record = structs.replace(
        GOOD,
        run_id="evil",
        outcome="crashed",
        detail=evil,
        model=structs.replace(GOOD.model, name=evil, quant=evil),
        machine=structs.replace(GOOD.machine, device=evil, cpu_model=evil),
    )
    save(record, tmp_path / "results" / "evil.json")
    (tmp_path / "results" / "a\n::error::b.txt").write_text("")
    budgets = tmp_path / "b.toml"
    budgets.write_text('[[budget]]\nmetric = "ttft_s"\nceiling = 1.0\nmodel = "a\\n::error::c"\n')
    file = str(tmp_path / "results" / "evil.json")
    words = {
        "gate": ["gate", "--all", "--budget", str(budgets), str(tmp_path / "results")],
        "history": ["history", file, file],
    }[verb]
    done = subprocess.run(
        [sys.executable, "-m", "harness", *words], capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "EDGE_HARNESS_HOME": str(tmp_path / "home")},
    )  # fmt: skip

    assert done.returncode != 0 or verb == "history"
    assert "owned" in done.stdout + done.stderr or verb == "history"
    assert [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("::")] == []


def entry(fault: BaseException) -> SimpleNamespace:
    def broken() -> None:
        raise fault

    return SimpleNamespace(name="theirs", module="theirs", value="theirs:x", load=broken)


@pytest.mark.parametrize("fault", [RuntimeError("no"), SystemExit(3), ImportError("libfoo.so"), SyntaxError("bad")])
def test_a_broken_plug_in_is_left_out_and_named(fault: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "_entries", lambda _group: (entry(fault),))

    with pytest.raises(EngineError, match="is broken"):
        plugins.load_entry("g", "theirs", "verb")
    with pytest.warns(UserWarning, match="theirs.*is broken"):
        assert plugins.every("g") == []
