"""Clauses of plain English, and where two of them cannot both be true: by polarity, roles, numbers, dates.

No parser and no model: clauses are cut at signs and joining words, words are brought to a stem, and each rule speaks
only where the two clauses are plainly about the same thing. What the rules do not see is left to a model's judgement.
"""

import re
from collections.abc import Sequence
from contextlib import suppress
from datetime import date, timedelta
from fractions import Fraction
from functools import cache
from itertools import product
from typing import Final, NamedTuple

from harness.workloads._language.figures import (
    ENGLISH,
    NUMBER_WORDS,
    UNIT_WORDS,
    Figures,
    Quantity,
    figures,
    implied,
)

_WORD: Final = re.compile(r"[A-Za-z]+(?:['’][a-z]+)?|\d[\d.,:]*\d|\d")
_AFTER_DIGITS: Final = re.compile(r"(?<=\d)(?:st|nd|rd|th|s| ?[ap]\.?m)\b")
_CUT: Final = re.compile(
    r"(?<=[a-z\d)])[.!?;:]\s+|,? (?:but|although|though|yet|while|whereas|because|so that|so)\b"
    r"|,(?=\s)(?!\s\d)(?: (?:and|or)\b)?| and (?!\d{4}\b|\w+ (?:are|were|have|both|run)\b)(?!a half)|;",
    re.I,
)
_PAIR: Final = re.compile(r"(\b[A-Z]\w+) and (?=[A-Z])")
_SENTENCE: Final = re.compile(r"(?<=[a-z\d)\"'][.!?])\s+(?=[A-Z\"'])")
_KINDS: Final = {kind: frozenset(words.split()) for kind, words in ENGLISH["kinds"].items()}
_NOT, _STOP, _BE = _KINDS["denials"], _KINDS["said_by_all"], _KINDS["be"]
_PRONOUNS, _DETERMINERS, _AUXILIARIES = _KINDS["pronouns"], _KINDS["determiners"], _KINDS["auxiliaries"]
_CALENDAR: Final = frozenset(
    word for kind in ("months", "short_months", "days") for word in ENGLISH["numbers"][kind].split()
) | {f"{day}s" for day in ENGLISH["numbers"]["days"].split()}
_IRREGULAR: Final = {
    form: verb for line in ENGLISH["verbs"]["irregular"] for verb, *forms in [line.split()] for form in forms
}
_NUMBERS: Final = frozenset(NUMBER_WORDS)
_SPANS, _MONTH_SPANS = (
    tuple((re.compile(rf"\b(?:{words})\b", re.I), count) for words, count in ENGLISH["numbers"][kind])
    for kind in ("spans", "month_spans")
)
_BOUNDS: Final = re.compile(rf"\b(?:{'|'.join(ENGLISH['search']['bounds'].split())})\b")
_BOUND_SIGNS: Final = {sign: re.compile(words) for sign, words in ENGLISH["search"]["bound_signs"].items()}
_STATES, _UNTIL = (frozenset(ENGLISH["search"][kind].split()) for kind in ("states", "until"))
_STOPPED: Final = re.compile(r"\bg[ia]ven? up\b", re.I)


class Clause(NamedTuple):
    """One clause.

    Attributes:
        text: As it stands.
        words: All words, in lower case, in order.
        stems: Stems of the words that say something, those of an inherited subject included; opposites as themselves.
        topics: The same with each opposite in place of its own (``close`` is ``open``).
        head: The first of those.
        is_positive: Whether an even number of denials, opposites among them, stands in it.
        figures: Numbers, dates and times.
        names: Stems of words in capitals, one at the beginning included.
        sure_names: Those that are in capitals elsewhere than at a beginning.
        before: Stems of the clause that it goes on from, where it has no verb of its own (``and 31 to the second``).
    """

    text: str
    words: tuple[str, ...]
    stems: frozenset[str]
    topics: frozenset[str]
    head: str
    is_positive: bool
    figures: Figures
    names: frozenset[str]
    sure_names: frozenset[str]
    before: frozenset[str] = frozenset()


def sentences(text: str) -> list[str]:
    """Sentences and lines of a text."""
    return [s.strip() for line in text.splitlines() for s in _SENTENCE.split(line) if s.strip()]


def clauses(text: str) -> list[Clause]:
    """Clauses in order; one that begins with a verb or a pronoun takes the subject before it."""
    found: list[Clause] = []
    subject: list[str] = []
    for sentence in sentences(text):
        first = len(found)
        for part in _CUT.split(_PAIR.sub(r"\1 & ", sentence)):
            if not part or not _WORD.search(part):
                continue
            words = _WORD.findall(part)
            follows = words[1].lower() if len(words) > 1 else ""
            present = words[0][0].islower() and words[0].endswith("s") and follows in _STOP
            inherits = bool(_PRONOUNS & {w.lower() for w in words[:3]}) or is_verb(words, 0) or present
            found.append(clause(part, subject if inherits else ()))
            if len(found) > first + 1 and not any(is_verb(words, at) for at in range(len(words))):
                found[-1] = found[-1]._replace(before=found[-2].stems | found[-2].before)
            if not inherits:
                subject = words[: first_verb(words)]
    return found


def clause(text: str, subject: Sequence[str] = ()) -> Clause:
    """One clause of a text that is not cut further; ``subject`` are words that it takes from before."""
    text = _STOPPED.sub("stopped", text)
    spelt = _WORD.findall(_AFTER_DIGITS.sub("", text.replace("n't", " not").replace("n’t", " not")))
    words = tuple(w.lower() for w in spelt)
    denials = sum(w in _NOT for w in words)
    denials -= ("not" in words and bool({"only", "until", "till"} & set(words))) + (
        "neither" in words and "nor" in words
    )
    kept = [w for w in (*words, *(w.lower() for w in subject)) if w not in _STOP | _CALENDAR | _NOT | _NUMBERS]
    said = [s for s in map(stem, kept) if s not in _STOP and not s[0].isdigit()]
    flips = sum(s in _OPPOSITES for s in said)
    names = [
        (at, stem(w))
        for at, w in enumerate(spelt)
        if w[0].isupper() and len(w) > 1 and w.lower() not in (_CALENDAR | UNIT_WORDS if w.isupper() else _CALENDAR)
    ]
    if names and names[0][0] == 0 and not _opens_as_name(spelt):
        names = names[1:]
    return Clause(
        text=text,
        words=words,
        stems=frozenset(said),
        topics=frozenset(_OPPOSITES.get(s, s) for s in said),
        head=_OPPOSITES.get(said[0], said[0]) if said else "",
        is_positive=(denials + flips) % 2 == 0,
        figures=figures(text),
        names=frozenset(n for _, n in names) - _STOP,
        sure_names=frozenset(n for at, n in names if at) - _STOP,
    )


def _opens_as_name(words: Sequence[str]) -> bool:
    """Whether the first word, in a capital anyway, is a name: it owns, stands in a pair, or a verb follows."""
    passed = _STOP - _BE - _AUXILIARIES
    later = [at for at in range(1, len(words)) if not words[at].endswith("ly") and words[at] not in passed]
    pairs = len(words) > 1 and words[1][0].isupper()
    return words[0].endswith("'s") or pairs or (bool(later) and is_verb(words, later[0]))


def first_verb(words: Sequence[str]) -> int:
    """Where the first verb stands behind the first word; behind the last word where there is none."""
    return next((at for at in range(1, len(words)) if is_verb(words, at)), len(words))


def is_verb(words: Sequence[str], at: int) -> bool:
    """Whether a word looks like a verb: an auxiliary, a past form, or one that follows an auxiliary or a noun."""
    word = words[at].lower()
    before = words[at - 1].lower() if at else ""
    if word in _BE or word in _AUXILIARIES or word in _IRREGULAR or (word.endswith("ed") and len(word) > 4):
        return before not in _DETERMINERS
    if before in _AUXILIARIES or before == "to" or (before == "not" and at > 1):
        return word not in _STOP
    follows = words[at + 1].lower() if at + 1 < len(words) else ""
    is_relation = follows in {"of", "than"} and any(w.lower() in _BE for w in words[max(0, at - 2) : at])
    present = word.endswith("s") and not word.endswith("ss") and before not in _DETERMINERS | _STOP
    return is_relation or (at > 0 and present and word not in _STOP)


@cache
def stem(word: str) -> str:
    """A word's stem: irregular forms by a table, others without their endings."""
    word = re.sub(r"['’]s?$", "", word.lower())
    if word in _STOP:
        return word
    regular = _IRREGULAR.get(word, word)
    for ending, instead in (("ies", "y"), ("ied", "y"), ("ing", ""), ("ed", ""), ("es", ""), ("s", ""), ("ly", "")):
        if regular != word:
            word = regular
            break
        if word.endswith(ending) and len(word) - len(ending) >= 3 and not word.endswith(("ss", "us", "is", "eed")):
            word = word[: -len(ending)] + instead
            if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "lsz":
                word = word[:-1]
            break
    return word[:-1] if word.endswith("e") and len(word) > 2 else word


_OPPOSITES: Final = {stem(word): stem(base) for base, words in ENGLISH["opposites"].items() for word in words.split()}
_CONVERSE: Final = {stem(word): stem(base) for word, base in ENGLISH["verbs"]["converse"].items()}
_DEFEATS: Final = {stem("lose"): -1, stem("win"): 1, stem("beat"): 1}


def coverage(claim: Clause, passage: Sequence[Clause]) -> float:
    """Share of the claim's stems that stand anywhere in the passage; 1 for a claim without any."""
    said = frozenset().union(*(c.stems for c in passage)) if passage else frozenset()
    return len(claim.stems & said) / len(claim.stems) if claim.stems else 1.0


def conflicts(claim: Clause, passage: Sequence[Clause]) -> list[str]:
    """Why the passage cannot support the claim: a word each of ``polarity roles number date name``; mostly none."""
    found = []
    if _denied(claim, passage):
        found.append("polarity")
    # It tells of one of the claim's verbs, and never with the claim's doer doing it.
    if any(_turned(claim, at, passage) for at in range(1, len(claim.words) - 1) if _acts(claim.words, at)):
        found.append("roles")
    if not _numbers_agree(claim, passage):
        found.append("number")
    if not _moments_agree(claim, passage):
        found.append("date")
    said = frozenset(stem(w) for c in passage for w in c.words)
    if passage and not claim.sure_names <= said:
        found.append("name")
    return found


def confirmed(claim: Clause, passage: Sequence[Clause]) -> bool:
    """Whether one clause of the passage says all that a claim with figures says, its numbers, dates and times included.

    A date may follow from a finer one. False where that clause has the words in another order, two dates or numbers of
    a kind to choose from, or a word that bounds or doubts (``before``, ``at least``, ``may``) which the claim has not,
    or the other way round.
    """
    mine = claim.figures
    spans = [claim.text[m.start : m.end] for m in mine.mentions]
    spans += [claim.text[q.start : q.end] for q in mine.quantities]
    dated = {stem(w) for span in spans for w in _WORD.findall(span)}
    for other in _carried(passage) if spans else ():
        told, own = other.figures, [stem(w) for w in other.words]
        numbers = all([o.value for o in told.quantities if _comparable(q, o)] == [q.value] for q in mine.quantities)
        one_date = all(len(told.moments.get(field, ())) <= 1 for field in implied(mine.moments))
        same = claim.topics - dated <= other.topics and claim.is_positive == other.is_positive
        rest = iter(own)
        ordered = all(s in rest for w in claim.words if (s := stem(w)) in own and s not in dated | _STOP)
        bounds = [set(_BOUNDS.findall(c.text)) for c in (claim, other)]
        if same and ordered and numbers and one_date and bounds[0] == bounds[1] and _fits(mine.moments, other):
            return True
    return False


def _denied(claim: Clause, passage: Sequence[Clause]) -> bool:
    """Whether every clause about the same has the other polarity, and one of them says nearly all that the claim says.

    A clause is about the same when it shares half of the claim's topics, and its dates where the claim has any.
    """
    mine = claim.figures.moments
    near = [c for c in passage if 2 * len(claim.topics & c.topics) >= len(claim.topics)]
    near = [c for c in near if _fits(mine, c)]
    near = [c for c in near if claim.topics <= c.topics] or near
    agreed = frozenset().union(*(c.topics for c in near if c.is_positive == claim.is_positive))
    said = claim.topics - claim.names
    near = [c for c in near if claim.head in c.topics]
    whole = [c for c in near if len(said & c.topics) >= max(1, len(said) - len(said) // 4)]
    whole = [c for c in whole if 3 * len(claim.topics & c.topics) >= 2 * len(claim.topics)]
    missing = claim.topics.difference(*(c.topics for c in whole))  # what only a clause of the same polarity tells
    return bool(whole) and all(c.is_positive != claim.is_positive for c in near) and not missing & agreed


def _fits(mine: "dict[str, frozenset[int]]", other: Clause) -> bool:
    told = implied(other.figures.moments)
    return all(values <= told.get(field, frozenset()) for field, values in mine.items())


def _roles(words: Sequence[str], verb_at: int) -> tuple[str, frozenset[str], frozenset[str]]:
    """The verb and who does it to whom: the passive and verbs such as buy and borrow turned round."""
    verb = stem(words[verb_at])
    before = [stem(w) for w in words[:verb_at] if w not in _STOP]
    after = [stem(w) for w in words[verb_at + 1 :] if w not in _STOP]
    rest = words[verb_at + 1 :]
    is_passive = any(w in _BE for w in words[max(0, verb_at - 4) : verb_at]) and words[verb_at].endswith(
        ("ed", "en", "t", "n", "d", "ld", "ght")
    )
    agents, patients = frozenset(before), frozenset(after)
    if is_passive:
        by = [stem(w) for w in rest[rest.index("by") + 1 :] if w not in _STOP] if "by" in rest else []
        agents, patients = frozenset(by[:2]), frozenset(before) | (frozenset(after) - frozenset(by))
    if verb in _CONVERSE:
        source = [stem(w) for w in rest[rest.index("from") + 1 :] if w not in _STOP] if "from" in rest else []
        agents, patients = frozenset(source[:2]), agents | (patients - frozenset(source))
    if _DEFEATS.get(verb, 1) < 0:
        agents, patients = patients, agents
    return _verb(words[verb_at]), agents, patients


def _acts(words: Sequence[str], at: int) -> bool:
    return words[at] not in _STOP and is_verb(words, at)


def _turned(claim: Clause, at: int, passage: Sequence[Clause]) -> bool:
    verb, agents, patients = _roles(claim.words, at)
    is_wrong = False
    for other in passage:
        for there in range(len(other.words)):
            if not _acts(other.words, there) or _verb(other.words[there]) != verb:
                continue
            _, doers, done_to = _roles(other.words, there)
            if agents & doers or not (agents and doers):
                return False
            crossed = bool(agents & done_to) and bool(patients & doers)
            named = agents <= claim.names and doers <= other.names
            is_wrong |= crossed or (named and bool(patients & done_to))
    return is_wrong


def _verb(word: str) -> str:
    base = stem(word)
    return stem("defeat") if base in _DEFEATS else _CONVERSE.get(base, base)


def _numbers_agree(claim: Clause, passage: Sequence[Clause]) -> bool:
    """Whether each number of the claim stands in the passage, with its unit, where the claim's words are nearest."""
    every = [q for c in passage for q in c.figures.quantities]
    own = claim.figures.quantities
    if len(own) > 1 and any(all(any(_same(q, o) for o in c.figures.quantities) for q in own) for c in passage):
        return True
    for mine in own:
        if not any(_same(mine, q) for q in every):
            years = [y for c in passage for y in c.figures.moments.get("y", ())]
            others = [q for q in own if q is not mine]
            if not _bounded(claim, mine, every) and not _derived(mine, [*every, *others], years, passage):
                return False
            continue
        near = _about(claim, [c for c in passage if any(_comparable(mine, q) for q in c.figures.quantities)])
        if near and not any(_same(mine, q) for c in near for q in c.figures.quantities):
            return False
    return True


def _same(a: Quantity, b: Quantity) -> bool:
    return a.value == b.value and _comparable(a, b)


def _comparable(a: Quantity, b: Quantity) -> bool:
    if "%" in (a.unit, b.unit):
        return a.unit == b.unit
    return a.unit == b.unit or not a.unit or not b.unit or stem(a.unit) == stem(b.unit)


def _bounded(claim: Clause, mine: Quantity, every: Sequence[Quantity]) -> bool:
    """Whether the claim names a bound (``over``, ``at most``) that a number of the passage keeps."""
    before = claim.text[max(0, mine.start - 20) : mine.start].lower()
    signs = [sign for sign, words in _BOUND_SIGNS.items() if words.search(before)]
    values = [q.value for q in every if _comparable(mine, q)]
    return any(v > mine.value if sign == "above" else v < mine.value for sign in signs for v in values)


def _derived(mine: Quantity, every: Sequence[Quantity], years: Sequence[int], passage: Sequence[Clause]) -> bool:
    """Whether two numbers of the passage, years among them, give this one: then it is left to the model.

    A word such as ``half`` or ``twice`` is a number too.
    """
    values = [q.value for q in every] + [Fraction(y * 12 if mine.unit == "month" else y) for y in years]
    said = frozenset().union(*(c.words for c in passage))
    values += [Fraction(n) for word, n in ENGLISH["numbers"]["factors"].items() if word in said]
    pairs = [(a, b) for i, a in enumerate(values) for j, b in enumerate(values) if i != j]
    shares = {q.value * other.value / 100 for q in every if q.unit == "%" for other in every}
    return mine.value in shares or any(mine.value in {a + b, a - b, a * b, a / b if b else a} for a, b in pairs)


def _moments_agree(claim: Clause, passage: Sequence[Clause]) -> bool:
    mine = claim.figures.moments
    if not mine:
        return True
    passage = _carried(passage)
    fitting = [c for c in passage if _fits(mine, c)]
    if not fitting:
        return (
            _lasts(claim, passage)
            or any(_spans(c, mine) for c in passage)
            or any(all(v <= d.get(f, frozenset()) for f, v in mine.items()) for d in _later(passage))
        )
    told = [(c, mine.keys() & implied(c.figures.moments).keys()) for c in passage]
    whole = [c for c, fields in told if fields == mine.keys()]  # those that tell day and hour, where it has both
    near = _about(claim, whole or [c for c, fields in told if fields])
    return not near or any(c in fitting for c in near)


def _spans(other: Clause, mine: "dict[str, frozenset[int]]") -> bool:
    """Whether a clause tells of a time from here to there that holds the claim's dates: the model is to decide."""
    told = implied(other.figures.moments)
    ends = {f: told[f] for f in mine if len(told.get(f, ())) > 1}
    between = ends.keys() == mine.keys() and bool({"from", "between"} & {*other.words})
    return between and all(min(ends[f]) <= v <= max(ends[f]) for f, values in mine.items() for v in values)


def _lasts(claim: Clause, passage: Sequence[Clause]) -> bool:
    """Whether the claim says how something is, and the passage until or from when: one date, or two around it."""
    told = [implied(c.figures.moments) for c in passage]
    for field, values in claim.figures.moments.items():
        ends = frozenset().union(*(t.get(field, ()) for t in told))
        if len(ends) > 1 and not all(min(ends) <= v <= max(ends) for v in values):
            return False
    return bool(_STATES & set(claim.words)) and any(_UNTIL & set(c.words) for c in passage)


def _carried(passage: Sequence[Clause]) -> list[Clause]:
    """The clauses, each date with the month and year that those before it tell: on the 3rd of June ... on the 5th.

    One that says nothing but when (``and at noon on Sundays``) says it of what the one before it says.
    """
    found: list[Clause] = []
    known: dict[str, frozenset[int]] = {}
    for c in passage:
        told = c.figures.moments
        coarser = {f: v for f, v in known.items() if f not in told and told.keys() & set("md" if f == "y" else "d")}
        said = c if c.stems or not found else found[-1]
        dated = c.figures._replace(moments={**told, **coarser})
        found.append(said._replace(text=c.text, words=c.words, figures=dated))
        known |= {f: told[f] for f in "ym" if f in told}
    return found


def _later(passage: Sequence[Clause]) -> list[dict[str, frozenset[int]]]:
    """Dates that a span of time away from the passage's dates lie: ten years later, at the age of 62, a week before."""
    every = [q for c in passage for q in c.figures.quantities]
    months = [q.value for q in every if q.unit == "month"]
    months += [Fraction(n) for c in passage for pattern, n in _MONTH_SPANS if pattern.search(c.text)]
    months += [q.value * 12 for c in passage for q in c.figures.quantities if {"age", "aged", "when"} & set(c.words)]
    days = [q.value / 86_400 for q in every if q.unit == "second" and q.value % 86_400 == 0]
    days += [Fraction(n) for c in passage for pattern, n in _SPANS if pattern.search(c.text)]
    found = []
    for told in (c.figures.moments for c in passage):
        for sign in (1, -1):
            for year, count in product(told.get("y", ()), months):
                found.append(implied({"y": frozenset({int(year + sign * count / 12)})}))
                for month in told.get("m", ()):
                    at = 12 * year + month - 1 + int(sign * count)
                    found.append({"y": frozenset({at // 12}), "m": frozenset({at % 12 + 1})})
            found += [{"w": frozenset({int(w + sign * n) % 7})} for w in told.get("w", ()) for n in days]
            for n in days if {"d", "m"} <= told.keys() else ():
                year, month, day = (min(told.get(field, {2001})) for field in "ymd")
                with suppress(ValueError, OverflowError):  # no such day
                    then = date(year, month, day) + timedelta(int(sign * n))
                    fields = {"d": then.day, "m": then.month} | ({"y": then.year} if "y" in told else {})
                    found.append(implied({f: frozenset({v}) for f, v in fields.items()}))
    return found


def _about(claim: Clause, rivals: list[Clause]) -> list[Clause]:
    """Of the clauses with such a figure, those that share most with the claim; none where the shared words do not tell.

    A stem that only one of them holds weighs more than one that several hold, and a verb twice as much; three
    quarters of it where the clause goes on from one that holds it. Units, and what is counted, tell nothing. Lending is
    borrowing.
    """
    if len(rivals) < 2:
        return rivals
    acts = {_verb(w) for at, w in enumerate(claim.words) if _acts(claim.words, at)}
    spans = [f"{claim.text[q.start : q.end]} {q.unit}" for q in claim.figures.quantities]
    counted = {stem(w) for span in spans for w in _WORD.findall(span)}
    wanted = {_CONVERSE.get(s, s) for s in claim.stems - counted}
    held = [frozenset(_CONVERSE.get(s, s) for s in c.stems) for c in rivals]
    weights = {s: (1 + (s in acts)) / count for s in wanted if (count := sum(s in stems for stems in held))}
    scores = [
        sum(w if s in stems else 0.75 * w if s in c.before else 0.0 for s, w in weights.items())
        for c, stems in zip(rivals, held, strict=True)
    ]
    best = max(scores)
    return [c for c, score in zip(rivals, scores, strict=True) if score == best] if best else []
