"""The default specs of satbench's own attacks, read from a file so that lists need no torch."""

from __future__ import annotations

import json
from functools import cache

from satbench.core.content import content_folder

FILE = "defaults.json"
"""A file in the folder of the suites; `satbench attacks --catalogue` writes it."""


@cache
def shipped_defaults() -> dict[str, str]:
    """Return the canonical specs at all defaults, by name; empty where there is no such file.

    >>> shipped_defaults()["square"]
    'square(queries=5000,block=250)'
    """
    try:
        text = (content_folder("attacks") / FILE).read_text(encoding="utf-8")
        return {str(name): str(spec) for name, spec in json.loads(text).items()}
    except (OSError, ValueError):  # the attacks have the defaults too, but import torch
        return {}
