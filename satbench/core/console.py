"""The two consoles: results on stdout, progress on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from importlib import import_module
from typing import Any

from rich.console import (
    Console,
    ConsoleOptions,
    ConsoleRenderable,
    Group,
    RenderableType,
    RenderHook,
    RenderResult,
)
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress_bar import ProgressBar
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from satbench.core.progress.course import Course, StageCost
from satbench.core.progress.receiver import Progress as ProgressReceiver
from satbench.core.progress.words import attack_of, left, progress_text, short_title
from satbench.core.text.characters import visible
from satbench.core.text.html_text import html
from satbench.core.text.terminal import one_line, tell

_ANY_WIDTH = 10_000
EVERY = 30.0
"""Seconds between two lines of progress if stderr is not a terminal."""


class _Harmless:
    """An output whose texts have their active characters escaped.

    Styles and the console's own codes are not changed.
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
    """Return the console for results (stdout); 100 columns if stdout is not a terminal."""
    console = _console()
    return console if console.is_terminal else _console(width=100)


def say(text: str) -> None:
    """Print one line on stderr, for callers from Python."""
    tell(text, err=True)


def words(name: str, style: str = "") -> Text:
    """Return a name from a file for a table: one line without markup."""
    return Text(one_line(name), style=style)


class FittingTable:
    """A table that leaves out columns, by their headings in `less`, until the names in it fit."""

    def __init__(self, table: Table, less: Sequence[str]) -> None:
        self.table, self.less = table, less

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table, free = copy(self.table), options.update(max_width=_ANY_WIDTH)
        for heading in self.less:
            lines = console.render_lines(table, free, pad=False)
            if max(map(Segment.get_line_length, lines)) <= options.max_width:
                break
            table.columns = [one for one in table.columns if str(one.header) != heading]
        yield table


class _LastLine:
    """A bar, with room at its right for `^C`, which else would begin a line that is not erased."""

    def __init__(self, bar: RenderableType) -> None:
        self.bar = bar

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from console.render(self.bar, options.update_width(max(20, options.max_width - 3)))


class _Progress(Progress):
    def get_renderable(self) -> RenderableType:
        return _LastLine(super().get_renderable())


def progress_bar(quiet: bool = False) -> Progress:
    """Return a progress bar on stderr, shown on a terminal unless `quiet`."""
    console = _console(stderr=True)
    return _Progress(
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
    """The engine's progress on stderr, in passes, with the remaining time of the whole suite.

    On a terminal it is a bar; elsewhere it prints a line for each attack that has images to attack,
    and one every 30 seconds.  If `quiet`, it shows nothing.  Without `announce` it prints no line
    for an attack.  `clock`
    returns seconds.
    """

    def __init__(
        self,
        quiet: bool = False,
        announce: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._announce, self._clock, self._said = announce, clock, clock()
        self._name, self._course, self._announced = "", Course(clock), ""
        console = _console(stderr=True)
        self._live: Live | None = None
        self._lines: Console | None = None
        if not quiet and console.is_terminal:
            self._live = Live(
                get_renderable=self._drawn, console=console, refresh_per_second=8, transient=True
            )
        elif not quiet:
            self._lines = console

    def __enter__(self) -> BarProgress:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live:
            self._live.stop()

    def model(self, name: str) -> None:
        """The stages of another model follow."""
        self._name, self._course, self._announced = name, Course(self._clock), ""

    def expect(self, costs: Sequence[StageCost]) -> None:
        """The stages of a run begin; see `satbench.core.progress.course`."""
        self._course.expect(costs)

    def stage(self, title: str, total: int, done: int) -> None:
        """A stage begins."""
        self._course.stage(title, total, done)
        attack = attack_of(title)
        if self._lines and self._announce and total > done and attack != self._announced:
            self._announced = attack
            seconds = self._course.seconds_left
            rest = f", {left(self._course)}" if seconds else ""
            self._print(f"{self._title}: {total - done} images to go{rest}")

    def passed(self, passes: int) -> None:
        """A number of images have gone through a model."""
        self._course.passed(passes)
        if self._lines and self._clock() - self._said >= EVERY:
            self._print(f"{self._title}: {progress_text(self._course)}")

    def advance(self, images: int, survivors: int) -> None:
        """A batch is finished."""
        self._course.advance(images, survivors)

    def note(self, text: str) -> None:
        """A message for the user about the run."""
        if self._live:
            self._live.console.print(Text(one_line(text)), soft_wrap=True)
        elif self._lines:
            self._print(text)

    @property
    def _title(self) -> str:
        return one_line(f"{self._name} · {short_title(self._course.title)}")

    def _print(self, text: str) -> None:
        assert self._lines is not None  # noqa: S101 - only called where there are lines
        self._lines.print(Text(text), soft_wrap=True)
        self._said = self._clock()

    def _drawn(self) -> RenderableType:
        course = self._course
        if not self._name and not course.title:
            return Text("")
        bar = Table.grid(expand=True, padding=(0, 1, 0, 0))
        bar.add_column(ratio=1, min_width=8)
        bar.add_column(no_wrap=True)
        bar.add_row(ProgressBar(total=1.0, completed=course.share), Text(progress_text(course)))
        title = Text(f"{self._title}{course.place}", no_wrap=True, overflow="ellipsis")
        return Group(title, _LastLine(bar))


class NotebookProgress:
    """The engine's progress as one line of a notebook, which is overwritten."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._line: Any = None
        self._course, self._clock, self._said = Course(clock), clock, clock()
        self._notes: list[str] = []

    def expect(self, costs: Sequence[StageCost]) -> None:
        """The stages of a run begin."""
        self._course.expect(costs)

    def stage(self, title: str, total: int, done: int) -> None:
        """A stage begins."""
        self._course.stage(title, total, done)
        self._show()

    def passed(self, passes: int) -> None:
        """A number of images have gone through a model."""
        self._course.passed(passes)
        if self._clock() - self._said >= 1.0:
            self._show()

    def advance(self, images: int, survivors: int) -> None:
        """A batch is finished."""
        self._course.advance(images, survivors)
        self._show()

    def note(self, text: str) -> None:
        """A message for the user about the run."""
        self._notes.append(text)
        self._show()

    def _show(self) -> None:
        shown: Any = import_module("IPython.display")  # available, because a notebook is running

        self._said, course = self._clock(), self._course
        bar = f'<progress value="{course.share:.4f}" max="1"></progress>'
        notes = "".join(f"<br>{html(note)}" for note in self._notes)
        line = shown.HTML(
            f"{html(short_title(course.title))} {bar} {html(progress_text(course))}{notes}"
        )
        if self._line is None:
            self._line = shown.display(line, display_id=True)
        else:
            self._line.update(line)


@contextmanager
def progress_of(name: str, wanted: bool) -> Iterator[ProgressReceiver | None]:
    """Yield a display of the progress of a call from Python: a terminal, a notebook, or none."""
    if wanted and in_notebook():
        yield NotebookProgress()
    elif wanted:  # in a script on a pipe: a line every 30 seconds, and none for a stage
        with BarProgress(announce=False) as bar:
            bar.model(name)
            yield bar
    else:
        yield None


def in_notebook() -> bool:
    """Say whether the code runs in the kernel of a notebook.  Imports nothing."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return hasattr(shell, "kernel")
