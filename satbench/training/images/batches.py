"""Batches of training images on the device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from satbench.core.errors import SatbenchError
from satbench.data import Dataset, ImageTree
from satbench.recipes import TrainConfig
from satbench.training.images.folders import FromFiles
from satbench.training.update.augment import Augmentation


class Batches(Protocol):
    """The source of images for the loop, by row, so that only the loop decides the order."""

    def train(
        self, epoch: int, rows: Sequence[NDArray[np.int64]]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield augmented images in [0, 1] and labels for each batch of `rows`.

        (B,) -> (B, C, H, W), (B,).  A function of only the epoch (from 0) and the rows.
        """
        ...

    def held_out(self, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Return images without augmentation, and labels.  (B,) -> (B, C, H, W), (B,)."""
        ...


def batches_of(data: Dataset, config: TrainConfig, device: torch.device) -> Batches:
    """Return the source of batches for a data set."""
    if isinstance(data, ImageTree):
        return FromFiles(data, config, device)
    return OnDevice(data, config, device)


class OnDevice:
    """A data set that is on the device as a whole, as stored (bytes for small images)."""

    def __init__(self, data: Dataset, config: TrainConfig, device: torch.device) -> None:
        images, labels = (np.require(a, requirements="W") for a in (data.images, data.labels))
        self._images = torch.from_numpy(images).to(device)
        self._labels = torch.from_numpy(labels).to(device)
        # A tensor on the device: CUDA multiplies by the inverse of a Python number instead, and the
        # result differs from that of the CPU.
        self._white = torch.tensor(255, dtype=torch.float32, device=device)
        if config.augment == "resized-crop-flip":
            raise SatbenchError(
                "augment resized-crop-flip reads image files; give the dataset imagefolder:PATH"
            )
        self._augment = Augmentation(config.augment, config.crop_padding, config.seed)

    def train(
        self, epoch: int, rows: Sequence[NDArray[np.int64]]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield augmented images in [0, 1] and labels for each batch of `rows`."""
        augments = self._augment.kind != "none"
        drawn = self._augment.draws(epoch, len(self._labels)) if augments else None
        for some in rows:
            x, y = self._stored(some)
            if drawn is not None:
                x = self._augment(x, torch.from_numpy(drawn[some]).to(x.device))
            yield self._scaled(x), y

    def held_out(self, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Return images without augmentation, and labels.  (B,) -> (B, C, H, W), (B,)."""
        x, y = self._stored(rows)
        return self._scaled(x), y

    def _stored(self, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        index = torch.from_numpy(rows).to(self._labels.device)
        return self._images[index], self._labels[index]

    def _scaled(self, x: Tensor) -> Tensor:
        return x.float() / self._white if x.dtype == torch.uint8 else x.float()
