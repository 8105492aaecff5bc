"""A model's file for verbs that run one: a path as it is, a name fetched first when it is not here yet."""

from pathlib import Path

from harness.cli._output import console


def model_file(ref: str, quant: str = "") -> Path:
    """The file that ``ref`` (a path, a name, or ``name:quant``) stands for, with a progress bar while it is fetched.

    Raises:
        UnknownNameError, BadDataError, RefusedError, FetchError: As ``harness.app.locate.locate``.
    """
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    from harness.app.locate import locate

    screen = console(stderr=True)
    bar = Progress(
        TextColumn("fetching {task.fields[model]}", markup=False),
        BarColumn(),
        DownloadColumn(),
        console=screen,
        transient=True,
        disable=not screen.is_terminal,
    )
    with bar:
        task = bar.add_task("", model=ref, total=None, visible=False)
        return locate(
            ref, quant, progress=lambda done, total: bar.update(task, completed=done, total=total, visible=True)
        ).path
