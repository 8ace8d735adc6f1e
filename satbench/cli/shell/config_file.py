"""The option `--config FILE.toml`: a file with options of a command."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from satbench.cli.shell.paths import FILE
from satbench.core.errors import SatbenchError, UnknownNameError
from satbench.core.schema import read_toml_values

_NOT_IN_A_FILE = ("config", "help")


def _read(ctx: click.Context, _: click.Parameter, path: Path | None) -> None:
    if path is not None and not ctx.resilient_parsing:
        ctx.default_map = defaults_of(ctx, path)


def defaults_of(ctx: click.Context, path: Path) -> dict[str, Any]:
    """Read a file of options and return click's defaults, by parameter name.

    Keys are the long names of options, with - or _.  Raises SatbenchError if the file is missing
    or is not TOML, if the command has no such option, or if the option does not take the value.
    """
    table = read_toml_values(path, "file of options")
    return {
        param.name: value for param, value in _settings(ctx, path, table) if param.name is not None
    }


def _settings(
    ctx: click.Context, path: Path, table: Mapping[str, Any]
) -> list[tuple[click.Option, object]]:
    known = {
        name.removeprefix("--"): param
        for param in ctx.command.params
        if isinstance(param, click.Option) and param.name not in _NOT_IN_A_FILE
        for name in param.opts
        if name.startswith("--")
    }
    found = []
    for key, value in table.items():
        name = key.replace("_", "-")
        if name not in known:
            raise SatbenchError(f"{path}: {UnknownNameError('option', name, known)}")
        found.append((known[name], _value(ctx, path, name, known[name], value)))
    return found


def _value(ctx: click.Context, path: Path, name: str, param: click.Option, value: object) -> object:
    if param.multiple and isinstance(value, str | int | float):
        value = [value]
    wanted = "true or false" if param.is_flag else "a list" if param.multiple else "one value"
    fits = isinstance(value, bool) if param.is_flag else isinstance(value, list) == param.multiple
    if not fits or isinstance(value, dict):
        raise SatbenchError(f"{path}: expected {wanted} for {name}, got {value!r}")
    shown = [str(one) for one in value] if isinstance(value, list) else value
    text = shown if param.is_flag or isinstance(shown, list) else str(shown)
    try:
        param.type_cast_value(ctx, text)
    except click.BadParameter as error:
        raise SatbenchError(f"{path}: {name}: {error.message}") from None
    return text


config_option = click.option(
    "--config",
    type=FILE,
    is_eager=True,
    expose_value=False,
    callback=_read,
    metavar="FILE.toml",
    help="Read options from a file, such as attack = ['pgd-50', 'fast']. An option on the command "
    "line replaces the one in the file.",
)
