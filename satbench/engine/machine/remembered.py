"""Measurements on this machine, stored in a file of the cache."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch

from satbench.calling.devices import device_name
from satbench.core.files import write_text


def key_of(name: str, shape: torch.Size, device: torch.device) -> str:
    """Return the key of a measurement: everything that it depends on, as text."""
    return " ".join(
        (
            name,
            "x".join(map(str, shape)),
            device_name(device),
            f"threads={torch.get_num_threads()}",
            f"torch={torch.__version__}",
        )
    )


def remembered(path: Path, key: str, least: int, measure: Callable[[], int]) -> tuple[int, bool]:
    """Return the stored value for `key`, else that of `measure`, and whether it was stored.

    A stored value is a number of at least `least`.
    """
    known = _read(path, least)
    if key in known:
        return known[key], True
    found = measure()
    with suppress(OSError):  # the cache cannot be written: the next run measures again
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps({**_read(path, least), key: found}, indent=1) + "\n")
    return found, False


def _read(path: Path, least: int) -> dict[str, int]:
    """Return the numbers in a file; none if it cannot be read."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {
        key: number
        for key, number in found.items()
        if isinstance(number, int) and least <= number <= 10**6
    }
