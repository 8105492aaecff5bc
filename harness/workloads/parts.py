"""The models that systems are made of, each with its own engine: a language model and a sentence encoder by llama.cpp.

What a prompt has in common with the one before is not read again: its keys and values are still in the cache.
The words around the turns of a chat are llama.cpp's own for the template in the model's file. They alone may
become special tokens: a passage that contains ``<|im_end|>`` stays text.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from ctypes import create_string_buffer
from functools import cache
from math import exp
from pathlib import Path
from statistics import mean
from typing import Any, Final, NamedTuple, Self

import numpy as np

from harness import plugins
from harness.arrays import Doubles, Singles
from harness.catalog.gguf import read_gguf
from harness.domain.result import PartMemory
from harness.domain.scenario import Scenario
from harness.errors import BadDataError
from harness.ports import Session
from harness.runtimes.llamacpp.quality import log_probabilities
from harness.workloads.passes import Meter, Op, Pass

Prompt = str | Sequence[tuple[str, str]]
"""A user's turn, or (role, content) of several turns; roles are ``system``, ``user``, ``assistant``."""
ChatWords = Callable[..., Sequence[str]]
"""What stands before, between and after the contents of turns with the roles given."""
YES_NO: Final = ("Yes", "No")
OPTIONS: Final = {"language": "--model MODEL", "encoder": "--encoder FILE", "nli": "--nli FOLDER"}
ENCODER_TOKENS: Final = 512
_MARK: Final = "@content %d@"
_MOST_BYTES: Final = 1 << 16


class Written(NamedTuple):
    """What a model wrote, and the geometric mean probability of its tokens, the ending one included."""

    text: str
    confidence: float


class LanguageModel:
    """One loaded model, and the words around its turns.

    Attributes:
        session: For what this class does not do: several sequences, taps. Whoever uses it calls
            :meth:`forget` then.
    """

    def __init__(
        self, session: Session, words: ChatWords, meter: Meter | None = None, path: Path = Path()
    ) -> None:
        self.session, self.words, self.path = session, words, path
        self.meter = meter or Meter()
        self._held: list[int] = []

    @classmethod
    def open(
        cls, path: Path, meter: Meter, *, thread_count: int = 1, context_tokens: int = 2048, tap: Any = None
    ) -> Self:
        """Load a GGUF file; what it computes on the way is shown to the ``tap``.

        Raises:
            MissingPackageError: No package that brings llama.cpp is installed.
            EngineError: llama.cpp refused the file.
        """
        runtime = plugins.usable_runtime("llamacpp")
        session = runtime.open(path, scenario_of(context_tokens, thread_count), tap=tap)
        template = read_gguf(path).metadata.get("tokenizer.chat_template")
        words: ChatWords = plain_words
        if template:
            words = chat_words(runtime.library(), str(template), path)
        return cls(session, words, meter, path)

    def forget(self) -> None:
        """Clear the cache."""
        self.session.clear()
        self._held = []

    def tokens(self, prompt: Prompt) -> list[int]:
        """Token ids of a conversation, ending in the words that begin an answer."""
        turns = [("user", prompt)] if isinstance(prompt, str) else prompt
        first, *others = self.words(*(role for role, _ in turns))
        ids = self.session.tokenize("") + self.session.tokenize(first, add_special=False, parse_special=True)
        for (_, content), after in zip(turns, others, strict=True):
            ids += self.session.tokenize(content, add_special=False)
            ids += self.session.tokenize(after, add_special=False, parse_special=True)
        return ids

    def read(
        self, tokens: Sequence[int], *, op: Op = Op.READ, logits: str = "last", share: float = 1.0
    ) -> None:
        """Read a prompt from the place on where it differs from what the cache holds."""
        start = 0
        while start < min(len(self._held), len(tokens) - 1) and self._held[start] == tokens[start]:
            start += 1
        one = Pass(part="language", op=op, tokens=len(tokens) - start, depth=start, share=share)
        with self.meter.timed(one):
            self.session.truncate(start)
            self.session.decode(tokens[start:], position=start, logits=logits)
        self._held = list(tokens)

    def write(
        self,
        prompt: Prompt,
        most_tokens: int,
        *,
        temperature: float = 0.0,
        seed: int = 0,
        ends: Callable[[str], bool] = lambda text: "\n" in text,
    ) -> Written:
        """Write an answer, greedily or drawn at a temperature, up to the model's own end or a text that ``ends`` it."""
        held = self.tokens(prompt)
        self.read(held)
        rng = np.random.default_rng(seed)
        drawn: list[int] = []
        logs: list[float] = []
        while True:
            chances = log_probabilities(self.session.logits())
            token = int(chances.argmax())
            if temperature > 0:
                weights = np.cumsum(np.exp((chances - chances.max()) / temperature))
                token = int(np.searchsorted(weights, rng.random() * weights[-1]))
            logs.append(float(chances[token]))
            if self.session.is_end(token) or ends(self.session.detokenize([token])):
                break
            drawn.append(token)
            if len(drawn) == most_tokens:
                break
            self.read([*held, *drawn], op=Op.WRITE)
        return Written(self.session.detokenize(drawn).strip(), exp(mean(logs)))

    def options(self, prompt: Prompt, options: Sequence[str] = YES_NO) -> Doubles:
        """Probability of each option among them [options], by the first token of the answer.

        Spellings in lower case and after a space count with each option.
        """
        self.read(self.tokens(prompt), op=Op.JUDGE)
        chances = log_probabilities(self.session.logits())
        scores = np.array([np.logaddexp.reduce(chances[self._spellings(option)]) for option in options])
        shares: Doubles = np.exp(scores - np.logaddexp.reduce(scores))
        return shares

    def _spellings(self, option: str) -> list[int]:
        """First tokens of an answer that begins with the option.

        After a space only where both are one token.
        """
        found = set()
        for text in (option, option.lower(), f" {option}", f" {option.lower()}"):
            tokens = self.session.tokenize(text, add_special=False)
            if len(tokens) == 1 or not text.startswith(" "):
                found.add(tokens[0])
        return sorted(found)


class Encoder:
    """A sentence encoder in a GGUF file: vectors of unit length, pooled as the file says."""

    def __init__(self, path: Path, meter: Meter, *, thread_count: int = 1) -> None:
        runtime = plugins.usable_runtime("llamacpp")
        self.path, self.name, self.meter = path, path.stem, meter
        self.session = runtime.open(path, scenario_of(ENCODER_TOKENS, thread_count))
        self.dim = read_gguf(path).shape().hidden_dim

    def embed(self, texts: Sequence[str]) -> Singles:
        """Unit vectors [len(texts), dim], one text a pass: what a pass takes does not depend on its neighbours."""
        vectors = []
        for text in texts:
            tokens = self.session.tokenize(text)[: self.session.context_tokens]
            with self.meter.timed(Pass(part="encoder", op=Op.EMBED, tokens=len(tokens))):
                vector = self.session.embedding(tokens)
            vectors.append(vector / np.float32(max(float(np.linalg.norm(vector)), 1e-12)))
        return np.stack(vectors)


class Parts(NamedTuple):
    """The parts that are there, and what times their passes."""

    language: Any = None
    encoder: Any = None
    nli: Any = None
    meter: Meter = Meter()

    def memory(self) -> list[PartMemory]:
        """What each part holds, as its engine tells."""
        held = []
        for name in sorted(OPTIONS):
            part = getattr(self, name)
            if part is None:
                continue
            sizes = {"kv cache": 0, "compute buffer": 0}
            for buffer in getattr(getattr(part, "session", None), "buffers", ()):
                if buffer.part in sizes:
                    sizes[buffer.part] += buffer.size_bytes
            held.append(
                PartMemory(
                    part=name,
                    file_bytes=part.path.stat().st_size,
                    cache_bytes=sizes["kv cache"],
                    arena_bytes=sizes["compute buffer"],
                )
            )
        return held


def scenario_of(context_tokens: int, thread_count: int) -> Scenario:
    """How a part of llama.cpp is opened, here and in its prediction."""
    return Scenario(context_tokens=context_tokens, thread_count=thread_count, api="cpu")


def open_parts(paths: Mapping[str, str], *, context_tokens: int = 2048, thread_count: int = 1) -> Parts:
    """Open the parts that are named: files are llama.cpp's, folders ONNX Runtime's."""
    meter = Meter()
    opened: dict[str, Any] = {}
    for name, text in paths.items():
        path = Path(text)
        if name == "language":
            opened[name] = LanguageModel.open(
                path, meter, thread_count=thread_count, context_tokens=context_tokens
            )
        elif path.is_file():
            opened[name] = Encoder(path, meter, thread_count=thread_count)
        else:
            from harness.workloads.onnx_text import OnnxText

            opened[name] = OnnxText(path, meter, name, thread_count=thread_count)
    return Parts(**opened, meter=meter)


def plain_words(*roles: str) -> Sequence[str]:
    """Of a model without a chat template: a line for each turn."""
    return ["", *("\n" for _ in roles)]


def chat_words(library: Any, template: str, path: Path) -> ChatWords:
    """The words of one chat template, as llama.cpp knows it.

    Raises:
        BadDataError: When they are asked for: llama.cpp does not know the template, or it moves or drops a
            content.
    """

    @cache
    def words(*roles: str) -> Sequence[str]:
        marks = [_MARK % at for at in range(len(roles))]
        turns = [(role.encode(), mark.encode()) for role, mark in zip(roles, marks, strict=True)]
        chat = (library.llama_chat_message * len(turns))(*turns)
        buffer = create_string_buffer(_MOST_BYTES)
        size = library.llama_chat_apply_template(
            template.encode(), chat, len(turns), True, buffer, _MOST_BYTES
        )
        text = buffer.raw[: max(size, 0)].decode()
        pattern = _MARK.replace("%d", r"\d+")
        if size > _MOST_BYTES or re.findall(pattern, text) != marks:
            raise BadDataError(
                path, "tokenizer.chat_template", template[:60], "a template that llama.cpp knows"
            )
        return re.split(pattern, text)

    return words
