"""A command line that runs in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import pytest

from satbench.cli import cli, main


@dataclass(frozen=True)
class Said:
    """The output of a command, and its exit code."""

    code: int
    out: str
    err: str


Run = Callable[..., Said]


def runner(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs a command line in this process."""

    def run(*words: str | Path) -> Said:
        monkeypatch.setattr(sys, "argv", ["satbench", *map(str, words)])
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        said = capsys.readouterr()
        return Said(code, said.out, said.err)

    return run


def below(command: click.Command, context: click.Context) -> Iterator[click.Context]:
    """Yield `context` and one for each command below, as on a terminal of 80 columns."""
    yield context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            more = click.Context(found, context, name, terminal_width=80, max_content_width=80)
            yield from below(found, more)


ROOT = click.Context(cli, info_name="satbench", **cli.context_settings)
CONTEXTS = {one.command_path: one for one in below(cli, ROOT)}
"""Every command, `satbench leaderboard build` say, with a context of it."""
