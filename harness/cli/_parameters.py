"""Arguments and options of a verb, from the annotations of its parameters.

A parameter that is annotated with an :class:`~harness.domain.option.Option` is an option, or without flags an
argument. One of a struct brings every field of it that is annotated so, and is handed over built. A verb that
returns an :class:`Answer` takes ``--json``.
"""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple, get_origin

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
        several = ",..."
        if item is None:
            several = ""
        kinds = [kind for kind, _ in kinds_of(hint if item is None else item)]
        self.name = f"text{several}"
        if option.unit == "bytes":
            self.name = "size"
        elif int in kinds:
            self.name = f"count{several}"
        elif float in kinds:
            self.name = f"number{several}"

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

    def __init__(self, *endings: str) -> None:
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


class _Field(NamedTuple):
    """One annotated parameter of a verb, or field of a struct that it takes."""

    name: str
    hint: Any
    option: Option
    description: str
    default: Any = inspect.Parameter.empty


def parameters_of(verb: Callable[..., Any]) -> list[click.Parameter]:
    """The parameters of a function that is a verb."""
    found: list[click.Parameter] = []
    for parameter in inspect.signature(verb).parameters.values():
        struct = _struct_of(parameter)
        if struct is not None:
            found += map(_parameter, _fields_of(struct))
        elif field := _field(parameter.name, parameter.annotation, parameter.default):
            found.append(_parameter(field))
    if inspect.signature(verb).return_annotation is Answer:
        says = "Print one JSON document on stdout."
        found.append(Flag(["--json", "as_json"], heading="Output", is_flag=True, help=says))
    return found


def built(verb: Callable[..., Any], values: dict[str, Any]) -> dict[str, Any]:
    """What a verb is called with: the values of its options, its structs built of theirs."""
    given = dict(values)
    for parameter in inspect.signature(verb).parameters.values():
        struct = _struct_of(parameter)
        if struct is not None:
            given[parameter.name] = struct(
                **{field.name: given.pop(field.name) for field in _fields_of(struct)}
            )
    return given


def _struct_of(parameter: inspect.Parameter) -> type[msgspec.Struct] | None:
    hint = parameter.annotation
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return hint
    return None


def _fields_of(struct: type[msgspec.Struct]) -> list[_Field]:
    """Those fields of a struct that are options."""
    found = []
    for each in msgspec.structs.fields(struct):
        if each.required:
            default = inspect.Parameter.empty
        else:
            default = each.default
        field = _field(each.name, each.type, default)
        if field is not None:
            found.append(field)
    return found


def _field(name: str, hint: Any, default: Any) -> _Field | None:
    """A field with its option; None where it is none."""
    if get_origin(hint) is not Annotated:
        return None
    options = [each for each in hint.__metadata__ if isinstance(each, Option)]
    said = [each.description for each in hint.__metadata__ if isinstance(each, Meta) and each.description]
    if not options:
        return None
    return _Field(name, hint, options[-1], said[-1] if said else "", default)


def _parameter(field: _Field) -> click.Parameter:
    """What click knows of a field."""
    option = field.option
    is_required = field.default is inspect.Parameter.empty
    settings: dict[str, Any] = {"required": is_required}
    if not is_required:
        settings["default"] = field.default
    if option.metavar:
        settings["metavar"] = option.metavar
    if field.hint.__origin__ is bool:
        settings |= {"is_flag": True}
    else:
        settings["type"] = _type(field)
    is_several = item_of(field.hint) is not None
    if not option.flags:
        settings.pop("metavar", None)
        name = option.metavar or field.name.upper()
        return click.Argument([field.name], metavar=name, nargs=-1 if is_several else 1, **settings)
    settings["help"] = field.description + _default_words(field)
    settings["multiple"] = is_several and option.is_repeated
    return Flag([*option.flags.split(), field.name], heading=option.heading, **settings)


def _type(field: _Field) -> click.ParamType:  # type: ignore[type-arg]
    """The kind of a value: click's own for paths and for words alone."""
    option = field.option
    hint = field.hint
    if option.is_repeated or not option.flags:
        hint = item_of(hint) or hint
    kinds = [kind for kind, _ in kinds_of(hint)]
    if option.endings:
        return Ending(*option.endings)
    if Path in kinds:
        is_file = option.path != "folder"
        is_folder = option.path != "file"
        return click.Path(exists=option.is_here, file_okay=is_file, dir_okay=is_folder, path_type=Path)
    words = words_of(hint)
    if words and len(kinds) == 1:
        return click.Choice(words)
    return Typed(hint, option)


def _default_words(field: _Field) -> str:
    """What the help says of the default; nothing of one that would say nothing."""
    words = field.option.default
    value = field.default
    if not words and isinstance(value, tuple):
        words = ",".join(map(str, value))
    elif not words and not isinstance(value, bool | None | type) and value != "":
        if isinstance(value, float):
            words = f"{value:g}"
        else:
            words = str(value)
    if words:
        return f"  [default: {words}]"
    return ""
