"""Share of small changes of a file that its tests notice.

    python -m bench.mutants harness/memory/kv_cache.py tests/unit/memory/test_kv_cache.py

Each change is one of: another operator, another number, a condition that never or always holds, ``min`` for ``max``. It
is written to the file's place in a copy of the package, the tests run until the first fails, and what lives is printed.
mutmut and cosmic-ray make more kinds of changes and take hours on two cores; these are those that a formula has.
"""

import ast
import copy
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

_OPERATORS: Final[dict[type[ast.AST], type[ast.AST]]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.And: ast.Or,
    ast.Or: ast.And,
}
_NAMES: Final = {"min": "max", "max": "min", "any": "all", "all": "any"}
_TIMEOUT_S: Final = 240


def changes(tree: ast.Module) -> Iterator[tuple[int, str, ast.Module]]:
    """Line, words and the changed module, one change each."""
    for number, node in enumerate(ast.walk(tree)):
        for what in _kinds(node):
            other = copy.deepcopy(tree)
            twin = list(ast.walk(other))[number]
            yield getattr(node, "lineno", 0), _change(twin, what), ast.fix_missing_locations(other)


def _kinds(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.BinOp | ast.BoolOp) and type(node.op) in _OPERATORS:
        yield "operator"
    if isinstance(node, ast.Compare) and type(node.ops[0]) in _OPERATORS:
        yield "comparison"
    if isinstance(node, ast.If | ast.IfExp):
        yield from ("always", "never")
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _NAMES:
        yield "name"
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
        yield "number"


def _change(node: ast.AST, what: str) -> str:
    before = ast.unparse(node).splitlines()[0]
    if isinstance(node, ast.BinOp | ast.BoolOp):
        node.op = _OPERATORS[type(node.op)]()  # type: ignore[assignment]
    elif isinstance(node, ast.Compare):
        node.ops[0] = _OPERATORS[type(node.ops[0])]()  # type: ignore[call-overload]
    elif isinstance(node, ast.If | ast.IfExp):
        node.test = ast.Constant(value=what == "always")
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        node.func.id = _NAMES[node.func.id]
    elif isinstance(node, ast.Constant):
        assert isinstance(node.value, int | float)
        node.value = node.value + 1
    return f"{before[:60]} -> {ast.unparse(node).splitlines()[0][:60]}"


@click.command()
@click.argument("source", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("tests", nargs=-1, required=True)
@click.option("--every", type=click.IntRange(1), default=1, show_default=True, help="Only every so manyth change.")
def main(source: Path, tests: tuple[str, ...], every: int) -> None:
    """Change SOURCE in each way, and say which changes TESTS let live."""
    lived, count = 0, 0
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in ("harness", "bench", "tests", "models", "devices", "reports"):
            shutil.copytree(name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy("pyproject.toml", root)
        place = root / source
        for number, (line, words, module) in enumerate(changes(ast.parse(source.read_text(encoding="utf-8")))):
            if number % every:
                continue
            place.write_text(ast.unparse(module), encoding="utf-8")
            command = [sys.executable, "-m", "pytest", "-q", "-x", "-n", "0", "-p", "no:cacheprovider", *tests]
            count += 1
            try:
                done = subprocess.run(command, cwd=root, capture_output=True, timeout=_TIMEOUT_S, check=False)
            except subprocess.TimeoutExpired:
                continue
            if done.returncode == 0:
                lived += 1
                click.echo(f"{source}:{line}: {words}")
    click.echo(f"{source}: {count - lived} of {count} caught ({(count - lived) / max(count, 1):.0%})")


if __name__ == "__main__":
    main()
