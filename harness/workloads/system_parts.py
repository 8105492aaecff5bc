"""The models that systems are made of, each with its own engine: a language model and a sentence encoder by llama.cpp.

What a prompt has in common with the one before is not read again: its keys and values are still in the cache.
The words around the turns of a chat are llama.cpp's own for the template in the model's file. They alone may
become special tokens: a passage that contains ``<|im_end|>`` stays text.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from ctypes import create_string_buffer
from functools import partial
from math import exp
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple, Self

import numpy as np

from harness.core import plugins
from harness.core.arrays import Doubles, Singles
from harness.core.errors import BadDataError
from harness.core.result import PartMemory
from harness.core.scenario import Scenario
from harness.models.gguf import read_gguf
from harness.onnx.ort_session import OnnxSession
from harness.runtimes.llamacpp.session import LlamaSession
from harness.runtimes.llamacpp.text_scores import log_probabilities
from harness.runtimes.one_sequence import Tokenized
from harness.workloads.chain import Meter, Op, RecordedPass

Prompt = str | Sequence[tuple[str, str]]
"""A user's turn, or (role, content) of several turns; roles are ``system``, ``user``, ``assistant``."""
ChatWords = Callable[..., Sequence[str]]
"""What stands before, between and after the contents of turns with the roles given."""
OPTIONS = {"language": "--model MODEL", "encoder": "--encoder FILE"}
ENCODER_TOKENS = 512
_MARK = "@content %d@"
_MOST_BYTES = 1 << 16


class LanguageModel:
    """One loaded model, and the words around its turns.

    Attributes:
        session: For what this class does not do: several sequences, taps. Whoever uses it calls
            :meth:`forget` then.
    """

    def __init__(self, session: LlamaSession, words: ChatWords, meter: Meter, path: Path = Path()) -> None:
        self.session, self.words, self.meter, self.path = session, words, meter, path
        self._held: list[int] = []

    @classmethod
    def open(
        cls, path: Path, meter: Meter, context_tokens: int = 2048, thread_count: int = 1, tap: Any = None
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
            words = partial(chat_words, runtime.library(), str(template), path)
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

    def hold(self, tokens: Sequence[int]) -> None:
        """Bring just these tokens into the cache."""
        if tokens:
            self.read(tokens)
        self.session.truncate(len(tokens))
        self._held = list(tokens)

    def read(
        self, tokens: Sequence[int], *, op: Op = Op.READ, logits: str = "last", share: float = 1.0
    ) -> None:
        """Read a prompt from the place on where it differs from what the cache holds."""
        start = 0
        while start < min(len(self._held), len(tokens) - 1) and self._held[start] == tokens[start]:
            start += 1
        one = RecordedPass(part="language", op=op, tokens=len(tokens) - start, depth=start, share=share)
        with self.meter.timed(one):
            self.session.truncate(start)
            self.session.decode(tokens[start:], position=start, logits=logits)
        self._held = list(tokens)

    def write(
        self,
        prompt: Prompt,
        most_tokens: int,
        ends: Callable[[str], bool] = lambda text: "\n" in text,
    ) -> tuple[str, float]:
        """An answer, written greedily up to the model's own end or a text that ``ends`` it.

        With the geometric mean probability of its tokens, the ending one included.
        """
        held = self.tokens(prompt)
        drawn: list[int] = []
        logs: list[float] = []
        for _ in range(most_tokens):
            self.read([*held, *drawn], op=Op.WRITE if drawn else Op.READ)
            chances = log_probabilities(self.session.logits())
            token = int(chances.argmax())
            logs.append(float(chances[token]))
            if self.session.is_end(token) or ends(self.session.detokenize([token])):
                break
            drawn.append(token)
        return self.session.detokenize(drawn).strip(), exp(mean(logs))

    def options(self, prompt: Prompt, options: Sequence[str] = ("Yes", "No")) -> Doubles:
        """Probability of each option among them [options], by the first token of the answer.

        Spellings in lower case and after a space count with each option.
        """
        self.read(self.tokens(prompt), op=Op.JUDGE)
        chances = log_probabilities(self.session.logits())
        logs = []
        for option in options:
            firsts = set()  # after a space only where both are one token
            for text in (option, option.lower(), f" {option}", f" {option.lower()}"):
                tokens = self.session.tokenize(text, add_special=False)
                if len(tokens) == 1 or text[0] != " ":
                    firsts.add(tokens[0])
            logs.append(np.logaddexp.reduce(chances[sorted(firsts)]))
        shares: Doubles = np.exp(logs - np.logaddexp.reduce(logs))
        return shares


class OnnxSentences(Tokenized):
    """A sentence encoder of ONNX Runtime: a folder of the model hub with ``model.onnx`` and ``tokenizer.json``.

    Raises:
        MissingPackageError: onnxruntime or tokenizers is not installed.
        BadDataError: A file is missing, or is not what it should be.
        EngineError: ONNX Runtime refused the graph.
    """

    context_tokens = ENCODER_TOKENS

    def __init__(self, folder: Path, thread_count: int) -> None:
        self._folder = folder
        self._engine = OnnxSession(folder / "model.onnx", thread_count=thread_count)

    def embedding(self, tokens: Sequence[int]) -> Singles:
        """The first output [dim], the mean over the tokens where it is of each."""
        ids = np.array([tokens], np.int64)
        others = {"attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        output: Singles = self._engine.run({"input_ids": ids, **others})[0][0]
        return output.mean(axis=0) if output.ndim == 2 else output


class Encoder:
    """A sentence encoder, by llama.cpp from a GGUF file or by ONNX Runtime from a folder: vectors of unit length."""

    def __init__(self, path: Path, meter: Meter, thread_count: int = 1) -> None:
        self.path, self.meter = path, meter
        self.session: Any
        if path.is_dir():
            self.path = path / "model.onnx"
            self.session = OnnxSentences(path, thread_count)
        else:
            runtime = plugins.usable_runtime("llamacpp")
            self.session = runtime.open(path, scenario_of(ENCODER_TOKENS, thread_count))
        self.dim = self.embed(["a"]).shape[1]

    def embed(self, texts: Sequence[str]) -> Singles:
        """Unit vectors [len(texts), dim], one text a pass: what a pass takes does not depend on its neighbours."""
        vectors = []
        for text in texts:
            vector = self.embed_tokens(self.session.tokenize(text)[: self.session.context_tokens])
            vectors.append(vector / np.float32(max(float(np.linalg.norm(vector)), 1e-12)))
        return np.stack(vectors, dtype=np.float32)

    def embed_tokens(self, tokens: Sequence[int]) -> Singles:
        """The vector [dim] of one text's tokens, of whatever length."""
        with self.meter.timed(RecordedPass(part="encoder", op=Op.EMBED, tokens=len(tokens))):
            vector: Singles = self.session.embedding(tokens)
        return vector


class SystemParts(NamedTuple):
    """The parts that are there, and what times their passes."""

    language: Any = None
    encoder: Any = None
    meter: Meter = Meter()

    def memory(self) -> list[PartMemory]:
        """What each part holds, as its engine tells."""
        held = []
        for name in OPTIONS:
            part = getattr(self, name)
            if part is not None:
                sizes: Counter[str] = Counter()
                for buffer in getattr(part.session, "buffers", ()):
                    sizes[buffer.part] += buffer.size_bytes
                file_bytes = part.path.stat().st_size
                one = PartMemory(part=name, file_bytes=file_bytes, cache_bytes=sizes["kv cache"])
                held.append(one.replace(arena_bytes=sizes["compute buffer"]))
        return held


def scenario_of(context_tokens: int, thread_count: int) -> Scenario:
    """How a part of llama.cpp is opened, here and in its prediction."""
    return Scenario(context_tokens=context_tokens, thread_count=thread_count, api="cpu")


def open_parts(paths: Mapping[str, str], context_tokens: int = 2048, thread_count: int = 1) -> SystemParts:
    """Open the parts that are named."""
    meter = Meter()
    opened: dict[str, Any] = {}
    for name, path in paths.items():
        if name == "language":
            opened[name] = LanguageModel.open(Path(path), meter, context_tokens, thread_count)
        else:
            opened[name] = Encoder(Path(path), meter, thread_count)
    return SystemParts(meter=meter, **opened)


def plain_words(*roles: str) -> Sequence[str]:
    """Of a model without a chat template: a line for each turn."""
    return ["", *("\n" for _ in roles)]


def chat_words(library: Any, template: str, path: Path, *roles: str) -> Sequence[str]:
    """The words of a chat template, as llama.cpp knows it; BadDataError where it does not, or moves a content."""
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
