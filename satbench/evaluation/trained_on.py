"""The check that a model is not evaluated on the images that it was trained on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from satbench.core.digests import digest_arrays
from satbench.core.errors import SatbenchError
from satbench.data import Dataset, evaluation_set_of, load_dataset, same_images
from satbench.records.record import ModelInfo


def check_not_trained_on(
    info: ModelInfo, dataset: str, images: Dataset, allowed: bool | None = None
) -> bool:
    """Return whether `images`, of the data set `dataset`, are those the model was trained on.

    The card of the model has the digest of its training set; the images may be its first ones.
    Raises SatbenchError if they are and this is not `allowed`; None means that there is no option
    to allow it.
    """
    trained = info.training or {}
    if not trained.get("data_digest") or not _is_training_set(trained, dataset, images):
        return False
    if allowed:
        return True
    beside = evaluation_set_of(str(trained.get("dataset", "")))
    todo = f"give --dataset {beside}" if beside and beside != dataset else "name a test set"
    if allowed is not None:
        todo += "; --allow-training-data evaluates it anyway, and flags the record"
    raise SatbenchError(
        f"{info.name} was trained on {images.name}, so its accuracy there says nothing about "
        f"other images: {todo}"
    )


def _is_training_set(trained: Mapping[str, Any], dataset: str, images: Dataset) -> bool:
    digest, like = trained["data_digest"], str(trained.get("dataset", ""))
    kind, same_kind = dataset.partition(":")[0], like.partition(":")[0]
    if digest in (images.digest, _as_bytes(images)):
        return True
    if kind != same_kind:
        return False
    if kind == "arrays":
        whole = load_dataset(dataset)
        return digest in (whole.digest, _as_bytes(whole))
    return kind == "imagefolder" and same_images(dataset, like, digest)


def _as_bytes(images: Dataset) -> str:
    """Return the digest of floats that are bytes / 255, as bytes; else an empty text."""
    if images.images.dtype != np.float32:
        return ""
    stored = np.empty(images.images.shape, np.uint8)
    for row, image in enumerate(images.images):  # one at a time, because a data set may be large
        scaled = image * np.float32(255)
        stored[row] = whole = np.rint(scaled)
        if np.abs(scaled - whole).max(initial=0) > 1e-3:
            return ""
    return digest_arrays(stored, images.labels)
