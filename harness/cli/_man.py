"""The manual page, made from the help of the commands."""

from collections.abc import Iterator

import click


def commands(
    root: click.Command, parent: click.Context | None = None, name: str = "edge-harness"
) -> Iterator[click.Context]:
    """A context for each verb, depth first; groups themselves left out."""
    context = root.context_class(root, parent=parent, info_name=name, max_content_width=110, terminal_width=80)
    if not isinstance(root, click.Group):
        yield context
        return
    for word in root.list_commands(context):
        command = root.get_command(context, word)
        if command is not None:
            yield from commands(command, context, word)


def manual(root: click.Group, version: str) -> str:
    """A page for ``man``: a section of each verb, its help as it stands."""
    intro = root.help or ""
    parts = [f'.TH EDGE-HARNESS 1 "" "edge-harness {version}"', ".SH NAME", r"edge\-harness \- " + _roff(intro)]
    for context in commands(root):
        parts += [f".SH {_roff(context.command_path).upper()}", ".nf", _roff(context.get_help()), ".fi"]
    return "\n".join(parts) + "\n"


def _roff(text: str) -> str:
    """Text that roff prints as it stands: no line of it is a request."""
    escaped = text.replace("\\", r"\e").replace("-", r"\-")
    return "\n".join(rf"\&{line}" if line.startswith((".", "'")) else line for line in escaped.splitlines())
