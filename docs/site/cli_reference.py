"""The reference of the command line, from the help of each command.

python docs/site/cli_reference.py [FILE]
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from satbench.cli import cli

_WIDTH = 80
_HEAD = """# Command line

This page is made from `--help` when the site is built. Results go to stdout, progress and errors
to stderr. Under `--json` an error is JSON on stdout: `{"error": {"kind": …, "message": …}}`. Exit
codes: 0, 1 (a check failed), 2 (a mistake in what was given), 130 (stopped).

## Completion

A shell completes commands, options, and the names of models, attacks, recipes, data sets,
activations, architectures, boards and studies after one line in its start-up file:

```sh
# bash, in ~/.bashrc
eval "$(_SATBENCH_COMPLETE=bash_source satbench)"
# zsh, in ~/.zshrc
eval "$(_SATBENCH_COMPLETE=zsh_source satbench)"
# fish, in ~/.config/fish/completions/satbench.fish
_SATBENCH_COMPLETE=fish_source satbench | source
```
"""


def page() -> str:
    """Return the page: for each command its help, as the terminal shows it."""
    parts = [_HEAD]
    for words, context in commands():
        title, level = " ".join(words), "#" * min(len(words), 4)
        parts.append(f"{level}{'#' if len(words) == 1 else ''} {title}\n")
        parts.append(f"```text\n{context.get_help().rstrip()}\n```\n")
    return "\n".join(parts)


def commands() -> Iterator[tuple[tuple[str, ...], click.Context]]:
    """Yield each command's words, `("satbench", "models", "add")`, and a context that knows it."""
    yield from _below(cli, ("satbench",), None)


def _below(
    command: click.Command, words: tuple[str, ...], parent: click.Context | None
) -> Iterator[tuple[tuple[str, ...], click.Context]]:
    context = click.Context(
        command,
        info_name=words[-1],
        parent=parent,
        terminal_width=_WIDTH,
        max_content_width=_WIDTH,
        **command.context_settings,
    )
    yield words, context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            if found is not None and not found.hidden:
                yield from _below(found, (*words, name), context)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(page(), encoding="utf-8")
    else:
        sys.stdout.write(page())
