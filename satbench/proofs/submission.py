"""Adversarial images from a third party: read without running its code, and judged here."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from satbench.core.digests import digest_file
from satbench.core.errors import SatbenchError
from satbench.core.files import open_plain
from satbench.core.limits import check_archive
from satbench.core.noise import Noise
from satbench.core.threat import Threat
from satbench.data import Dataset
from satbench.engine.ball import size
from satbench.engine.contract import History, Model, NoiseSource
from satbench.engine.judge import TOLERANCE
from satbench.engine.stage import Stage

_DTYPES = ("float32", "float64", "uint8")


@dataclass(frozen=True, eq=False)
class Submission:
    """An attack that returns given images: `images` (N, C, H, W), one per image of the data set.

    Those that are not `allowed` (N,) are ignored.
    """

    images: NDArray[np.float32]
    allowed: NDArray[np.bool_]
    uses_gradients: ClassVar[bool] = False

    def selects(self, history: History) -> NDArray[np.bool_]:
        """Return which images to attack: the allowed ones."""
        return self.allowed

    def __call__(
        self, model: Model, x: Tensor, y: Tensor, threat: Threat, noise: NoiseSource
    ) -> Tensor:
        """Return the given images for those of the batch.  -> (B, C, H, W)."""
        places = list(cast(Noise, noise).indices)
        return torch.from_numpy(self.images[places]).to(x.device)


@dataclass(frozen=True)
class Submitted:
    """The stage that judges a file of images, and a sentence about those that do not count."""

    stage: Stage
    refused: str


def read_submission(path: Path, dataset: Dataset, whole: int, threat: Threat) -> Submitted:
    """Read adversarial images of `dataset`, or of the `whole` split that it is the beginning of.

    `.pt` has a tensor (or one named tensor), `.npy` and `.npz` have one array, of shape
    (N, C, H, W) and dtype float32 or float64 in [0, 1], or uint8, which is divided by 255.  Raises
    SatbenchError for another kind of file, and if `threat` allows none of the images.
    """
    images = _as_pixels(_read(path), path, dataset, whole)
    allowed, refused = _allowed(dataset.pixels(np.arange(len(dataset))), images, threat)
    if not allowed.any():
        raise SatbenchError(f"no image of {path} counts: {refused}")
    spec = f"images(sha256={digest_file(path)})"
    return Submitted(Stage(spec, "", "images", Submission(images, allowed)), refused)


def _read(path: Path) -> NDArray[np.generic]:
    if not os.path.isfile(path):
        raise SatbenchError(f"expected adversarial images at {path}, which is missing")
    found: object
    try:
        if path.suffix == ".pt":
            _check_unpacked(path)
            found = torch.load(path, map_location="cpu", weights_only=True)
        elif path.suffix in (".npy", ".npz"):
            _check_unpacked(path)
            with open_plain(path) as file:
                stored = np.load(file, allow_pickle=False)
                found = stored if isinstance(stored, np.ndarray) else dict(stored)
        else:
            raise SatbenchError(f"expected adversarial images as .pt, .npy or .npz, got {path}")
    except SatbenchError:
        raise
    except Exception as error:  # a corrupt zip or a forbidden pickle can raise any error
        # Torch's own message explains how to run the code in the file.
        raise SatbenchError(
            f"expected only tensors or arrays in {path}: it is corrupt, or has other objects, "
            f"which are not read ({type(error).__name__})"
        ) from None
    (found,) = _members(found) if len(_members(found)) == 1 else (found,)
    if isinstance(found, Tensor) and str(found.dtype).removeprefix("torch.") in _DTYPES:
        return _dense(found, path)
    if isinstance(found, np.ndarray) and found.dtype.name in _DTYPES:
        return found
    kind = found.dtype if isinstance(found, Tensor | np.ndarray) else type(found).__name__
    raise SatbenchError(
        f"expected one tensor or array of float32, float64 or uint8 in {path}, got {kind}"
    )


def _dense(tensor: Tensor, path: Path) -> NDArray[np.generic]:
    try:
        return cast("NDArray[np.generic]", tensor.detach().numpy())
    except (TypeError, RuntimeError):  # it is sparse, or a view of other numbers, or has no memory
        raise SatbenchError(
            f"expected a dense tensor with its own numbers in {path}: save x.to_dense().clone()"
        ) from None


def _check_unpacked(path: Path) -> None:
    if zipfile.is_zipfile(path):  # other files are not compressed
        with zipfile.ZipFile(path) as archive:
            check_archive(archive, path)


def _members(found: object) -> Sequence[object]:
    if isinstance(found, Mapping):
        return list(found.values())
    return found if isinstance(found, list | tuple) else [found]


def _as_pixels(
    images: NDArray[np.generic], path: Path, dataset: Dataset, whole: int
) -> NDArray[np.float32]:
    if images.shape not in {(n, *dataset.shape) for n in (len(dataset), whole)}:
        sizes = f"{len(dataset)}" if len(dataset) == whole else f"{len(dataset)} or {whole}"
        raise SatbenchError(
            f"expected {sizes} images of shape {dataset.shape} in {path}, "
            f"in the order of {dataset.name}, got an array of shape {images.shape}"
        )
    pixels = images[: len(dataset)].astype(np.float32)
    return pixels / np.float32(255) if images.dtype == np.uint8 else pixels


def _allowed(
    clean: NDArray[np.float32], images: NDArray[np.float32], threat: Threat
) -> tuple[NDArray[np.bool_], str]:
    """Return which images `threat` allows, as for the judge, and a sentence about the others."""
    x, x_adv = torch.from_numpy(clean), torch.from_numpy(images)
    finite = x_adv.isfinite().flatten(1).all(1)
    beyond = torch.maximum(-x_adv, x_adv - 1).flatten(1).amax(1).nan_to_num()
    excess = (size(x_adv.double() - x.double(), threat) - threat.radius).nan_to_num()
    boxed, inside = beyond <= 0, excess <= TOLERANCE[threat.norm]
    reasons = [
        f"{int(bad.sum())} {what}"
        for bad, what in (
            (~finite, "hold NaN or infinity"),
            (~boxed & finite, f"leave [0, 1] by up to {_most(beyond, ~boxed & finite):.3g}"),
            (~inside & finite, f"leave {threat} by up to {_most(excess, ~inside & finite):.3g}"),
        )
        if bad.any()
    ]
    allowed = (finite & boxed & inside).numpy()
    if not reasons:
        return allowed, ""
    count = int((~allowed).sum())
    return allowed, f"{count} of {len(images)} images are not counted: {', '.join(reasons)}"


def _most(amounts: Tensor, chosen: Tensor) -> float:
    return float(amounts[chosen].max()) if chosen.any() else 0.0
