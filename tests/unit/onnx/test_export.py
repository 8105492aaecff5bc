"""`models export`: what is refused before anything is installed, and a whole export where the exporter is there."""

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from harness.cli import cli
from harness.core.errors import BadDataError, RefusedError
from harness.onnx import export as exporting


def test_the_packages_are_those_of_the_extra():
    packages = exporting.exporter_packages()
    assert any(name.startswith("optimum<") or name.startswith("optimum>") for name in packages)
    assert any(name.startswith("torch") for name in packages)
    assert not any("edge-harness" in name for name in packages)


@pytest.fixture
def nothing_installed(monkeypatch):
    """Any step that would install or run something is a failure."""

    def run(*_: object, **__: object) -> bytes:
        raise AssertionError("a program was started")

    monkeypatch.setattr(exporting, "output_of", run)


def test_what_cannot_be_exported_is_said_first(tmp_path, nothing_installed):
    with pytest.raises(BadDataError, match=r"config\.json"):
        exporting.export(tmp_path, tmp_path / "new", "int4", print)
    file = tmp_path / "x.gguf"
    file.write_bytes(b"GGUF")
    with pytest.raises(RefusedError, match="there already"):
        exporting.export(file, tmp_path, "int4", print)


def test_the_command_refuses_another_format_and_a_model_that_nobody_knows(tmp_path):
    done = CliRunner().invoke(cli, ["models", "export", "smollm2-135m", "--to", "coreml"])
    assert done.exit_code == 2 and "'coreml' is not 'onnx'" in done.output + done.stderr
    done = CliRunner().invoke(cli, ["models", "export", "smollm2-135m", "-q", "q8"])
    assert done.exit_code == 2 and "found 'q8', expected int4 or fp32" in done.output + done.stderr
    with pytest.raises(BadDataError, match=r"none\.gguf"):
        CliRunner().invoke(
            cli, ["models", "export", "./none.gguf", "-o", str(tmp_path / "new")], catch_exceptions=False
        )


@pytest.mark.slow
def test_smollm_as_4_bits_reads_a_text_as_its_file_does(tmp_path, monkeypatch):
    """The copy is of the GGUF's own weights, in 4 bits once more: a little worse, and never another model."""
    cache = Path(os.environ.get("EDGE_HARNESS_EXPORTER", ""))
    if not (cache / "exporter" / "ready").is_file():
        pytest.skip("EDGE_HARNESS_EXPORTER names no cache folder with an exporter: edge-harness models export makes it")
    monkeypatch.setenv("EDGE_HARNESS_CACHE", str(cache))
    folder = tmp_path / "smol"
    done = CliRunner().invoke(cli, ["models", "export", "smollm2-135m", "-q", "int4", "-o", str(folder), "--json"])
    assert done.exit_code == 0, done.output
    kept = json.loads((folder / "export.json").read_text())
    (_, original), (_, copy) = kept["perplexities"]
    assert original < copy < 1.3 * original  # 10.1 and 12.2
    assert kept["token_count"] > 1000 and not kept["notes"]
