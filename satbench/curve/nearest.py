"""The nearest known adversarial point of each image, from which a curve is made."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from satbench.calling.devices import device_of
from satbench.data import Dataset
from satbench.records.curves import Curve
from satbench.records.witnesses import Witnesses


class Nearest:
    """The nearest confirmed point of each image so far, and the search that found it.

    `distances` (N,) float64 are 0 for an image that is wrong when clean, and infinite if no point
    is known.  An image whose distance comes from a verdict without a witness has no point.
    """

    def __init__(self, data: Dataset) -> None:
        self.data = data
        self.distances = np.full(len(data), np.inf)
        self.owner = np.full(len(data), -1)
        self.images: dict[int, NDArray[np.float32]] = {}

    @classmethod
    def of(cls, curve: Curve, points: Witnesses, data: Dataset) -> Nearest:
        """Return the distances and points of a curve."""
        nearest = cls(data)
        nearest.distances[:] = [np.inf if d is None else d for d in curve.distances]
        nearest.images = dict(zip(points.indices.tolist(), points.images, strict=True))
        return nearest

    @property
    def right(self) -> NDArray[np.int64]:
        """The images that the model gets right when clean."""
        return np.flatnonzero(self.distances > 0)

    def beyond(self, eps: float) -> NDArray[np.bool_]:
        """Return which images have no point within `eps`, (N,) bool."""
        further: NDArray[np.bool_] = self.distances > eps
        return further

    def load(self, model: nn.Module, batch: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Return images and labels on the device of `model`."""
        device = device_of(model)
        return (
            torch.from_numpy(self.data.pixels(batch)).to(device),
            torch.from_numpy(self.data.labels[batch]).to(device),
        )

    def offer(
        self,
        owner: int,
        indices: NDArray[np.int64],
        images: NDArray[np.float32],
        distances: NDArray[np.float64],
    ) -> int:
        """Take the points that are nearer than the known ones; return how many there are."""
        taken = 0
        for index, image, distance in zip(indices.tolist(), images, distances, strict=True):
            if distance < self.distances[index]:
                self.distances[index], self.owner[index] = distance, owner
                self.images[index] = image
                taken += 1
        return taken

    def offer_verdicts(self, broken: NDArray[np.int64], eps: float) -> int:
        """Lower the distance of `broken` images to `eps`, without points; return how many."""
        new = broken[self.distances[broken] > eps]
        self.distances[new] = eps
        for index in new.tolist():
            self.images.pop(index, None)
        return len(new)

    def credit(self, owner: int) -> int:
        """Return for how many images the search `owner` found the nearest point."""
        return int((self.owner == owner).sum())

    def listed(self) -> list[float | None]:
        """Return the distances as a curve stores them: None if no point is known."""
        return [float(d) if np.isfinite(d) else None for d in self.distances]

    def points(self) -> Witnesses:
        """Return the points, ordered by image."""
        indices = sorted(self.images)
        if not indices:
            return Witnesses(np.empty(0, np.int64), np.empty((0, *self.data.shape), np.float32))
        return Witnesses(np.array(indices), np.stack([self.images[index] for index in indices]))
