"""Pictures of the product for the documents: each page on a phone and a screen, by day and by night; a gate's comment.

    python -m bench pictures           # writes docs/pictures/*.png; needs a Chromium on PATH and the extra `report`
    python -m bench pictures --check   # exit 1 where the pages look otherwise than when the pictures were made

The pages are those of records in ``reports/``; the comment is of a build that is a fifth slower. What the pages say is
kept as a digest beside the pictures, so that a test can tell when they are old.
"""

import hashlib
import json
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
from harness.show.elsewhere import tables
from harness.show.html import render
from harness.show.pages import page_of

ROOT: Final = Path(__file__).resolve().parents[1]
FOLDER: Final = ROOT / "docs" / "pictures"
DIGESTS: Final = FOLDER / "digests.json"
REPORTS: Final = ROOT / "reports"
WIDTHS: Final = (1280, 390)
_TALLEST: Final = 2600
"""Pixels of a picture; a longer page goes on below."""


def pages() -> dict[str, str]:
    """The page of a check, of many runs, of a gate, and of predictions alone."""
    evening = records_of(REPORTS / "check" / "grid-evening.json")
    before = records_of(REPORTS / "check" / "grid-zen3.json")
    ladder = records_of(REPORTS / "ladder" / "qwen2.5-coder-1.5b.json")
    judged = evaluate([each.budget for each in propose(before, "regression")], evening, baseline=before)
    made = {
        "check": page_of(records_of(REPORTS / "check" / "default.json")),
        "report": page_of([*evening, *ladder], tables=tables(evening)),
        "gate": page_of(evening, judgements=judged),
        "matrix": page_of([], tables=tables([])),
    }
    return {name: render(page) for name, page in made.items()}


def digests() -> dict[str, str]:
    """A digest of what each page says."""
    return {name: hashlib.sha256(page.encode()).hexdigest()[:16] for name, page in pages().items()}


@click.command()
@click.option("--check", is_flag=True, help="Write nothing; exit 1 where the pictures are old.")
def main(check: bool) -> None:
    """Write every picture, or say which are old."""
    if check:
        kept = json.loads(DIGESTS.read_text(encoding="utf-8"))
        old = [name for name, digest in digests().items() if kept.get(name) != digest]
        if old:
            raise click.ClickException(f"old pictures: {', '.join(old)}; python -m bench pictures makes them anew")
        return
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        raise click.ClickException("no Chromium on PATH")
    FOLDER.mkdir(exist_ok=True)
    with TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--headless", "--no-sandbox"])
        for name, page in pages().items():
            file = Path(folder) / f"{name}.html"
            file.write_text(page, encoding="utf-8")
            for width in WIDTHS:
                for scheme in ("light", "dark"):
                    view = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
                    view.goto(file.as_uri())
                    height = min(view.evaluate("document.documentElement.scrollHeight"), _TALLEST)
                    clip: Any = {"x": 0, "y": 0, "width": width, "height": height}
                    view.screenshot(path=FOLDER / f"{name}-{width}-{scheme}.png", full_page=True, clip=clip)
                    view.close()
        view = browser.new_page(viewport={"width": 860, "height": 500})
        view.set_content(_comment())
        view.locator("main").screenshot(path=FOLDER / "gate-comment.png")
        browser.close()
    DIGESTS.write_text(json.dumps(digests(), indent=1) + "\n", encoding="utf-8")


def _comment() -> str:
    """The comment and the badge of a build that is a fifth slower, as a page shows its Markdown."""
    from markdown_it import MarkdownIt

    (run,) = records_of(REPORTS / "check" / "default.json")
    earlier = [replace(run, run_id=f"earlier-{n}", created=f"2026-01-0{n}T00:00:00Z") for n in range(1, 7)]
    slower = tuple(replace(s, duration_s=s.duration_s * (1.25 if s.phase == "decode" else 1.0)) for s in run.samples)
    budgets = [budget for budget, *_ in propose(earlier, "phone")]
    judged = evaluate(budgets, [replace(run, samples=slower)], baseline=earlier)
    style = "main { font: 14px/1.5 sans-serif; padding: 14px; width: 830px } table { border-collapse: collapse } "
    style += "td, th { border: 1px solid #d0d7de; padding: 5px 9px; text-align: left }"
    body = MarkdownIt().enable("table").render(markdown(judged))
    return f"<style>{style}</style><main>{badge(judged)}{body}</main>"


if __name__ == "__main__":
    main()
