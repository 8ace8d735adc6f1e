"""The options --workers, --engine and --address, which a command gets as one value."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Literal

import click

from satbench.core.errors import SatbenchError
from satbench.core.limits import whole_number


def workers(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --workers, --engine and --address; `command` gets them as `workers: Workers`."""

    @click.option(
        "--workers",
        "count",
        default="auto",
        show_default=True,
        envvar="SATBENCH_WORKERS",
        metavar="N",
        help="Processes that share the work; the record is the same. auto: one for each core, if "
        "the work is long enough; all of a Ray cluster; one for each GPU with --device cuda:all.",
    )
    @click.option(
        "--engine",
        type=click.Choice(["local", "ray"]),
        default="local",
        show_default=True,
        help="Where the workers are: on this machine, or on a Ray cluster.",
    )
    @click.option(
        "--address",
        metavar="HOST:PORT",
        help="Address of the Ray cluster. Default: the one that this machine is part of, else a "
        "new one on this machine.",
    )
    @wraps(command)
    def collected(
        *args: Any, count: str, engine: Literal["local", "ray"], address: str | None, **others: Any
    ) -> Any:
        from satbench.evaluation.workers import Workers

        number = None if count == "auto" else whole_number(count)
        if count != "auto" and number is None:
            raise SatbenchError(f"expected --workers auto or a number of 1 or more, got {count!r}")
        return command(*args, workers=Workers(number, engine, address), **others)

    return collected
