"""Pages say what their records say: counts agree, lines join what is alike, no doubtful figure stands as measured."""

import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from report_records import HOSTILE, record, runs

from harness.cli import cli
from harness.core.drafting import Decoding
from harness.core.placement import Placement
from harness.core.record import Record
from harness.core.result import Soak, Stream, Window
from harness.core.way import WayKind
from harness.gates.evaluate import evaluate
from harness.gates.propose import propose
from harness.records.imports import read_results
from harness.records.store import load
from harness.show import html
from harness.show.courses import courses, soaks
from harness.show.elsewhere import how, tables
from harness.show.findings import result_panels
from harness.show.pages import page_of
from harness.show.panels import Page, Section
from harness.show.state import State, figures_of

pytest.importorskip("jinja2", reason="the report extra is not installed")

REPORTS = Path(__file__).parents[3] / "reports"


class Text(HTMLParser):
    """Everything of a page by the place where it stands."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.marks: Counter[str] = Counter()
        self.joined = 0
        self.figure = ""
        self.unlabelled: list[str] = []
        self.outside: list[str] = []
        self._open: list[str] = []
        self._is_figure = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self._open.append(tag)
        kind = given.get("class") or ""
        self.joined += kind == "joined"
        self._is_figure = self._is_figure or kind == "figure"
        if given.get("role") == "img" and not given.get("aria-label"):
            self.unlabelled.append(tag)
        if kind.startswith("state "):
            self.marks[kind.removeprefix("state ")] += "details" not in self._open
        assert "style" not in given and not any(name.startswith("on") for name in given)

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass
        self._is_figure = self._is_figure and tag != "h1"

    def handle_data(self, data: str) -> None:
        if self._is_figure:
            self.figure += data
        if "details" not in self._open and "style" not in self._open:
            self.outside.append(data)


def written(*records: Record, **more) -> str:
    return html.render(page_of(list(records), **more))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(records=st.lists(runs(), min_size=1, max_size=9, unique_by=lambda run: run.run_id))
def test_any_set_of_runs_makes_a_true_page(records: list[Record]) -> None:
    page = page_of(records)
    text = Text(html.render(page))
    figures = {run.run_id: figures_of(run)["decode"] for run in records}
    states = Counter(figure.state for figure in figures.values())

    # the largest type is never a figure in doubt, and no mark of a believed state stands beside one
    if len(records) == 1:
        (figure,) = figures.values()
        assert bool(text.figure) == figure.state.is_believed
    elif text.figure:
        number, *_ = text.figure.split()
        judged = sum(count for state, count in states.items() if state.is_judged)
        assert int(number) == (states[State.INSIDE] if judged else states[State.MEASURED])
        assert f"of {judged} speeds" in text.figure or not judged
    # the table has each run once, with its own state
    if len(records) > 1:
        assert sum(len(table.rows) for table in section(page, "machines").panels) == len(records)
        for state in State:
            assert text.marks[state.name.lower()] == states[state]
    # lines join believed runs alike in all but the day: as many as there are pairs of neighbours
    groups = Counter(key_of(run) for run in records if figures[run.run_id].state.is_believed)
    expected = sum(min(count, 12) - 1 for count in groups.values()) if len(records) > 1 else 0
    assert text.joined == (expected if drawn_in(page) < 24 else text.joined)
    assert text.unlabelled == []
    assert not re.search(r"tg\d|pp\d|@ cold|\d{4}-\d\d-\d\dT|\bNone\b", " ".join(text.outside))


def section(page: Page, key: str) -> Section:
    """The section of that key; an empty one where the page has none."""
    return next((one for one in page.sections if one.key == key), Section(key, ""))


def drawn_in(page: Page) -> int:
    return sum(len(panel.pictures) for panel in section(page, "courses").panels)


def key_of(run: Record) -> tuple:
    """What must agree, written out again: not by the product's own function."""
    return (
        run.name,
        run.quant,
        run.scenario,
        run.runtime,
        run.target,
        run.machine.fingerprint,
        run.machine.memory_limit_bytes,
    )


def speeds(**more) -> Record:
    return record(run_id="b", created="2026-01-02T00:00:00+00:00", **more)


BASE = record(run_id="a")


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(speeds(name="other-1b"), id="model"),
        pytest.param(speeds(model=BASE.model.replace(quant="Q8_0")), id="quantisation"),
        pytest.param(speeds(model=BASE.model.replace(sha256="1" * 64)), id="file"),
        pytest.param(speeds(scenario=BASE.scenario.replace(depth_tokens=2048)), id="depth"),
        pytest.param(speeds(scenario=BASE.scenario.replace(context_tokens=8192)), id="context"),
        pytest.param(speeds(scenario=BASE.scenario.replace(prompt_tokens=99)), id="prompt"),
        pytest.param(speeds(scenario=BASE.scenario.replace(placement=Placement(gpu_layers=3))), id="placement"),
        pytest.param(speeds(scenario=BASE.scenario.replace(thread_count=2)), id="threads"),
        pytest.param(speeds(runtime="ik"), id="runtime"),
        pytest.param(speeds(target="ssh"), id="target"),
        pytest.param(speeds(machine=BASE.machine.replace(device="another")), id="machine"),
        pytest.param(speeds(machine=BASE.machine.replace(memory_limit_bytes=1 << 30)), id="limit of the machine"),
        pytest.param(speeds(extra={"memory_limit_bytes": 1 << 30}), id="limit of the run"),
        pytest.param(speeds(extra={"cpus": [0]}), id="cores"),
        pytest.param(speeds(workload="stream"), id="workload"),
        pytest.param(speeds(outcome="inconclusive"), id="disturbed"),
        pytest.param(speeds(outcome="refused"), id="refused"),
    ],
)
def test_no_line_joins_runs_that_differ(other: Record) -> None:
    assert len(courses([BASE, speeds()])) == 1
    assert courses([BASE, other]) == []


def streamed(run_id: str, mode: str, budget_bytes: int, seconds: float) -> Record:
    decoding = Decoding(tokens=tuple(range(11)), duration_s=seconds, prefill_s=1.0)
    result = Stream(mode=mode, budget_bytes=budget_bytes, enforced=True, decoding=decoding, outputs=())
    return record(run_id=run_id, workload="stream", samples=(), prediction=None, result=result)


def test_streamed_and_mapped_runs_of_different_budgets_have_no_line() -> None:
    """The issue's first: 10 tokens in 5 s streamed, in 10 s mapped, in 4 s with a larger budget."""
    several = [streamed("a", "streamed", 600 << 20, 5.0), streamed("b", "mapped", 600 << 20, 10.0)]
    several.append(streamed("c", "streamed", 900 << 20, 4.0))

    assert courses(several) == []
    assert len(courses([*several, streamed("d", "streamed", 600 << 20, 5.1)])) == 1
    text = written(*several)
    assert "streamed, 600 MiB allowed" in text and "mapped, 600 MiB allowed" in text


def soak(run_id: str, speed: float) -> Record:
    windows = tuple(Window(since_start_s=60.0 * i, duration_s=10.0, token_count=int(10 * speed)) for i in range(6))
    result = Soak(minutes=5.0, duty_ratio=1.0, windows=windows, burst_tokens_per_s=speed, sustained_tokens_per_s=speed)
    return record(run_id=run_id, workload="soak", samples=(), prediction=None, result=result)


def test_each_soak_is_a_picture_of_its_own() -> None:
    """The issue's second: two soaks were one line, a solid block."""
    several = [soak("a", 78.0), soak("b", 21.0)]

    assert courses(several) == []
    drawn = soaks(several)
    assert [picture.count('class="joined"') for _, ((_, picture),) in drawn] == [5, 5]
    kept = read_results(REPORTS / "soak" / "cut-and-plain.json")
    assert (len(courses(kept)), len(soaks(kept))) == (0, 2)


@pytest.mark.parametrize(
    ("outcome", "said"), [("inconclusive", "not measured"), ("out of memory", "did not run to its end")]
)
def test_an_inconclusive_run_has_no_large_figure(outcome: str, said: str) -> None:
    """The issue's third."""
    page = page_of([record(outcome=outcome, detail="the log\nlast line")])

    assert page.headline.number == ""
    assert said in page.headline.before
    assert Text(html.render(page)).figure == ""
    assert section(page, "known").heading == ""  # nothing is drawn beside other machines


def test_nothing_drafted_is_no_acceptance_of_zero() -> None:
    """The issue's fourth."""
    idle = load(Path(__file__).parents[2] / "records" / "v2-speculate.json")
    busy = idle.replace(result=idle.result.replace(speculative=idle.result.speculative.replace(drafted_count=5)))

    assert idle.result.speculative.drafted_count == 0
    rows = {row[0]: row[1] for row in next(iter(result_panels(idle))).rows}
    assert rows["drafted"] == "nothing"
    assert not any(name.startswith("acceptance") for name in rows)
    assert "acceptance rate" in {row[0] for row in next(iter(result_panels(busy))).rows}


def test_an_iphone_has_no_card_to_split_over() -> None:
    """The issue's fifth: what does not fit its GPU runs on its CPU."""
    from harness.answer.matrix import ask

    answers = [found for _, found in ask(("iphone-16-pro", "rtx-4060-desktop"), ("llama-3.2-3b", "gpt-oss-20b"))]
    words = {(found.device.name, found.model.name): how(found) for found in answers}
    assert words["rtx-4060-desktop", "gpt-oss-20b"] == "split"
    assert "split" not in {word for (device, _), word in words.items() if device == "iphone-16-pro"}
    (phone, *_) = [found for found in answers if found.device.name == "iphone-16-pro" and found.runs]
    by_cpu = phone.replace(ways=(phone.best.replace(kind=WayKind.CPU),))
    assert how(by_cpu) == "on the CPU"


def test_counts_of_a_page_agree_with_what_it_draws() -> None:
    """The issue's sixth (7 of 8 beside 6 of 7): the sentence counts what the table marks."""
    evening = read_results(REPORTS / "check" / "grid-evening.json")
    page = page_of(evening)
    text = Text(html.render(page))

    number, _, whole, *_ = text.figure.split()
    assert text.marks["inside"] == int(number)
    assert text.marks["inside"] + text.marks["edge"] + text.marks["outside"] == int(whole) == len(evening)


def test_a_page_of_fifty_runs_stays_small() -> None:
    """The issue's seventh and its bounds: 600 kB for one run, 2 MB for fifty."""
    evening = read_results(REPORTS / "check" / "grid-evening.json")
    fifty = [*evening, *(run.replace(run_id=f"{run.run_id}x") for run in evening)][:50]

    assert len(written(evening[0]).encode()) < 100_000
    assert len(written(*fifty).encode()) < 250_000


@pytest.mark.parametrize("count", [1, 2])
def test_a_strangers_name_is_text(count: int) -> None:
    several = [record(name=HOSTILE, run_id=f"h{n}", detail=HOSTILE) for n in range(count)]
    text = written(*several)

    assert "<img" not in text
    assert "<script" not in text
    assert "{{7*7}}" in text
    assert "\u202e" not in text


def test_a_page_asks_for_nothing() -> None:
    text = written(*read_results(REPORTS / "check" / "default.json"))

    assert "default-src &#39;none&#39;" in text
    assert not re.search(r'(?:src|href)="(?!#)', text)
    assert "http:" not in text and "https:" not in text


def test_a_gate_says_its_answer_first(tmp_path) -> None:
    """Five runs at 10 tokens/s, then one at 5: slower by half."""
    before = [record(run_id=f"a{n}", rates=(10.0, 10.1, 9.9, 10.0, 10.05, 9.95)) for n in range(5)]
    after = record(run_id="z", rates=(5.0, 5.05, 4.95, 5.0, 5.02, 4.98))
    judged = evaluate([each.budget for each in propose(before, "regression")], [after], baseline=before)
    page = page_of([after], judgements=judged)

    assert (page.headline.number, page.headline.verdict) == ("1", "Do not release this build.")
    changes = section(page, "changes")
    ((title, (panel,)),) = changes.folded
    assert (title, changes.opened) == ("1 fails", ["1 fails"])
    assert "50 % slower" in panel.rows[0][1]
    assert [count for _, count in page.counts] == [len(judged)]
    assert "1 fails" in html.render(page)


def test_a_limit_is_judged_where_a_file_of_budgets_is_given(tmp_path) -> None:
    from click.testing import CliRunner

    budgets = tmp_path / "budgets.toml"
    budgets.write_text(
        '[[budget]]\nmetric = "decode_tokens_per_s"\nfloor = 5.0\n\n'
        '[[budget]]\nmetric = "load_s"\nmodel = "no-such"\nceiling = 1\n'
    )
    result, out = tmp_path / "result.json", tmp_path / "page.html"
    result.write_bytes(msgspec.json.encode(record(rates=(10.0, 10.2, 9.8, 10.1, 9.9, 10.0))))

    done = CliRunner().invoke(cli, ["report", str(result), "-b", str(budgets), "-o", str(out)])

    assert done.exit_code == 0, done.output
    text = out.read_text()
    # ten tokens in a second are twice the floor; no run speaks for the other budget
    assert "1 passes" in text and "1 no evidence" in text
    refused = CliRunner().invoke(cli, ["report", str(result), "-b", str(budgets), "-f", "md"])
    assert refused.exit_code == 2


def test_a_table_of_machines_holds_the_answers_of_the_matrix() -> None:
    from harness.answer.matrix import ask

    asked = {"devices": ("iphone-16-pro", "rtx-4060-desktop"), "models": ("llama-3.1-8b", "llama-3.2-1b")}
    (table,) = tables([], **asked)
    answers = [found for _, found in ask(**asked)]

    assert table.pair_count == len(answers) == 4
    assert table.running_count == sum(found.runs for found in answers)
    assert [row[0] for row in table.rows] == ["Llama 3.2 1B Instruct", "Llama 3.1 8B Instruct"]
    assert table.columns[1].startswith("iPhone 16 Pro")
    on_phone = table.rows[1][1]
    assert (on_phone.kind, "<b>no</b>" in on_phone) == ("h0", True)


def test_what_was_made_later_stands_later() -> None:
    days = [record(run_id=f"d{n}", created=f"2026-01-0{n}T00:00:00+00:00", rates=(float(n),) * 3) for n in (3, 1, 2)]
    (table,) = section(page_of(days), "machines").panels

    assert [row[7] for row in table.rows] == ["1 Jan 00:00", "2 Jan 00:00", "3 Jan 00:00"]
