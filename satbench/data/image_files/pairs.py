"""Folders that come in pairs: train/ to train on, and next to it val/ or test/ to evaluate on."""

from __future__ import annotations

import os
from pathlib import Path

TRAINING = ("train", "training")
HELD_BACK = ("test", "val", "valid", "validation")
"""The names of the two sides; of several to evaluate on, the first with the same classes."""


def side_of(folder: Path, split: str) -> Path:
    """Return the side of a pair that `split` asks for, where `folder` holds one, else itself."""
    names = {name.lower(): name for name in _folders(folder)}
    trains = [folder / names[name] for name in TRAINING if name in names]
    if len(trains) != 1 or names.keys() - {*TRAINING, *HELD_BACK} or len(names) < 2:
        return folder
    return trains[0] if split == "train" else beside(trains[0]) or folder


def beside(folder: Path) -> Path | None:
    """Return what to evaluate on next to a folder that is trained on; None where there is nothing.

    It has a name of those above and the same class folders.
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
    if not os.path.isdir(folder):  # False, too, for a name that no disk takes
        return []
    names = (entry.name for entry in os.scandir(folder) if entry.is_dir())
    return sorted(name for name in names if not name.startswith("."))
