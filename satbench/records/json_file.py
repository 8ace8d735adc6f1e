"""JSON files of ours: read in one way, with one sentence for each way they can be wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from satbench.core.errors import SatbenchError


def read_text(path: Path, what: str) -> str:
    """Read a text file.  Raises SatbenchError for one that is missing or not text."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        article = "an" if what[0] in "aeiou" else "a"
        raise SatbenchError(f"expected {article} {what} at {path}, which is missing") from None
    except OSError as error:  # a folder, a name that no disk takes
        raise SatbenchError(f"the {what} {path} cannot be read: {error.strerror}") from None
    except ValueError:
        raise SatbenchError(f"the {what} {path} is not text") from None


def parse_object(text: str, what: str, where: str) -> dict[str, Any]:
    """Read a JSON object.  Raises SatbenchError naming `where` and what is wrong."""
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise SatbenchError(f"the {what} {where} is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise SatbenchError(f"the {what} {where} is not a JSON object")
    return values


def parse_kind(
    text: str, what: str, where: str, kind: str, schema: int, *older: int
) -> dict[str, Any]:
    """Read a JSON object that says of what kind and schema it is, or an older schema; likewise."""
    values = parse_object(text, what, where)
    if values.get("kind") != kind:
        raise SatbenchError(f"expected a {what} in {where}, got JSON of another kind")
    if values.get("schema") not in (schema, *older):
        raise SatbenchError(
            f"expected a {what} of schema {schema} in {where}, "
            f"got {values.get('schema')!r}; update satbench"
        )
    return values
