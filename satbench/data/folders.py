"""The folders in which data sets are stored."""

from __future__ import annotations

import os
from pathlib import Path


def data_folder(chosen: Path | None = None) -> Path:
    """Return the data folder: the chosen one, else `$SATBENCH_DATA`, else the user's cache."""
    if chosen is not None:
        return chosen
    if os.environ.get("SATBENCH_DATA"):
        return Path(os.environ["SATBENCH_DATA"])
    return Path.home() / ".cache" / "satbench" / "data"
