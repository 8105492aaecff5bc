"""What is recommended, in words: the winner, five rows, what the figures are."""

import textwrap
from collections.abc import Iterator
from typing import Final

from harness.core.units import GIB, format_number
from harness.core.way import WayKind
from harness.show.first_screen import two
from harness.verbs.recommend import SCALES, Choice, Ranking

_MOST_ROWS: Final = 5
_MOST_NAMED: Final = 2
_BAR: Final = 4
_TITLE_WIDTH: Final = 30
_BEFORE_TITLE: Final = 40
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
    yield f"  quality  {'tokens/s':<{11 + _BAR}} GiB   model"
    shown = _shown(ranking)
    fastest = max(choice.tokens_per_s.mid for choice in shown)
    for number, choice in enumerate(shown, 1):
        yield _row(number, choice, choice.tokens_per_s.mid / fastest)
    yield ""
    for scale in SCALES[ranking.task]:
        if any(choice.scale == scale.column for choice in shown):
            yield f"  Quality: {scale.title}, {scale.month}{', out of date' * ranking.scores_are_old}."
            break
    later = [choice for choice in ranking.choices if choice.scale and choice.scale != shown[0].scale]
    if later:
        title = next(scale.title for scale in SCALES[ranking.task] if scale.column == later[0].scale)
        named = ", ".join(f"{choice.title} {choice.score:g}" for choice in later[:_MOST_NAMED])
        yield f"  {textwrap.shorten(f'By {title} alone: {named}.', _WIDTH, placeholder=' ...')}"
    if ranking.unscored:
        yield f"  No score: {ranking.unscored[0]}{'...' * (len(ranking.unscored) > 1)}"
    yield f'  Run {shown.index(winner) + 1}:  edge-harness fit {winner.model} -q {winner.quant} -d "{device}"'


def _shown(ranking: Ranking) -> list[Choice]:
    """Choices of the first scale that nothing beats, and the winner; the best first."""
    first = [choice for choice in ranking.choices if choice.scale == ranking.choices[0].scale]
    front = [choice for choice in first if choice.is_front][:_MOST_ROWS]
    if ranking.winner and ranking.winner not in front:
        front = [*front[: _MOST_ROWS - 1], ranking.winner]
    for choice in first:
        if len(front) < _MOST_ROWS and choice not in front:
            front.append(choice)
    return sorted(front, key=lambda choice: -choice.rank_score)


def _row(number: int, choice: Choice, share: float) -> str:
    """A choice in 80 columns, with a bar for its share of the fastest speed."""
    quality = "-"
    if choice.score is not None:
        quality = format_number(choice.rank_score, 2)
    memory = format_number(choice.needed_bytes / GIB, 2)
    title = f"{choice.title} {choice.quant}"
    how = f"  {_HOW[choice.kind]}"
    if choice.kind.is_whole:
        how = "  barely" * (not choice.has_room)
        title = (
            title
            if len(title) <= _TITLE_WIDTH
            else textwrap.shorten(title, _WIDTH - _BEFORE_TITLE, placeholder=" ...")
        )
    bar = "━" * max(round(_BAR * share), 1)
    between = f"{two(choice.tokens_per_s.low)} to {two(choice.tokens_per_s.high)}"
    speed = f"{between:<10} {bar:·<{_BAR}}"
    return f"  {number}{quality:>6}  {speed} {memory:<5} {title:<{_TITLE_WIDTH}}{how}".rstrip()
