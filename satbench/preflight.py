"""Preflight: refuse a wrong set-up in one sentence, before an attack makes a number of it."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from satbench.attacks.borrow import borrowed
from satbench.attacks.engine import device_of
from satbench.core.errors import SatbenchError
from satbench.core.threat import Threat
from satbench.data import USER, Dataset

ASKED = 32
"""How many images the model is asked about; pixels and labels are checked on all of them."""

Array = Tensor | NDArray[np.generic]


def dataset_from_tensors(x: Array, y: Array, classes: int | None = None) -> Dataset:
    """Make a dataset of a user's images and labels.  (N, C, H, W) float32 in [0, 1], (N,) int64.

    Torch tensors and numpy arrays are taken, from any device; memory is shared where it can be.
    `classes` is how many there are; None means as many as the labels need.
    Raises SatbenchError for pixels or labels of another dtype, shape or range, and for no images.
    """
    images = np.ascontiguousarray(_to_numpy(_checked_pixels(x)), dtype=np.float32)
    labels = np.ascontiguousarray(_to_numpy(_checked_labels(y)), dtype=np.int64)
    needed = int(labels.max(initial=0)) + 1
    count = needed if classes is None else classes
    dataset = Dataset("tensors", USER, images, labels, count, more_classes=classes is None)
    _check_dataset(dataset)
    return dataset


def check_module(model: object) -> nn.Module:
    """Return `model` if it is one whose weights can be read.

    Raises SatbenchError for anything but a Module, for weights that are not there (the meta
    device, a lazy layer before its first call), and for weights on several devices.
    """
    if not isinstance(model, nn.Module):
        raise SatbenchError(
            f"expected the model as a torch.nn.Module, got {_named(model)}: "
            "wrap a plain function in the forward of a Module"
        )
    held = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for name, tensor in held.items():
        if is_lazy(tensor):
            raise SatbenchError(
                f"expected a model with weights, got {name} without a shape (a lazy layer): "
                "run it once on a batch of images before it is evaluated"
            )
        if tensor.is_meta:
            raise SatbenchError(
                f"expected a model with weights, got {name} on the meta device: "
                "build it on a real one and load its weights"
            )
    devices = sorted({str(tensor.device) for tensor in held.values()})
    if len(devices) > 1:
        raise SatbenchError(
            f"expected the model on one device, got it on {' and '.join(devices)}: "
            f"bring it together, model.to({devices[-1]!r})"
        )
    return model


def check_set_up(
    model: nn.Module, images: Dataset, threat: Threat, uses_gradients: bool = True
) -> None:
    """Raise SatbenchError where evaluating `model` on `images` would give a meaningless number.

    Pixels and labels are checked on all images; the model is asked for the logits, and their
    gradient if the attacks follow gradients (`uses_gradients`), of the first `ASKED`.  It comes
    back as it was.
    """
    check_module(model)
    if not isinstance(images, Dataset):
        raise SatbenchError(
            f"expected the images as a Dataset, got {_named(images)}: "
            "make one with dataset_from_tensors(x, y)"
        )
    if not isinstance(threat, Threat):
        raise SatbenchError(
            f"expected the threat model as a Threat, got {_named(threat)}: "
            "write Threat.parse('linf:8/255')"
        )
    if torch.is_inference_mode_enabled():
        raise SatbenchError(
            "expected to run outside torch.inference_mode(), in which no gradient exists: leave it"
        )
    _check_dataset(images)
    with borrowed(model) as judged:
        _check_model(judged, images, uses_gradients)


def _checked_pixels(x: Array) -> Array:
    if not isinstance(x, Tensor | np.ndarray):
        raise SatbenchError(
            f"expected images as a torch tensor or numpy array, got {_named(x)}: "
            "stack them into one (N, C, H, W) array"
        )
    _check_contents(x, "images")
    dtype = _dtype(x)
    if dtype != "float32":
        whole = dtype.startswith(("uint", "int", "bool"))
        cast = "x.float()" if isinstance(x, Tensor) else "x.astype(np.float32)"
        todo = f"{cast} / 255 if they are 0 to 255" if whole else cast
        raise SatbenchError(f"expected float32 pixels in [0, 1], got {dtype}: convert them, {todo}")
    return x


def _checked_labels(y: Array) -> Array:
    if not isinstance(y, Tensor | np.ndarray):
        raise SatbenchError(
            f"expected labels as a torch tensor or numpy array, got {_named(y)}: "
            "write torch.tensor(y)"
        )
    _check_contents(y, "labels")
    shape = tuple(y.shape)
    if len(shape) != 1:
        one_hot = len(shape) == 2 and shape[1] > 1
        todo = "turn one-hot labels into numbers, y.argmax(1)" if one_hot else "y.reshape(-1)"
        raise SatbenchError(f"expected labels of shape (N,), got shape {shape}: {todo}")
    dtype = _dtype(y)
    if dtype != "int64":
        cast = "y.long()" if isinstance(y, Tensor) else "y.astype(np.int64)"
        raise SatbenchError(f"expected int64 labels, got {dtype}: convert them, {cast}")
    return y


def _check_contents(array: Array, what: str) -> None:
    if not isinstance(array, Tensor):
        return
    if array.is_meta:
        raise SatbenchError(
            f"expected {what} with contents, got a tensor on the meta device: load them on the CPU"
        )
    if array.layout != torch.strided:
        name = "x" if what == "images" else "y"
        raise SatbenchError(
            f"expected dense {what}, got layout {_short(array.layout)}: {name}.to_dense()"
        )


def _check_dataset(dataset: Dataset) -> None:
    images = dataset.images
    if images.ndim != 4:
        raise SatbenchError(
            f"expected images of shape (N, C, H, W), got shape {images.shape}: "
            "a grey image has C = 1, a single image N = 1"
        )
    if images.dtype != np.uint8:  # whose every value is a pixel
        _checked_pixels(images)
    _checked_labels(dataset.labels)
    if images.size == 0:
        raise SatbenchError(f"expected at least one image, got an empty set, {images.shape}")
    if len(images) != len(dataset.labels):
        raise SatbenchError(
            f"expected one label an image, got {len(images)} images and "
            f"{len(dataset.labels)} labels"
        )
    _check_range(images)
    _check_classes(dataset.labels, dataset.classes)


def _check_range(images: NDArray[np.uint8] | NDArray[np.float32]) -> None:
    if images.dtype == np.uint8:
        return
    with np.errstate(invalid="ignore"):  # NaN is answered in words below
        low, high = float(images.min()), float(images.max())
    if not np.isfinite([low, high]).all():
        first = next(row for row, image in enumerate(images) if not np.isfinite(image).all())
        raise SatbenchError(
            f"expected finite pixels, got NaN or infinity (the first in image {first}): "
            "repair or leave out such images"
        )
    if low >= 0 and high <= 1:
        return
    if low < 0:
        todo = "pass pixels as they are, normalisation belongs into the model as its first layer"
    elif high > 2:
        todo = "divide them by 255"
    else:
        todo = "clip them, x.clip(0, 1)"
    raise SatbenchError(f"expected pixels in [0, 1], got {low:.9g} to {high:.9g}: {todo}")


def _check_classes(labels: NDArray[np.int64], classes: int) -> None:
    low, high = int(labels.min()), int(labels.max())
    if low < 0:
        raise SatbenchError(f"expected labels that count from 0, got {low}: leave such images out")
    if high >= classes:
        raise SatbenchError(
            f"expected labels in 0…{classes - 1} for {classes} classes, got {high}: "
            "labels count from 0"
        )


def _check_model(model: nn.Module, dataset: Dataset, uses_gradients: bool) -> None:
    pixels = dataset.pixels(np.arange(min(ASKED, len(dataset))))
    given = torch.from_numpy(pixels).to(device_of(model))
    with torch.enable_grad(), torch.autocast(given.device.type, enabled=False):
        leaf = given.clone().requires_grad_()
        x = leaf.clone()  # autograd lets a model write into this one, and so it can be caught
        try:
            logits = model(x)
        except SatbenchError:  # says already what to do
            raise
        except Exception as error:  # whatever a user's forward raises
            raise SatbenchError(
                f"the model refuses images of shape {tuple(x.shape)} in float32 "
                f"on {x.device}: {_said(error)}{_remedy(model, x)}"
            ) from error
        if not torch.equal(x, given):
            raise SatbenchError(
                "expected the model to leave its input alone, it wrote into it: "
                "let it work on a copy, x = x.clone()"
            )
        checked = _checked_logits(logits, dataset)
        if uses_gradients:
            _check_gradient(checked, leaf)


def _remedy(model: nn.Module, x: Tensor) -> str:
    """Guess why a model refuses `x`, or say nothing."""
    strange = {p.dtype for p in model.parameters() if p.is_floating_point()} - {torch.float32}
    if strange:
        return f"; its weights are {_short(strange.pop())}, turn them to float32, model.float()"
    if x.shape[3] in (1, 3) and x.shape[1] not in (1, 3):
        return "; if the channels come last, write x.permute(0, 3, 1, 2)"
    return ""


def _checked_logits(logits: object, dataset: Dataset) -> Tensor:
    rows = min(ASKED, len(dataset))
    if not isinstance(logits, Tensor):
        raise SatbenchError(
            f"expected the model to return one tensor of logits, got {_named(logits)}: "
            "wrap it in a Module that returns the logits alone"
        )
    if logits.dim() != 2 or len(logits) != rows:
        raise SatbenchError(
            f"expected logits of shape ({rows}, classes) for {rows} images, "
            f"got shape {tuple(logits.shape)}: return one row of scores an image"
        )
    if not logits.is_floating_point():
        raise SatbenchError(
            f"expected logits of a floating dtype, got {_dtype(logits)}: "
            "return the scores from before argmax or rounding"
        )
    _check_width(logits.shape[1], dataset)
    bad = (~logits.isfinite()).any(1)
    if bool(bad.any()):
        raise SatbenchError(
            f"expected finite logits, got NaN or infinity for {int(bad.sum())} of {rows} images "
            f"(the first is image {int(bad.nonzero()[0])}): "
            "a model must answer every image of [0, 1]"
        )
    return logits


def _check_width(width: int, dataset: Dataset) -> None:
    if width == 1:
        raise SatbenchError(
            "expected one logit a class, got a single logit: "
            "give a binary classifier two, torch.cat([-z, z], 1)"
        )
    if dataset.more_classes and width < dataset.classes:
        raise SatbenchError(
            f"expected at least {dataset.classes} logits an image, got {width}: "
            f"labels go up to {int(dataset.labels.max())} and count from 0"
        )
    if not dataset.more_classes and width != dataset.classes:
        raise SatbenchError(
            f"wrong class count: expected {dataset.classes} logits an image for "
            f"{dataset.name}, got {width}; take the dataset that the model was trained "
            "for, or number its classes as the model does (--classes)"
        )


def _check_gradient(logits: Tensor, x: Tensor) -> None:
    try:
        (grad,) = torch.autograd.grad(logits.sum(), x)
    except Exception as error:  # autograd's own errors, and whatever a user's backward raises
        raise SatbenchError(
            f"no gradient reaches the pixels ({_said(error)}), so that white-box attacks would "
            "find nothing: take detach() and no_grad() out of the model, give a "
            "non-differentiable layer a differentiable backward (BPDA), or attack with square alone"
        ) from error
    if not bool(grad.isfinite().all()):
        raise SatbenchError(
            "expected finite gradients, got NaN or infinity for some pixels: white-box attacks "
            "would find nothing; mend the layer that divides by 0, or attack with square alone"
        )


def _to_numpy(array: Array) -> NDArray[np.generic]:
    return array.detach().cpu().numpy() if isinstance(array, Tensor) else array


def _dtype(array: Array) -> str:
    return _short(array.dtype) if isinstance(array, Tensor) else array.dtype.name


def _short(name: object) -> str:
    return str(name).removeprefix("torch.")


def _named(thing: object) -> str:
    if isinstance(thing, type):
        return f"the class {thing.__qualname__} itself"
    return type(thing).__qualname__


def _said(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
