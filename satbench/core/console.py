"""The two consoles: results on stdout, progress on stderr."""

from __future__ import annotations

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


def results() -> Console:
    """Return the console for results (stdout); 100 columns where stdout is no terminal."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=100)


def say(text: str) -> None:
    """Print one line on stderr, for whoever called from Python."""
    Console(stderr=True, highlight=False, markup=False, soft_wrap=True).print(text)


def progress_bar(quiet: bool = False) -> Progress:
    """Return a progress bar on stderr, shown on a terminal unless `quiet`."""
    console = Console(stderr=True, highlight=False)
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=quiet or not console.is_terminal,
    )


class BarProgress:
    """The engine's progress as a bar on stderr; on no terminal, one line a stage unless quiet."""

    def __init__(self, quiet: bool = False) -> None:
        self._bar = progress_bar(quiet)
        self._plain = None if quiet or self._bar.console.is_terminal else self._bar.console
        self._task: TaskID | None = None
        self._name = ""

    def __enter__(self) -> BarProgress:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def model(self, name: str) -> None:
        """Say whose stages come next."""
        self._name = name

    def stage(self, title: str, total: int, done: int) -> None:
        """A stage begins."""
        if self._task is not None:
            self._bar.remove_task(self._task)
        description = f"{self._name} · {_short(title)}"
        self._task = self._bar.add_task(description, total=total, completed=done, note="")
        if self._plain:
            self._plain.print(f"{description}: {total - done} images to go", soft_wrap=True)

    def advance(self, images: int, survivors: int) -> None:
        """A batch is finished."""
        if self._task is not None:
            self._bar.update(self._task, advance=images, note=f"{survivors} survive")


def _short(title: str) -> str:
    return title if len(title) <= 24 else title[:23] + "…"
