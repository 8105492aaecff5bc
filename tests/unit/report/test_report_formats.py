"""Every format says the same figures, and other tools' readers accept theirs."""

from importlib import import_module
from pkgutil import iter_modules

import msgspec
import pytest
from click.testing import CliRunner
from report_records import HOSTILE, record

from harness.cli import cli
from harness.domain.scenario import Scenario
from harness.report import formats
from harness.report.document import build
from harness.report.figures import STACKS_MAX, depth, labelled, memory

ALL = [m.name for m in iter_modules(formats.__path__) if not m.name.startswith("_")]


def render(name: str, *records) -> str:
    return import_module(f"harness.report.formats.{name}").render(
        list(records), build(list(records), created="2026-01-02")
    )


@pytest.mark.parametrize("name", ALL)
def test_format_renders_hostile_and_broken_runs(name: str) -> None:
    crashed = record(
        run_id="b", samples=(), outcome="crashed", detail=HOSTILE, model=None, engine=None, prediction=None
    )

    text = render(name, record(name=HOSTILE), crashed)

    assert text
    assert "\u202e" not in text


def test_median_counts_neither_warm_up_nor_disturbed_samples() -> None:
    # Rates 10, 12, 11 count: the median is 11; the warm-up (0.2) and the disturbed one (0.11) do not.
    (run,) = build([record()]).runs
    (test,) = run.tests

    assert test.value == pytest.approx(11.0)
    assert (test.sample_count, test.disturbed_count) == (3, 1)
    assert test.low is None
    assert build([record(rates=(10, 11, 12, 13, 14, 15))]).runs[0].tests[0].low == pytest.approx(10.0)


def test_many_runs_are_drawn_in_part_and_listed_whole() -> None:
    from harness.report.figures import ROWS_MAX, agreement

    runs = labelled(build([record(run_id=f"r{i:03}") for i in range(60)]).runs)
    pytest.importorskip("vl_convert", reason="the report extra is not installed")
    figure = agreement(runs)

    # Two quantities a run: decode and peak memory.
    assert len(figure.rows) == 120
    assert f"newest {ROWS_MAX}" in figure.note
    assert len({label for label, _ in runs}) == 60


def test_a_line_over_the_depth_joins_runs_that_differ_in_nothing_else() -> None:
    pytest.importorskip("vl_convert", reason="the report extra is not installed")

    def at(depth_tokens: int, runtime: str, rate: float, **more):
        scenario = Scenario(depth_tokens=depth_tokens, context_tokens=depth_tokens + 110, thread_count=4)
        named = {"run_id": f"{runtime}{depth_tokens}", "rates": (rate,) * 3, "prediction": None}
        return record(scenario=scenario, runtime=runtime, **named, **more)

    runs = [at(0, "llamacpp", 20.0), at(2048, "llamacpp", 10.0), at(0, "ik", 30.0), at(2048, "ik", 15.0)]
    limited = at(4096, "llamacpp", 1.0, workload="stream")
    lone = at(8192, "mlx", 5.0)

    figure = depth(labelled(build([*runs, limited, lone]).runs))

    lines: dict[str, list[float]] = {}
    for name, _, _, speed, *_ in figure.rows:
        lines.setdefault(name, []).append(float(speed))
    assert sorted(lines.values()) == [[20.0, 10.0], [30.0, 15.0]]


def test_memory_is_drawn_of_predicted_runs_however_many_were_not() -> None:
    pytest.importorskip("vl_convert", reason="the report extra is not installed")
    others = [record(run_id=f"r{i:03}", prediction=None) for i in range(STACKS_MAX)]

    figure = memory(labelled(build([record(run_id="a"), *others]).runs))

    assert figure is not None and len(figure.rows) == 2  # its weights, and its peak


def test_markdown_is_as_agreed(golden) -> None:
    golden("report.md", render("md", record()))


def test_html_sections_are_as_agreed(golden) -> None:
    page = render("html", record(), record(name="a<b>&c", run_id="c", outcome="inconclusive", detail="busy"))

    for key in ("runs", "how"):
        section = page.partition(f'<section id="{key}"')[2].partition("</section>")[0]
        golden(f"report-{key}.html", section + "\n")


def test_markdown_keeps_hostile_names_in_their_cell() -> None:
    text = render("md", record(name="a|b_c <b>@me</b> [x](y) \\"))
    rows = [line for line in text.splitlines() if line.startswith("|")]

    assert {row.count("|") for row in rows[:3]} == {9}
    assert "<b>" not in text
    assert "a&#124;b&#95;c" in text


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        ("/home/someone/models/a.gguf", "a.gguf"),
        ("--out=/home/someone/out", "--out=out"),
        ("C:\\Users\\someone\\a.gguf", "a.gguf"),
        ("~/a.gguf", "a.gguf"),
        ("models/a.gguf", "models/a.gguf"),
        ("--threads", "--threads"),
        ("/", "/"),
    ],
)
def test_folders_of_people_are_not_published(word: str, shown: str) -> None:
    (run,) = build([record(command=("edge-harness", "run", word))], command=(word,)).runs

    assert run.command == ("edge-harness", "run", shown)


def test_budgets_are_drawn_beside_their_limits(tmp_path) -> None:
    pytest.importorskip("vl_convert", reason="the report extra is not installed")
    budgets = tmp_path / "budgets.toml"
    budgets.write_text(
        '[[budget]]\nmetric = "decode_tokens_per_s"\nfloor = 5.0\n\n'
        '[[budget]]\nmetric = "load_s"\nmodel = "no-such"\nceiling = 1\n'
    )
    result, page = tmp_path / "result.json", tmp_path / "page.html"
    result.write_bytes(msgspec.json.encode(record(rates=(10.0, 10.2, 9.8, 10.1, 9.9, 10.0))))

    done = CliRunner().invoke(cli, ["report", str(result), "-b", str(budgets), "--no-predictions", "-o", str(page)])

    assert done.exit_code == 0, done.output
    section = page.read_text().partition('<section id="budgets"')[2].partition("</section>")[0]
    # ten tokens in a second are twice the floor; no run speaks for the other budget
    assert "decode_tokens_per_s, * on *: pass, 10" in section
    assert section.count("could not run") == 1
    refused = CliRunner().invoke(cli, ["report", str(result), "-b", str(budgets), "-f", "md"])
    assert refused.exit_code == 2
