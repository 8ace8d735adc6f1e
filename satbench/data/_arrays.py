"""A user's own images in files of arrays: FILE.npz, FILE.pt, or X.npy,Y.npy."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from satbench.core.errors import SatbenchError, listed
from satbench.core.files import open_plain
from satbench.core.limits import FREE_BYTES, check_archive
from satbench.data._dataset import USER, Dataset
from satbench.data._registry import DATASETS
from satbench.data._resized import resized
from satbench.data.image_files.classes import BY_NAME, Classes
from satbench.data.image_files.options import PathOptions

if TYPE_CHECKING:  # only the reader of `.pt` needs it
    import torch

Array = NDArray[np.generic]

PAIRS = (("x", "y"), ("images", "labels"), ("data", "targets"))
"""The names of images and labels in a file."""

FORMS = "FILE.npz, FILE.pt or X.npy,Y.npy"


@dataclass(frozen=True)
class Arrays:
    """Files of images and labels, the name of the data set, and the numbering of its classes.

    Images are resized to a square of this `side`, as for other data sets; None keeps their size.
    """

    paths: tuple[Path, ...]
    name: str = ""
    side: int | None = None
    classes: Classes = BY_NAME

    @classmethod
    def parse(cls, text: str) -> Arrays:
        """Read `FILE.npz@SIDE,name=NAME,classes=N`.  Raises SatbenchError."""
        return cls.of(PathOptions.parse(text))

    @classmethod
    def of(cls, options: PathOptions) -> Arrays:
        """Read a path and its options.  Raises SatbenchError."""
        options.check_keys(("name", "classes"))
        said = options.values
        if _base(said.get("name", "")) in DATASETS:
            raise SatbenchError(
                f"expected a name of its own for {options.path}, got {said['name']!r}, which is "
                "another data set's"
            )
        classes = Classes(said.get("classes", ""))
        return cls(_paths(options.path), said.get("name", ""), options.side, classes)

    def __str__(self) -> str:
        """Return the text; `parse` is its inverse."""
        return str(self._options)

    def saying(self, values: Mapping[str, str]) -> Arrays:
        """Return the same with more options.  Raises SatbenchError for one given twice."""
        return Arrays.of(self._options.saying(values))

    @property
    def _options(self) -> PathOptions:
        said = {"name": self.name, "classes": self.classes.text}
        values = {key: value for key, value in said.items() if value}
        return PathOptions(",".join(map(str, self.paths)), str(self.side or ""), values)

    def load(self, split: str, n_examples: int | None) -> Dataset:
        """Load the first images of the files, for any split."""
        images, labels = _read_two(*self.paths) if len(self.paths) == 2 else _read(self.paths[0])
        where = " and ".join(str(path) for path in self.paths)
        _check_shapes(images, where)
        every = _checked_labels(labels, where)
        if len(images) != len(every):
            raise SatbenchError(
                f"expected one label an image in {where}, got {len(images)} images and "
                f"{len(every)} labels"
            )
        numbered, numbers = self.classes.of_labels(every, where)
        found = Dataset(
            self.name or _name_of(self.paths[0]),
            USER,
            _checked_pixels(images[:n_examples], where),
            numbered[:n_examples],
            numbers.count,
            more_classes=numbers.more,
        )
        return found if self.side is None else resized(found, self.side)


def load_arrays(spec: str, name: str = "", classes: int | str = "") -> Dataset:
    """Read images (N, C, H, W) and labels (N,) from `FILE.npz`, `FILE.pt` or `X.npy,Y.npy`.

    An `.npz` and the dict of a `.pt` have them as x, y or images, labels or data, targets; a `.pt`
    may also be a pair of tensors.  Two `.npy` are memory-mapped: only the needed images are read.
    Images are uint8, or float32 in [0, 1]; labels are whole numbers from 0.  The name of the data
    set is `name`, by default that of the file (of images) without its ending.  `classes` is their
    number, or a map of classes (see `image_files.classes.Classes`); if unset, as many as the labels
    need, and a model may have more.

    No code from a file is run.  Raises SatbenchError, naming the file, for anything else.
    """
    return Arrays(_paths(spec), name, None, Classes(str(classes))).load(USER, None)


def _paths(spec: str) -> tuple[Path, ...]:
    """Read `FILE.npz`, `FILE.pt` or `X.npy,Y.npy` as paths, without looking at the disk.

    Raises SatbenchError for another form.
    """
    if Path(spec).suffix in (".npz", ".pt"):
        return (Path(spec).expanduser(),)
    # A path may contain a comma: the separator is the one between two .npy.
    first, found, second = spec.partition(".npy,")
    if found and first and Path(second).suffix == ".npy":
        return Path(first + ".npy").expanduser(), Path(second).expanduser()
    todo = ": name its labels too, X.npy,Y.npy" if spec.endswith(".npy") else ""
    raise SatbenchError(f"expected data as {FORMS}, got {spec!r}{todo}")


def _name_of(path: Path) -> str:
    """Return the stem of a file; its whole name if the stem is the name of another data set."""
    return path.name if _base(path.stem) in DATASETS else path.stem


def _base(name: str) -> str:
    return name.partition("@")[0].partition(":")[0]


def _read_two(images: Path, labels: Path) -> tuple[Array, Array]:
    return _read_npy(images), _read_npy(labels)


def _read_npy(path: Path) -> Array:
    _check_there(path)
    try:
        # A plain array, whose pages the system reads when they are needed.
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except Exception as error:  # a header that lies raises every kind of error
        raise _unreadable(path, error) from None


def _read(path: Path) -> tuple[Array, Array]:
    _check_there(path)
    return _read_npz(path) if path.suffix == ".npz" else _read_pt(path)


def _read_npz(path: Path) -> tuple[Array, Array]:
    try:
        with open_plain(path) as file:
            _check_unpacked(path)
            stored = np.load(file, allow_pickle=False)
            if isinstance(stored, np.ndarray):
                raise ValueError("it is a single array")
            images, labels = _names_of(path, list(stored))
            return stored[images], stored[labels]
    except SatbenchError:
        raise
    except Exception as error:  # a corrupt zip raises every kind of error
        raise _unreadable(path, error) from None


def _read_pt(path: Path) -> tuple[Array, Array]:
    import torch

    try:
        if zipfile.is_zipfile(path):  # the older format is not packed
            _check_unpacked(path)
        found: object = torch.load(path, map_location="cpu", weights_only=True)
    except SatbenchError:
        raise
    except Exception as error:  # a corrupt zip and a forbidden pickle raise every kind of error
        # Torch's own message continues with how to run the code in the file.
        raise SatbenchError(
            f"expected nothing but tensors in {path}, a dict or a pair, for nothing else is read "
            f"from it; it is corrupt, or holds objects ({type(error).__name__})"
        ) from None
    if isinstance(found, dict):
        images, labels = _names_of(path, [str(key) for key in found])
        found = (found[images], found[labels])
    if not isinstance(found, tuple | list) or len(found) != 2:
        raise SatbenchError(
            f"expected a dict or a pair of images and labels in {path}, got {type(found).__name__}"
        )
    for what in found:
        if not isinstance(what, torch.Tensor):
            raise SatbenchError(f"expected tensors in {path}, got {type(what).__name__}")
    x, y = cast(tuple[torch.Tensor, torch.Tensor], tuple(found))
    for tensor in (x, y):
        _check_expanded(tensor, path)
    try:
        return x.detach().numpy(), y.detach().numpy()
    except (TypeError, RuntimeError):  # bfloat16, sparse and the like, which numpy has not
        raise SatbenchError(
            f"expected dense uint8 or float32 images and whole labels in {path}, got "
            f"{str(x.dtype).removeprefix('torch.')} and {str(y.dtype).removeprefix('torch.')}"
        ) from None


def _check_unpacked(path: Path) -> None:
    if not zipfile.is_zipfile(path):
        raise ValueError("it is no zip")
    with zipfile.ZipFile(path) as archive:
        check_archive(archive, path)


def _check_expanded(tensor: torch.Tensor, path: Path) -> None:
    """Raise SatbenchError for a tensor of far more numbers than its file has."""
    size = tensor.numel() * tensor.element_size()
    if not tensor.is_sparse and size > max(FREE_BYTES, path.stat().st_size):
        raise SatbenchError(
            f"expected tensors that lie in {path} as a whole, got one of {size:,} bytes in a file "
            f"of {path.stat().st_size:,}; save x.contiguous()"
        )


def _names_of(path: Path, names: list[str]) -> tuple[str, str]:
    """Find the one pair of names in a file."""
    found = [pair for pair in PAIRS if set(pair) <= set(names)]
    if len(found) == 1:
        return found[0]
    wanted = " or ".join(", ".join(pair) for pair in PAIRS)
    if found:
        raise SatbenchError(
            f"expected one pair of {wanted} in {path}, got several: {listed(names)}"
        )
    raise SatbenchError(f"expected {wanted} in {path}, got {listed(names) if names else 'nothing'}")


def _check_there(path: Path) -> None:
    if not os.path.isfile(path):
        raise SatbenchError(f"expected data at {path}, which is missing")


def _unreadable(path: Path, error: Exception) -> SatbenchError:
    said = str(error).splitlines()[0] if str(error) else type(error).__name__
    if "pickle" in said:
        said = "objects, not arrays of numbers"
    return SatbenchError(f"expected arrays in {path}, which cannot be read ({said})")


def _check_shapes(images: Array, where: str) -> None:
    if images.ndim != 4:
        raise SatbenchError(
            f"expected images of shape (N, C, H, W) in {where}, got shape {images.shape}; "
            "a grey image has C = 1"
        )
    if images.shape[3] in (1, 3) and images.shape[1] not in (1, 3):
        raise SatbenchError(
            f"expected images of shape (N, C, H, W) in {where}, got shape {images.shape}, whose "
            "channels come last; save x.transpose(0, 3, 1, 2)"
        )
    if images.size == 0:
        raise SatbenchError(f"expected at least one image in {where}, got shape {images.shape}")


def _checked_pixels(images: Array, where: str) -> NDArray[np.uint8] | NDArray[np.float32]:
    kind = images.dtype.name
    if kind not in ("uint8", "float32"):
        raise SatbenchError(
            f"expected images as uint8, or float32 in [0, 1], in {where}, got {kind}"
        )
    native = np.ascontiguousarray(images, images.dtype.newbyteorder("="))
    if kind == "float32":
        _check_range(cast(NDArray[np.float32], native), where)
    return cast("NDArray[np.uint8] | NDArray[np.float32]", native)


def _check_range(images: NDArray[np.float32], where: str) -> None:
    # One image at a time, because a mapped file may be large; min and max return NaN for NaN.
    low = float(np.min([image.min() for image in images]))
    high = float(np.max([image.max() for image in images]))
    if not (np.isfinite(low) and np.isfinite(high)):
        raise SatbenchError(f"expected finite pixels in {where}, got NaN or infinity")
    if low >= 0 and high <= 1:
        return
    if low < 0:
        todo = "save pixels as they are, normalisation belongs into the model as its first layer"
    else:
        todo = "save them divided by 255, or as uint8" if high > 2 else "clip them"
    raise SatbenchError(
        f"expected float32 pixels in [0, 1] in {where}, got {low:.6g} to {high:.6g}; {todo}"
    )


def _checked_labels(labels: Array, where: str) -> NDArray[np.int64]:
    if labels.ndim != 1:
        one_hot = labels.ndim == 2 and labels.shape[1] > 1
        todo = "save one-hot labels as y.argmax(1)" if one_hot else "save y.reshape(-1)"
        raise SatbenchError(
            f"expected labels of shape (N,) in {where}, got shape {labels.shape}; {todo}"
        )
    if not np.issubdtype(labels.dtype, np.integer):
        raise SatbenchError(
            f"expected labels as whole numbers in {where}, got {labels.dtype.name}; "
            "save y.astype(int)"
        )
    whole = labels.astype(np.int64)
    if whole.min(initial=0) < 0:
        raise SatbenchError(
            f"expected labels that count from 0 in {where}, got {whole.min()}; "
            "leave such images out"
        )
    return whole
