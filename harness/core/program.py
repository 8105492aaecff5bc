"""The program that people start, with its defaults at one version: they decide what a model takes as much as its shape.

``data/programs.csv`` has one row for each change, with its source; a version has what its last row says.
Builds of llama.cpp's programs are counts of commits; ``engine`` rows hold for every program at that build.
"""

import re
from functools import lru_cache
from typing import Final, Literal

import msgspec

from harness.core.base import Frozen
from harness.core.errors import RefusedError, UnknownNameError
from harness.core.tables import Row, columns_of, expect, shipped_rows, shipped_table

GIB: Final = 2**30


class Program(Frozen):
    """What a program does where nothing is asked of it.

    Attributes:
        name: ``llama-server``, ``ollama`` ... ; empty for the harness itself, which says all of it.
        build: llama.cpp's build in it.
        context_tokens: 0: the model's own; -1: by the card's memory (Ollama).
        slots: Sequences that it keeps room for.
        unified: Whether they share one cache of the whole context; else each has an equal part.
        batch_tokens, ubatch_tokens: -1: by the context (Ollama).
        swa_full: Whether sliding layers keep the whole context.
        outputs: Logits that are reserved: of a physical batch, or one for each slot and draft.
        fit: Whether it shortens the context, then moves layers to the CPU, until ``fit_target_mib`` are free.
        mask_bytes: Of one cell and token of the attention mask on the device, with flash attention.
        embeddings: Whether the graph has room for embeddings in place of tokens.
        scattered: Whether places in the cache are inputs of the graph (``ggml_set_rows``).
        latent_cache: Whether latent attention keeps one row for all heads.
        f16_copies: Whether a GPU's fused attention has its copies of the cache in the compute buffer.
        checkpoints: Saved states a slot of sliding and recurrent layers.
        checkpoint_cells: What of a sliding cache one holds.
        cache_ram_mib: Most that it keeps of other prompts' states.
        drafts: Tokens that it drafts at a time where the model has layers for it and it is asked.
        grows: Whether the cache grows with its tokens (MLX).
        graph_nodes: Whose records are zeroed for each context, where they are many.
        vocabulary_percent: What a token of the vocabulary takes, of what it takes in llama.cpp alone.
        table_twice: Whether a token table that is also the output matrix is read twice where the file is not
            mapped.
    """

    name: str = ""
    version: str = ""
    build: int = 10480
    context_tokens: int = 4096
    slots: int = 1
    unified: bool = False
    batch_tokens: int = 2048
    ubatch_tokens: int = 512
    flash_attention: bool = True
    swa_full: bool = False
    outputs: Literal["ubatch", "slots"] = "ubatch"
    fit: bool = False
    fit_target_mib: int = 0
    mmap: bool = True
    mask_bytes: int = 2
    embeddings: bool = True
    scattered: bool = True
    latent_cache: bool = True
    f16_copies: bool = True
    context_padding: int = 256
    sliding_extra: Literal["batch", "ubatch"] = "ubatch"
    checkpoints: int = 0
    checkpoint_cells: Literal["all", "window"] = "window"
    cache_ram_mib: int = 0
    drafts: int = 0
    grows: bool = False
    graph_nodes: int = 0
    vocabulary_percent: int = 100
    table_twice: bool = False

    @property
    def written(self) -> str:
        """Name and version as people write them."""
        return f"{self.name} {self.version}".strip()


def read_programs() -> list[Row]:
    """The rows of ``data/programs.csv``.

    Raises:
        BadDataError: A setting that no program has, a value that it cannot have, or a row that stands twice.
    """
    path, kinds = "data/programs.csv", columns_of(Program)
    columns = {"since": _version, "setting": {"like", *kinds}}
    rows = shipped_rows(path, columns=columns, unique=("program since setting",))
    programs = {row["program"] for row in rows}
    for row in rows:
        kind = kinds.get(row["setting"], programs)
        expect(path, f"line {row.line}, value", row["value"], kind)
    return rows


def _version(cell: str) -> str:
    return "" if re.fullmatch(r"\d+(\.\d+)*", cell) else "a version in numbers, such as 9460 or 0.30.5"


_ROWS: Final = read_programs()
PROGRAMS: Final = tuple(dict.fromkeys(row["program"] for row in _ROWS if row["program"] != "engine"))


def read_options() -> dict[str, dict[str, str]]:
    """The tables ``spelled`` and ``settings`` of ``data/program_options.toml``.

    Raises:
        BadDataError: A spelling of no program, or an option that sets nothing.
    """
    path = "data/program_options.toml"
    document = shipped_table(path)
    for table, known in (("spelled", PROGRAMS), ("settings", Program.__struct_fields__)):
        for word, meant in document[table].items():
            expect(path, f"{table}, {word}", meant, known)
    return document


_WRITTEN: Final = read_options()
_OPTIONS: Final = _WRITTEN["settings"]
_SWITCHES: Final = frozenset({"unified", "swa_full"})


def _key(version: str) -> tuple[int, ...]:
    """A version as numbers: ``b9460`` is (9460,), ``0.30.5`` is (0, 30, 5)."""
    return tuple(int(number) for number in re.findall(r"\d+", version)[:4])


def _settings(name: str, version: tuple[int, ...], build: tuple[int, ...]) -> dict[str, str]:
    """What the rows of a program say at a version.

    Of one that is like another that one's at its build first.
    """
    own = [row for row in _ROWS if row["program"] == name]
    like = next((row["value"] for row in own if row["setting"] == "like"), "")
    settings = _settings(like, build, build) if like else {}
    return settings | {row["setting"]: row["value"] for row in own if _key(row["since"]) <= version}


@lru_cache(maxsize=256)
def program_named(text: str) -> Program:
    """``llama-server b9460``, ``ollama 0.30.5``, or a name alone for its newest version.

    An empty text is the harness itself. Options of llama.cpp may follow the name, as in
    ``llama-server -np 2 --swa-full --cache-ram 0``.

    Raises:
        UnknownNameError: No such program.
        RefusedError: A version without a number, an option that is not known or has no number.
    """
    name, *rest = text.split() or [""]
    if not name:
        return Program()
    version = ""
    if rest and not rest[0].startswith("-"):
        version = rest.pop(0)
    plain = re.sub(r"[-_. ]", "", name.lower())
    name = _WRITTEN["spelled"].get(
        plain, next((one for one in PROGRAMS if one.replace("-", "") == plain), "")
    )
    if not name:
        raise UnknownNameError("program", text, PROGRAMS)
    asked = _key(version)
    if version and not asked:
        raise RefusedError(
            f"version {version!r} of {name}: write a build such as b9460, or a version such as 0.30.5"
        )
    newest = asked or (10**9,)
    of_llama = name.startswith("llama-") and name != "llama-cpp-python"
    build = asked if of_llama and asked else _key(_settings(name, newest, newest).get("build", "0"))
    fields = _settings("engine", build, build) | _settings(name, newest, build)
    fields |= {"name": name, "version": version, "build": str(build[0])} | _options(rest)
    fields.pop("like", None)
    return msgspec.convert(fields, Program, strict=False)


def _options(words: list[str]) -> dict[str, str]:
    """Settings that options change; slots asked for by a number have caches of their own."""
    fields = dict[str, str]()
    while words:
        option = words.pop(0)
        setting = _OPTIONS.get(option)
        if setting is None:
            raise RefusedError(
                f"option {option!r} of the program is not known here: there are {', '.join(_OPTIONS)}"
            )
        if setting in _SWITCHES:
            value = "1"
        else:
            value = {"on": "1", "off": "0"}.get(word := (words or [""])[0], word)
        if not value.isdigit():
            raise RefusedError(f"option {option} of the program has {value!r}, expected a whole number")
        if setting == "slots":
            fields = {"unified": "0"} | fields
        fields[setting] = value
        words = words[0 if setting in _SWITCHES else 1 :]
    return fields


def option_of(word: str) -> str:
    """The setting that an option of llama.cpp's programs is of; the word itself for one that is unknown here."""
    return _OPTIONS.get(word, word)


def ollama_context(total_bytes: float) -> int:
    """Context that Ollama takes by the memory of all its cards, from 0.15.5 on.

    Source: its server/routes.go.
    """
    if total_bytes < 23 * GIB:
        return 4096
    if total_bytes < 47 * GIB:
        return 32768
    return 262144


def ollama_batch(context_tokens: int) -> int:
    """Physical batch that Ollama takes by the context, from version 0.30 on.

    Source: server/sched.go of Ollama.
    """
    if context_tokens <= 4096:
        return 512
    if context_tokens <= 32768:
        return 1024
    return 2048
