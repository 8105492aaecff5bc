"""Arguments and options of a verb, from the annotations of its parameters.

A parameter that is annotated with an :class:`~harness.core.option.Option` is an option, or without flags an
argument. One of a struct brings every field of it that is annotated so, and is handed over built. A verb that
returns an :class:`Output` takes ``--json``.
"""

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import msgspec
from click.shell_completion import CompletionItem
from msgspec import Meta
from msgspec.inspect import BoolType, CustomType, LiteralType, Type, type_info

from harness.core.option import Heading, Option, item_of, kinds_of
from harness.show.output import Output

_MOST_COMPLETED = 60


class Typed(click.ParamType):  # type: ignore[type-arg]
    """A value as the annotation of its field reads it; of a variable, several are separated by semicolons."""

    envvar_list_splitter = ";"

    def __init__(self, kind: Type, option: Option) -> None:
        self.kind = kind
        self.option = option
        self.name = option.flags.partition(" ")[0].strip("-")

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read the value from the text; a usage error says what was found and expected.

        A default value that is no text is returned as it is.
        """
        if not isinstance(value, str):
            return value
        try:
            return self.option.value(value, self.kind)
        except ValueError as error:
            self.fail(str(error), param, ctx)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Names of models or devices that begin with what was typed, then those that hold it."""
        del ctx
        names = _names_of(self.option, param.name or "")
        if names is None:
            return []
        typed = incomplete.lower()
        held = [name for name in names() if typed in name]
        held.sort(key=lambda name: not name.startswith(typed))
        return [CompletionItem(name) for name in held[:_MOST_COMPLETED]]


def _names_of(option: Option, name: str) -> Callable[[], list[str]] | None:
    """Where the names come from that a shell completes: of models and of devices; None for other values."""
    if option.metavar.lstrip("[").startswith("MODEL") or name in {"model", "models", "draft"}:
        from harness.models.cards import model_names

        return model_names
    if "--device" in option.flags or option.metavar.lstrip("[").startswith("DEVICE"):
        from harness.hardware.devices import device_names

        return device_names
    return None


class Flag(click.Option):
    """An option that knows under which heading the help lists it."""

    def __init__(self, *arguments: Any, heading: Heading, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.heading = heading


def parameters_of(verb: Callable[..., Any]) -> Iterator[click.Parameter]:
    """The parameters of a function that is a verb."""
    signature = inspect.signature(verb)
    for parameter in signature.parameters.values():
        if _is_struct(parameter):
            for field in msgspec.structs.fields(parameter.annotation):
                yield from _parameter(field.name, field.type, field.default)
        else:
            yield from _parameter(parameter.name, parameter.annotation, parameter.default)
    if signature.return_annotation is Output:
        says = "Print one JSON document on stdout."
        yield Flag(["--json", "as_json"], heading="Output", is_flag=True, help=says)


def built(verb: Callable[..., Any], values: dict[str, Any]) -> dict[str, Any]:
    """What a verb is called with: the values of its options, its structs built of theirs."""
    given = {name: value for name, value in values.items() if name != "as_json"}
    for parameter in inspect.signature(verb).parameters.values():
        if _is_struct(parameter):
            struct = parameter.annotation
            own = {name: given.pop(name) for name in struct.__struct_fields__ if name in given}
            given[parameter.name] = struct(**own)
    return given


def _is_struct(parameter: inspect.Parameter) -> bool:
    return isinstance(parameter.annotation, type) and issubclass(parameter.annotation, msgspec.Struct)


def _parameter(name: str, hint: Any, default: Any) -> Iterator[click.Parameter]:
    """What click knows of a field; nothing where its annotation has no option."""
    option = None
    says = ""
    for each in getattr(hint, "__metadata__", ()):
        if isinstance(each, Option):
            option = each
        elif isinstance(each, Meta):
            says = each.description or says
    if option is None:
        return
    kind = type_info(hint)
    item = item_of(kind)
    is_argument = not option.flags
    is_split = item is not None and (option.is_repeated or is_argument)
    if item is not None and is_split:
        kind = item
    settings: dict[str, Any] = {"type": _type(kind, option), "metavar": option.metavar or None}
    if default in {inspect.Parameter.empty, msgspec.NODEFAULT}:
        settings["required"] = True
    else:
        settings |= {"required": False, "default": default}
    if is_argument:
        yield click.Argument([name], nargs=-1 if is_split else 1, **settings)
        return
    is_told = not isinstance(default, bool) and default not in (None, "", ())
    yield Flag(
        [*option.flags.split(), name],
        heading=option.heading,
        help=option.help or says,
        show_default=option.default or is_told,
        is_flag=settings["type"] is click.BOOL,
        multiple=is_split,
        **settings,
    )


def _type(kind: Type, option: Option) -> click.ParamType:  # type: ignore[type-arg]
    """The kind of a value: click's own for switches, paths and words alone."""
    found = kinds_of(kind)
    match found[0]:
        case BoolType():
            return click.BOOL
        case LiteralType(values) if len(found) == 1:
            return click.Choice(values)
        case CustomType(cls) if cls is Path and option.reads is None:
            is_file = option.path != "folder"
            is_folder = option.path != "file"
            return click.Path(exists=option.is_here, file_okay=is_file, dir_okay=is_folder, path_type=Path)
    return Typed(kind, option)
