"""A language model as a part: it writes, answers yes or no, and weighs given answers, each in a few passes.

What a prompt has in common with the one before is not read again: its keys and values are still in the cache.

The words around the turns of a chat are llama.cpp's own for the template in the model's file, which it recognises and
does not run. They alone may become special tokens: a passage that contains ``<|im_end|>`` stays text.
"""

import re
from collections.abc import Callable, Sequence
from ctypes import create_string_buffer
from functools import cache
from math import exp
from pathlib import Path
from statistics import mean
from typing import Any, Final, NamedTuple, Self

import numpy as np

from harness import plugins
from harness.arrays import Doubles
from harness.catalog.gguf import read_gguf
from harness.domain.scenario import Scenario
from harness.errors import BadDataError
from harness.ports import Session
from harness.runtimes.llamacpp.quality import log_probabilities

Prompt = str | Sequence[tuple[str, str]]
"""A user's turn, or (role, content) of several turns; roles are ``system``, ``user``, ``assistant``."""
ChatWords = Callable[..., Sequence[str]]
"""What stands before, between and after the contents of turns with the roles given."""
YES_NO: Final = ("Yes", "No")
_MARK: Final = "@content %d@"
_MOST_BYTES: Final = 1 << 16


class Written(NamedTuple):
    """What a model wrote.

    Attributes:
        text: Without the token that ended it.
        confidence: Geometric mean probability of its tokens, the ending one included, at temperature 1.
    """

    text: str
    confidence: float


class LanguageModel:
    """One loaded model and the words around its turns.

    Attributes:
        session: For what this class does not do: single passes, several sequences, taps. Whoever uses it calls
            :meth:`forget` afterwards.
        path: Its file.
    """

    def __init__(self, session: Session, words: ChatWords = lambda *roles: ["", *("\n" for _ in roles)]) -> None:
        self.session, self.words, self.path = session, words, Path()
        self._held: list[int] = []

    @classmethod
    def open(cls, path: Path, *, thread_count: int = 1, context_tokens: int = 4096, **options: Any) -> Self:
        """Load a GGUF file with llama.cpp; ``options`` are the runtime's own, such as ``tap``.

        Raises:
            MissingPackageError: llama-cpp-python is not installed.
            EngineError: llama.cpp refused the file.
        """
        runtime = plugins.usable_runtime("llamacpp")
        scenario = Scenario(context_tokens=context_tokens, thread_count=thread_count)
        session = runtime.open(path, scenario, **options)
        template = read_gguf(path).metadata.get("tokenizer.chat_template")
        model = cls(session, chat_words(runtime.library(), str(template), path)) if template else cls(session)
        model.path = path
        return model

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

    def read(self, tokens: Sequence[int], *, logits: str = "last") -> int:
        """Read a prompt from the place on where it differs from what the cache holds; returns that place."""
        alike = next((at for at, (a, b) in enumerate(zip(self._held, tokens, strict=False)) if a != b), len(self._held))
        start = min(alike, len(tokens) - 1)
        self.session.truncate(start)
        self.session.decode(tokens[start:], position=start, logits=logits)
        self._held = list(tokens)
        return start

    def write(
        self,
        prompt: Prompt,
        most_tokens: int,
        *,
        temperature: float = 0.0,
        seed: int = 0,
        ends: Callable[[str], bool] = lambda text: "\n" in text,
    ) -> Written:
        """Write an answer: greedily, or drawn at a temperature.

        It ends with the model's own end, after ``most_tokens``, or with a token whose text fulfils ``ends``, which by
        default is the end of a line.
        """
        tokens = self.tokens(prompt)
        self.read(tokens)
        rng = np.random.default_rng(seed)
        drawn: list[int] = []
        taken: list[float] = []
        while True:
            chances = log_probabilities(self.session.logits())
            token = int(chances.argmax())
            if temperature > 0:
                weights = np.exp((chances - chances.max()) / temperature)
                token = int(np.searchsorted(np.cumsum(weights), rng.random() * weights.sum()))
            taken.append(float(chances[token]))
            is_end = self.session.is_end(token) or ends(self.session.detokenize([token]))
            drawn += [] if is_end else [token]
            if is_end or len(drawn) == most_tokens:
                return Written(self.session.detokenize(drawn).strip(), exp(mean(taken)))
            self.read([*tokens, *drawn])

    def options(self, prompt: Prompt, options: Sequence[str] = YES_NO) -> Doubles:
        """Probability of each option among them [options], by the first token of the answer.

        Spellings in lower case and after a space count with each option.
        """
        self.read(self.tokens(prompt))
        chances = log_probabilities(self.session.logits())
        spellings = [self._spellings(option) for option in options]
        scores = np.array([np.logaddexp.reduce(chances[tokens]) for tokens in spellings])
        shares: Doubles = np.exp(scores - np.logaddexp.reduce(scores))
        return shares

    def _spellings(self, option: str) -> list[int]:
        """First tokens of an answer that begins with the option; after a space only where both are one token."""
        found = set()
        for text in (option, option.lower(), f" {option}", f" {option.lower()}"):
            tokens = self.session.tokenize(text, add_special=False)
            if len(tokens) == 1 or not text.startswith(" "):
                found.add(tokens[0])
        return sorted(found)


def chat_words(library: Any, template: str, path: Path) -> ChatWords:
    """The words of one chat template, as llama.cpp knows it.

    Raises:
        BadDataError: When they are asked for: llama.cpp does not know the template, or it moves or drops a content.
    """

    @cache
    def words(*roles: str) -> Sequence[str]:
        marks = [_MARK % at for at in range(len(roles))]
        turns = [(role.encode(), mark.encode()) for role, mark in zip(roles, marks, strict=True)]
        chat = (library.llama_chat_message * len(turns))(*turns)
        buffer = create_string_buffer(_MOST_BYTES)
        size = library.llama_chat_apply_template(template.encode(), chat, len(turns), True, buffer, _MOST_BYTES)
        text = buffer.raw[: max(size, 0)].decode()
        pattern = _MARK.replace("%d", r"\d+")
        if size > _MOST_BYTES or re.findall(pattern, text) != marks:
            raise BadDataError(path, "tokenizer.chat_template", template[:60], "a template that llama.cpp knows")
        return re.split(pattern, text)

    return words
