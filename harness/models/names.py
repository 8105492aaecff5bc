"""From a model's name as people write it to a card: hub repositories, Ollama tags, llama-bench's and LM Studio's names.

Rules, in order, after a quantisation has been taken out of the name: the card's own name; the words of a
name, title or alias, without those that change no shape (Instruct, dates, publishers); the base model that a
name gives in brackets; the same letters and digits without dots; a card's words with its size among others (a
fine-tune of that model). What differs otherwise is an alias, and aliases are data in the cards.
"""

import re
from collections.abc import Iterator
from contextlib import suppress
from difflib import get_close_matches
from functools import lru_cache
from typing import Final, NamedTuple

from harness.core.errors import RefusedError, UnknownNameError
from harness.core.model import ModelCard
from harness.core.paths import data_root
from harness.core.printable import clean
from harness.core.tables import shipped_table
from harness.models.cards import load_card, model_names, named
from harness.models.guess import Guess, guess, sizes_in
from harness.models.other_kinds import other_kind, without_weights
from harness.models.quant import split

_WORD: Final = re.compile(r"\d+(?:\.\d+)*[bm](?![a-z0-9])|\d+(?:\.\d+)*|[a-z]+")
TABLES: Final = shipped_table("data/names.toml")
_DROPPED: Final = frozenset(TABLES["dropped"].split())
_DATE_OR_VERSION: Final = re.compile(TABLES["date_or_version"], re.IGNORECASE | re.VERBOSE)
_READS: Final = re.compile(rf"\b({TABLES['reads']})\b", re.IGNORECASE)
_SIZED: Final = re.compile(r"\d[bm]\b")
_OTHER_SIZE: Final = re.compile(rf"(?<![a-z])(?:{'|'.join(TABLES['size_words'].split())})(?![a-z])")
_OTHER_SHAPE: Final = re.compile(r"\d[bm]\b|\bk-\d|rwkv|mamba|bitnet|reap|pruned|\bvl\b|chimera")
"""What beside a card's words tells that the model is another one."""
_NAME_MAX: Final = 300
"""Characters of a name; records of strangers may hold longer ones."""
HUB_PREFIX: Final = "hf:"
_HUB_URL: Final = re.compile(
    r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/([\w.-]+/[\w.-]+)(?:/(?:resolve|blob)/[^/]+/([^?#]+\.gguf))?/?(?:[?#].*)?"
)
_REPOSITORY: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(?::[\w.\- ]+)?")


class Match(NamedTuple):
    """What a name was taken for: a card of the catalog, or a guess of a model that nobody knows, bounded by its size.

    ``quant`` is the quantisation in the name, as written; ``why`` says how the name was read.
    """

    card: ModelCard | None
    guess: Guess | None
    quant: str
    why: str


def key(name: str) -> str:
    """The words of a name that tell models apart: ``llama-3.1-8b`` of "Meta Llama 3.1 8B Instruct"."""
    text = name.rsplit("/", 1)[-1].lower()
    for pattern, spelled in TABLES["spellings"]:
        text = re.sub(pattern, spelled, text)
    text = _DATE_OR_VERSION.sub(" ", _unbracketed(text).replace("_", " "))
    words = [word for word in _WORD.findall(text) if word not in _DROPPED]
    if any(
        word[-1] in "bm" and word[0].isdigit() for word in words
    ):  # a size tells a mixture of experts already
        words = [word for word in words if word not in {"moe", "1m"}]  # 1m: tokens of context
    return "-".join(words)


def match(name: str, *, params_b: float = 0.0, active_b: float = 0.0) -> Match:
    """The card that a name means; else a guess of a model of its size.

    ``params_b`` and ``active_b`` (10**9, those that one token goes through) are given where they are known
    from elsewhere, 0 otherwise: no card of another size fits.

    Raises:
        UnknownNameError: No card of that name, and no size from which to bound the model.
        RefusedError: The name is that of no language model, or of a service: says what it is and what answers it.
    """
    name = clean(name, _NAME_MAX)
    if not params_b and name not in model_names():
        other = without_weights(name) or ("" if _is_listed(name) else other_kind(name))
        if other:
            raise RefusedError(other)
    card, why, quant = _card_of(name, params_b)
    if card is not None:
        if _drafts(name, card):
            card = card.replace(shape=card.shape.replace(mtp_layer_count=1))
            why += "; its file holds the block that drafts (MTP)"
        if card.name != name and card.checked:
            why += f"; its shape was read for {card.checked}"
        return Match(card, None, quant, why)
    bounded = guess(name, params_b=params_b, active_b=active_b)
    if bounded is None:
        raise UnknownNameError("model", name, nearest(name))
    close = nearest(name)
    if not params_b and close and _misspelt(name, close[0]):
        raise UnknownNameError("model", name, close)
    why = bounded.why + (f" (names like it: {', '.join(close)})" if close else "")
    return Match(None, bounded, quant, why)


def _is_listed(name: str) -> bool:
    """Whether a card, a title or an alias has just that name."""
    return key(split(name)[0]) in _index(str(data_root("models")), tuple(model_names()))


def _drafts(name: str, card: ModelCard) -> bool:
    """Whether a file of that name holds a block that drafts, which the card's does not."""
    owner = name.partition("/")[0].lower()
    told = card.shape.architecture in TABLES["drafting_files"].get(owner, "").split()
    own = told and key(card.name).partition("-")[0] in key(split(name)[0])
    return not card.shape.mtp_layer_count and (own or re.search(r"(?i)\bmtp\b", name) is not None)


def is_another(name: str, card: ModelCard) -> bool:
    """Whether a name has words beside the card's own: another version of the same shape, or a model made of it."""
    bare = split(name.removesuffix(".gguf"))[0]
    known = f"{key(card.name)}-{key(split(card.title)[0])}-a".split("-")
    line = bare.rpartition("/")[2].partition("_")[2]  # Qwen_QwQ-32B: the owner before a line
    for text in filter(None, (key(bare), key(line))):
        told = {word for word in text.split("-") if not _SIZED.search(word)}
        if told <= {*known} or re.sub(r"[-.]", "", text) == re.sub(r"[-.]", "", key(card.name)):
            return False
    return True


def _misspelt(name: str, card: str) -> bool:
    """Whether a name differs from a card's by a letter or two, and in no figure."""
    bare = key(split(name)[0])
    own = key(card)
    same_figures = re.findall(r"[\d.]+", bare) == re.findall(r"[\d.]+", own)
    return same_figures and bool(get_close_matches(bare, [own], n=1, cutoff=0.88))


def reads_only(name: str, card: ModelCard | None) -> bool:
    """Whether a model writes nothing, by its card or its name: an embedding model or a reranker."""
    return (card is not None and card.purpose == "reads") or _READS.search(name) is not None


def is_repository(ref: str) -> bool:
    """Whether a name has the form of a hub's repository: ``org/repo``, with a file or a quantisation behind a colon."""
    return _REPOSITORY.fullmatch(ref) is not None


def is_hub(ref: str) -> bool:
    """Whether a name says that it is a repository of the hub: ``hf:org/repo``, or its address."""
    return ref.startswith(HUB_PREFIX) or _HUB_URL.fullmatch(ref) is not None


def hub_parts(ref: str) -> tuple[str, str, str]:
    """Repository, file and quantisation of ``hf:org/repo[:file.gguf]`` or ``org/repo:Q4_K_M``.

    Raises:
        RefusedError: The name has neither of these forms.
    """
    address = _HUB_URL.fullmatch(ref)
    if address:
        return address[1], address[2] or "", ""
    repo, _, rest = ref.removeprefix(HUB_PREFIX).partition(":")
    if not is_repository(repo):
        raise RefusedError(f"{ref!r} is no repository of the hub: write hf:org/repo or hf:org/repo:file.gguf")
    if rest.endswith(".gguf"):
        return (repo, rest, "")
    return (repo, "", rest)


def nearest(name: str) -> list[str]:
    """Names of cards that look like this one, best first."""
    keys = _index(str(data_root("models")), tuple(model_names()))
    close = get_close_matches(key(split(name)[0]), keys, n=6, cutoff=0.6)
    return list(dict.fromkeys(keys[k] for k in close))[:3]


def _card_of(name: str, params_b: float) -> tuple[ModelCard | None, str, str]:
    """(card, how it was found, quantisation in the name)."""
    if name in model_names():
        return load_card(name), "the card of that name", ""
    bare, quant = split(name)
    # A whole model that carries its block for drafting: heads alone are refused before.
    bare = re.sub(r"(?i)[-_. ]mtp\b", "", bare)
    for model, size_b, why in _meant(bare, _index(str(data_root("models")), tuple(model_names()))):
        if model and (card := _sized(load_card(model), size_b or params_b)):
            return card, why.format(card.name), quant
    return None, "", quant


def _meant(bare: str, keys: dict[str, str]) -> Iterator[tuple[str | None, float, str]]:
    """Cards that a name can mean, surest first: each with the size (10**9) that the name gives it, and the reason."""
    own = key(bare)
    alike = "read as {}"
    yield keys.get(own), 0, alike
    whose, _, line = bare.rpartition("/")[2].partition("_")  # Qwen_QwQ-32B: the owner before a line
    if not re.search(r"\d", whose):
        yield keys.get(key(line)), 0, alike
    head, _, tag = bare.partition(":")  # mxbai-embed-large:335m
    if size_b := sizes_in(tag)[0]:
        yield keys.get(key(head)), size_b, "{} is of that size"
    if other_kind(_unbracketed(bare)) or _READS.search(bare):
        return
    for text in re.findall(r"\(([^)]*\d[^)]*)\)", bare):
        yield keys.get(key(text)), 0, "it says itself that its base is {}"
    sized = {model for k, model in keys.items() if re.fullmatch(rf"{re.escape(own)}-[\d.]+[bm]", k)}
    if own and len(sized) == 1:
        yield sized.pop(), 0, "{} is the only size of it that is known"
    if re.search(r"\d[-_]\d", bare):  # QWEN2-5-0-5B: a dash where others write a dot
        fits = {model for k, model in keys.items() if re.sub(r"[-.]", "", k) == re.sub(r"[-.]", "", own)}
        if len(fits) == 1:
            yield fits.pop(), 0, "letters and digits are those of {}"
    told = [word for word in own.split("-") if word in _known_words(tuple(keys.values()))]
    if (
        len(told) > 1
        and _SIZED.search(told[-1])
        and not _OTHER_SHAPE.search("-".join({*own.split("-")} - {*told}))
    ):
        yield keys.get("-".join(told)), 0, "its other words name no model but {}"
    for text in sorted(keys, key=len, reverse=True):
        before, found, after = f"-{own}-".partition(f"-{text}-")
        tells = text.count("-") > 1 or text == key(keys[text])  # two words such as llama-3b say too little
        is_sized = _SIZED.search(text) or (text.count("-") > 1 and re.search(r"\d\.\d", text))
        is_other = not _SIZED.search(text) and _OTHER_SIZE.search(f"{before}-{after}")
        if found and tells and is_sized and not is_other and not _OTHER_SHAPE.search(f"{before}-{after}"):
            yield keys[text], 0, "it names {}, and is taken for a model made of it"


@lru_cache(maxsize=4)
def _known_words(cards: tuple[str, ...]) -> frozenset[str]:
    """Words of the names of all cards."""
    return frozenset(word for card in cards for word in key(card).split("-"))


def _unbracketed(name: str) -> str:
    return re.sub(r"\(.*?\)", " ", name)


def _sized(card: ModelCard, params_b: float) -> ModelCard | None:
    """The card, unless its size is another by more than a quarter."""
    stated = card.parameter_count / 1e9
    if stated and params_b and not 0.75 < stated / params_b < 1.33:
        return None
    return card


@lru_cache(maxsize=4)
def _index(root: str, names: tuple[str, ...]) -> dict[str, str]:  # noqa: ARG001 - the folder is part of the key
    """Cards' names by key; a card's own name wins over titles and aliases."""
    names_by_key: dict[str, str] = {}
    cards = list(named())
    for name, _ in cards:
        names_by_key.setdefault(key(name), name)
    for name, (title, *aliases) in cards:
        for alias in (split(title)[0], *aliases):
            names_by_key.setdefault(key(alias), name)
    for name in list(names_by_key):  # Ollama leaves out the active parameters: qwen3.6:35b is Qwen3.6 35B A3B
        names_by_key.setdefault(re.sub(r"-a-\d+(?:\.\d+)?[bm]$", "", name), names_by_key[name])
    return names_by_key


def load_model(ref: str) -> ModelCard:
    """The card of a model however people write its name, or in a ``.toml`` file.

    Raises:
        UnknownNameError: Nobody knows it; names the nearest.
        BadDataError: The file breaks the schema.
    """
    with suppress(UnknownNameError):
        return load_card(ref)
    card = _card_of(ref, 0.0)[0]
    if card is None:
        raise UnknownNameError("model", ref, nearest(ref))
    return card
