"""The page in a real browser: no error, no request, the panel reacts, no name can run a script."""

import importlib.util
import json
import shutil
import sys
from pathlib import Path

import pytest

from harness.catalog.models import model_names
from harness.domain.scenario import Scenario
from harness.report.choices import choices
from harness.report.document import build
from harness.report.formats.html import render

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "report"))
from report_records import HOSTILE, record

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine"),
    pytest.mark.skipif(importlib.util.find_spec("playwright") is None, reason="playwright is not installed"),
    pytest.mark.skipif(importlib.util.find_spec("vl_convert") is None, reason="the report extra is not installed"),
]


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield found
        found.close()


@pytest.fixture(scope="module")
def tables():
    devices, models = ("iphone-16*", "pixel-9-pro"), ("llama-3.2-?b", "gemma-3-4b")
    return choices(devices=devices, models=models, contexts=(2048, 32768))


@pytest.fixture(scope="module")
def page_file(tmp_path_factory, tables):
    runs = [record(), record(name=HOSTILE, run_id="hostile", rates=(20.0, 21.0, 22.0))]
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(render(runs, build(runs, tables, created="2026-01-02")), encoding="utf-8")
    return path


@pytest.fixture
def page(browser, page_file):
    view = browser.new_page(viewport={"width": 1280, "height": 900})
    view.said, view.asked = [], []
    view.on("console", lambda message: view.said.append(message.text))
    view.on("pageerror", lambda error: view.said.append(str(error)))
    view.on("request", lambda request: view.asked.append(request.url))
    view.goto(page_file.as_uri())
    yield view
    view.close()


def test_nothing_is_fetched_and_nothing_fails(page, page_file) -> None:
    page.locator("#matrix td").first.hover()
    assert "undefined" not in page.locator("body").inner_text()
    # what was measured comes first, then what is predicted of everything
    places = [page.locator(f"#{key}").bounding_box()["y"] for key in ("runs", "whatif", "matrix")]
    assert places == sorted(places)

    assert page.said == []
    assert page.asked == [page_file.as_uri()]


def test_hostile_name_is_text(page) -> None:
    assert page.evaluate("window.pwned") is None
    assert page.locator("img").count() == 0
    assert page.locator("#runs").inner_text().count("<img src=x") == 2  # its group, and its row
    assert "49" not in page.locator("#runs").inner_text()


def test_policy_stops_what_slipped_in(page) -> None:
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.pwned=2\">')")
    page.wait_for_timeout(200)

    assert page.evaluate("window.pwned") is None
    assert any("Content Security Policy" in line for line in page.said)


def test_panel_says_what_the_model_computed(page, tables) -> None:
    from harness.app.case import Case
    from harness.app.placed import predict
    from harness.app.resolve import resolve_device, resolve_model

    d = next(i for i, x in enumerate(tables.devices) if x.name.startswith("iphone-16"))
    m = next(i for i, x in enumerate(tables.models) if x.name.startswith("llama-3.2-3b"))
    page.select_option("#ask-device", str(d))
    page.select_option("#ask-model", str(m))
    page.select_option("#ask-context", "0")
    said = page.locator("#big").inner_text()
    name, quant = tables.models[m].name, tables.quants[tables.default_quant]
    expected = predict(
        Case.of(resolve_model(name, quant), resolve_device(tables.devices[d].name), Scenario(context_tokens=2048))
    )

    assert expected.verdict.word in said
    assert f"{expected.speed.decode_tokens_per_s.mid:.3g}" in said
    low = page.locator("#facts").inner_text().split(" or more")[0].split()[-1]
    assert float(low) == pytest.approx(expected.speed.decode_tokens_per_s.low, rel=0.01)


def test_target_turns_a_verdict(page) -> None:
    page.select_option("#ask-context", "0")
    before = page.locator("#big").inner_text()
    page.fill("#ask-target", "100000")
    after = page.locator("#big").inner_text()

    assert "does not fit" not in before
    assert "too slow" in after
    assert page.locator("#count").inner_text().startswith("0 fit, 0 fit split, 0 fit with streaming")
    page.fill("#ask-target", "")
    assert page.locator("#big").inner_text() == before


def test_larger_context_needs_more(page) -> None:
    needs = []
    for index in ("0", "1"):
        page.select_option("#ask-context", index)
        needs.append(page.locator("#facts dd").first.inner_text())

    assert needs[0] != needs[1]


def test_matrix_by_keyboard(page) -> None:
    cells = page.locator("#cells tr[data-d='0'] td")
    cells.first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")

    assert page.evaluate("document.activeElement === document.querySelectorAll(\"#cells tr[data-d='0'] td\")[1]")
    assert page.locator("#why").inner_text() != ""
    page.keyboard.press("Enter")
    assert page.locator("#ask-device").input_value() == "0"
    assert page.locator("#ask-model").input_value() == "1"


def test_finding_hides_the_rest(page) -> None:
    page.fill("#find-device", "pixel")
    page.fill("#find-model", "gemma")

    assert page.locator("#cells tr[data-d]:visible th").first.inner_text().lower().startswith("pixel")
    assert page.locator("#heads th:visible").count() < page.locator("#heads th").count()


@pytest.mark.parametrize("width", [360, 820, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_sideways_scroll_and_enough_contrast(browser, page_file, width: int, scheme: str) -> None:
    view = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    view.goto(page_file.as_uri())
    wide = view.evaluate("document.documentElement.scrollWidth")
    ratios = view.evaluate(CONTRAST)
    view.close()

    assert wide <= width
    # WCAG 2.2, 1.4.3: 4.5 : 1 for text.
    assert {name: ratio for name, ratio in ratios.items() if ratio < 4.5} == {}


CONTRAST = """() => {
  const linear = v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = c => { const [r, g, b] = c.match(/[\\d.]+/g).map(v => linear(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const out = {}, back = getComputedStyle(document.querySelector('section')).backgroundColor;
  for (const name of ['.pill.v0', '.pill.v1', '.pill.v2', '.note', 'summary']) {
    const e = document.querySelector(name); if (!e) continue;
    const s = getComputedStyle(e), own = s.backgroundColor;
    const [a, b] = [light(s.color), light(own === 'rgba(0, 0, 0, 0)' ? back : own)].sort((x, y) => y - x);
    out[name] = (a + 0.05) / (b + 0.05);
  }
  return out;
}"""


def test_theme_button_is_kept_apart_from_the_system(page) -> None:
    page.click("#theme")
    page.click("#theme")

    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_page_works_without_scripts(browser, page_file, tables) -> None:
    context = browser.new_context(java_script_enabled=False)
    view = context.new_page()
    view.goto(page_file.as_uri())
    rows = view.locator("#cells tr[data-d]").count()
    cell = view.locator("#cells tr[data-d] td").first.inner_text()
    context.close()

    assert rows == len(tables.devices)
    assert cell.strip() != ""


def test_tables_hold_no_angle_bracket(page_file) -> None:
    text = page_file.read_text(encoding="utf-8")
    data = text.partition('id="choices"')[2].partition(">")[2].partition("</script>")[0]

    assert "<" not in data
    json.loads(data)
    assert " style=" not in text
    assert "javascript:" not in text


def test_a_gguf_s_own_name_is_text(browser, tmp_path) -> None:
    """The file's name, as a model to predict, reaches the matrix, the panel and the tables inside the page."""
    from bench.tiny_gguf import synthesize_tiny

    name = "<img src=x onerror=window.pwned=1>"
    model = synthesize_tiny(tmp_path / f"{name}.gguf", "Q4_0")
    found = choices(devices=("iphone-16*",), models=(str(model),))
    path = tmp_path / "page.html"
    path.write_text(render([], build([], found)), encoding="utf-8")
    view = browser.new_page()
    said: list[str] = []
    view.on("console", lambda message: said.append(message.text))
    view.goto(path.as_uri())
    view.locator("#cells td").first.click()

    assert view.evaluate("[window.pwned === undefined, document.images.length]") == [True, 0]
    assert said == []
    assert name in view.locator("#heads").inner_text()
    assert name in view.locator("#why").inner_text()
    view.close()


def test_a_phone_shows_every_speed_without_scrolling(browser, page_file) -> None:
    view = browser.new_page(viewport={"width": 390, "height": 844})
    view.goto(page_file.as_uri())
    for cell in view.locator("#runs td.n:visible").all():
        box = cell.bounding_box()
        assert box["x"] + box["width"] <= 390, cell.inner_text()
    view.close()


@pytest.mark.parametrize(("count", "shown"), [(3, True), (40, False)])
def test_paper_cuts_nothing_off_and_shows_what_can_be_read(browser, tmp_path, count: int, shown: bool) -> None:
    """A4 less its margins is 718 px wide."""
    names = model_names()[:count]
    path = tmp_path / "paper.html"
    runs = [record()]
    path.write_text(
        render(
            runs,
            build(
                runs,
                choices(devices=("iphone-16-pro",), models=names, quants=("Q4_K_M",), contexts=(2048,)),
                created="2026-01-02",
            ),
        )
    )
    view = browser.new_page(viewport={"width": 718, "height": 1040})
    view.goto(path.as_uri())
    view.emulate_media(media="print")

    right = "Math.max(...[...document.querySelectorAll('td')].map(c => c.getBoundingClientRect().right))"
    assert view.evaluate(right) <= 718
    assert view.locator(".matrix").is_visible() == shown
    said = view.evaluate("getComputedStyle(document.querySelector('#count'), '::after').content")
    assert ("Too wide for paper" in said) == (not shown)
