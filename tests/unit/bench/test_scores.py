"""The refresher of the table of scores, against a local server of a public list."""

import csv
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench import scores
from harness.core.errors import HarnessError

TABLE = """# a remark
model,intelligence,coding,agentic,mmmu_pro,mmlu_pro,humaneval,mmmu,downloads
(month),2026-09,2026-09,2026-09,2026-03,2026-03,2025-03,2025-03,2026-08
Qwen3-8B,10,,,,70,,,5
Old-1B,3,,,,,,,7
Old-2B,,,,,50,,,
Old-3B,,,,,40,,,
"""
LIST = """model,benchmark,score
Qwen3-8B,Artificial Analysis Intelligence Index v5,12.5
New-4B,Artificial Analysis Intelligence Index v5,8
Qwen3-8B,MMLU-Pro,60
Qwen3-8B,Artificial Analysis Coding Index v4,99
New-4B,Artificial Analysis Coding Index,44
Qwen3-8B,Artificial Analysis Coding Index,40
"""
REPOSITORIES = [("unsloth/Qwen3-8B-GGUF", 40), ("bartowski/Qwen3-8B-GGUF", 2), ("x/Y", 0)]
HUB = json.dumps([{"id": name, "downloads": count} for name, count in REPOSITORIES])


class Server(BaseHTTPRequestHandler):
    """Gives each list, and one without end."""

    def do_GET(self) -> None:
        bodies = {"/list.csv": LIST.encode(), "/models": HUB.encode()}
        body = bodies.get(self.path, b"x" * (scores.MOST_BYTES + 1))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def address() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_lists_replace_their_columns_with_their_month(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "scores.csv"
    table.write_text(TABLE)
    monkeypatch.setattr(scores, "SHIPPED", table)

    run = CliRunner().invoke(scores.main, [f"{address}/list.csv", f"{address}/models", "--month", "2026-12"])

    assert (run.exit_code, run.exception) in {(0, None)}, run.output
    lines = table.read_text().splitlines()
    assert lines[0] == "# a remark"
    rows = {row["model"]: row for row in csv.DictReader(lines[1:])}
    assert (rows["(month)"]["intelligence"], rows["(month)"]["mmlu_pro"]) == ("2026-12", "2026-03")
    assert (rows["Qwen3-8B"]["intelligence"], rows["Qwen3-8B"]["mmlu_pro"]) == ("12.5", "70")
    assert rows["Qwen3-8B"]["downloads"] == "42"
    assert (rows["New-4B"]["coding"], rows["Qwen3-8B"]["coding"]) == ("44", "40"), "one method: the one of most models"
    assert rows["Old-2B"]["mmlu_pro"] == "50", "one score does not replace three"
    assert "Old-1B" not in rows, "its only score was of the list that was replaced"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"a,b\n1,2\n", "model, benchmark and score"),
        (b"model,benchmark,score\nA,MMLU-Pro,high\n", "a number"),
        (b"[", "JSON"),
    ],
)
def test_what_is_no_list_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(HarnessError, match=words):
        scores.scores_in(data, "a list")


def test_a_list_without_end_is_given_up(address: str) -> None:
    with pytest.raises(HarnessError):
        scores.read_list(f"{address}/endless")
