"""JSON that shows every character and has the same bytes everywhere."""

from __future__ import annotations

import json

from satbench.core.text.characters import visible


def json_text(value: object, indent: int = 1) -> str:
    r"""Return a value as JSON with a line end, and with active characters escaped.

    >>> json_text(["net\u202e"], indent=0)
    '[\n"net\\u202e"\n]\n'
    """
    text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)
    for letter in {letter for letter in set(text) if letter != "\n" and visible(letter) != letter}:
        text = text.replace(letter, json.dumps(letter)[1:-1])
    return text + "\n"
