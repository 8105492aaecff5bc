"""Figures of README and docs, rendered from the records in ``reports/``; the page of commands, from the commands.

    python -m bench docs            # write them
    python -m bench docs --check    # exit 1 where a page says something else

A page marks what is rendered::

    <!-- rendered check_table reports/check/laptop.json -->
    (the table)
    <!-- end -->

The name is a function in ``bench.renderers``; its arguments are files below the project's root, and the text between
the marks is what it returns. So no figure is typed: a changed digit is found, and each stands beside the command, the
machine and the date of the record that it comes from.
"""

import re
import sys
from pathlib import Path
from typing import Final

import click

ROOT: Final = Path(__file__).resolve().parents[1]
_BLOCK: Final = re.compile(r"(<!-- rendered (?P<words>[^>]*?) -->\n)(?P<body>.*?)(<!-- end -->)", re.DOTALL)
_FIGURE: Final = re.compile(r"(<!-- figure (?P<words>[^>]*?) -->)(?P<body>.*?)(<!-- -->)", re.DOTALL)


def pages() -> list[Path]:
    """Every page whose figures are rendered."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def rendered(text: str, page: str) -> str:
    """A page with every marked part rendered anew.

    Raises:
        ValueError: A mark names no renderer, or its file is missing; says on which page.
    """
    from bench import renderers

    def call(words: str) -> str:
        name, *arguments = words.split()
        renderer = getattr(renderers, name, None)
        if renderer is None:
            raise ValueError(f"{page}: no renderer named {name!r}")
        paths = {a: ROOT / a for a in arguments if "/" in a and name != "answer"}
        missing = [a for a, path in paths.items() if not path.is_file()]
        if missing:
            raise ValueError(f"{page}: no record {missing[0]}")
        found: str = renderer(*(paths.get(a, a) for a in arguments))
        return found

    text = _BLOCK.sub(lambda m: f"{m[1]}{call(m['words']).rstrip()}\n{m[4]}", text)
    return _FIGURE.sub(lambda m: f"{m[1]}{call(m['words'])}{m[4]}", text)


def differences() -> list[str]:
    """Pages that do not say what their records say, with the first line that differs."""
    found = []
    for page in pages():
        text = page.read_text(encoding="utf-8")
        wanted = rendered(text, page.name)
        if text != wanted:
            pairs = zip(text.splitlines(), wanted.splitlines(), strict=False)
            line, says, should = next((n, a, b) for n, (a, b) in enumerate(pairs, 1) if a != b)
            found.append(f"{page.relative_to(ROOT)}:{line}: says {says!r}, its record says {should!r}")
    return found


@click.command()
@click.option("--check", is_flag=True, help="Write nothing; exit 1 where a page differs from its records.")
def main(check: bool) -> None:
    """Render every figure of the pages."""
    if check:
        lines = differences()
        click.echo("\n".join(lines) or "every figure is as its record says")
        sys.exit(1 if lines else 0)
    for page in pages():
        text = page.read_text(encoding="utf-8")
        wanted = rendered(text, page.name)
        if wanted != text:
            page.write_text(wanted, encoding="utf-8")
            click.echo(f"rendered {page.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
