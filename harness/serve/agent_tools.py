"""The same answers as tools for agents and launchers, by the Model Context Protocol's own SDK.

Each tool takes what :mod:`harness.answer.contract` says; it answers with the words of the terminal first, then with a few fields.
``whole`` asks for all of it. Nothing is measured or written.
"""

from collections.abc import Callable
from typing import Any, Final

import anyio.to_thread
import msgspec
from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.tools import Tool
from mcp.server.mcpserver.utilities.func_metadata import ArgModelBase, FuncMetadata
from mcp_types import CallToolResult, TextContent, ToolAnnotations

from harness import __version__
from harness.answer.contract import read, schema_of
from harness.core.errors import HarnessError
from harness.core.printable import clean_lines
from harness.serve.answers import DOORS, Reply
from harness.serve.sources import named

_ANNOTATIONS: Final = ToolAnnotations(
    read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False
)
_WHOLE: Final = {
    "type": "boolean",
    "default": False,
    "description": "Answer with all of it, some 30 kB, not a few fields.",
}
_WORDS_MAX: Final = 6000


class DoorTool(Tool):
    """A tool whose arguments are read by our contract: nothing unknown is passed over."""

    async def run(self, arguments: dict[str, Any], context: Any, convert_result: bool = False) -> Any:  # noqa: ARG002 - the SDK's signature
        """Answer a request; what its caller can act on is said in one sentence."""
        try:
            found = await anyio.to_thread.run_sync(self.fn, dict(arguments))
        except HarnessError as error:
            raise ToolError(str(error)) from None
        await context.report_progress(1, 1)
        return found


def tools() -> MCPServer:
    """A server of five tools, which only read."""
    return MCPServer(
        "edge-harness",
        version=__version__,
        log_level="WARNING",
        instructions="Whether a language model fits on a device, how fast it runs there, why it is slow, and how to start it.",
        tools=[_tool(name) for name in DOORS],
    )


def _tool(name: str) -> Tool:
    kind, door = DOORS[name]
    schema = schema_of(kind)
    schema = schema | {"properties": schema["properties"] | {"whole": _WHOLE}}
    return DoorTool(
        fn=_answering(kind, door),
        name=name,
        title=None,
        context_kwarg=None,
        description=" ".join((door.__doc__ or "").split()),
        parameters=schema,
        fn_metadata=FuncMetadata(arg_model=ArgModelBase, output_schema={"type": "object"}),
        is_async=False,
        annotations=_ANNOTATIONS,
    )


def _answering(kind: Any, door: Callable[[Any], Reply]) -> Callable[[dict[str, Any]], CallToolResult]:
    def answer(arguments: dict[str, Any]) -> CallToolResult:
        is_whole = arguments.pop("whole", False) is True
        told = door(named(read(arguments, kind)))
        words = TextContent(type="text", text=clean_lines(told.words)[:_WORDS_MAX])
        fields = told.fields
        if is_whole:
            document = msgspec.to_builtins(told.whole(), enc_hook=lambda number: number.item(), str_keys=True)
            fields = document if isinstance(document, dict) else {"items": document}
        return CallToolResult(content=[words], structured_content=fields)

    return answer
