"""The screen of ``recommend``: the winner, five rows, and what their figures mean."""

import textwrap
from collections.abc import Iterator
from typing import Final

from harness.core.units import GIB, format_number
from harness.core.way import WayKind
from harness.show.first_screen import two
from harness.verbs.recommend import SCALES, TURNS, Choice, Ranking

_MOST_ROWS: Final = 5
_TITLE_WIDTH: Final = 30
_WIDTH: Final = 78
_FOR: Final = {
    "chat": "For chat",
    "code": "For code",
    "agents": "For agents",
    "vision": "For pictures",
    "embedding": "For embedding",
    "long": "For long texts",
    "reasoning": "For reasoning",
}
_HOW: Final = {
    WayKind.WHOLE: "all in memory",
    WayKind.CARDS: "on all cards",
    WayKind.CARD: "on one card",
    WayKind.LAYERS: "split",
    WayKind.EXPERTS: "split",
    WayKind.CPU: "on the CPU",
    WayKind.MAPPED: "from disk",
    WayKind.STREAMED: "from disk",
    WayKind.EXPERT_CACHE: "from disk",
}


def lines(ranking: Ranking, device: str) -> Iterator[str]:
    """The screen of ``recommend``, at most 14 lines; ``device`` as it was typed."""
    winner = ranking.winner
    if winner is None:
        yield f"{_FOR[ranking.task]} on {ranking.device}: nothing with a published score does what is asked."
        yield "  Ask for less: a lower --min-speed, or another --task."
        return
    speed = two(winner.tokens_per_s.mid)
    first = (
        f"{_FOR[ranking.task]} on {ranking.device}: {winner.title}, {speed} tokens/s, {_HOW[winner.kind]}."
    )
    yield from textwrap.wrap(first, _WIDTH)
    yield ""
    shown = _shown(ranking, winner)
    width = max(len(_between(choice)) for choice in shown)
    yield f"  quality {'answer':>8}  {'tokens/s':<{width}} GiB   model"
    for number, choice in enumerate(shown, 1):
        yield _row(number, choice, width)
    yield ""
    titles = {scale.column: f"{scale.title}, {scale.month}" for scale in SCALES[ranking.task]}
    if winner.scale:
        yield f"  Quality: {titles[winner.scale]}{', out of date' if ranking.scores_are_old else ''}."
    turn = TURNS[ranking.task]
    yield f"  Answer: {turn.prompt_tokens:,} tokens read, {turn.new_tokens:,} written, at the slow end."
    later = next((choice for choice in ranking.choices if choice.scale not in ("", winner.scale)), None)
    if later is not None:
        yield f"  By {titles[later.scale].partition(',')[0]} alone: {later.title} {later.score:g}."
    if ranking.unscored:
        yield f"  No score: {ranking.unscored[0]}{'...' if len(ranking.unscored) > 1 else ''}"
    yield f'  Run 1:  edge-harness fit {winner.model} -q {winner.quant} -d "{device}"'


def _shown(ranking: Ranking, winner: Choice) -> list[Choice]:
    """The winner, then choices of its scale that nothing beats, then others, each by value."""
    first = [choice for choice in ranking.choices if choice.scale == winner.scale and choice != winner]
    others = sorted(first, key=lambda choice: not choice.is_front)[: _MOST_ROWS - 1]
    return [winner, *sorted(others, key=lambda choice: -choice.value)]


def _row(number: int, choice: Choice, speed_width: int) -> str:
    """A choice in 78 columns."""
    quality = "-" if choice.score is None else format_number(choice.rank_score, 2)
    memory = format_number(choice.needed_bytes / GIB, 2)
    figures = f"  {number}{quality:>6} {_duration(choice.answer_s):>8}  {_between(choice):<{speed_width}} {memory:<5}"
    how = f"  {_HOW[choice.kind]}"
    if choice.kind.is_whole:
        how = "" if choice.has_room else "  barely"
    room = _WIDTH - len(figures) - 1 - len(how)
    title = textwrap.shorten(f"{choice.title} {choice.quant}", room, placeholder=" ...")
    return f"{figures} {title:<{_TITLE_WIDTH if how else 0}}{how}"


def _between(choice: Choice) -> str:
    return f"{two(choice.tokens_per_s.low)} to {two(choice.tokens_per_s.high)}"


def _duration(seconds: float) -> str:
    for most, seconds_each, unit in ((0.0995, 0.001, "ms"), (99.5, 1.0, "s"), (5970.0, 60.0, "min")):
        if seconds < most:
            return f"{two(seconds / seconds_each)} {unit}"
    return f"{two(seconds / 3600)} h"
