"""Fashion-MNIST (Xiao, Rasul, Vollgraf, 2017, arXiv:1708.07747).  MIT licence, Zalando SE."""

from __future__ import annotations

import gzip
import zlib
from importlib.resources import files
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from satbench.core.errors import SatbenchError
from satbench.data._dataset import Dataset

# SHA-256 of (images, labels), read from Debian's package dataset-fashion-mnist 0.0~git20200523;
# torchvision's download unpacks to the same bytes.
DIGESTS = {
    "train": "2b766da2f58be18404e741f0d7bc71601b06e95ffea9334e436067c37b489ad1",
    "test": "20c9a769a8b6cc43acc7634384389417dc2fb7e9c67adcf40bd172d15d975ca1",
}

_SHAPES = {"train": 60_000, "test": 10_000}
_STEMS = {"train": "train", "test": "t10k"}
_DEBIAN = Path("/usr/share/datasets/fashion-mnist")


def load(folder: Path, split: Literal["test", "train"], n_examples: int | None = None) -> Dataset:
    """Load a split: the test set ships with satbench, the training set is found or downloaded.

    The training set is searched in `folder/fashion-mnist`, in torchvision's
    `folder/FashionMNIST/raw`, and in the folder of Debian's package `dataset-fashion-mnist`.  If it
    is in none of these, torchvision downloads it into `folder`.
    """
    place = (
        Path(str(files("satbench.data") / "files"))
        if split == "test"
        else (find(folder) or _download(folder))
    )
    dataset = read_folder(place, split)
    if dataset.digest != DIGESTS[split]:
        raise SatbenchError(
            f"expected Fashion-MNIST's {split} set with digest {DIGESTS[split][:12]}… in {place}, "
            f"got {dataset.digest[:12]}…; delete these files and fetch them again"
        )
    return dataset


def read_folder(place: Path, split: str) -> Dataset:
    """Read the two IDX files of a split, gzipped or not.  Raises SatbenchError if unreadable."""
    n, stem = _SHAPES[split], _STEMS[split]
    images = _read_idx(place / f"{stem}-images-idx3-ubyte", (n, 1, 28, 28), header=16)
    labels = _read_idx(place / f"{stem}-labels-idx1-ubyte", (n,), header=8)
    return Dataset("fashion-mnist", split, images, labels.astype(np.int64), classes=10)


def find(folder: Path) -> Path | None:
    """Return the folder of the training set; None if it must be downloaded."""
    candidates = (folder / "fashion-mnist", folder / "FashionMNIST" / "raw", _DEBIAN)
    found = (place for place in candidates if any(place.glob("train-images-idx3-ubyte*")))
    return next(found, None)


def _download(folder: Path) -> Path:
    from torchvision.datasets import FashionMNIST

    try:
        FashionMNIST(str(folder), train=True, download=True)
    except (OSError, RuntimeError) as error:
        said = " ".join(str(error).split())  # torchvision's message has a line per mirror
        raise SatbenchError(
            f"found no Fashion-MNIST training set in {folder / 'fashion-mnist'}, and its download "
            f"failed ({said}); put train-images-idx3-ubyte.gz and train-labels-idx1-ubyte.gz "
            "there, or install Debian's package dataset-fashion-mnist"
        ) from error
    return folder / "FashionMNIST" / "raw"


def _read_idx(path: Path, shape: tuple[int, ...], header: int) -> NDArray[np.uint8]:
    zipped = path.with_name(path.name + ".gz")
    try:
        raw = gzip.decompress(zipped.read_bytes()) if zipped.exists() else path.read_bytes()
    except FileNotFoundError:
        raise SatbenchError(f"expected the file {zipped}, which is missing") from None
    except (OSError, EOFError, zlib.error) as error:
        raise SatbenchError(f"the file {zipped} is corrupt ({error}); fetch it again") from None
    size = header + int(np.prod(shape))
    if len(raw) != size:
        raise SatbenchError(f"expected {size} bytes in {path}, got {len(raw)}; fetch it again")
    return np.frombuffer(raw, np.uint8, offset=header).reshape(shape)
