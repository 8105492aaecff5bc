"""OpenVINO GenAI's LLMPipeline: a GGUF file as it is (some architectures), or a folder that optimum-intel made.

It runs on a CPU, on Intel's GPUs and on their NPUs. Weights of a GGUF file are converted at each load, so that a load
takes seconds, and the first pass after it compiles kernels: the warm-up pays for that. The pipeline gives tokens and
no logits; a session runs the graph that the pipeline writes, for perplexity.
"""

import queue
import tempfile
import threading
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np

from harness.core.arrays import Singles
from harness.core.errors import EngineError, RefusedError, optional
from harness.core.record import EngineIdentity
from harness.core.scenario import Scenario
from harness.onnx.files import OPENVINO_FILE
from harness.runtimes.one_sequence import OneSequence
from harness.runtimes.simple import SimpleRuntime

DEVICES: Final = {"": "CPU", "cpu": "CPU", "openvino": "CPU", "sycl": "GPU", "opencl": "GPU", "npu": "NPU"}
"""How OpenVINO calls what an api drives; source: docs.openvino.ai, Inference Devices and Modes."""
_CACHES: Final = {"F16": "f16", "Q8_0": "u8"}
"""Its cache of bytes has one scale for a token and head, as Q8_0 has one for 32 values."""
_WAIT_S: Final = 600.0


def _package() -> Any:
    with optional("openvino-genai", "openvino"):
        import openvino_genai
    return openvino_genai


class OpenVino(SimpleRuntime):
    """The OpenVINO runtime; ``load`` gives a pipeline that keeps nothing of a prompt for the next one."""

    name = "openvino"
    formats = ("gguf", "openvino")
    honours = ("kv_type", "api")
    needs: ClassVar = (("openvino_genai", "openvino-genai", "openvino"),)

    def load(self, path: Path, scenario: Scenario) -> Any:
        """Read, convert and compile the model; errors as :class:`SimpleRuntime`, RefusedError for an api or a cache."""
        genai = _package()
        device = self._device(scenario)
        options: dict[str, Any] = {}
        if device == "NPU":  # its graphs have fixed sizes
            options = {
                "MAX_PROMPT_LEN": scenario.prompt_tokens + scenario.depth_tokens,
                "MIN_RESPONSE_LEN": scenario.new_tokens,
            }
        else:
            if scenario.kv_type not in _CACHES:
                known = ", ".join(_CACHES)
                raise RefusedError(f"openvino has no cache of type {scenario.kv_type}; it has {known}")
            # Else the same prompt again costs nothing, and a long one is read in steps of 256 tokens.
            scheduler = genai.SchedulerConfig()
            scheduler.enable_prefix_caching = False
            scheduler.max_num_batched_tokens = max(256, scenario.context_tokens)
            options = {"scheduler_config": scheduler, "KV_CACHE_PRECISION": _CACHES[scenario.kv_type]}
        if device == "CPU":
            options["INFERENCE_NUM_THREADS"] = scenario.thread_count
        try:
            pipeline = genai.LLMPipeline(path if path.suffix == ".gguf" else path.parent, device, **options)
        except Exception as error:  # the binding raises RuntimeError with its C++ stack
            raise _would_not_load(path, error) from error
        self.vocab_count = len(pipeline.get_tokenizer().get_vocab())
        return pipeline

    def generate(self, model: Any, prompt: Sequence[int] | str, count: int) -> Iterator[int]:
        """Yield ``count`` token ids, as the pipeline calls back with each; an early end stops the pipeline."""
        genai = _package()
        import openvino

        config = genai.GenerationConfig()
        config.max_new_tokens, config.ignore_eos = count, True
        config.do_sample = config.apply_chat_template = False
        inputs = prompt if isinstance(prompt, str) else openvino.Tensor(np.array([prompt], np.int64))
        arrived: queue.SimpleQueue[list[int] | BaseException] = queue.SimpleQueue()
        stopped = threading.Event()

        class Streamer(genai.StreamerBase):  # type: ignore[misc, name-defined]  # the package has no types
            def write(self, tokens: int | Sequence[int]) -> Any:
                arrived.put([tokens] if isinstance(tokens, int) else list(tokens))
                status = genai.StreamingStatus
                return status.CANCEL if stopped.is_set() else status.RUNNING

            def end(self) -> None:
                """Nothing: all that came was told."""

        def run() -> None:
            try:
                model.generate(inputs, config, Streamer())
            except BaseException as error:  # noqa: BLE001  it is raised where the tokens are awaited
                arrived.put(error)
            else:
                arrived.put(StopIteration())

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield from _tokens(arrived)
        finally:
            stopped.set()
            thread.join()

    def close(self, model: Any) -> None:
        """Nothing: the pipeline is freed with its last name."""

    def open(self, path: Path, scenario: Scenario) -> "OpenVinoSession":
        """Load the graph of the model so that its logits can be seen, with the errors of ``load``."""
        return OpenVinoSession(path, scenario, self._device(scenario))

    def identity(self, scenario: Scenario) -> EngineIdentity:
        """Version, device, and the options that a run sets."""
        import openvino

        _package()
        device = self._device(scenario)
        core = openvino.Core()
        try:
            build = f"{device}: {core.get_property(device, 'FULL_DEVICE_NAME')}"
        except RuntimeError as error:
            raise EngineError(
                f"openvino finds no {device} here, only {', '.join(core.available_devices)}"
            ) from error
        return EngineIdentity(
            name="openvino-genai",
            version=version("openvino-genai"),
            build=build,
            thread_count=scenario.thread_count if device == "CPU" else 0,
            options={"context_tokens": scenario.context_tokens, "kv_type": scenario.kv_type},
        )

    def package(self) -> str:
        """The package with its version."""
        return f"openvino-genai {version('openvino-genai')}"

    @staticmethod
    def _device(scenario: Scenario) -> str:
        if scenario.api not in DEVICES:
            known = ", ".join(name for name in DEVICES if name)
            raise RefusedError(f"the runtime openvino has no api {scenario.api!r}; it has {known}")
        return DEVICES[scenario.api]


class OpenVinoSession(OneSequence):
    """The graph of one model with one sequence; implements :class:`harness.core.ports.Session` but for ``fork``.

    The graph of a GGUF file is written into a temporary folder first: twice the file's size, and seconds.

    Raises:
        MissingPackageError: openvino-genai is not installed.
        EngineError: The engine refused the model.
    """

    engine = "openvino"

    def __init__(self, path: Path, scenario: Scenario, device: str) -> None:
        genai = _package()
        import openvino

        self._tensor = openvino.Tensor
        with tempfile.TemporaryDirectory() as scratch:
            folder = path.parent
            try:
                if path.suffix == ".gguf":
                    folder = Path(scratch)
                    (folder / path.name).symlink_to(path.absolute())
                    genai.LLMPipeline(folder / path.name, device, enable_save_ov_model=True)
                self._text = genai.Tokenizer(folder)
                options = {"INFERENCE_NUM_THREADS": scenario.thread_count} if device == "CPU" else {}
                graph = openvino.Core().compile_model(folder / OPENVINO_FILE, device, options)
            except Exception as error:
                raise _would_not_load(path, error) from error
        self._request = graph.create_infer_request()
        self._inputs = {port.any_name for port in graph.inputs}
        self.vocab_count = int(graph.output("logits").partial_shape[-1].get_length())
        self.context_tokens = scenario.context_tokens
        self._keep_nothing()

    def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
        """Token ids of ``text``; its tokenizer reads the names of special tokens always."""
        del parse_special
        found: list[int] = self._text.encode(text, add_special_tokens=add_special).input_ids.data[0].tolist()
        return found

    def detokenize(self, tokens: Sequence[int]) -> str:
        """Text of token ids; undecodable bytes become U+FFFD."""
        return str(self._text.decode(list(tokens), skip_special_tokens=False))

    def _forward(self, tokens: Sequence[int], logits: str) -> Singles:
        count, start = len(tokens), self._length
        fed = {
            "input_ids": np.array([tokens], np.int64),
            "attention_mask": np.ones((1, start + count), np.int64),
            "position_ids": np.arange(start, start + count, dtype=np.int64)[None],
            "beam_idx": np.zeros(1, np.int32),
        }
        self._request.infer({name: value for name, value in fed.items() if name in self._inputs})
        self._length += count
        rows = np.array(self._request.get_tensor("logits").data[0], np.float32)
        return rows[count - {"none": 0, "last": 1, "all": count}[logits] :]

    def _cut(self, position: int) -> None:
        if position == 0:
            self._request.reset_state()
            return
        for state in self._request.query_state():
            kept = np.ascontiguousarray(np.array(state.state.data)[:, :, :position])
            state.state = self._tensor(kept)

    def close(self) -> None:
        """Free the graph and its states; safe to call twice."""
        self._request = self._text = None


def _would_not_load(path: Path, error: Exception) -> EngineError:
    """What the engine says last: its text is a stack of its own C++."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return EngineError(f"openvino would not load {path.name}: {''.join(lines[-1:])}")


def _tokens(arrived: "queue.SimpleQueue[list[int] | BaseException]") -> Iterator[int]:
    """Tokens as they come, until the end; raises what the pipeline raised."""
    while True:
        try:
            found = arrived.get(timeout=_WAIT_S)
        except queue.Empty:
            raise EngineError(f"openvino: no token within {_WAIT_S:g} s") from None
        if isinstance(found, StopIteration):
            return
        if isinstance(found, BaseException):
            raise EngineError(f"openvino: {found}") from found
        yield from found


RUNTIME = OpenVino()
