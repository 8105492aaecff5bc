"""Pictures of the product for the documents: the report on several screens, two answers, a gate's comment.

    python -m bench pictures        # writes docs/pictures/*.png; needs a Chromium on PATH and the extra `report`

The report is that of the records in ``reports/check``, ``reports/stream`` and ``reports/ladder``; the answers are those
kept in ``reports/output``; the comment is of a build that is a fifth slower.
"""

import html
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import click
from msgspec.structs import replace

from bench.renderers import records_of
from harness.gates.evaluate import evaluate
from harness.gates.formats import badge, markdown
from harness.gates.propose import propose
from harness.report.choices import choices
from harness.report.document import build
from harness.report.formats.html import render

ROOT: Final = Path(__file__).resolve().parents[1]
FOLDER: Final = ROOT / "docs" / "pictures"
DEVICES: Final = ("iphone-15-pro", "pixel-9-pro", "macbook-air-m3", "rtx-4060-desktop", "raspberry-pi-5-16gb")
MODELS: Final = ("smollm2-135m", "llama-3.2-3b", "qwen3-8b", "gemma-3-4b")
VIEWS: Final[dict[str, tuple[Any, Any]]] = {
    "report": ({"width": 1180, "height": 900}, "light"),
    "report-dark": ({"width": 1180, "height": 900}, "dark"),
    "report-phone": ({"width": 390, "height": 844}, "light"),
}
"""Width and height of the window in CSS pixels, and the colours that the reader's system asks for."""


@click.command()
def main() -> None:
    """Write every picture."""
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        raise click.ClickException("no Chromium on PATH")
    records = records_of(*_records())
    predicted = choices(devices=DEVICES, models=MODELS)
    page = render(records, build(records, predicted, created=records[0].created[:10]))
    FOLDER.mkdir(exist_ok=True)
    with TemporaryDirectory() as folder, sync_playwright() as playwright:
        file = Path(folder) / "report.html"
        file.write_text(page, encoding="utf-8")
        browser = playwright.chromium.launch(executable_path=program, args=["--headless", "--no-sandbox"])
        for name, (size, scheme) in VIEWS.items():
            view = browser.new_page(viewport=size, color_scheme=scheme)
            view.goto(file.as_uri())
            view.screenshot(path=FOLDER / f"{name}.png")
            view.close()
        view = browser.new_page(viewport={"width": 794, "height": 1123})
        view.goto(file.as_uri())
        view.emulate_media(media="print")
        view.screenshot(path=FOLDER / "report-printed.png")
        view.close()
        view = browser.new_page(viewport={"width": 1180, "height": 900})
        for name in ("check", "fit"):
            view.set_content(_terminal((ROOT / "reports" / "output" / f"{name}.txt").read_text(encoding="utf-8")))
            view.locator("pre").screenshot(path=FOLDER / f"{name}.png")
        view = browser.new_page(viewport={"width": 860, "height": 500})
        view.set_content(_comment())
        view.locator("main").screenshot(path=FOLDER / "gate-comment.png")
        browser.close()


def _records() -> list[Path]:
    names = ("check/default.json", "stream/records.json", "ladder/qwen2.5-coder-1.5b.json")
    return [ROOT / "reports" / name for name in names]


def _comment() -> str:
    """The comment and the badge of a build that is a fifth slower, as a page shows its Markdown."""
    from markdown_it import MarkdownIt

    (run,) = records_of(ROOT / "reports" / "check" / "default.json")
    earlier = [replace(run, run_id=f"earlier-{n}", created=f"2026-01-0{n}T00:00:00Z") for n in range(1, 7)]
    slower = tuple(replace(s, duration_s=s.duration_s * (1.25 if s.phase == "decode" else 1.0)) for s in run.samples)
    budgets = [budget for budget, _ in propose(earlier, "phone")]
    judged = evaluate(budgets, [replace(run, samples=slower)], baseline=earlier)
    style = "main { font: 14px/1.5 sans-serif; padding: 14px; width: 830px } table { border-collapse: collapse } "
    style += "td, th { border: 1px solid #d0d7de; padding: 5px 9px; text-align: left }"
    body = MarkdownIt().enable("table").render(markdown(judged))
    return f"<style>{style}</style><main>{badge(judged)}{body}</main>"


def _terminal(text: str) -> str:
    style = "font: 13px/1.35 monospace; background: #1b1d21; color: #e6e6e6; padding: 14px; display: inline-block; "
    style += "width: 108ch; white-space: pre-wrap; margin: 0"
    return f'<pre style="{style}">$ {html.escape(text.rstrip())}</pre>'


if __name__ == "__main__":
    main()
