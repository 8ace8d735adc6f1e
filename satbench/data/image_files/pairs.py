"""Pairs of folders: train/ for training, and next to it val/ or test/ for evaluation."""

from __future__ import annotations

import os
from pathlib import Path

TRAINING = ("train", "training")
HELD_BACK = ("test", "val", "valid", "validation")
"""The names of the two sides; the first one with the same classes is used for evaluation."""


def side_of(folder: Path, split: str) -> Path:
    """Return the side of a pair for `split` if `folder` has a pair, else `folder` itself."""
    names = {name.lower(): name for name in _folders(folder)}
    trains = [folder / names[name] for name in TRAINING if name in names]
    if len(trains) != 1 or names.keys() - {*TRAINING, *HELD_BACK} or len(names) < 2:
        return folder
    return trains[0] if split == "train" else beside(trains[0]) or folder


def beside(folder: Path) -> Path | None:
    """Return the evaluation folder next to a training folder; None if there is none.

    It has one of the names above and the same class folders.
    """
    here = folder.absolute()
    if here.name.lower() not in TRAINING:
        return None
    names = {name.lower(): name for name in _folders(here.parent)}
    classes = set(_folders(here))
    for name in HELD_BACK:
        if name in names and set(_folders(here.parent / names[name])) == classes:
            return folder.parent / names[name]
    return None


def _folders(folder: Path) -> list[str]:
    if not os.path.isdir(folder):  # also false for a name that the disk does not allow
        return []
    names = (entry.name for entry in os.scandir(folder) if entry.is_dir())
    return sorted(name for name in names if not name.startswith("."))
