"""Images for a dry run: for missing data sets only the number and the shape are known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from satbench.core.errors import SatbenchError
from satbench.data import Dataset
from satbench.data.fashion_mnist import find
from satbench.data.folders import data_folder
from satbench.recipes import TrainConfig
from satbench.studies.images import DatasetCache, key_of
from satbench.training.images.training_set import TrainingSet

_SIZES = {
    "fashion-mnist": ((1, 28, 28), 10, 60_000, 10_000),
    "cifar10": ((3, 32, 32), 10, 50_000, 10_000),
    "cifar100": ((3, 32, 32), 100, 50_000, 10_000),
    "imagefolder": ((3, 224, 224), 1000, 1_281_167, 50_000),
}
"""Shape, classes, number of training and test images; a folder counts as ImageNet."""

_UNKNOWN = "not here"


class Outlines(DatasetCache):
    """A cache that downloads nothing; `say` reports each missing data set once.

    `on_cards` are the digests that cards hold of training sets, by name, for missing ones.
    """

    def __init__(
        self, data_dir: Path | None, on_cards: dict[str, str], say: Callable[[str], None]
    ) -> None:
        super().__init__(data_dir)
        self._on_cards, self._say = on_cards, say
        self._missing: set[str] = set()

    def training_digest(self, config: TrainConfig) -> str:
        """Return the digest of a training set; for a missing one, the digest on cards."""
        name = config.dataset
        if name in self._digests:
            return self._digests[name]
        whole = self.training(config)
        return self._on_cards.get(name, _UNKNOWN) if name in self._missing else whole.digest

    def training(self, config: TrainConfig) -> TrainingSet:
        """Return a training set, or blank images instead."""
        key, name = key_of(config), config.dataset
        if key not in self._training:
            try:
                self._refuse_to_fetch(name)
                return super().training(config)
            except SatbenchError as error:
                data = self._outline(name, "train", config.crop, str(error))
                data = data.first(config.subset) if config.subset else data
                self._training[key] = TrainingSet(data, _UNKNOWN)
        return self._training[key]

    def test(self, name: str, n: int) -> Dataset:
        """Return the first `n` test images, or as many blank images."""
        if (name, n) not in self._test:
            if name.startswith("fashion-mnist"):  # it ships with satbench
                return super().test(name, n)
            try:
                self._refuse_to_fetch(name)
                return super().test(name, n)
            except SatbenchError as error:
                self._test[name, n] = self._outline(name, "test", 224, str(error)).first(n)
        return self._test[name, n]

    def _refuse_to_fetch(self, name: str) -> None:
        base = name.partition(":")[0].partition("@")[0]
        fetched = base == "fashion-mnist" and not find(data_folder(self.data_dir))
        if fetched or base == "hf":
            raise SatbenchError("a dry run downloads nothing")

    def _outline(self, name: str, split: str, crop: int, why: str) -> Dataset:
        base, _, _ = name.partition(":")
        base, _, side = base.partition("@")
        known = _SIZES.get(base)
        (channels, height, width), classes, training, tests = known or _SIZES["cifar10"]
        if base == "imagefolder":
            height = width = crop
        elif side:
            height = width = int(side)
        n = training if split == "train" else tests
        if name not in self._missing:
            self._missing.add(name)
            what = "" if known and base != "imagefolder" else ", a guess"
            self._say(
                f"{name} is missing, and counts as {n:,} images of "
                f"{channels}×{height}×{width}{what} ({why})"
            )
        images = np.broadcast_to(np.zeros(1, np.uint8), (n, channels, height, width))
        labels = np.broadcast_to(np.zeros(1, np.int64), (n,))
        return Dataset(name, split, images, labels, classes)
