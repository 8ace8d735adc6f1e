"""The images that a study trains on and evaluates with, each loaded once."""

from __future__ import annotations

from pathlib import Path

from satbench.data import Dataset, Pixels, load_dataset, open_tree
from satbench.data._fashion_mnist import DIGESTS

_KNOWN = {"fashion-mnist": DIGESTS["train"]}


class Images:
    """Loads data sets once.

    `told` are digests of training data that need no look at the data, by its name: those that
    runs tell of, where only a page is made from them.
    """

    def __init__(self, data_dir: Path | None = None, told: dict[str, str] | None = None) -> None:
        self.data_dir = data_dir
        self._digests = {**(told or {}), **_KNOWN}
        self._training: dict[tuple[str, int], Dataset] = {}
        self._test: dict[tuple[str, int], Dataset] = {}

    def training_digest(self, name: str, crop: int) -> str:
        """Return the digest of a training set.  Raises SatbenchError where it is missing."""
        if name not in self._digests:
            self._digests[name] = self.training(name, crop).digest
        return self._digests[name]

    def training(self, name: str, crop: int) -> Dataset:
        """Return a training set, as `satbench train` opens it."""
        if (name, crop) not in self._training:
            self._training[name, crop] = (
                open_tree(name, Pixels.centre(crop), 0)
                if name.startswith("imagefolder:")
                else load_dataset(name, "train", data_dir=self.data_dir)
            )
        return self._training[name, crop]

    def test(self, name: str, n: int) -> Dataset:
        """Return the first `n` images of a test set, or of a folder of images."""
        if (name, n) not in self._test:
            self._test[name, n] = load_dataset(name, "test", n, self.data_dir)
        return self._test[name, n]

    def first(self, name: str, n: int) -> Dataset:
        """Return the first `n` images of a test set, or all where there are fewer."""
        whole = load_dataset(name, "test", None, self.data_dir)
        return whole.first(min(n, len(whole)))
