"""Documents of the bench say where they come from; a soak is cut before it ends or not at all."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench._kept import write
from bench.renderers import json_table
from bench.soak_cut import main as soak_cut
from harness.measure.machine import cpu


@pytest.mark.parametrize(("given", "named"), [("", cpu().model), ("EPYC, 2 cores", "EPYC, 2 cores")])
def test_a_document_names_its_command_and_machine(tmp_path: Path, given: str, named: str) -> None:
    file = tmp_path / "new" / "table.json"
    text = write(file, "python -m bench x", {"columns": ["a", "b"], "rows": [["1", "2"]]}, given)
    assert file.read_text() == text
    head, _, row, _, below = json_table(file).splitlines()
    assert (head, row) == ("| a | b |", "| 1 | 2 |")
    assert below == f"*`python -m bench x`; {named}; {json.loads(text)['date']}*"


@pytest.mark.parametrize("cut_at", ["3", "4"])
def test_a_cut_after_the_end_is_refused(cut_at: str) -> None:
    result = CliRunner().invoke(soak_cut, ["model.gguf", "--minutes", "3", "--cut-at", cut_at])
    assert result.exit_code == 2
    assert f"--cut-at {cut_at} is not before the end at --minutes 3" in result.output
