"""The images that a study trains on and evaluates with, each loaded once."""

from __future__ import annotations

from pathlib import Path

from satbench.data import Dataset, load_dataset
from satbench.data.fashion_mnist import DIGESTS
from satbench.recipes import TrainConfig
from satbench.training.images.training_set import TrainingSet, open_training_set

_KNOWN = {"fashion-mnist": DIGESTS["train"]}


Key = tuple[str, int, str, str, int]


def key_of(config: TrainConfig) -> Key:
    """Return a key for the training set of a config."""
    return config.dataset, config.crop, config.resize, config.interpolation, config.subset


class DatasetCache:
    """A cache of data sets; each is loaded once.

    `digests` are known digests of training data by name, from run files.  With them a page can be
    made without the data.
    """

    def __init__(self, data_dir: Path | None = None, digests: dict[str, str] | None = None) -> None:
        self.data_dir = data_dir
        self._digests = {**(digests or {}), **_KNOWN}
        self._training: dict[Key, TrainingSet] = {}
        self._test: dict[tuple[str, int], Dataset] = {}

    def training_digest(self, config: TrainConfig) -> str:
        """Return the digest of a training set.  Raises SatbenchError if it is missing."""
        name = config.dataset
        if name not in self._digests:
            self._digests[name] = self.training(config).digest
        return self._digests[name]

    def training(self, config: TrainConfig) -> TrainingSet:
        """Return a training set, as `satbench train` opens it."""
        key = key_of(config)
        if key not in self._training:
            self._training[key] = open_training_set(config, self.data_dir)
        return self._training[key]

    def test(self, name: str, n: int) -> Dataset:
        """Return the first `n` images of a test set, or of a folder of images."""
        if (name, n) not in self._test:
            self._test[name, n] = load_dataset(name, "test", n, self.data_dir)
        return self._test[name, n]

    def first(self, name: str, n: int) -> Dataset:
        """Return the first `n` images of a test set, or all if there are fewer."""
        whole = load_dataset(name, "test", None, self.data_dir)
        return whole.first(min(n, len(whole)))
