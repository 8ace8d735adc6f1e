"""Find which data sets are on this machine, and download those that can be downloaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from satbench.core.errors import SatbenchError
from satbench.data import fashion_mnist
from satbench.data._registry import AT_A_PATH, DATASETS

CIFAR = {
    "cifar10": (
        "cifar-10-batches-py",
        ("batches.meta", *(f"data_batch_{i}" for i in range(1, 6)), "test_batch"),
    ),
    "cifar100": ("cifar-100-python", ("meta", "test", "train")),
}
"""The folder and the files of each data set that can be downloaded, as in torchvision."""


@dataclass(frozen=True)
class Presence:
    """Whether a data set is on this machine, and where; None if it depends on the path."""

    is_present: bool | None
    where: str


def presence_of(name: str, folder: Path) -> Presence:
    """Look for the files of a data set in the data folder; nothing is read or downloaded."""
    if name in AT_A_PATH:
        return Presence(None, f"at a path: {name}:PATH")
    if name in CIFAR:
        place, files = CIFAR[name]
        missing = [file for file in files if not (folder / place / file).is_file()]
        if not missing:
            return Presence(True, f"present in {folder / place}")
        what = "missing" if len(missing) == len(files) else f"incomplete in {folder / place}"
        return Presence(False, f"{what}; satbench datasets --get {name} downloads it")
    if name == "fashion-mnist":
        found = fashion_mnist.find(folder)
        training = f"in {found}" if found else "missing; it is downloaded when a training needs it"
        return Presence(True, f"test set present; training set {training}")
    return Presence(None, "of a plug-in")


def download(name: str, folder: Path) -> dict[str, str]:
    """Download CIFAR-10 or CIFAR-100 into the data folder; return the digest of each split.

    Complete files are kept. torchvision downloads; the archive and each file are checked against
    the published MD5s.  Raises SatbenchError for another data set, and for a failed download; the
    data folder is then unchanged.
    """
    if name not in CIFAR:
        DATASETS[name]  # an unknown name is answered with the nearest one
        raise SatbenchError(
            f"expected {' or '.join(CIFAR)} to download, got {name}: satbench datasets says where "
            "it comes from"
        )
    from satbench.data._cifar import fetch, load

    if not presence_of(name, folder).is_present:
        fetch(name, folder)
    splits = [load(name, folder, split) for split in ("test", "train")]
    return {f"{one.split} ({len(one):,})": one.digest for one in splits}
