"""The command line: a module a command.  It parses, calls one function, prints.

Results go to stdout, progress and errors to stderr.  Exit codes: 0, 1 (a check failed), 2 (a
mistake in what was given).  Nothing here imports torch before a command needs it.
"""

from __future__ import annotations

import io
import signal
import sys
import threading
import warnings
from importlib import import_module
from typing import TextIO, cast

import click

import satbench
from satbench.core.errors import AssumptionWarning, SatbenchError
from satbench.core.text.terminal import one_line, tell

_COMMANDS = {
    "eval": "satbench.cli.eval:evaluate",
    "curve": "satbench.cli.curve:curve",
    "transfer": "satbench.cli.transfer:transfer",
    "train": "satbench.cli.train:train",
    "study": "satbench.cli.study:study",
    "plot": "satbench.cli.plot:plot",
    "leaderboard": "satbench.cli.leaderboard:leaderboard",
    "images": "satbench.cli.images:images",
    "verify": "satbench.cli.records.verify:verify",
    "recheck": "satbench.cli.records.recheck:recheck",
    "challenge": "satbench.cli.records.challenge:challenge",
    "compare": "satbench.cli.records.compare:compare",
    "reproduce": "satbench.cli.records.reproduce:reproduce",
    "merge": "satbench.cli.records.merge:merge",
    "models": "satbench.cli.models:models",
    "attacks": "satbench.cli.lists:attacks",
    "datasets": "satbench.cli.lists:datasets",
    "recipes": "satbench.cli.lists:recipes",
    "export": "satbench.cli.export:export",
    "demo": "satbench.cli.demo:demo",
}


class _LazyGroup(click.Group):
    """A group that imports a command's module when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _, attribute = _COMMANDS[cmd_name].partition(":")
        return cast(click.Command, getattr(import_module(module), attribute))


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(satbench.__version__, prog_name="satbench")
def cli() -> None:
    """How robust is an image classifier, and does a smooth activation make it more so?"""


def main() -> None:
    """Run the command line."""
    warnings.showwarning = _show_warning
    stops = _Stops()
    try:
        with stops:
            code = cli.main(standalone_mode=False)  # what a command gave to ctx.exit, if anything
        sys.exit(code if isinstance(code, int) else 0)
    except SatbenchError as error:
        tell(f"satbench: {one_line(error)}", err=True)
        sys.exit(2)
    except click.ClickException as error:
        said = io.StringIO()
        error.show(said)
        tell(said.getvalue(), err=True, nl=False)
        sys.exit(2)
    except OSError as error:  # a full disk, a folder that cannot be written, a closed pipe
        tell(f"satbench: {one_line(error)}", err=True)
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        tell("satbench: stopped; the same command goes on where it stopped", err=True)
        sys.exit(128 + stops.number)


class _Stops:
    """SIGTERM and SIGHUP stop a command as Ctrl-C does; `number` is the signal that did.

    A command that handles Ctrl-C, such as training, which waits for the end of a step, then handles
    them in the same way.
    """

    def __init__(self) -> None:
        self.number = int(signal.SIGINT)
        self._changed: list[int] = []

    def __enter__(self) -> _Stops:
        if threading.current_thread() is threading.main_thread():
            for name in ("SIGTERM", "SIGHUP"):
                number = getattr(signal, name, None)  # SIGHUP is not on every system
                if number is not None and signal.getsignal(number) == signal.SIG_DFL:
                    signal.signal(number, self._stop)
                    self._changed.append(number)
        return self

    def __exit__(self, *error: object) -> None:
        for number in self._changed:
            signal.signal(number, signal.SIG_DFL)

    def _stop(self, number: int, frame: object) -> None:
        self.number = number
        signal.raise_signal(signal.SIGINT)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print a warning on stderr; what the user should do something about, as a sentence."""
    if issubclass(category, AssumptionWarning):
        tell(f"satbench: {one_line(message)}", err=True)
    else:
        text = warnings.formatwarning(message, category, filename, lineno, line)
        tell(text, err=True, nl=False)
