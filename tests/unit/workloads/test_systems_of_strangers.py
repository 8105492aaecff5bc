"""Systems that others write: the template, a process, a server; what breaks a promise is named, and any score gates."""

import importlib.util
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from harness.core.budget import Budget
from harness.core.errors import BadDataError, EngineError
from harness.core.metric import FIGURES, metric_values
from harness.core.result import Score, SystemResult
from harness.core.scenario import Scenario
from harness.gates.budget_file import check_budget
from harness.gates.evaluate import evaluate
from harness.measure.runner import new_record
from harness.workloads.contract import check_system
from harness.workloads.process_system import ProcessSystem

ROOT = Path(__file__).parents[3]
spec = importlib.util.spec_from_file_location("my_system", ROOT / "docs/templates/my_system.py")
TEMPLATE = importlib.util.module_from_spec(spec)
spec.loader.exec_module(TEMPLATE)
ECHO = """
import json, sys
for line in sys.stdin:
    print(json.dumps({"text": "Hi " + json.loads(line)["name"]}), flush=True)
"""


def made(program: str = "", url: str = "", timeout_s: float = 20.0):
    class Elsewhere(ProcessSystem):
        name, title, kinds = "elsewhere", "Greets elsewhere", TEMPLATE.Greeter.kinds
        cases, score = TEMPLATE.Greeter.cases, TEMPLATE.Greeter.score

    Elsewhere.command = (sys.executable, "-c", program) if program else ()
    Elsewhere.url, Elsewhere.timeout_s = url, timeout_s
    return Elsewhere()


def test_the_template_keeps_its_promises(tmp_path):
    check_system(TEMPLATE.SYSTEM, tmp_path)


def test_a_process_is_a_system_and_its_memory_is_read(tmp_path):
    system = made(ECHO)
    check_system(system, tmp_path)
    state = system.prepare(None)
    assert system.step(state, TEMPLATE.Greet(name="Ada")) == {"text": "Hi Ada"}
    (held,) = system.memory(state)
    assert held.part == "process" and held.anonymous_bytes > 1 << 20
    state.kill()


class Greetings(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_POST(self):
        name = json.loads(self.rfile.read(int(self.headers["content-length"])))["name"]
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"text": f"Hi {name}"}).encode())


def test_a_server_is_a_system(tmp_path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Greetings)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    check_system(made(url=f"http://127.0.0.1:{server.server_address[1]}/greet"), tmp_path)
    server.shutdown()


@pytest.mark.parametrize(
    ("system", "error", "says"),
    [
        (made("pass"), EngineError, "ended, or gave no answer"),
        (made("import time; time.sleep(60)", timeout_s=0.3), EngineError, "in 0.3 s"),
        (made("print('no json', flush=True); input()"), BadDataError, "a JSON object"),
        (made(url="http://127.0.0.1:9/"), EngineError, "127.0.0.1:9/: .*refused"),
    ],
)
def test_what_fails_elsewhere_is_one_clear_error(tmp_path, system, error, says):
    with pytest.raises(error, match=says):
        check_system(system, tmp_path)


def test_a_system_without_a_null_breaks_its_promise(tmp_path):
    class Proud(TEMPLATE.Greeter):
        def score(self, cases, answers):
            return [score.replace(nulls={}) for score in super().score(cases, answers)]

    with pytest.raises(AssertionError, match="beside a null"):
        check_system(Proud(), tmp_path)


def record(**scores):
    made = tuple(
        Score(name=name, value=value, count=9, more_is_better=not name.endswith("error"))
        for name, value in scores.items()
    )
    return new_record(scenario=Scenario(), workload="greet", outcome="ok", result=SystemResult(size={}, scores=made))


@pytest.mark.parametrize(
    ("metric", "limit", "good", "bad"),
    [
        ("score:politeness", {"floor": 0.5}, {"politeness": 0.9}, {"politeness": 0.2}),
        ("loss:word_error", {"ceiling": 0.3}, {"word_error": 0.1}, {"word_error": 0.6}),
    ],
)
def test_any_score_of_any_system_gates(metric, limit, good, bad):
    budget = Budget(metric=metric, workload="greet", **limit)
    check_budget(budget, "budgets.toml", "budget[0]")
    answers = [evaluate([budget], [record(**scores)])[0].answer for scores in (good, bad)]
    assert answers == ["pass", "fail"]
    other = metric.replace("score:", "loss:") if metric.startswith("score:") else metric.replace("loss:", "score:")
    assert metric_values(record(**good), other) == []  # the score says itself which way is better


@pytest.mark.parametrize("name", ["score:", "score:a b", "scores:x", "politeness", "score:x/../y"])
def test_other_names_are_no_figures(name):
    assert name not in FIGURES
    with pytest.raises(BadDataError, match="metric"):
        check_budget(Budget(metric=name, floor=0.5), "budgets.toml", "budget[0]")
