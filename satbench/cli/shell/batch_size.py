"""The option --batch-size: a number, or auto for a command that can measure one."""

from __future__ import annotations

import click

from satbench.core.errors import SatbenchError
from satbench.core.limits import whole_number


def read_batch_size(ctx: click.Context, _: click.Parameter, value: str) -> int:
    """Return a batch size; 0 means auto, which only `eval` takes.

    Raises SatbenchError for any other text, and for less than 1.
    """
    if value == "auto" and ctx.command.name == "eval":
        return 0
    size = whole_number(value)
    if not size:
        raise SatbenchError(f"expected a batch size of 1 or more, got {value}")
    return size
