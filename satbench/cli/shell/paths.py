"""The click types of paths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


class PathOf(click.Path):
    """A path on the command line, as a `Path`.  An empty text, which would mean `.`, is refused."""

    def __init__(self, **more: Any) -> None:
        super().__init__(path_type=Path, **more)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path.  Raises click.UsageError for an empty text."""
        if value == "":
            self.fail(
                "expected a path, got an empty text; give '.' for the current folder", param, ctx
            )
        return super().convert(value, param, ctx)


PATH = PathOf()
FILE = PathOf(dir_okay=False)
FOLDER = PathOf(file_okay=False)
