"""--batch-size: a number, or auto where a command can measure one."""

from __future__ import annotations

import click


def read_batch_size(ctx: click.Context, _: click.Parameter, value: str) -> int:
    """Return a batch size; 0 stands for auto, which only `eval` takes.  Raises BadParameter."""
    if str(value) == "auto" and ctx.command.name == "eval":
        return 0
    if not str(value).isdecimal() or int(value) < 1:
        auto = ", or auto" if ctx.command.name == "eval" else ""
        raise click.BadParameter(f"expected 1 or more{auto}, got {value!r}")
    return int(value)
