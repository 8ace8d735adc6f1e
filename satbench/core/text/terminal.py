"""What is printed: every text goes through here, so that no name can do anything to a terminal."""

from __future__ import annotations

import click

from satbench.core.text.characters import visible


def tell(text: object = "", *, err: bool = False, nl: bool = True) -> None:
    """Print a text on stdout, or on stderr for `err`, with a new line behind it unless `nl` is off.

    Its own lines stay; a name within it should be `one_line`, so that it makes none.
    """
    click.echo(visible(str(text), keep="\n\t"), err=err, nl=nl)


def one_line(name: object) -> str:
    r"""Return a name from a file, or from whoever calls, as one line that is nothing but text.

    >>> one_line("net\nall hold")
    'net\\nall hold'
    """
    return visible(str(name))
