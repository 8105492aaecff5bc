"""Pages in a real browser: nothing fetched, nothing cut, readable by all, whatever the runs are."""

import hashlib
import importlib.util
import shutil
import subprocess
import sys
import tarfile
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.core.record import Record
from harness.gates.evaluate import evaluate
from harness.gates.propose import propose
from harness.records.imports import read_results
from harness.show.elsewhere import tables
from harness.show.html import render
from harness.show.pages import page_of

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "report"))
from report_records import HOSTILE, record, runs

REPORTS = Path(__file__).parents[2] / "reports"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
WIDTHS = (390, 768, 1280)
REPORTED = ("check", "report", "gate", "matrix", "hostile", "disturbed")
AXE, AXE_SHA256 = "axe-core@4.14.1", "e6b0ce02b84d892e2e33e403485e7f3d6c29e2be6df65daf44d89ba564139745"
"""Deque's checker of accessibility, as the registry of npm has it."""
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine"),
    pytest.mark.skipif(importlib.util.find_spec("playwright") is None, reason="playwright is not installed"),
    pytest.mark.skipif(importlib.util.find_spec("jinja2") is None, reason="the report extra is not installed"),
]

FAULTS = """(width) => {
  const faults = [];
  if (document.documentElement.scrollWidth > width) faults.push('the page scrolls sideways');
  const texts = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode, parent = node.parentElement;
    if (!node.data.trim() || parent.closest('.skip') || !parent.checkVisibility()) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    for (const box of range.getClientRects()) {
      if (box.width < 1) continue;
      const scrolls = parent.closest('.scroll');
      const words = node.data.trim().slice(0, 60);
      if (!scrolls && (box.left < -0.5 || box.right > width + 0.5)) faults.push('cut: ' + words);
      const size = parseFloat(getComputedStyle(parent).fontSize), middle = (box.top + box.bottom) / 2;
      if (size < 12) faults.push('small: ' + words);
      // letters fill some 0.7 of the size; the rest of a box is air
      texts.push([{left: box.left, right: box.right, top: middle - 0.35 * size, bottom: middle + 0.35 * size}, words]);
    }
  }
  for (let i = 0; i < texts.length; i++) for (let j = i + 1; j < texts.length; j++) {
    const [a, first] = texts[i], [b, second] = texts[j];
    const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
    const down = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
    if (across > 1 && down > 1) faults.push('over each other: ' + first + ' | ' + second);
  }
  return faults.slice(0, 5);
}"""
"""Text that is cut, too small, or lies over other text; a box that scrolls may hold more than it shows."""

CONTRAST = """() => {
  const linear = v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const numbers = colour => colour.match(/[\\d.]+/g).map(Number);
  const light = c => { const [r, g, b] = numbers(c).map(v => linear(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const ground = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
    if (numbers(c)[3] !== 0) return c; } return 'rgb(255, 255, 255)'; };
  const low = {};
  for (const e of document.querySelectorAll('body *')) {
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())) continue;
    const style = getComputedStyle(e);
    const inks = [light(e instanceof SVGElement ? style.fill : style.color), light(ground(e))].sort((x, y) => y - x);
    const ratio = (inks[0] + 0.05) / (inks[1] + 0.05);
    if (ratio < 4.5) low[e.className.baseVal || e.className || e.tagName] = Math.round(ratio * 10) / 10;
  }
  return low;
}"""


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield found
        found.close()


def kept(name: str) -> list[Record]:
    return read_results(REPORTS / name)


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, Path]:
    """A page of each kind, from the records that ship."""
    many = [*kept("check/grid-evening.json"), *kept("ladder/qwen2.5-coder-1.5b.json"), *kept("soak/cut-and-plain.json")]
    many += [*kept("stream/records.json"), *kept("speculation/records.json"), *kept("check/grid-zen3.json")]
    before = kept("check/grid-zen3.json")
    judged = evaluate(
        [each.budget for each in propose(before, "regression")], kept("check/grid-evening.json"), baseline=before
    )
    hostile = [record(name=HOSTILE, run_id=f"h{n}", detail=HOSTILE, outcome="crashed") for n in range(2)]
    made = {
        "check": page_of(kept("check/default.json")),
        "report": page_of(many, tables=tables(many)),
        "gate": page_of(kept("check/grid-evening.json"), judgements=judged),
        "matrix": page_of([], tables=tables([])),
        "hostile": page_of(hostile),
        "disturbed": page_of([record(outcome="inconclusive", detail="other load 40 %")]),
    }
    folder = tmp_path_factory.mktemp("pages")
    for name, page in made.items():
        (folder / f"{name}.html").write_text(render(page), encoding="utf-8")
    for name, text in answered_pages().items():
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    return {path.stem: path for path in folder.iterdir()}


def answered_pages() -> dict[str, str]:
    """Pages of the application, as its server gives them."""
    from starlette.applications import Starlette
    from starlette.routing import Route
    from starlette.testclient import TestClient

    from harness.serve import app_pages

    routes = [Route("/", app_pages.ask), Route("/compare", app_pages.compare), Route("/matrix", app_pages.matrix)]
    devices = "device=rtx+4090&device=strix-halo&device=iphone-16-pro"
    addresses = {
        "ask": "/?model=qwen3-14b&device=rtx+3060+12gb&context_tokens=16384",
        "compare": f"/compare?model=gpt-oss-20b&{devices}",
        "grid": "/matrix?model=qwen3-4b,llama-3.1-8b,gpt-oss-20b",
        "no-such-device": "/?model=qwen3-14b&device=rtx+3061",
        "no-room": "/?model=llama-3.3-70b&device=iphone-16-pro",
    }
    with TestClient(Starlette(routes=routes)) as client:
        return {name: client.get(address).text for name, address in addresses.items()}


def opened(browser, path: Path, width: int = 1280, **more):
    view = browser.new_page(viewport={"width": width, "height": 900}, **more)
    view.said, view.asked = [], []
    view.on("console", lambda message: view.said.append(message.text))
    view.on("pageerror", lambda error: view.said.append(str(error)))
    view.on("request", lambda request: view.asked.append(request.url))
    view.goto(path.as_uri())
    return view


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["check", "report", "gate", "matrix", "hostile", "disturbed"])
def test_nothing_is_fetched_fails_or_is_cut(browser, pages, name: str, width: int) -> None:
    view = opened(browser, pages[name], width)
    faults = view.evaluate(FAULTS, width)
    view.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true })")
    faults += view.evaluate(FAULTS, width)

    assert (faults, view.said, view.asked) == ([], [], [pages[name].as_uri()])
    assert view.evaluate("[window.pwned === undefined, document.images.length]") == [True, 0]
    view.close()


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    records=st.lists(runs(), min_size=1, max_size=6, unique_by=lambda run: run.run_id), width=st.sampled_from(WIDTHS)
)
def test_no_text_of_any_runs_is_cut(browser, tmp_path_factory, records: list[Record], width: int) -> None:
    path = tmp_path_factory.mktemp("any") / "page.html"
    path.write_text(render(page_of(records)), encoding="utf-8")
    view = opened(browser, path, width)
    view.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true })")
    faults = view.evaluate(FAULTS, width)
    view.close()

    assert faults == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["check", "report", "gate", "matrix", "disturbed"])
def test_text_stands_out_from_its_ground(browser, pages, name: str, scheme: str) -> None:
    """WCAG 2.2, 1.4.3: 4.5 : 1."""
    view = opened(browser, pages[name], color_scheme=scheme)
    view.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true })")
    low = view.evaluate(CONTRAST)
    view.close()

    assert low == {}


@pytest.fixture(scope="module")
def axe(tmp_path_factory) -> str:
    """The checker's script, fetched by npm; skipped where that cannot be."""
    npm, folder = shutil.which("npm"), tmp_path_factory.mktemp("axe")
    if npm is None:
        pytest.skip("no npm, which fetches axe-core")
    try:
        subprocess.run([npm, "pack", AXE], cwd=folder, capture_output=True, timeout=60, check=True)
    except (subprocess.SubprocessError, OSError) as error:
        pytest.skip(f"npm does not fetch {AXE}: {error}")
    (archive,) = folder.glob("*.tgz")
    assert hashlib.sha256(archive.read_bytes()).hexdigest() == AXE_SHA256
    with tarfile.open(archive) as files:
        script = files.extractfile("package/axe.min.js")
        assert script is not None
        return script.read().decode()


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1280, "light")])
@pytest.mark.parametrize("name", [*REPORTED, "ask", "compare", "grid", "no-such-device", "no-room"])
def test_a_checker_of_accessibility_finds_nothing(browser, pages, axe: str, name: str, width: int, scheme: str) -> None:
    view = opened(browser, pages[name], width, color_scheme=scheme, bypass_csp=True)
    view.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true })")
    view.evaluate(axe)
    found = view.evaluate("axe.run().then(({violations, passes}) => [violations.map(each => each.id), passes.length])")
    view.close()

    assert found[0] == []
    assert found[1] > 10  # it did look


def test_thirty_two_runs_are_no_long_page(browser, pages, tmp_path) -> None:
    path = tmp_path / "page.html"
    path.write_text(render(page_of(kept("check/grid-evening.json"))), encoding="utf-8")
    view = opened(browser, path)

    assert view.evaluate("document.documentElement.scrollHeight") < 4000
    view.close()


def test_a_phone_shows_every_speed_without_scrolling(browser, pages) -> None:
    view = opened(browser, pages["gate"], 390)
    boxes = [cell.bounding_box() for cell in view.locator(".runs td:nth-of-type(3)").all()]
    view.close()

    assert len(boxes) == 32
    assert all(box["x"] + box["width"] <= 390 for box in boxes)


def test_folded_parts_open_and_boxes_scroll_by_keyboard(browser, pages) -> None:
    view = opened(browser, pages["check"])
    view.locator("summary").first.focus()
    view.keyboard.press("Enter")
    is_open = view.evaluate("document.querySelector('details').open")
    focusable = view.evaluate("[...document.querySelectorAll('.scroll')].every(each => each.tabIndex === 0)")
    levels = view.evaluate("[...document.querySelectorAll('h1, h2, h3')].map(each => +each.tagName[1])")
    view.close()

    assert is_open and focusable
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_the_policy_stops_what_slipped_in(browser, pages) -> None:
    view = opened(browser, pages["hostile"])
    view.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.pwned=2\">')")
    view.wait_for_timeout(200)

    assert view.evaluate("window.pwned") is None
    assert any("Content Security Policy" in line for line in view.said)
    view.close()


def test_paper_shows_what_is_folded_and_cuts_nothing(browser, pages) -> None:
    """A4 less its margins is 718 px wide."""
    view = opened(browser, pages["check"], 718)
    view.emulate_media(media="print")
    shown = view.locator("details table").first.is_visible()
    faults = view.evaluate(FAULTS, 718)
    view.close()

    assert shown
    assert faults == []
