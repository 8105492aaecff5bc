"""The models that systems are made of: a language model, a sentence encoder, an NLI model."""

from collections.abc import Iterable, Mapping, Sequence
from math import exp, log
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from harness.domain.base import shipped_table
from harness.errors import RefusedError
from harness.workloads.system import Context

if TYPE_CHECKING:
    from harness.workloads.parts.language import LanguageModel
    from harness.workloads.parts.onnx_model import Encoder, PairClassifier

NAMES = ("language", "encoder", "nli")
_OPTIONS = {"language": "--model MODEL", "encoder": "--encoder FOLDER", "nli": "--nli FOLDER"}

_PAIR = "First: {}\nSecond: {}"
_NOTHING = ("N/A", "N/A")


class SystemParts(NamedTuple):
    """The parts that are there; None for one that is not."""

    language: "LanguageModel | None" = None
    encoder: "Encoder | None" = None
    nli: "PairClassifier | None" = None

    @property
    def names(self) -> frozenset[str]:
        """Names of those that are there."""
        return frozenset(name for name in NAMES if getattr(self, name) is not None)

    @property
    def can_contradict(self) -> bool:
        """Whether anybody here can say that one text contradicts another."""
        return self.language is not None or (self.nli is not None and self.nli.has("contradict"))

    def contradiction(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Probability that the second text contradicts the first, by the NLI model, else by the language model.

        Raises:
            RefusedError: Neither is there, or the NLI model knows no contradiction.
        """
        return self._judged(pairs, "contradict")

    def entailment(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Probability that the second text follows from the first, judged as :meth:`contradiction`."""
        return self._judged(pairs, "entail")

    def _judged(self, pairs: Sequence[tuple[str, str]], label: str) -> list[float]:
        if self.nli is not None and (self.nli.has(label) or self.language is None):
            return self.nli.probabilities(pairs, label)
        if self.language is None:
            raise RefusedError("nobody can judge: name an NLI model with --nli, or a language model with --model")
        turns = shown(label, _PAIR)
        asked = [[*turns, ("user", _PAIR.format(*pair))] for pair in [_NOTHING, *pairs]]
        chances = [float(self.language.options(prompt)[0]) for prompt in asked]
        odds = [log(max(chance, 1e-12)) - log(max(1 - chance, 1e-12)) for chance in chances]
        # What the model says of nothing is its leaning, and is taken off (Zhao et al. 2021, "Calibrate Before Use").
        return [1 / (1 + exp(odds[0] - one)) for one in odds[1:]]


def shown(task: str, question: str = "{}") -> list[tuple[str, str]]:
    """The turns before a question of that task in ``prompts.toml``: instruction and examples, put as ``question``."""
    row = shipped_table("prompts.toml", "harness.workloads")[task]
    turns = [("system", row["instruction"])]
    for *parts, answer in row["examples"]:
        turns += [("user", question.format(*parts)), ("assistant", answer)]
    return turns


def needed(wanted: Iterable[str], there: Iterable[str]) -> frozenset[str]:
    """The parts that a system with these ``parts`` is given, of those that are there.

    Raises:
        RefusedError: One that it cannot do without is not there.
    """
    there = set(there)
    chosen = set()
    for text in wanted:
        names = text.removesuffix("?").split("|")
        found = next((name for name in names if name in there), None)
        if found is not None:
            chosen.add(found)
        elif not text.endswith("?"):
            options = " or ".join(_OPTIONS[name] for name in names)
            raise RefusedError(f"it needs {' or '.join(names)}: name one with {options}")
    return frozenset(chosen)


def open_parts(paths: Mapping[str, str], context: Context) -> SystemParts:
    """Open the parts that are named, each from its path; the encoder is MiniLM, fetched once, where it has none."""
    language = encoder = nli = None
    threads = context.thread_count
    if "language" in paths:
        from harness.workloads.parts.language import LanguageModel

        language = LanguageModel.open(Path(paths["language"]), thread_count=threads)
    if "encoder" in paths:
        from harness.workloads.parts.minilm import minilm_folder
        from harness.workloads.parts.onnx_model import Encoder

        folder = Path(paths["encoder"]) if paths["encoder"] else minilm_folder(context.cache / "encoders")
        encoder = Encoder(folder, thread_count=threads)
    if "nli" in paths:
        from harness.workloads.parts.onnx_model import PairClassifier

        nli = PairClassifier(Path(paths["nli"]), thread_count=threads)
    return SystemParts(language, encoder, nli)
