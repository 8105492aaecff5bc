"""Pictures of the product for the documents: the report on a screen, on a phone, in the dark, on paper; two answers.

    python -m bench pictures        # writes docs/pictures/*.png; needs a Chromium on PATH and the extra `report`

The report is that of the records in ``reports/check``, ``reports/stream`` and ``reports/ladder``; the answers are those
kept in ``reports/output``.
"""

import html
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import click

from bench.renderers import records_of
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
        browser.close()


def _records() -> list[Path]:
    return [
        ROOT / "reports" / name for name in ("check/default.json", "stream/records.json", "ladder/smollm2-135m.json")
    ]


def _terminal(text: str) -> str:
    style = "font: 13px/1.35 monospace; background: #1b1d21; color: #e6e6e6; padding: 14px; display: inline-block; "
    style += "width: 108ch; white-space: pre-wrap; margin: 0"
    return f'<pre style="{style}">$ {html.escape(text.rstrip())}</pre>'


if __name__ == "__main__":
    main()
