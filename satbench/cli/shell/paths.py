"""The click types of paths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from satbench.core.files import has_file_name


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


class _Folder(PathOf):
    """A folder that need not exist.  The name of a file, such as figure.png, is refused."""

    def __init__(self) -> None:
        super().__init__(file_okay=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path.  Raises click.UsageError for the name of a file."""
        path = super().convert(value, param, ctx)
        if has_file_name(path) and not path.exists():
            self.fail(
                f"expected a folder, got {str(path)!r}, which is the name of a file",
                param,
                ctx,
            )
        return path


PATH = PathOf()
FILE = PathOf(dir_okay=False)
FOLDER = _Folder()
