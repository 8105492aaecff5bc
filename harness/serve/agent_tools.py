"""The same answers as tools for agents and launchers, by the Model Context Protocol's own SDK."""

from collections.abc import Callable
from functools import wraps
from typing import Annotated

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import Field

from harness import __version__
from harness.core.errors import HarnessError
from harness.core.question import Question
from harness.serve.sources import Sources, history_words, name_only, named

Model = Annotated[str, Field(description="Model, such as 'llama 3.1 8b' or 'qwen3-30b-a3b'", max_length=300)]
Device = Annotated[
    str, Field(description="Device, such as 'rtx 4060 + 32GB'; 'this' for this machine", max_length=300)
]
Quant = Annotated[
    str, Field(description="Quantisation, such as Q4_K_M; empty for the usual one", max_length=40)
]
Context = Annotated[int, Field(description="Tokens of context; 0 for the usual ones", ge=0, le=1 << 24)]


def tools(sources: Sources) -> MCPServer:
    """A server of four tools, which only read."""
    server: MCPServer = MCPServer(
        "edge-harness",
        version=__version__,
        log_level="WARNING",
        instructions="Whether a language model fits on a device, how fast it runs there, and how to start it.",
    )

    def fit(model: Model, device: Device = "this", quant: Quant = "", context_tokens: Context = 0) -> str:
        """Whether a model runs on a device: verdict, memory, speed with its 90 % interval, and the command."""
        asked = Question(model=model, device=device, quant=quant, context_tokens=context_tokens or None)
        return sources.fit(named(asked)).decode()

    def recommend(
        device: Device, task: Annotated[str, Field(pattern="^(chat|code|reasoning|vision)$")] = "chat"
    ) -> str:
        """Which model is best for a task on a device, of those that fit and are fast enough."""
        return sources.said("recommend", "--task", task, "--", name_only(device)).decode()

    def explain(model: Model, device: Device = "this", quant: Quant = "", context_tokens: Context = 0) -> str:
        """The published measurements nearest to the answer, and what is predicted of them."""
        named(Question(model=model, device=device))
        words = ["--explain", "--no-advice", f"--device={device}"]
        words += [f"--quant={quant}"] * bool(quant) + [f"--context={context_tokens}"] * bool(context_tokens)
        return sources.said("fit", *words, "--", model).decode()

    def history(
        run: Annotated[str, Field(max_length=80)] = "", limit: Annotated[int, Field(ge=1, le=100)] = 20
    ) -> str:
        """Runs that were measured here, newest first; or one of them in full, by the start of its name."""
        return sources.now("history", *history_words(run, limit)).decode()

    for function in (fit, recommend, explain, history):
        server.add_tool(_told(function), structured_output=False)
    return server


def _told(function: Callable[..., str]) -> Callable[..., str]:
    """The same; what its caller can act on is said in its words, where the SDK would hide it as a crash."""

    @wraps(function)
    def tool(*given: object, **named_too: object) -> str:
        try:
            return function(*given, **named_too)
        except HarnessError as error:
            raise ToolError(str(error)) from None

    return tool
