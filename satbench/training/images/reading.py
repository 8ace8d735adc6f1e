"""Images and labels of a user's own as a data set: arrays, a torch Dataset or a DataLoader."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, SequentialSampler
from torch.utils.data import Dataset as TorchDataset

from satbench.calling.modules import kind_of
from satbench.core.errors import SatbenchError
from satbench.data import Dataset
from satbench.preflight.image_checks import dataset_from_tensors

Arrays = tuple[Tensor | NDArray[np.float32], Tensor | NDArray[np.int64]]
Data = str | Dataset | Arrays | TorchDataset[Any] | DataLoader[Any]
"""What training images may be given as."""

_BATCH = 256
_TWICE = 32
"""So many images of a torch Dataset are read twice, to see whether it draws at random."""


def data_of(data: Data) -> Dataset | str:
    """Return training images as a data set, or the name of one as it is.

    A DataLoader or a torch Dataset is read once, in the order of its data set, whatever the order
    of the loader: training draws its own.  Raises SatbenchError for another thing, pixels or labels
    that an evaluation refuses too, and images that come out differently each time.
    """
    if isinstance(data, str | Dataset):
        return data
    if isinstance(data, tuple | list):
        if len(data) != 2:
            raise SatbenchError(f"expected data as a pair (x, y), got {len(data)} things")
        return dataset_from_tensors(*data)
    if isinstance(data, DataLoader):
        return _read(_in_order(data))
    if isinstance(data, IterableDataset):
        return _read(DataLoader(data, batch_size=_BATCH))
    indexed = hasattr(data, "__getitem__") and hasattr(data, "__len__")
    if indexed and not isinstance(data, Tensor | np.ndarray | Mapping):
        return _read(_in_order(DataLoader(data, batch_size=_BATCH)))
    raise SatbenchError(
        f"expected data as arrays (x, y), the name of a data set, a torch Dataset or a DataLoader, "
        f"got {kind_of(data)}"
    )


def _in_order(loader: DataLoader[Any]) -> Iterable[Any]:
    """Return a loader of the same images in the order of the data set, none left out."""
    dataset = loader.dataset
    if isinstance(dataset, IterableDataset):
        return loader
    sampler = loader.sampler
    whole = isinstance(sampler, RandomSampler) and not sampler.replacement
    if not isinstance(sampler, SequentialSampler) and not whole:
        raise SatbenchError(
            f"expected a DataLoader that goes through its data set once, got one with a "
            f"{type(sampler).__name__}: pass the images that are meant as a torch Dataset, such as "
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
    """Raise SatbenchError where the data set draws at random, for it is read only once."""
    for row in range(min(_TWICE, len(cast(Any, dataset)))):
        first, second = dataset[row], dataset[row]
        if not (isinstance(first, tuple | list) and len(first) == 2):
            raise SatbenchError(
                f"expected a data set of pairs (image, label), got {kind_of(first)}"
            )
        if not isinstance(first[0], Tensor | np.ndarray):
            raise SatbenchError(
                f"expected images as tensors, got {kind_of(first[0])}: give the data set "
                "transform=torchvision.transforms.ToTensor()"
            )
        if not np.array_equal(np.asarray(first[0]), np.asarray(second[0]), equal_nan=True):
            raise SatbenchError(
                f"expected images that are the same each time, got another image {row} at the "
                "second look: leave random transforms out, and set augment='crop-flip', which "
                "draws anew in every epoch"
            )


def _read(batches: Iterable[Any]) -> Dataset:
    images, labels = [], []
    for x, y in _pairs(batches):
        images.append(torch.as_tensor(x).detach().cpu())
        labels.append(torch.as_tensor(y).detach().cpu())
    if not images:
        raise SatbenchError("expected at least one image, got an empty data set")
    try:
        return dataset_from_tensors(torch.cat(images), torch.cat(labels))
    except RuntimeError:
        shapes = list(dict.fromkeys(str(tuple(x.shape[1:])) for x in images))
        raise SatbenchError(
            f"expected images of one shape, got {' and '.join(shapes[:2])}: resize them"
        ) from None


def _pairs(batches: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
    try:
        for batch in batches:
            if not (isinstance(batch, tuple | list) and len(batch) == 2):
                raise SatbenchError(f"expected batches (images, labels), got {kind_of(batch)}")
            yield batch[0], batch[1]
    except RuntimeError as error:  # images of several sizes cannot be put into one batch
        if "stack" not in str(error):
            raise
        raise SatbenchError("expected images of one shape, got several: resize them") from None
