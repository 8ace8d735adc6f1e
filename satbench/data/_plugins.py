"""Data sets of other packages: loaded and checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np

from satbench.core.errors import SatbenchError
from satbench.core.registry import Entry
from satbench.data._dataset import Dataset

Load = Callable[[Path, str, int | None], Dataset]
"""(data folder, "test" or "train", how many or None for all) -> the first images of the split."""


def load_plugin(entry: Entry, folder: Path, split: str, n_examples: int | None) -> Dataset:
    """Load a split with a plug-in's function; the data set has the name that the plug-in registers.

    Raises SatbenchError, naming the plug-in, for one that cannot be imported or called, fails, or
    returns no `Dataset` of the split.
    """
    load = cast(Load, entry.load())
    try:
        found: object = load(folder, split, n_examples)
    except SatbenchError:
        raise
    except Exception as error:  # a plug-in may raise anything
        said = str(error).splitlines()[0] if str(error) else "without a word"
        raise SatbenchError(
            f"the plug-in {entry.plugin} could not load {entry.name} "
            f"({type(error).__name__}: {said})"
        ) from error
    if fault := _fault(found, split):
        raise SatbenchError(
            f"expected a satbench.data.Dataset of {entry.name} ({split}) from the plug-in "
            f"{entry.plugin}, got {fault}"
        )
    return replace(cast(Dataset, found), name=entry.name)


def _fault(found: object, split: str) -> str:
    """Return the fault of a plug-in's result; empty if there is none."""
    if not isinstance(found, Dataset):
        return type(found).__name__
    images, labels = np.asarray(found.images), np.asarray(found.labels)
    if found.split != split:
        return f"the split {found.split}"
    if images.ndim != 4 or images.dtype not in (np.uint8, np.float32):
        return f"images of shape {images.shape} in {images.dtype}"
    if labels.shape != (len(images),) or labels.dtype != np.int64 or not len(labels):
        return f"labels of shape {labels.shape} in {labels.dtype} for {len(images)} images"
    if not 0 <= labels.min() <= labels.max() < found.classes:
        return f"labels {labels.min()}…{labels.max()} for {found.classes} classes"
    return ""
