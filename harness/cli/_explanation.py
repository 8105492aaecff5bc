"""What an answer rests on, for the terminal."""

from typing import TYPE_CHECKING

from harness.cli._output import say, table
from harness.units import format_number

if TYPE_CHECKING:
    from harness.app.explain import Explanation


def render_explanation(why: "Explanation | None") -> None:
    """Print laws, terms, nearest measurements and the commands that would disprove the answer; nothing for None."""
    if why is None:
        return
    laws = [
        (one.phase, one.name, format_number(one.value), one.unit, "" if one.share is None else f"{one.share:.0%}")
        for one in why.laws
    ]
    say(table("what the speed is made of", ("", "quantity", "value", "unit", "of the time"), laws, right=(2, 4)))
    if why.terms:
        terms = [
            (t.phase, t.term, f"{t.factor:.3g}", f"{t.spread_ratio:.0%}", str(t.votes), f"{t.doubt_share:.0%}")
            for t in why.terms
        ]
        columns = ("", "term", "factor", "may be off by", "votes", "of the doubt")
        say(table("fitted terms; a vote is one model on one chip, published", columns, terms, right=(2, 3, 4, 5)))
    if why.neighbours:
        near = [
            (
                f"{n.chip}, {n.api}",
                f"{n.model} {n.quant}",
                n.test,
                format_number(n.measured_tokens_per_s),
                format_number(n.predicted_tokens_per_s),
                f"{n.error_ratio:+.0%}",
                n.source,
            )
            for n in why.neighbours
        ]
        head = ("chip", "model", "test", "measured", "predicted", "error", "source")
        say(table("nearest published measurements", head, near, right=(3, 4, 5)))
    say("What would disprove this on the device:", *(f"  {command}" for command in why.commands))
