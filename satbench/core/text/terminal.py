"""Printing: every text goes through here, so that no name has an effect on a terminal."""

from __future__ import annotations

import sys

import click

from satbench.core.text.characters import visible


def tell(text: object = "", *, err: bool = False, nl: bool = True) -> None:
    """Print a text on stdout, or on stderr if `err`, with a line end unless `nl` is false.

    Its line ends are kept; a name in it should go through `one_line`, so that it adds none.
    """
    # click would write to the stream below a proxy of sys.stderr, into the middle of a bar.
    file = sys.stderr if err else None
    click.echo(visible(str(text), keep="\n\t"), file=file, err=err, nl=nl)


def one_line(name: object) -> str:
    r"""Return a name from a file or from the caller as one line of plain text.

    >>> one_line("net\nall hold")
    'net\\nall hold'
    """
    return visible(str(name))
