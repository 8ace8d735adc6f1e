"""The command line.  Each command has a module: it parses, calls one function and prints.

Results go to stdout, progress and errors to stderr.  Exit codes: 0 (success), 1 (a check failed),
2 (a mistake in the input).  Nothing here imports torch before a command needs it.
"""

from __future__ import annotations

import sys
import warnings
from importlib import import_module
from typing import TextIO, cast

import click

import satbench
from satbench.cli.shell.commands import CommandGroup
from satbench.cli.shell.failures import report, wants_json
from satbench.cli.shell.stops import Stops
from satbench.core.errors import AssumptionWarning, SatbenchError
from satbench.core.text.terminal import one_line, tell

_COMMANDS = {
    "eval": "satbench.cli.eval:evaluate",
    "curve": "satbench.cli.curve:curve",
    "certify": "satbench.cli.certify:certify",
    "transfer": "satbench.cli.transfer:transfer",
    "train": "satbench.cli.train:train",
    "study": "satbench.cli.study:study",
    "plot": "satbench.cli.plot:plot",
    "leaderboard": "satbench.cli.leaderboard:leaderboard",
    "show": "satbench.cli.records.show:show",
    "images": "satbench.cli.records.images:images",
    "verify": "satbench.cli.records.verify:verify",
    "recheck": "satbench.cli.records.recheck:recheck",
    "challenge": "satbench.cli.records.challenge:challenge",
    "compare": "satbench.cli.records.compare:compare",
    "reproduce": "satbench.cli.records.reproduce:reproduce",
    "submit": "satbench.cli.records.submit:submit",
    "review": "satbench.cli.records.review:review",
    "merge": "satbench.cli.records.merge:merge",
    "merge-shards": "satbench.cli.merge_shards:merge_shards",
    "models": "satbench.cli.models:models",
    "attacks": "satbench.cli.lists:attacks",
    "activations": "satbench.cli.lists:activations",
    "architectures": "satbench.cli.lists:architectures",
    "datasets": "satbench.cli.lists:datasets",
    "recipes": "satbench.cli.lists:recipes",
    "export": "satbench.cli.export:export",
    "demo": "satbench.cli.demo:demo",
}


class _LazyGroup(CommandGroup):
    """A group that imports the module of a command only when that command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _, attribute = _COMMANDS[cmd_name].partition(":")
        return cast(click.Command, getattr(import_module(module), attribute))


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    examples="""
    satbench demo                                # three models, in a minute
    satbench eval fmnist-sat-tiny-silu-s0 --attack pgd-50 --limit 500
    satbench models                              # names to evaluate
    """,
)
@click.version_option(satbench.__version__, prog_name="satbench")
def cli() -> None:
    """How robust is an image classifier, and does a smooth activation make it more so?"""


def main() -> None:
    """Run the command line."""
    warnings.showwarning = _show_warning
    as_json = wants_json()
    stops = Stops()
    try:
        with stops:
            # The code that a command passed to ctx.exit, if any.
            code = cli.main(prog_name="satbench", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(2)
    except (SatbenchError, click.ClickException) as error:
        report(error, as_json)
        sys.exit(2)
    except OSError as error:  # a full disk, a folder that cannot be written
        report(error, as_json)
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt) as error:
        report(error, as_json)
        sys.exit(128 + stops.number)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print a warning on stderr, as a sentence if the user should act on it."""
    if issubclass(category, AssumptionWarning):
        tell(f"satbench: {one_line(message)}", err=True)
    else:
        text = warnings.formatwarning(message, category, filename, lineno, line)
        tell(text, err=True, nl=False)
