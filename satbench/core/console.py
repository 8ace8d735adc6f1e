"""The two consoles: results on stdout, progress on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Protocol

from rich.console import (
    Console,
    ConsoleOptions,
    ConsoleRenderable,
    RenderableType,
    RenderHook,
    RenderResult,
)
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
from rich.segment import Segment
from rich.text import Text

from satbench.core.text.characters import visible
from satbench.core.text.html_text import html
from satbench.core.text.terminal import one_line, tell


class _Harmless:
    """What is to be shown, with the active characters of its texts written out.

    Styles and the console's own codes are no text, and stay.
    """

    def __init__(self, shown: RenderableType) -> None:
        self._shown = shown

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for part in console.render(self._shown, options):
            if part.control:
                yield part
            else:
                yield Segment(visible(part.text, keep="\n\t"), part.style)


class _Hook(RenderHook):
    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_Harmless(one) for one in renderables]


def _console(**options: Any) -> Console:
    """Return a console on which names are text: no markup, no codes for the terminal."""
    console = Console(highlight=False, markup=False, emoji=False, **options)
    console.push_render_hook(_Hook())
    return console


def results() -> Console:
    """Return the console for results (stdout); 100 columns where stdout is no terminal."""
    console = _console()
    return console if console.is_terminal else _console(width=100)


def say(text: str) -> None:
    """Print one line on stderr, for whoever called from Python."""
    tell(text, err=True)


def words(name: str, style: str = "") -> Text:
    """Return a name from a file for a table: one line, and never taken for markup."""
    return Text(one_line(name), style=style)


def progress_bar(quiet: bool = False) -> Progress:
    """Return a progress bar on stderr, shown on a terminal unless `quiet`."""
    console = _console(stderr=True)
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}", markup=False),
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
        description = one_line(f"{self._name} · {_short(title)}")
        self._task = self._bar.add_task(description, total=total, completed=done, note="")
        if self._plain:
            self._plain.print(f"{description}: {total - done} images to go", soft_wrap=True)

    def advance(self, images: int, survivors: int) -> None:
        """A batch is finished."""
        if self._task is not None:
            self._bar.update(self._task, advance=images, note=f"{survivors} survive")


class NotebookProgress:
    """The engine's progress as one line of a notebook, which is written over."""

    def __init__(self) -> None:
        self._line: Any = None
        self._title, self._total, self._done, self._note = "", 0, 0, ""

    def stage(self, title: str, total: int, done: int) -> None:
        """A stage begins."""
        self._title, self._total, self._done = _short(title), total, done
        self._show()

    def advance(self, images: int, survivors: int) -> None:
        """A batch is finished."""
        self._done, self._note = self._done + images, f"{survivors} survive"
        self._show()

    def _show(self) -> None:
        shown: Any = import_module("IPython.display")  # there, for a notebook is running

        bar = f'<progress value="{self._done}" max="{max(self._total, 1)}"></progress>'
        counts = f"{self._done}/{self._total} {self._note}"
        line = shown.HTML(f"{html(self._title)} {bar} {html(counts)}")
        if self._line is None:
            self._line = shown.display(line, display_id=True)
        else:
            self._line.update(line)


class RunProgress(Protocol):
    """The display of a run's progress; the engine's `Progress`."""

    def stage(self, title: str, total: int, done: int) -> None:
        """A stage begins, of `total` images, `done` of them from an earlier start."""
        ...

    def advance(self, images: int, survivors: int) -> None:
        """A batch is finished; so many images of the whole run still survive."""
        ...


@contextmanager
def progress_of(name: str, wanted: bool) -> Iterator[RunProgress | None]:
    """Yield who shows the progress of a call from Python: a terminal, a notebook, or nobody."""
    if wanted and in_notebook():
        yield NotebookProgress()
    elif wanted and Console(stderr=True).is_terminal:
        with BarProgress() as bar:
            bar.model(name)
            yield bar
    else:
        yield None


def in_notebook() -> bool:
    """Say whether the code runs in the kernel of a notebook.  Imports nothing."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return hasattr(shell, "kernel")


def _short(title: str) -> str:
    return title if len(title) <= 24 else title[:23] + "…"
