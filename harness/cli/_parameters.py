"""Arguments and options of a verb, from the annotations of its parameters.

A parameter that is annotated with an :class:`~harness.domain.option.Option` is an option, or without flags an
argument. One of a struct brings every field of it that is annotated so, and is handed over built. A verb that
returns an :class:`Answer` takes ``--json``.
"""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import msgspec
from click.shell_completion import CompletionItem
from msgspec import Meta

from harness.cli._output import Answer
from harness.domain.option import Option, item_of, kinds_of, words_of


class Typed(click.ParamType):  # type: ignore[type-arg]  # generic in newer click only
    """A value as the annotation of its field reads it."""

    def __init__(self, hint: Any, option: Option) -> None:
        self.hint = hint
        self.option = option
        item = item_of(hint)
        kinds = [kind for kind, _ in kinds_of(item or hint)]
        self.name = "text"
        if option.unit == "bytes":
            self.name = "size"
        elif int in kinds:
            self.name = "count"
        elif float in kinds:
            self.name = "number"
        if item is not None:
            self.name += ",..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The value of the text; a usage error says what was found and expected.

        A default is taken as it is.
        """
        if not isinstance(value, str):
            return value
        try:
            return self.option.value(value, self.hint)
        except ValueError as error:
            self.fail(str(error), param, ctx)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Names of models or devices that begin so."""
        del ctx, param
        from harness.catalog.paths import data_files

        if not self.option.names:
            return []
        return [CompletionItem(name) for name in data_files(self.option.names) if name.startswith(incomplete)]


class Ending(click.Path):
    """A file to be written, in the format of its ending: told before anything is measured for it."""

    def __init__(self, endings: tuple[str, ...]) -> None:
        super().__init__(dir_okay=False, path_type=Path)
        self.endings = endings

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path; a usage error says what was found and expected."""
        if Path(value).suffix.lower() not in self.endings:
            self.fail(f"found {str(value)!r}, expected an ending of {', '.join(self.endings)}", param, ctx)
        return super().convert(value, param, ctx)


class Flag(click.Option):
    """An option that knows under which heading the help lists it."""

    def __init__(self, *arguments: Any, heading: str, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.heading = heading


def parameters_of(verb: Callable[..., Any]) -> list[click.Parameter]:
    """The parameters of a function that is a verb."""
    signature = inspect.signature(verb)
    found = []
    for parameter in signature.parameters.values():
        fields = [(parameter.name, parameter.annotation, parameter.default)]
        if _is_struct(parameter):
            fields = [
                (each.name, each.type, parameter.empty if each.required else each.default)
                for each in msgspec.structs.fields(parameter.annotation)
            ]
        found += [_parameter(*field) for field in fields]
    if signature.return_annotation is Answer:
        says = "Print one JSON document on stdout."
        found.append(Flag(["--json", "as_json"], heading="Output", is_flag=True, help=says))
    return [parameter for parameter in found if parameter is not None]


def built(verb: Callable[..., Any], values: dict[str, Any]) -> dict[str, Any]:
    """What a verb is called with: the values of its options, its structs built of theirs."""
    given = dict(values)
    for parameter in inspect.signature(verb).parameters.values():
        if _is_struct(parameter):
            struct = parameter.annotation
            own = {name: given.pop(name) for name in struct.__struct_fields__ if name in given}
            given[parameter.name] = struct(**own)
    return given


def _is_struct(parameter: inspect.Parameter) -> bool:
    return isinstance(parameter.annotation, type) and issubclass(parameter.annotation, msgspec.Struct)


def _parameter(name: str, hint: Any, default: Any) -> click.Parameter | None:
    """What click knows of a field; None where its annotation has no option."""
    said = getattr(hint, "__metadata__", ())
    options = [each for each in said if isinstance(each, Option)]
    if not options:
        return None
    option = options[-1]
    is_several = item_of(hint) is not None
    settings: dict[str, Any] = {"type": _type(hint, option), "metavar": option.metavar or None}
    if default is inspect.Parameter.empty:
        settings["required"] = True
    else:
        settings |= {"required": False, "default": default}
    if not option.flags:
        settings["metavar"] = option.metavar or name.upper()
        return click.Argument([name], nargs=-1 if is_several else 1, **settings)
    words = [each.description or "" for each in said if isinstance(each, Meta)]
    return Flag(
        [*option.flags.split(), name],
        heading=option.heading,
        help=(option.help or "".join(words)) + _default_words(option, default),
        is_flag=settings["type"] is click.BOOL,
        multiple=is_several and option.is_repeated,
        **settings,
    )


def _type(hint: Any, option: Option) -> click.ParamType:  # type: ignore[type-arg]
    """The kind of a value: click's own for switches, paths and words alone."""
    if option.is_repeated or not option.flags:
        hint = item_of(hint) or hint
    kinds = dict(kinds_of(hint))
    if bool in kinds:
        return click.BOOL
    if option.endings:
        return Ending(option.endings)
    if Path in kinds:
        is_file = option.path != "folder"
        is_folder = option.path != "file"
        return click.Path(exists=option.is_here, file_okay=is_file, dir_okay=is_folder, path_type=Path)
    words = words_of(hint)
    if words and len(kinds) == 1:
        return click.Choice(words)
    return Typed(hint, option)


def _default_words(option: Option, default: Any) -> str:
    """What the help says of the default; nothing of one that would say nothing."""
    words = option.default
    if not words and isinstance(default, tuple):
        words = ",".join(map(str, default))
    elif not words and isinstance(default, float):
        words = f"{default:g}"
    elif not words and isinstance(default, int | str) and not isinstance(default, bool):
        words = str(default)
    if words:
        return f"  [default: {words}]"
    return ""
