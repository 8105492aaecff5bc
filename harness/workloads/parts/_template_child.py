"""Renders one chat template in a process of its own; run as a script, reads JSON on stdin, writes JSON on stdout.

The template comes out of a model file, that is, from a stranger. The sandbox keeps it from attributes and calls; this
process, with its own limits of memory and processor time, keeps it from the rest: a text can double itself until no
memory is left with nothing but ``~``.
"""

import json
import sys
from contextlib import suppress
from typing import Any, Final

MEMORY_BYTES: Final = 512 << 20
CPU_S: Final = 2
MOST_RANGE: Final = 10_000
MOST_CHARS: Final = 1 << 18


def main() -> None:
    """Limits first, then the template."""
    with suppress(ImportError):  # Windows: only the parent's time limit
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    job = json.load(sys.stdin)
    try:
        text = render(job["template"], job["variables"])
        answer = {"text": text} if len(text) <= MOST_CHARS else {"error": f"more than {MOST_CHARS} characters"}
    except MemoryError:
        answer = {"error": f"needs more than {MEMORY_BYTES >> 20} MiB"}
    except Exception as error:  # noqa: BLE001  whatever a template does is reported, not raised
        answer = {"error": f"{type(error).__name__}: {error}"[:500]}
    json.dump(answer, sys.stdout)


def render(template: str, variables: dict[str, Any]) -> str:
    """The template's text; what includes, imports or extends is refused, and so are long ranges and repetitions."""
    from jinja2 import nodes
    from jinja2.exceptions import SecurityError, TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Sandbox(ImmutableSandboxedEnvironment):
        intercepted_binops = frozenset({"*", "**", "%"})

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            numbers = isinstance(left, int | float) and isinstance(right, int | float)
            if not numbers or (operator == "**" and (abs(left) > 1000 or abs(right) > 10)):
                raise SecurityError(f"{operator} of {type(left).__name__} and {type(right).__name__} is refused")
            return super().call_binop(context, operator, left, right)

    def refuse(message: object) -> None:
        raise TemplateError(str(message))

    def counted(*bounds: int) -> range:
        found = range(*bounds)
        if len(found) > MOST_RANGE:
            raise SecurityError(f"range() of more than {MOST_RANGE}")
        return found

    sandbox = Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    sandbox.globals.update(range=counted, raise_exception=refuse, strftime_now=lambda _format: "")
    sandbox.filters["tojson"] = lambda value, **_options: json.dumps(value, ensure_ascii=False)
    for node in sandbox.parse(template).find_all((nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)):
        raise SecurityError(f"{type(node).__name__.lower()} in line {node.lineno} is refused")
    return sandbox.from_string(template).render(**variables)


if __name__ == "__main__":
    main()
