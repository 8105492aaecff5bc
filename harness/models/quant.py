"""What people write for a quantisation: found in a model's name, and turned into a mixture of llama.cpp.

Many are no mixture of llama.cpp but a recipe of their own: bits a weight for each group of tensors, with the
interval of published bytes over computed ones. Some depend on who made the file, which the owner of a
repository tells.
"""

import re
from collections.abc import Iterator
from typing import Any, Final

from harness.core.base import Frozen
from harness.core.tables import maybe, shipped_rows, shipped_table, words
from harness.models.ggml import BLOCKS


class Quantisation(Frozen):
    """What a quantisation's name was taken for.

    Attributes:
        mixture: llama.cpp's name of it, or of the mixture that stands in for it.
        bits: Bits a weight of each group of tensors (``GROUPS``), where the mixture's own types do not decide
            them; 0 leaves a group as the mixture has it.
        low: Published bytes over computed ones, 5 % quantile; 0 where the mixture is exactly meant.
        high: The same, 95 % quantile.
        own_output: Architecture whose files store a matrix twice that is token table and output in one.
        importance_matrix: Whether its maker is known to use one.
        why: What it is, and why that mixture; empty where the mixture is exactly meant.
    """

    text: str
    mixture: str
    bits: tuple[float, ...] = ()
    low: float = 0.0
    high: float = 0.0
    own_output: str = ""
    importance_matrix: bool = False
    why: str = ""


GROUPS: Final = ("output", "table", "layer_tables", "attention", "feed_forward", "experts", "other")
"""Groups of tensors that recipes give bits to: the output matrix (and a table that is one), the token table,
those of each layer (Gemma 3n and 4), attention, dense feed-forward blocks, routed experts, recurrent mixers
with shared experts. """
TABLES: Final = shipped_table("data/quantisations.toml")
"""What people write for quantisations, their recipes, and the groups of tensors."""
SAME: Final[dict[str, str]] = TABLES["same"]
"""Other spellings of a mixture of llama.cpp."""


class Mixture(Frozen):
    """A mixture of llama.cpp, a row of ``data/mixtures.csv``.

    Attributes:
        file_type: Its number in a file.
        base: The type of most matrices.
        flags: Words that the table explains.
    """

    file_type: int
    base: str
    flags: frozenset[str]


_FLAGS: Final = {"importance_matrix", "throughout", "rung", "low_bits", "read_only", "unmade"}


def read_mixtures() -> dict[str, Mixture]:
    """Mixtures by name, as ``data/mixtures.csv`` has them.

    Raises:
        BadDataError: A slip in the table, a name or a number that stands twice, a base that is no type.
    """
    path = "data/mixtures.csv"
    known = {*BLOCKS, *(row["mixture"] for row in shipped_rows(path) if row["base"])}

    def named(cell: str) -> str:
        return "" if cell in known else "a type of data/ggml_types.csv, or one in the column base"

    columns = {"mixture": named, "file_type": int, "base": maybe(BLOCKS), "flags": words(_FLAGS)}
    return {
        row["mixture"]: Mixture(
            file_type=int(row["file_type"]),
            base=row["base"] or row["mixture"],
            flags=frozenset(row["flags"].split()),
        )
        for row in shipped_rows(path, columns=columns, unique=("mixture", "file_type"))
    }


MIXTURES: Final = read_mixtures()
_MIXTURES: Final = {name for name, one in MIXTURES.items() if "read_only" not in one.flags}


def _recipes() -> Iterator[tuple[str, str, str, Quantisation]]:
    """Owner, architectures, pattern of a name, and what fits it, as ``data/quantisations.toml`` has them."""
    groups: list[dict[str, Any]] = [
        {"why": why, "only": "".join(only), "rows": {pattern: cells}}
        for pattern, cells, why, *only in TABLES["rules"]
    ]
    for group in sorted([*groups, *TABLES["recipes"]], key=lambda group: "owner" not in group):
        for pattern, row in group["rows"].items():
            cells: list[Any] = [*row, *group.get("interval", ())]
            high = cells.pop()
            low = cells.pop()
            mixture = pattern
            if cells and isinstance(cells[0], str):
                mixture = cells.pop(0)
            why = group["why"]
            if low:
                why += f"; published files have {low:g} to {high:g} of the bytes computed"
            bits = tuple(cells and [0.0] * (len(GROUPS) - len(cells)) + cells)
            found = Quantisation(text="", mixture=mixture, bits=bits, low=low, high=high, why=why)
            yield group.get("owner", ""), group.get("only", ""), pattern, found


_RECIPES: Final = tuple(_recipes())
_IN_NAME: Final = re.compile(TABLES["in_name"], re.IGNORECASE | re.VERBOSE)
_OF_MODEL: Final = re.compile(r"(?i)^((?:i?q\d\w*|[2-8][- ]?bits?)) (?:of|for) (.+)$")
_IN_WORDS: Final = re.compile(
    r"\b((?:I?Q\d|TQ\d|F16|F32|BF16|MXFP4|NVFP4)[A-Z0-9_]*)(?: - (?:Small|Medium|Large)| mix)?"
)


def split(name: str) -> tuple[str, str]:
    """A model's name without its quantisation, and the quantisation as written (empty where it names none).

    A mixture after a colon, a space or a dash counts, and one in a file's name (``-Q4_K_M.gguf``); of two the
    one after a colon, which is a tag, else the first.
    """
    name = _OF_MODEL.sub(r"\2 \1", name)
    quantisations = [match for match in _IN_NAME.finditer(name) if match.start(1) > 0]
    rest = name
    for match in reversed(quantisations):
        rest = rest[: match.start()] + rest[match.end() :]
    found = quantisations[0][1] if quantisations else ""
    if len(quantisations) > 1 and re.fullmatch(r"(?i)exl[23]", found):
        found = f"{found}-{quantisations[1][1]}"
    else:
        found = next((match[1] for match in quantisations if name[match.start(1) - 1] == ":"), found)
    in_words = re.fullmatch(r"(\d)[- ]?bits?", found, re.IGNORECASE)
    if in_words and " " in name:
        rest = re.sub(r"(?i)\s+(?:at|in|with|of)\s*$", "", rest)
        found = TABLES["in_words"].get(in_words[1], found)
    if found.lower().startswith("ud") and re.search(r"(?i)\bqat\b", rest):
        found = f"qat-{found}"
    return rest.strip(" -_.:"), found


def understood(text: str, architecture: str = "") -> Quantisation | None:
    """What a quantisation's name stands for; None for one that nobody knows.

    ``unsloth:Q2_K_L`` is the recipe of that owner of a repository, where it has one of its own: for all
    architectures, or for the model's.
    """
    owner, _, name = text.lower().rpartition(":")
    plain = re.sub(r"[-_ ]+", "_", name.strip().upper()).strip("_")
    plain = SAME.get(plain, plain)
    is_mixture = plain in _MIXTURES
    own_output = TABLES["own_output"].get(owner, "")
    matrix = owner in TABLES["importance_matrix"]["owners"]
    known = Quantisation(text=text, mixture=plain, own_output=own_output, importance_matrix=matrix)
    smaller = TABLES["larger_tables"].get(plain)
    if smaller and (owner, plain) not in {(whose, pattern) for whose, _, pattern, _ in _RECIPES}:
        base = understood(f"{owner}:{smaller}", architecture) or known
        why = f"output matrix and token tables in Q8_0 beside {smaller}"
        bits = (8.5, 8.5, 8.5, *(base.bits or (0.0,) * len(GROUPS))[3:])
        return base.replace(text=text, bits=bits, low=base.low or 0.96, high=base.high or 1.04, why=why)
    for whose, only, pattern, found in _RECIPES:
        match = re.fullmatch(pattern, plain)
        counts = whose == owner if whose else not is_mixture
        if match is None or not counts or (only and architecture not in only.split()):
            continue
        found = found.replace(text=text, own_output=own_output, importance_matrix=matrix)  # noqa: PLW2901
        if found.mixture == "bits":
            named = float(next(filter(None, match.groups())))
            bits = tuple(named + more for more in found.bits)
            mixture = next(m for most, m in TABLES["up_to_bits"] if bits[4] <= most)
            return found.replace(mixture=mixture, bits=bits)
        return found
    for pattern, spelled in TABLES["spellings"].items():
        match = re.fullmatch(pattern, plain)
        if match and not is_mixture:
            mixture = match.expand(spelled)
            return known.replace(mixture=SAME.get(mixture, mixture))
    return known if is_mixture else None


def mixture_in(words: str) -> str:
    """Read the mixture from llama.cpp's own words: ``qwen2 1B Q4_K - Medium`` is ``Q4_K_M``.

    The result is an empty text if they name no mixture.
    """
    match = _IN_WORDS.search(words)
    if match is None:
        return ""
    known = understood(match[0])
    if known and not known.low:
        return known.mixture
    return match[1]
