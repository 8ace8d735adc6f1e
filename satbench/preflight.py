"""Preflight: refuse a wrong set-up in one sentence, before an attack makes a number of it.

The model is asked what attacks and judge will ask: many images and one, with gradients and without,
through the copy that searches use, and the same image in other company.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from satbench.attacks.blame import images_of
from satbench.attacks.borrow import borrowed, searching_copy
from satbench.attacks.bpda import Replaced
from satbench.attacks.deadline import time_limit
from satbench.attacks.engine import device_of
from satbench.attacks.hidden import Hidden, hidden_parameters, watched
from satbench.attacks.logits import (
    ModelError,
    ask,
    classes_in_play,
    place_of_logits,
    said,
    unanswered,
    without_masks,
)
from satbench.attacks.passes import CountingModel, Passes
from satbench.attacks.suite import Stage
from satbench.core.errors import SatbenchError
from satbench.core.threat import Threat
from satbench.data import Dataset
from satbench.generators import own_generators
from satbench.image_checks import check_dataset, dataset_from_tensors, kind_of
from satbench.independence import find_dependence, suspects

__all__ = ["ASKED", "Learnt", "Needs", "check_module", "check_set_up", "dataset_from_tensors"]

ASKED = 32
"""How many images the model is asked about; pixels and labels are checked on all of them."""

DEPENDENT = 0.25
"""The share of images that depend on their batch from which on the model is refused.

Rounding alone may turn a hard decision within a model, such as the sign in a binary net, for an
image now and then: the diagnosis counts those.
"""


@dataclass(frozen=True)
class Needs:
    """What attacks need of a model: a gradient, and so many classes, which `attack` needs."""

    gradients: bool = True
    classes: int = 2
    attack: str = "an attack"

    @classmethod
    def of(cls, suite: Sequence[Stage]) -> Needs:
        """Return what a suite needs."""
        most = max(suite, key=lambda stage: stage.traits.least_classes)
        gradients = any(stage.uses_gradients for stage in suite)
        return cls(gradients, most.traits.least_classes, most.title)


@dataclass(frozen=True)
class Learnt:
    """What preflight learnt of a model that passed.

    `notes` are what a reader of the result should know, a sentence each; `parameters` are those of
    layers in eval mode that the model calls and nn.Module does not know.
    """

    notes: tuple[str, ...] = ()
    parameters: int = 0


def check_module(model: object) -> nn.Module:
    """Return `model` if it is one whose weights can be read.

    Raises SatbenchError for anything but a Module, for weights that are not there (the meta
    device, a lazy layer before its first call) or that autograd cannot use, and for weights on
    several devices.
    """
    if not isinstance(model, nn.Module):
        exported = isinstance(model, torch.export.ExportedProgram)
        todo = "pass model.module()" if exported else "wrap a function in the forward of a Module"
        raise SatbenchError(
            f"expected the model as a torch.nn.Module, got {kind_of(model)}: {todo}"
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
        if tensor.is_inference():
            raise SatbenchError(
                f"expected weights that autograd can use, got {name}, which was made under "
                "torch.inference_mode(): evaluate copy.deepcopy(model)"
            )
    devices = sorted({str(tensor.device) for tensor in held.values()})
    if len(devices) > 1:
        raise SatbenchError(
            f"expected the model on one device, got it on {' and '.join(devices)}: "
            f"bring it together, model.to({devices[-1]!r})"
        )
    return model


def check_set_up(
    model: nn.Module,
    images: Dataset,
    threat: Threat,
    needs: Needs | None = None,
    timeout: float | None = None,
) -> Learnt:
    """Raise SatbenchError where evaluating `model` on `images` would give a meaningless number.

    Pixels and labels are checked on all images; the model is asked about the first `ASKED`, and for
    what the attacks `needs`.  Each of four such questions may take `timeout` seconds.  The model
    comes back as it was, and so do the global generators.
    """
    check_module(model)
    if not isinstance(images, Dataset):
        raise SatbenchError(
            f"expected the images as a Dataset, got {kind_of(images)}: "
            "make one with dataset_from_tensors(x, y)"
        )
    if not isinstance(threat, Threat):
        raise SatbenchError(
            f"expected the threat model as a Threat, got {kind_of(threat)}: "
            "write Threat.parse('linf:8/255')"
        )
    if torch.is_inference_mode_enabled():
        raise SatbenchError(
            "expected to run outside torch.inference_mode(), in which no gradient exists: leave it"
        )
    check_dataset(images)
    pixels = torch.from_numpy(images.pixels(np.arange(min(ASKED, len(images)))))
    needs = needs or Needs()
    with borrowed(model) as judged, own_generators(device_of(model), 0):
        x = pixels.to(device_of(model))
        with _named(x), torch.enable_grad(), time_limit(timeout):
            learnt = _check_answers(judged, x, images, needs)
        with time_limit(timeout):
            _check_one_image(judged, x[:1])
        if not isinstance(model, Replaced):
            with _named(x), torch.enable_grad(), time_limit(timeout):
                _check_copy(judged, x, needs)
        with _named(x), time_limit(timeout):
            _check_independence(judged, x)
    return learnt


@contextmanager
def _named(x: Tensor) -> Iterator[None]:
    """Name the first images of the set that a model fails on, where it is not all of `x`."""
    try:
        yield
    except ModelError as error:
        if error.x is None or len(error.x) == len(x):
            raise
        names = images_of(error.x, x, np.arange(len(x)))
        raise type(error)(f"{error} ({names}, before any attack)", error.x) from error


def _check_answers(model: nn.Module, x: Tensor, dataset: Dataset, needs: Needs) -> Learnt:
    """Check the logits of many images, and their gradient."""
    answers: list[object] = []

    def listen(x: Tensor) -> object:
        answers.append(model(x))
        return answers[-1]

    leaf = x.clone().requires_grad_()
    given = leaf.clone()  # autograd lets a model write into this one, and so it can be caught
    try:
        with watched(model) as hidden:
            logits = ask(listen, given, copied=False)
    except ModelError as error:
        raise ModelError(f"{error}{_remedy(model, x)}", error.x) from error
    _check_untouched(given, x)
    _check_width(logits.shape[1], dataset)
    _check_finite(logits)
    classes = classes_in_play(logits)
    if classes < needs.classes:
        raise SatbenchError(
            f"expected a model of at least {needs.classes} classes for {needs.attack}, got "
            f"{classes}: run attacks that need fewer, such as apgd-ce, fab-t and square"
        )
    if needs.gradients:
        _check_gradient(without_masks(logits), leaf)
    place, width = place_of_logits(answers[-1], len(x)), logits.shape[1]
    notes = [f"the logits are {place} of what the model returns"] if place else []
    if classes < width:
        notes.append(f"{width - classes} of {width} classes are masked for every image")
    return _with_hidden(hidden, notes)


def _with_hidden(hidden: Hidden, notes: list[str]) -> Learnt:
    loose = hidden_parameters(hidden.model)
    if names := ", ".join([*hidden.called, *loose]):
        notes.append(
            f"nn.Module does not know of all the model's weights ({names}); they are as in eval "
            "mode, and the digest of the weights leaves them out"
        )
    parameters = {p for module in hidden.called.values() for p in module.parameters()}
    parameters = parameters - set(hidden.model.parameters()) | set(loose.values())
    return Learnt(tuple(notes), sum(p.numel() for p in parameters))


def _check_one_image(model: nn.Module, x: Tensor) -> None:
    """Check that one image is answered like many, and left as it is where no gradient is taken."""
    given = x.clone()
    try:
        with torch.no_grad():
            ask(model, given, copied=False)
    except ModelError as error:
        raise SatbenchError(
            f"the model answers many images, but not one alone ({error}): "
            "keep the dimension of the batch, x.flatten(1) in place of x.squeeze()"
        ) from error
    _check_untouched(given, x)


def _check_copy(model: nn.Module, x: Tensor, needs: Needs) -> None:
    """Check that the copy which searches use, counted, answers as many and as one."""
    searcher = CountingModel(searching_copy(model), Passes())
    for batch in (x, x[:1]):
        leaf = batch.clone().requires_grad_()
        try:
            logits = searcher(leaf)
            if needs.gradients:
                torch.autograd.grad(logits.sum(), leaf)
        except SatbenchError:
            raise
        except Exception as error:
            raise SatbenchError(
                f"the model answers, but its copy that attacks search on does not ({said(error)}): "
                "let it bear copy.deepcopy"
            ) from error


def _check_independence(model: nn.Module, x: Tensor) -> None:
    found = find_dependence(model, x)
    if found is None or int(found.images.sum()) < DEPENDENT * len(x):
        return
    causes = list(suspects(model)) or ["as with x - x.mean(0), or answers kept by address"]
    raise SatbenchError(
        f"expected the answer to an image to be its own, got other logits for "
        f"{int(found.images.sum())} of {len(x)} images in other company (by up to "
        f"{found.most:.1%}): {', '.join(causes[:3])}; mend that, or let the model ask itself image "
        "by image, torch.cat([net(one) for one in x.split(1)])"
    )


def _check_untouched(given: Tensor, x: Tensor) -> None:
    if not torch.equal(given, x):
        raise SatbenchError(
            "expected the model to leave its input alone, it wrote into it: "
            "let it work on a copy, x = x.clone()"
        )


def _remedy(model: nn.Module, x: Tensor) -> str:
    """Guess why a model fails on `x`, or say nothing."""
    strange = {p.dtype for p in model.parameters() if p.is_floating_point()} - {torch.float32}
    if strange:
        dtype = str(strange.pop()).removeprefix("torch.")
        return f"; its weights are {dtype}, turn them to float32, model.float()"
    if x.shape[3] in (1, 3) and x.shape[1] not in (1, 3):
        return "; if the channels come last, write x.permute(0, 3, 1, 2)"
    return ""


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
            f"for, or number its classes as the model does (--classes {width} or FILE.json)"
        )


def _check_finite(logits: Tensor) -> None:
    bad = unanswered(logits)
    if bool(bad.any()):
        kinds = (
            "NaN or infinity" if bool((logits.isnan() | (logits == torch.inf)).any()) else "-inf"
        )
        todo = (
            "a model must answer every image of [0, 1]"
            if kinds != "-inf"
            else "a class is masked for every image or for none; log_softmax() has no -inf"
        )
        raise SatbenchError(
            f"expected finite logits, got {kinds} for {int(bad.sum())} of {len(logits)} images "
            f"(the first is image {int(bad.nonzero()[0])}): {todo}"
        )


def _check_gradient(logits: Tensor, x: Tensor) -> None:
    try:
        (grad,) = torch.autograd.grad(logits.sum(), x)
    except Exception as error:  # autograd's own errors, and whatever a user's backward raises
        raise SatbenchError(
            f"no gradient reaches the pixels ({said(error)}), so that white-box attacks would "
            "find nothing: take detach() and no_grad() out of the model, give a "
            "non-differentiable layer a differentiable backward (BPDA), or attack with square alone"
        ) from error
    if not bool(grad.isfinite().all()):
        raise SatbenchError(
            "expected finite gradients, got NaN or infinity for some pixels: white-box attacks "
            "would find nothing; mend the layer that divides by 0, or attack with square alone"
        )
