"""Checks of images and labels: dtypes, shapes and ranges, on every image."""

from __future__ import annotations

from numbers import Integral

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from satbench.calling.modules import kind_of
from satbench.core.errors import SatbenchError
from satbench.data import USER, Dataset

Array = Tensor | NDArray[np.generic]


def dataset_from_tensors(x: Array, y: Array, classes: int | None = None) -> Dataset:
    """Make a data set from a user's images and labels.

    (N, C, H, W) float32 in [0, 1], (N,) int64.  Torch tensors from any device and numpy arrays are
    accepted; memory is shared if possible.  `classes` is their number, None for as many as the
    labels need.  Raises SatbenchError for pixels or labels with another dtype, shape or range, and
    for no images.
    """
    images = np.ascontiguousarray(_to_numpy(_checked_pixels(x)), dtype=np.float32)
    labels = np.ascontiguousarray(_to_numpy(_checked_labels(y)), dtype=np.int64)
    needed = int(labels.max(initial=0)) + 1
    count = needed if classes is None else classes
    dataset = Dataset("tensors", USER, images, labels, count, more_classes=classes is None)
    check_dataset(dataset)
    return dataset


def _checked_pixels(x: Array) -> Array:
    if not isinstance(x, Tensor | np.ndarray):
        raise SatbenchError(
            f"expected images as a torch tensor or numpy array, got {kind_of(x)}: "
            "stack them into one (N, C, H, W) array"
        )
    _check_contents(x, "images")
    dtype = _dtype(x)
    if dtype != "float32":
        whole = dtype.startswith(("uint", "int", "bool"))
        cast = "x.float()" if isinstance(x, Tensor) else "x.astype(np.float32)"
        todo = f"{cast} / 255 if they are 0 to 255" if whole else cast
        raise SatbenchError(f"expected float32 pixels in [0, 1], got {dtype}: convert them, {todo}")
    return x


def _checked_labels(y: Array) -> Array:
    if not isinstance(y, Tensor | np.ndarray):
        other = [one for one in y if not isinstance(one, Integral)] if isinstance(y, list) else []
        inside = f" with {kind_of(other[0])}" if other else ""
        raise SatbenchError(
            "expected labels as whole numbers in a list, a torch tensor or a numpy array, got "
            f"{kind_of(y)}{inside}"
        )
    _check_contents(y, "labels")
    shape = tuple(y.shape)
    if len(shape) != 1:
        one_hot = len(shape) == 2 and shape[1] > 1
        todo = "convert one-hot labels with y.argmax(1)" if one_hot else "y.reshape(-1)"
        raise SatbenchError(f"expected labels of shape (N,), got shape {shape}: {todo}")
    dtype = _dtype(y)
    if dtype != "int64":
        cast = "y.long()" if isinstance(y, Tensor) else "y.astype(np.int64)"
        raise SatbenchError(f"expected int64 labels, got {dtype}: convert them, {cast}")
    return y


def _check_contents(array: Array, what: str) -> None:
    if isinstance(array, np.ma.MaskedArray) and np.ma.is_masked(array):
        name, masked = "x" if what == "images" else "y", int(np.ma.getmaskarray(array).sum())
        raise SatbenchError(
            f"expected {what} without a mask, got a masked array with {masked} elements masked: "
            f"fill them, {name}.filled()"
        )
    if not isinstance(array, Tensor):
        return
    if array.is_meta:
        raise SatbenchError(
            f"expected {what} with contents, got a tensor on the meta device: load them on the CPU"
        )
    if array.layout != torch.strided:
        name = "x" if what == "images" else "y"
        raise SatbenchError(
            f"expected dense {what}, got layout {_short(array.layout)}: {name}.to_dense()"
        )


def check_dataset(dataset: Dataset) -> None:
    """Raise SatbenchError for pixels or labels with a wrong dtype, shape or range, or for none."""
    images = dataset.images
    if images.ndim != 4:
        raise SatbenchError(
            f"expected images of shape (N, C, H, W), got shape {images.shape}: "
            "a grey image has C = 1, a single image N = 1"
        )
    if images.dtype != np.uint8:  # every uint8 value is a valid pixel
        _checked_pixels(images)
    _checked_labels(dataset.labels)
    if images.size == 0:
        raise SatbenchError(f"expected at least one image, got an empty set, {images.shape}")
    if len(images) != len(dataset.labels):
        raise SatbenchError(
            f"expected one label per image, got {len(images)} images and "
            f"{len(dataset.labels)} labels"
        )
    _check_range(images)
    _check_classes(dataset.labels, dataset.classes)


def _check_range(images: NDArray[np.uint8] | NDArray[np.float32]) -> None:
    if images.dtype == np.uint8:
        return
    with np.errstate(invalid="ignore"):  # NaN is reported below
        low, high = float(images.min()), float(images.max())
    if not np.isfinite([low, high]).all():
        first = next(row for row, image in enumerate(images) if not np.isfinite(image).all())
        raise SatbenchError(
            f"expected finite pixels, got NaN or infinity (the first in image {first}): "
            "repair or leave out such images"
        )
    if low >= 0 and high <= 1:
        return
    if low < 0:
        todo = "pass pixels without normalisation, which must be the first layer of the model"
    elif high > 2:
        todo = "divide them by 255"
    else:
        todo = "clip them, x.clip(0, 1)"
    raise SatbenchError(f"expected pixels in [0, 1], got {low:.9g} to {high:.9g}: {todo}")


def _check_classes(labels: NDArray[np.int64], classes: int) -> None:
    low, high = int(labels.min()), int(labels.max())
    if low < 0:
        raise SatbenchError(f"expected labels that start from 0, got {low}: leave such images out")
    if high >= classes:
        raise SatbenchError(
            f"expected labels in 0…{classes - 1} for {classes} classes, got {high}: "
            "labels start from 0"
        )


def _to_numpy(array: Array) -> NDArray[np.generic]:
    return array.detach().cpu().numpy() if isinstance(array, Tensor) else array


def _dtype(array: Array) -> str:
    return _short(array.dtype) if isinstance(array, Tensor) else array.dtype.name


def _short(name: object) -> str:
    return str(name).removeprefix("torch.")
