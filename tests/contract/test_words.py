"""What pages say exists: words, verbs, options, links, files and names in code; and no retired word comes back."""

import re
import shlex
from pathlib import Path

import click
import pytest

from bench.renderers import verbs

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMANDS_PAGE = ROOT / "docs" / "cli.md"
HELP = {"-h", "--help"}
CHANGELOG = ROOT / "CHANGELOG.md"

RETIRED = {
    r"\bbackends?\b": "runtime, or api",
    r"\bfeasibility[/.]|\bfeasibility model\b": "harness/predict, the predictor",
    r"harness[./]backends|ports\.Backend": "harness/runtimes, ports.Runtime",
    r"harness[./]testing[./](?!contracts)": "bench",
    r"--leave-one-chip-out|validate --leave-out": "python -m bench validation --by chip",
    r"--new\b": "--tokens",
    r"lacks an extra is told|hangs on how|lets expect": "a sentence with a noun and a verb",
}
_OLD_OPTIONS = re.compile(r", --(?:backend|new)(?= )")  # the page of commands shows the old name behind the new one
_BLOCK = re.compile(r"^```[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`([^`\n]+(?:\n[^`\n]+)?)`")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_RENDERED = re.compile(r"<!-- rendered (.*?) -->\n.*?<!-- end -->", re.DOTALL)


def ids(page: Path) -> str:
    return str(page.relative_to(ROOT))


def said(page: Path) -> str:
    """What a page's author wrote: without what is rendered, whose records keep the words of their day."""
    text = page.read_text(encoding="utf-8")
    return text if page == COMMANDS_PAGE else _RENDERED.sub("", text)


def code(text: str) -> list[str]:
    """Lines of its blocks, and its spans on one line each."""
    lines = [line for block in _BLOCK.findall(text) for line in block.replace("\\\n", " ").splitlines()]
    return lines + [" ".join(span.split()) for span in _SPAN.findall(_BLOCK.sub("", text))]


def retired(text: str) -> list[str]:
    return [
        f"{found[0]!r}: say {better}"
        for pattern, better in RETIRED.items()
        if (found := re.search(pattern, text, re.I))
    ]


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_no_retired_word(page: Path) -> None:
    assert retired(_OLD_OPTIONS.sub("", said(page))) == []


@pytest.mark.parametrize(
    "text", ["run with --backend ort", "`harness.testing.fuzz`", "harness/feasibility/memory.py", "the CPU backend"]
)
def test_a_retired_word_is_found(text: str) -> None:
    assert retired(text) != []


VERBS = {v.command_path.removeprefix("edge-harness "): v.command for v in verbs()}


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_on_the_page_of_commands_and_on_another(verb: str) -> None:
    assert f"## edge-harness {verb}\n" in COMMANDS_PAGE.read_text(encoding="utf-8")
    wanted = re.compile(rf"(?:edge-harness |^){re.escape(verb)}(?![\w-])")
    others = [page for page in PAGES if page != COMMANDS_PAGE]
    assert any(wanted.search(line) for page in others for line in code(said(page))), "no page says what it is for"


def refused(line: str) -> list[str]:
    """What the command line would not take of one line: verbs, options, or more arguments than there are."""
    found = []
    for command in re.split(r" && | \| |; ", line):
        try:
            words = shlex.split(command.partition("edge-harness ")[2].replace("`", " "), comments=True)
        except ValueError:  # a quote that ends on another line
            continue
        words = [word for word in words if not word.endswith("...") or word[:1] != "-"]
        name = next((" ".join(words[:n]) for n in (2, 1) if " ".join(words[:n]) in VERBS), "")
        if words[:1] == ["gate"] and not name:
            name, words = "gate judge", ["gate", *words]  # the verb that a gate without one means
        if not name:
            group = words and any(verb.startswith(f"{words[0]} ") for verb in VERBS)
            found += [words[0]] if words and not group and re.match("[a-z]", words[0]) else []
            continue
        verb = VERBS[name]
        try:
            options = words[len(name.split()) :]
            _, rest, _ = verb.make_parser(click.Context(verb, help_option_names=["-h", "--help"])).parse_args(
                [w for w in options if w not in HELP]
            )
        except click.UsageError as error:
            found.append(f"{name}: {error.format_message()}")
        else:
            found += [f"{name} takes no {word}" for word in rest]
    return found


@pytest.mark.parametrize("page", [p for p in PAGES if p != COMMANDS_PAGE] + [CHANGELOG], ids=ids)
def test_verbs_take_what_pages_give_them(page: Path) -> None:
    lines = [line for line in code(said(page)) if "edge-harness " in line]
    assert [missing for line in lines for missing in refused(line)] == []


def test_what_a_verb_does_not_take_is_found() -> None:
    assert refused("edge-harness workloads run memory --as iphone-12") != []
    assert refused("edge-harness predict llama-3.1-8b") == ["predict"]
    assert refused("edge-harness doctor MODEL") == ["doctor takes no MODEL"]
    assert refused("edge-harness gate --budget b.toml r.json && edge-harness check --depth 5  # exit 1") == []


def slug(heading: str) -> str:
    """The anchor of a heading, as hosts of Markdown make it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("page", [*PAGES, CHANGELOG], ids=ids)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for link in _LINK.findall(_BLOCK.sub("", page.read_text(encoding="utf-8"))):
        if "://" in link:
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        if not target.exists() or not target.is_relative_to(ROOT):
            broken.append(link)
        elif anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            broken += [link] if anchor not in map(slug, headings) else []
    assert broken == []


@pytest.mark.parametrize("page", [*PAGES, CHANGELOG], ids=ids)
def test_files_on_pages_exist(page: Path) -> None:
    """Files of this repository in code spans, parts of the bench, and tests by their names."""
    text = said(page)
    missing = []
    for span in map("".join, _SPAN.findall(_BLOCK.sub("", text))):
        found = re.fullmatch(r"((?:harness|bench|tests|docs|reports|devices|models)/[\w./-]*)(?:::(\w+))?", span)
        if found and not found[1].startswith("models/org"):
            path = ROOT / found[1]
            there = path.exists() and (not found[2] or f"def {found[2]}(" in path.read_text(encoding="utf-8"))
            missing += [] if there else [span]
    for name in re.findall(r"python -m bench[ .](\w+)", text):
        missing += [] if (ROOT / "bench" / f"{name}.py").exists() or name == "NAME" else [f"python -m bench {name}"]
    assert missing == []


def is_there(dotted: str) -> bool:
    """Whether a name of ours is a module, or stands at the top of one; read from the files, since imports are heavy."""
    parts = dotted.split(".")
    path = ROOT
    for at, part in enumerate(parts):
        if (path / part).is_dir():
            path /= part
        elif (path / f"{part}.py").exists():
            rest, file = parts[at + 1 :], path / f"{part}.py"
            return not rest or _defines(file, rest[0])
        else:
            return _defines(path / "__init__.py", part)
    return True


def _defines(file: Path, name: str) -> bool:
    pattern = rf"^(?:def|class) {name}\b|^{name}\b.*=|^from .*\bimport\b.*\b{name}\b|^    {name},$"
    return file.exists() and re.search(pattern, file.read_text(encoding="utf-8"), re.MULTILINE) is not None


@pytest.mark.parametrize("page", [*PAGES, CHANGELOG], ids=ids)
def test_names_in_code_exist(page: Path) -> None:
    """Dotted names of the package in spans, and what examples import."""
    lines = code(said(page))
    names = {n for line in lines for n in re.findall(r"(?<![\w.-])((?:harness|bench)\.[a-z_]\w*(?:\.\w+)*)", line)}
    for line in lines:
        if found := re.match(r"\s*from ((?:harness|bench)[\w.]*) import (.+)", line):
            names |= {f"{found[1]}.{n.strip()}" for n in found[2].split(",") if n.strip() != "*"}
    assert [name for name in sorted(names) if not is_there(name)] == []
