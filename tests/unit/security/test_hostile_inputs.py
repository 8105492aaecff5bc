"""One test for each line of docs/security.md that no other test holds."""

import json
import os
import re
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from bench.rows.files import kind_of
from harness.core.errors import BadDataError, FetchError, HarnessError, InputError
from harness.core.foreign import TOML_MAX_BYTES
from harness.core.model import RegistrySource
from harness.gates.budget_file import load_budgets
from harness.hardware.devices import load_device
from harness.models import fetch_registry
from harness.models.hf_config import CONFIG_MAX_BYTES, read_hf_config
from harness.models.names import load_model
from harness.records.store import RECORD_MAX_BYTES, load
from harness.verbs.learn import measurements_in
from harness.verbs.speculate import load_prompts
from tests.fuzzing.cases import TARGETS

DOCUMENT = Path(__file__).parents[3] / "docs" / "security.md"
CARD = """title = "T"
family = "t"
licence = "mit"
source = "invented"
parameter_count = 1
active_parameter_count = 1
[shape]
architecture = "llama"
layer_count = 1
hidden_dim = 8
vocab_count = 8
head_count = 1
kv_head_count = 1
head_dim = 8
feed_forward_dim = 8
[[files]]
quant = "Q8_0"
size_bytes = 10
sha256 = "abababababababababababababababababababababababababababababababab"
[files.registry]
packages = [PACKAGE]
members = ["a/b.bin"]
"""


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_HARNESS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("EDGE_HARNESS_CACHE", str(tmp_path / "cache"))


READERS = {
    "device": (lambda p: load_device(str(p)), ".toml", TOML_MAX_BYTES),
    "model": (lambda p: load_model(str(p)), ".toml", TOML_MAX_BYTES),
    "budget": (load_budgets, ".toml", TOML_MAX_BYTES),
    "record": (load, ".json", RECORD_MAX_BYTES),
    "config": (read_hf_config, ".json", CONFIG_MAX_BYTES),
}


@pytest.mark.parametrize("kind", READERS)
def test_a_file_without_end_is_not_read_whole(kind: str, tmp_path: Path) -> None:
    read, ending, limit = READERS[kind]
    path = tmp_path / f"huge{ending}"
    with path.open("wb") as file:
        file.truncate(limit + 1)  # a hole: takes no room on the disk
    with pytest.raises(BadDataError, match=r"more than|at most"):
        read(path)  # type: ignore[operator]


@pytest.mark.skipif(sys.platform == "win32", reason="no such files there")
@pytest.mark.parametrize("read", [load, kind_of, measurements_in, lambda path: load_prompts(str(path))])
def test_a_device_file_of_the_system_is_no_record(read: Callable[[Path], object]) -> None:
    with pytest.raises(BadDataError, match="no regular file"):
        read(Path("/dev/zero"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no such files there")
@pytest.mark.parametrize("kind", READERS)
def test_a_pipe_that_nobody_writes_to_is_not_waited_for(kind: str, tmp_path: Path) -> None:
    read, ending, _ = READERS[kind]
    os.mkfifo(path := tmp_path / f"pipe{ending}")
    with pytest.raises(BadDataError, match="no regular file"):
        read(path)  # type: ignore[operator]


@pytest.mark.parametrize("kind", ["toml", "budget", "record"])
def test_unknown_keys_are_refused(kind: str, tmp_path: Path) -> None:
    target = TARGETS[kind]
    for seed in target.seeds(tmp_path):
        path = tmp_path / f"case{target.ending}"
        if target.ending == ".json":
            path.write_bytes(json.dumps(json.loads(seed) | {"surprise": 1}).encode())
        elif kind == "budget":
            path.write_bytes(seed + b"surprise = 1\n")
        else:
            path.write_bytes(b"surprise = 1\n" + seed)
        with pytest.raises(BadDataError, match="surprise"):
            target.read(path)


@pytest.mark.parametrize("number", ["nan", "inf", "-inf", "-1.0"])
def test_numbers_that_are_none(number: str, tmp_path: Path) -> None:
    path = tmp_path / "b.toml"
    path.write_text(f'[[budget]]\nmetric = "decode_tokens_per_s"\nfloor = {number}\n')
    with pytest.raises(BadDataError):
        load_budgets(path)


@pytest.mark.parametrize(
    "package",
    [
        *("--index-url=http://evil.example/", "-r/etc/passwd", "-e.", "git+https://evil.example/x", "x @ file:///etc"),
        *("../x.whl", "x>=1", "x==1; python_version>'3'", "x==1 --pre", "x == 1", "x==1\\n--pre", "", "/tmp/x.whl"),
    ],
)
def test_a_requirement_that_is_no_name_and_version(package: str, tmp_path: Path) -> None:
    path = tmp_path / "card.toml"
    path.write_text(CARD.replace("PACKAGE", f'"{package}"'))
    with pytest.raises(BadDataError, match="packages"):
        load_model(str(path))


def test_the_good_requirement_is_read(tmp_path: Path) -> None:
    path = tmp_path / "card.toml"
    path.write_text(CARD.replace("PACKAGE", '"name-1==1.0"'))
    assert load_model(str(path)).files[0].registry is not None


def test_pip_may_neither_build_nor_take_dependencies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A source distribution runs its setup.py when it is only looked at: the command line forbids that."""
    seen: list[list[str]] = []

    def run(command: list[str], **more: object) -> object:
        seen.append(command)
        assert "shell" not in more
        raise OSError("not run")

    monkeypatch.setattr("harness.core.outside.subprocess.Popen", run)
    with pytest.raises(FetchError):
        fetch_registry.pip_download("x==1", tmp_path)
    (command,) = seen
    assert command[command.index("--only-binary") + 1] == ":all:"
    assert "--no-deps" in command
    assert command[-1] == "x==1"


def test_a_wheel_that_unpacks_without_end_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """64 MiB of zeros in a wheel of some 64 KiB, for a card that says 1000 bytes: refused before it is unpacked."""
    bomb = tmp_path / "x-1-py3-none-any.whl"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/a.bin", bytes(64 << 20))
    assert bomb.stat().st_size < 1 << 20

    def download(requirement: str, into: Path) -> Path:
        del requirement
        return Path(os.path.realpath(bomb)).rename(into / bomb.name)

    staging = tmp_path / "staging"
    staging.mkdir()
    source = RegistrySource(packages=("x==1",), members=("x/a.bin",))
    monkeypatch.setattr(fetch_registry, "pip_download", download)
    with pytest.raises(FetchError, match="1000 are missing"):
        fetch_registry.from_registry(source, 1000, staging, lambda done, total: None)
    assert sum(f.stat().st_size for f in staging.rglob("*.partial")) == 0


@pytest.mark.parametrize("name", ["../../evil", "a/b", "..", ".hidden", "", "x" * 300, "a\\b", "a\x00b"])
def test_a_run_identifier_never_leads_out_of_its_folder(name: str, tmp_path: Path) -> None:
    (seed, _) = TARGETS["record"].seeds(tmp_path)
    document = msgspec.json.decode(seed) | {"run_id": name}
    path = tmp_path / "r.json"
    path.write_bytes(msgspec.json.encode(document))
    try:
        found = load(path)
    except BadDataError:
        return
    assert Path(f"{found.run_id}.json").name == f"{found.run_id}.json"
    assert (tmp_path / f"edge-harness-{found.run_id}.json").parent == tmp_path


@pytest.mark.parametrize("name", ["../../../etc/passwd", "/etc/passwd", "no\x00thing", "..", "a" * 5000])
def test_a_name_that_is_a_path_reads_no_other_kind_of_file(name: str) -> None:
    for read in (load_device, load_model):
        with pytest.raises((InputError, HarnessError)):
            read(name)


def test_each_test_that_the_document_names_is_there() -> None:
    text = DOCUMENT.read_text()
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", text)
    assert len(named) > 15
    for file, test in named:
        source = (DOCUMENT.parents[1] / file).read_text()
        assert not test or f"def {test}(" in source, f"{file}::{test}"
