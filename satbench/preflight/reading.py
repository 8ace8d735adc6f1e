"""A user's own images and labels as a data set, from arrays, a torch Dataset or a DataLoader."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from numbers import Integral
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, SequentialSampler
from torch.utils.data import Dataset as TorchDataset

from satbench.calling.modules import kind_of
from satbench.core.console import say
from satbench.core.errors import SatbenchError
from satbench.data import Dataset
from satbench.preflight.image_checks import check_dataset, dataset_from_tensors

Arrays = tuple[Tensor | NDArray[np.float32], Tensor | NDArray[np.int64]]
Loader = TorchDataset[Any] | DataLoader[Any]
Images = Tensor | NDArray[np.float32] | NDArray[np.uint8] | Sequence[Any]
"""(N, C, H, W), float32 in [0, 1] or uint8, or a list of N arrays (C, H, W)."""
Labels = Tensor | NDArray[np.int64] | Sequence[int]

Data = str | Dataset | Arrays | TorchDataset[Any] | DataLoader[Any]
"""The accepted types of training images."""

_BATCH = 256
_TWICE = 32
"""This many images of a torch Dataset are read twice, to detect random transforms."""


def images_given(
    x: Images | Loader, y: Labels | None = None, n_examples: int | None = None
) -> Dataset:
    """Return a user's images and labels as a data set.

    `x` is an array or a list of images, with labels `y`; or a torch Dataset or DataLoader, which
    has the labels and is read once, in the order of its data set.  uint8 pixels mean 0…255, and a
    line on stderr says so.  Raises SatbenchError for another type, and for pixels or labels with
    another shape or range.
    """
    if y is None:
        if isinstance(x, Tensor | np.ndarray | list | tuple):
            raise SatbenchError("expected images x together with their labels y")
        return cast(Dataset, data_of(cast(Loader, x), n_examples))
    if isinstance(x, DataLoader | TorchDataset) and not isinstance(x, Tensor):
        raise SatbenchError(
            "expected the labels from the Dataset or DataLoader, got y too: leave y out"
        )
    images, labels = _stacked(x), _numbers(y)
    if not (isinstance(images, Tensor | np.ndarray) and _is_bytes(images)):
        return dataset_from_tensors(images, labels)
    return _of_bytes(images, labels)


def _stacked(x: object) -> Any:
    """Return a list of images as one array; anything else unchanged."""
    if not isinstance(x, list | tuple) or not x:
        return x
    if not all(isinstance(one, Tensor | np.ndarray) for one in x):
        strange = next(one for one in x if not isinstance(one, Tensor | np.ndarray))
        raise SatbenchError(
            f"expected a list of tensors or arrays (C, H, W), got one with {kind_of(strange)}: "
            "torchvision.transforms.functional.to_tensor(image) converts a PIL image"
        )
    shapes = list(dict.fromkeys(tuple(one.shape) for one in x))
    if len(shapes) > 1:
        raise SatbenchError(
            f"expected images of one shape, got {shapes[0]} and {shapes[1]}: resize them"
        )
    return torch.stack([torch.as_tensor(one).detach().cpu() for one in x])


def _numbers(y: object) -> Any:
    """Return a list of labels as an array; anything else unchanged."""
    if isinstance(y, list | tuple) and y and all(isinstance(one, Integral | Tensor) for one in y):
        return np.array([int(one) for one in y], np.int64)
    return y


def _is_bytes(images: Tensor | NDArray[Any]) -> bool:
    return images.dtype in (torch.uint8, np.uint8)


def _of_bytes(images: Tensor | NDArray[Any], labels: Any) -> Dataset:
    """Return images in 0…255 as a data set, which stores the bytes."""
    pixels = np.asarray(images.cpu() if isinstance(images, Tensor) else images)
    if pixels.size and pixels.max() <= 1:
        raise SatbenchError(
            f"expected uint8 pixels of 0 to 255, got 0 to {pixels.max()}: write x.float() if they "
            "are already in [0, 1]"
        )
    if pixels.ndim == 4 and pixels.shape[-1] in (1, 3) and pixels.shape[1] not in (1, 3):
        raise SatbenchError(
            f"expected images of shape (N, C, H, W), got shape {pixels.shape}: "
            "put the channels first with x.permute(0, 3, 1, 2)"
        )
    # The labels are checked together with one image as floats.
    checked = dataset_from_tensors(np.zeros((len(labels), 1, 1, 1), np.float32), labels)
    dataset = replace(checked, images=np.ascontiguousarray(pixels))
    check_dataset(dataset)
    say("satbench: uint8 pixels are read as 0…255 and divided by 255 for the model")
    return dataset


def data_of(data: Data, n_examples: int | None = None) -> Dataset | str:
    """Return images as a data set; the name of a data set is returned unchanged.

    A DataLoader or a torch Dataset is read once, in the order of its data set, for any order of the
    loader, up to `n_examples` images.  Raises SatbenchError for another type, for pixels or labels
    that an evaluation refuses, and for images that differ each time.
    """
    if isinstance(data, str | Dataset):
        return data
    if isinstance(data, tuple | list):
        if len(data) != 2:
            raise SatbenchError(f"expected data as a pair (x, y), got {len(data)} items")
        return images_given(*data)
    if isinstance(data, DataLoader):
        return _read(_in_order(data), n_examples)
    if isinstance(data, IterableDataset):
        return _read(DataLoader(data, batch_size=_BATCH), n_examples)
    indexed = hasattr(data, "__getitem__") and hasattr(data, "__len__")
    if indexed and not isinstance(data, Tensor | np.ndarray | Mapping):
        return _read(_in_order(DataLoader(data, batch_size=_BATCH)), n_examples)
    raise SatbenchError(
        f"expected data as arrays (x, y), the name of a data set, a torch Dataset or a DataLoader, "
        f"got {kind_of(data)}"
    )


def _in_order(loader: DataLoader[Any]) -> Iterable[Any]:
    """Return a loader of all the same images in the order of the data set."""
    dataset = loader.dataset
    if isinstance(dataset, IterableDataset):
        return loader
    sampler = loader.sampler
    whole = isinstance(sampler, RandomSampler) and not sampler.replacement
    if not isinstance(sampler, SequentialSampler) and not whole:
        raise SatbenchError(
            f"expected a DataLoader that goes through its data set once, got one with a "
            f"{type(sampler).__name__}: pass the wanted images as a torch Dataset, such as "
            "torch.utils.data.Subset"
        )
    _check_fixed(dataset)
    return DataLoader(
        dataset,
        batch_size=loader.batch_size or _BATCH,
        collate_fn=loader.collate_fn,
        num_workers=loader.num_workers,
        generator=torch.Generator(),
    )


def _check_fixed(dataset: TorchDataset[Any]) -> None:
    """Raise SatbenchError if the data set is random, because it is read only once."""
    for row in range(min(_TWICE, len(cast(Any, dataset)))):
        first, second = (
            _pair(dataset[row], "a data set of pairs (image, label)") for _ in range(2)
        )
        if not isinstance(first[0], Tensor | np.ndarray):
            raise SatbenchError(
                f"expected images as tensors, got {kind_of(first[0])}: give the data set "
                "transform=torchvision.transforms.ToTensor()"
            )
        if not np.array_equal(np.asarray(first[0]), np.asarray(second[0]), equal_nan=True):
            raise SatbenchError(
                f"expected images that are the same each time, but image {row} differs in the "
                "second read: remove random transforms, and set augment='crop-flip', which "
                "draws again in every epoch"
            )


def _read(batches: Iterable[Any], n_examples: int | None) -> Dataset:
    images, labels, count = [], [], 0
    for x, y in _pairs(batches):
        images.append(torch.as_tensor(x).detach().cpu())
        labels.append(torch.as_tensor(y).detach().cpu())
        count += len(images[-1])
        if n_examples is not None and count >= n_examples:
            break
    if not images:
        raise SatbenchError("expected at least one image, got an empty data set")
    try:
        return images_given(torch.cat(images), torch.cat(labels))
    except RuntimeError:
        shapes = list(dict.fromkeys(str(tuple(x.shape[1:])) for x in images))
        raise SatbenchError(
            f"expected images of one shape, got {' and '.join(shapes[:2])}: resize them"
        ) from None


def _pairs(batches: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
    try:
        for batch in batches:
            yield _pair(batch, "batches (images, labels)")
    except RuntimeError as error:  # images of several sizes do not fit into one batch
        if "stack" not in str(error):
            raise
        raise SatbenchError("expected images of one shape, got several: resize them") from None


def _pair(batch: Any, wanted: str) -> tuple[Any, Any]:
    """Return images and labels from an item of a data set or a loader: a pair, or a dict."""
    if isinstance(batch, tuple | list) and len(batch) == 2:
        return batch[0], batch[1]
    if isinstance(batch, Mapping):
        image = [batch[name] for name in ("pixel_values", "image", "images", "x") if name in batch]
        label = [batch[name] for name in ("labels", "label", "y") if name in batch]
        if image and label:
            return image[0], label[0]
    held = f" with {', '.join(map(str, batch))}" if isinstance(batch, Mapping) else ""
    raise SatbenchError(f"expected {wanted}, got {kind_of(batch)}{held}")
