"""An answer to send to somebody: a card as SVG, a table as Markdown, rows as CSV."""

import csv
import datetime
import io
from collections.abc import Sequence
from html import escape

from harness import __version__
from harness.answer.answer import Answer
from harness.show.compare_page import named, standings
from harness.show.drawing import Axis
from harness.show.first_screen import basis_line, device_name, each, model_name, of_sizes, sentence, two
from harness.show.ranking import finding
from harness.show.tiles import Tile, room_words, tiles_of

_MOST_BARS = 8
_COLUMNS = (
    *("model", "quant", "device", "context_tokens", "users", "verdict"),
    *("decode_tokens_per_s", "decode_low", "decode_high", "ttft_s", "ttft_low", "ttft_high"),
    *("needed_bytes", "available_bytes", "runs_behind_it"),
)
_WIDTH, _HEIGHT, _MARGIN = 1200, 630, 72
_EDGES = {"No": "#b23c00", "Too slow": "#b23c00", "Yes": "#0b62a8"}
"""Colour of the edge by the verdict; amber for all that is neither a plain yes nor a no."""
_AMBER = "#7d5a00"
_STYLE = (
    'text{font-family:system-ui,"Segoe UI",Roboto,Helvetica,"DejaVu Sans",sans-serif;fill:#15181e}'
    ".s{font-size:20px;fill:#545c69}.l{font-size:24px;font-weight:600;fill:#545c69}"
    ".r{font-size:30px;font-weight:700;text-anchor:end}"
)


def card_svg(answers: Sequence[Answer]) -> str:
    """A card of 1200 x 630: of one answer its verdict and figures, of several at most eight bars on one axis."""
    if len(answers) == 1:
        return _card_of_one(answers[0])
    return _card_of_several(answers)


def _card_of_one(one: Answer) -> str:
    verdict, _, _ = sentence(one).partition(". ")
    parts = [
        _text(_MARGIN, 92, model_name(one), 34, "700"),
        _text(_MARGIN, 134, f"on {device_name(one)}", 26, "400", "#545c69"),
        _text(_MARGIN, 222, _cut(verdict, 30), 38, "700", _edge(one)),
    ]
    tiles = tiles_of(one) if one.runs else []
    if tiles:
        first = tiles[0]
        size = 150 if first.word == "predicted" else 56
        parts.append(_text(_MARGIN - 6, 380, first.figure, size, "700", "#0b62a8"))
        parts.append(_text(_MARGIN, 424, _cut(first.unit, 20), 30, "600"))
        parts.append(_small(_MARGIN, 468, _cut(first.foot, 46)))
    else:
        parts.append(_small(_MARGIN, 290, _cut(room_words(one)[1], 46)))
    for place, tile in enumerate(tiles[1:]):
        parts += _card_tile(tile, 120 + 136 * place)
    asked = f"{one.quant} · {one.scenario.context_tokens:,} tokens of context · {_users(one)}"
    if one.scenario.program:
        asked += f" · {one.scenario.program}"
    return _card(_edge(one), sentence(one), parts, [_cut(asked, 90), _cut(basis_line(one), 90)])


def _card_tile(tile: Tile, y: int) -> list[str]:
    unit = f" {tile.unit}" if tile.unit else ""
    return [
        f'<text x="640" y="{y}" class="l">{escape(tile.title.lower())}</text>',
        f'<text x="1128" y="{y}" class="r">{escape(tile.figure + unit)}</text>',
        _small(640, y + 34, _cut(tile.foot.replace(" · dashed: what there is", ""), 48)),
        _small(640, y + 62, _cut(tile.of, 44)),
    ]


def _card_of_several(answers: Sequence[Answer]) -> str:
    found = standings(answers)[:_MOST_BARS]
    by_name = named(answers)
    speeds = [one.speed for one in found if one.speed]
    axis = Axis.of_factors([end for speed in speeds for end in (speed.low, speed.high)])
    parts = [_text(_MARGIN, 92, _cut(finding(found), 58), 32, "700")]
    for place, standing in enumerate(found):
        y = 160 + 44 * place
        parts.append(_text(_MARGIN, y, _cut(standing.name, 34), 22, "600"))
        if standing.speed is None:
            parts.append(f'<text x="1128" y="{y}" class="r">{room_words(by_name[standing.name])[0]}</text>')
            continue
        left = 480 + 4.6 * axis.at(standing.speed.low)
        width = max(4.6 * axis.at(standing.speed.high) - 4.6 * axis.at(standing.speed.low), 4.0)
        middle = 480 + 4.6 * axis.at(standing.speed.mid)
        parts.append(
            f'<rect x="{left:.1f}" y="{y - 18}" width="{width:.1f}" height="22" rx="4" fill="#c9dced" stroke="#7fa9cf"/>'
            f'<rect x="{middle:.1f}" y="{y - 18}" width="3" height="22" fill="#0b62a8"/>'
            f'<text x="1128" y="{y}" class="r">{two(standing.speed.mid)}</text>'
        )
    first = answers[0]
    asked = f"tokens/s · {first.scenario.context_tokens:,} tokens of context · {_users(first)}"
    return _card(
        "#0b62a8",
        finding(found),
        parts,
        [asked, "All are predicted. The bar is the range (90 %), the line the likeliest."],
    )


def _card(edge: str, says: str, parts: Sequence[str], foot: Sequence[str]) -> str:
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'role="img" aria-label="{escape(says, quote=True)}"><style>{_STYLE}</style>',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fbfaf7"/><rect width="12" height="{_HEIGHT}" fill="{edge}"/>',
        *parts,
        '<path d="M72 528H1128" stroke="#dedcd5" stroke-width="2"/>',
        *(_small(_MARGIN, 566 + 30 * place, text) for place, text in enumerate(foot)),
        f'<text x="1128" y="500" class="s" text-anchor="end">edge-harness {__version__} · {today()}</text></svg>',
    ]
    return "\n".join(lines)


def _edge(one: Answer) -> str:
    verdict, _, _ = sentence(one).partition(". ")
    return _EDGES.get(verdict.partition(",")[0], _AMBER)


def _text(x: int, y: int, text: str, size: int, weight: str, colour: str = "#15181e") -> str:
    style = f' style="fill:{colour}"' if colour != "#15181e" else ""
    return f'<text x="{x}" y="{y}" font-size="{size}" font-weight="{weight}"{style}>{escape(text)}</text>'


def _small(x: int, y: int, text: str) -> str:
    return f'<text x="{x}" y="{y}" class="s">{escape(text)}</text>'


def _cut(text: str, most: int) -> str:
    """The text in at most so many signs: a card has no second line."""
    return text if len(text) <= most else f"{text[: most - 1].rstrip()}…"


def _users(one: Answer) -> str:
    count = one.scenario.batch_count
    return "1 user" if count == 1 else f"{count} users"


def today() -> str:
    """The date as people write it: ``3 December 2026``."""
    now = datetime.datetime.now(datetime.UTC)
    return f"{now.day} {now:%B %Y}"


def markdown(answers: Sequence[Answer]) -> str:
    """A bold sentence, one table, the command, what it rests on: at most fifteen lines for an issue or a forum."""
    if len(answers) == 1:
        return _markdown_of_one(answers[0])
    by_name = named(answers)
    first = answers[0]
    found = standings(answers)
    lines = [
        f"**{finding(found)}** ({first.scenario.context_tokens:,} tokens of context, {_users(first)})",
        "",
        "| | tokens/s | likely (90 %) | memory |",
        "|---|---:|---:|---:|",
    ]
    for standing in found[:_MOST_BARS]:
        one = by_name[standing.name]
        verdict = one.prediction.verdict
        memory = of_sizes(verdict.needed_bytes, verdict.available_bytes)
        figure, between = "does not fit", ""
        if standing.speed is not None:
            figure, between = (
                two(standing.speed.mid),
                f"{two(standing.speed.low)} to {two(standing.speed.high)}",
            )
        lines.append(f"| {standing.name} | {figure} | {between} | {memory} |")
    return "\n".join([*lines, "", f"All predicted. edge-harness {__version__}, {today()}.", ""])


def _markdown_of_one(one: Answer) -> str:
    lines = [
        f"**{sentence(one)}** ({one.quant}, {one.scenario.context_tokens:,} tokens of context, {_users(one)})",
        "",
    ]
    if one.runs:
        lines += ["| | likeliest | likely (90 %) |", "|---|---:|---:|"]
        for tile in tiles_of(one):
            likely = tile.foot.partition(" · ")[0].removeprefix("likely ")
            lines.append(f"| {tile.title.lower()} | {f'{tile.figure} {tile.unit}'.strip()} | {likely} |")
        lines += ["", *(f"    {command}" for command in one.commands[:1])]
    return "\n".join([*lines, "", f"{basis_line(one)} edge-harness {__version__}, {today()}.", ""])


def csv_rows(answers: Sequence[Answer]) -> str:
    """A row for each answer: model, quantisation, device, verdict, speeds in tokens/s, times in s, memory in bytes."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for one in answers:
        verdict = one.prediction.verdict
        speeds: list[float | str] = [""] * 6
        if one.runs:
            decode, first = each(one), one.prediction.speed.ttft_warm_s
            speeds = [
                float(f"{value:.4g}") for part in (decode, first) for value in (part.mid, part.low, part.high)
            ]
        asked = (
            one.model.name,
            one.quant,
            one.device.name,
            one.scenario.context_tokens,
            one.scenario.batch_count,
            verdict.word,
        )
        evidence = one.prediction.speed.decode_evidence
        writer.writerow((*asked, *speeds, verdict.needed_bytes, verdict.available_bytes, evidence.count))
    return out.getvalue()
