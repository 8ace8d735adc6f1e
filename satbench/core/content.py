"""The place of the benchmark's content: cards, weights, records and suites.

In a checkout it is in the folders at the top of the repository; an installed wheel has it inside
the package.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

Kind = Literal["attacks", "leaderboard", "model_zoo"]

_PACKAGE = Path(__file__).resolve().parents[1]


def content_folder(kind: Kind) -> Path:
    """Return the folder of one kind of content, of the same checkout or wheel as this code.

    >>> content_folder("leaderboard").name
    'leaderboard'
    """
    packed = _PACKAGE / "content" / kind
    return packed if packed.is_dir() else _PACKAGE.parent / kind
