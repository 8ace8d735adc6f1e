"""Checks of a model's answers to the first images against what attacks and judge need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from satbench.calling.hidden import Hidden, hidden_parameters, watched
from satbench.calling.logits import (
    LARGEST_LOGIT,
    ModelError,
    ask,
    classes_in_play,
    one_line,
    place_of_logits,
    unanswered,
)
from satbench.calling.shortage import is_out_of_memory
from satbench.core.errors import SatbenchError
from satbench.data import Dataset
from satbench.engine.machine.flops import PassFlops, pass_flops
from satbench.engine.passes import CountingModel, Passes
from satbench.engine.stage import Stage
from satbench.preflight.first_look import FirstLook
from satbench.preflight.independence import OTHER_SEED, as_judged, find_dependence, suspects

DEPENDENT = 0.25
"""If more than this share of images depends on the batch, the model is refused.

Rounding alone may flip a hard decision inside a model, such as the sign in a binary network, for a
few images.  The diagnosis counts those.
"""


@dataclass(frozen=True)
class Needs:
    """What attacks need: a gradient, and at least `classes` classes, which `attack` needs."""

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
    """What preflight found out about a model that passed.

    `notes` are sentences for a reader of the result; `parameters` are those of layers in eval mode
    that the model calls and nn.Module does not know.  `look` has the model's answers to a few
    images, None if layers are replaced.  `predictions` (M,) are the judge's classes of the first
    images; empty if answers differ between calls.  `flops` are those of a pass, if they can be
    counted.
    """

    notes: tuple[str, ...] = ()
    parameters: int = 0
    look: FirstLook | None = field(default=None, compare=False, repr=False)
    predictions: NDArray[np.int64] | None = field(default=None, compare=False, repr=False)
    flops: PassFlops | None = field(default=None, compare=False, repr=False)


def check_answers(
    model: nn.Module, x: Tensor, dataset: Dataset, needs: Needs
) -> tuple[Tensor, Learnt]:
    """Check the logits of many images, also for layers that the model does not know.

    Returns the logits, (B, K), as the judge computes them.  Raises SatbenchError.
    """
    answers: list[object] = []

    def listen(x: Tensor) -> object:
        answers.append(model(x))
        return answers[-1]

    given = x.clone()
    try:
        with watched(model) as hidden, as_judged():
            logits = ask(listen, given, copied=False)
    except ModelError as error:
        raise ModelError(f"{error}{_remedy(model, x)}", error.x) from error
    _check_untouched(torch.equal(given, x))
    _check_width(logits.shape[1], dataset)
    _check_finite(logits)
    _check_size(logits)
    classes = classes_in_play(logits)
    if classes < needs.classes:
        raise SatbenchError(
            f"expected a model of at least {needs.classes} classes for {needs.attack}, got "
            f"{classes}: run attacks that need fewer, such as apgd-ce, fab-t and square"
        )
    place, width = place_of_logits(answers[-1], len(x)), logits.shape[1]
    notes = [f"the logits are {place} of what the model returns"] if place else []
    if classes < width:
        notes.append(f"{width - classes} of {width} classes are masked for every image")
    loose = _in_use(hidden_parameters(model), model, x[:1])
    return logits, _with_hidden(hidden, loose, notes)


def _in_use(
    parameters: dict[str, nn.Parameter], model: nn.Module, x: Tensor
) -> dict[str, nn.Parameter]:
    """Return those that the logits depend on, as far as autograd can tell."""
    wanted = {place: one for place, one in parameters.items() if one.requires_grad}
    if not wanted:
        return {}
    with torch.enable_grad():
        logits = ask(model, x)
        if not logits.requires_grad:
            return {}
        try:
            grads = torch.autograd.grad(logits.sum(), list(wanted.values()), allow_unused=True)
        except Exception as error:  # whatever a user's backward raises
            if is_out_of_memory(error):
                raise
            return wanted
    used = zip(wanted, grads, strict=True)
    return {place: wanted[place] for place, grad in used if grad is not None}


def _with_hidden(hidden: Hidden, loose: dict[str, nn.Parameter], notes: list[str]) -> Learnt:
    if names := ", ".join([*hidden.called, *loose]):
        notes.append(
            f"nn.Module does not know all weights of the model ({names}); they are used as in "
            "eval mode, and the digest of the weights does not include them"
        )
    parameters = {p for module in hidden.called.values() for p in module.parameters()}
    parameters = parameters - set(hidden.model.parameters()) | set(loose.values())
    return Learnt(tuple(notes), sum(p.numel() for p in parameters))


def check_one_image(model: nn.Module, x: Tensor) -> Tensor:
    """Check that the model also answers a single image.  (1, C, H, W) -> (1, K).

    Raises SatbenchError.
    """
    try:
        with as_judged(OTHER_SEED):
            return ask(model, x)
    except ModelError as error:
        todo = "keep the batch dimension, for example x.flatten(1) instead of x.squeeze()"
        causes = ", ".join(suspects(model))
        raise SatbenchError(
            f"the model works for many images, but not for one alone ({error}): {causes or todo}"
        ) from error


def check_gradient(look: FirstLook, needs: Needs) -> None:
    """Check that there is a gradient if one is needed. Raises SatbenchError."""
    _check_untouched(look.untouched)
    if not needs.gradients:
        return
    if look.error:
        raise SatbenchError(
            f"no gradient reaches the pixels ({one_line(look.error)}), so white-box attacks would "
            "find nothing: remove detach() and no_grad() from the model, give a "
            "non-differentiable layer a differentiable backward (BPDA), or attack only with square"
        ) from look.error
    if not bool(look.gradient.isfinite().all()):
        raise SatbenchError(
            "expected finite gradients, got NaN or infinity for some pixels: white-box attacks "
            "would find nothing; correct the layer that divides by 0, or attack only with square"
        )


def check_counted(model: nn.Module, x: Tensor, needs: Needs) -> PassFlops | None:
    """Check that the model, counted as in searches, answers one image, (1, C, H, W).

    Its fast copy is not checked here: every search compares it with the model and drops it if it
    fails.  Returns the FLOPs of a pass if they can be counted.  Raises SatbenchError.
    """
    if flops := pass_flops(model, x):
        return flops
    leaf = x.clone().requires_grad_()
    try:
        logits = CountingModel(model, Passes())(leaf)
        if needs.gradients:
            torch.autograd.grad(logits.sum(), leaf)
    except SatbenchError:
        raise
    except Exception as error:
        raise SatbenchError(
            f"the model answers, but not as attacks ask it ({one_line(error)}): let it take images "
            "that are the result of other operations, and pass gradients on for a single one"
        ) from error
    return None


def check_independence(model: nn.Module, x: Tensor) -> None:
    """Raise SatbenchError if the answers to a quarter of the images depend on the others."""
    found = find_dependence(model, x)
    if found is None or found.share < DEPENDENT:
        return
    causes = list(suspects(model)) or [
        "such as x - x.mean(0), a layer without batch_first=True, or a cache by address"
    ]
    raise SatbenchError(
        f"expected logits that do not depend on the rest of the batch, got other logits for "
        f"{int(found.images.sum())} of {len(x)} images in another batch (by up to "
        f"{found.most:.1%}): {', '.join(causes[:3])}; correct that, or run the network image "
        "by image, torch.cat([net(one) for one in x.split(1)])"
    )


def _check_untouched(untouched: bool) -> None:
    if not untouched:
        raise SatbenchError(
            "expected the model not to change its input, but it wrote into it: "
            "work on a copy, x = x.clone()"
        )


def _remedy(model: nn.Module, x: Tensor) -> str:
    """Guess why a model fails on `x`; return an empty text if there is no guess."""
    strange = {p.dtype for p in model.parameters() if p.is_floating_point()} - {torch.float32}
    if strange:
        dtype = str(strange.pop()).removeprefix("torch.")
        return f"; its weights are {dtype}: convert them with model.float()"
    if x.shape[3] in (1, 3) and x.shape[1] not in (1, 3):
        return "; if the channels come last, write x.permute(0, 3, 1, 2)"
    return ""


def _check_width(width: int, dataset: Dataset) -> None:
    if width == 1:
        raise SatbenchError(
            "expected one logit per class, got a single logit: "
            "a binary classifier needs two, torch.cat([-z, z], 1)"
        )
    if dataset.more_classes and width < dataset.classes:
        raise SatbenchError(
            f"expected at least {dataset.classes} logits per image, got {width}: "
            f"labels go up to {int(dataset.labels.max())} and start from 0"
        )
    if not dataset.more_classes and width != dataset.classes:
        raise SatbenchError(
            f"wrong number of classes: expected {dataset.classes} logits per image for "
            f"{dataset.name}, got {width}; use the data set that the model was trained "
            f"on, or number its classes as the model does (--classes {width} or FILE.json)"
        )


def _check_finite(logits: Tensor) -> None:
    bad = unanswered(logits)
    if bool(bad.any()):
        kinds = (
            "NaN or infinity" if bool((logits.isnan() | (logits == torch.inf)).any()) else "-inf"
        )
        todo = (
            "a model must give finite logits for every image in [0, 1]"
            if kinds != "-inf"
            else "a class is masked for every image or for none; log_softmax() has no -inf"
        )
        raise SatbenchError(
            f"expected finite logits, got {kinds} for {int(bad.sum())} of {len(logits)} images "
            f"(the first is image {int(bad.nonzero()[0])}): {todo}"
        )


def _check_size(logits: Tensor) -> None:
    largest = float(logits.detach().max())
    if largest > LARGEST_LOGIT:
        raise SatbenchError(
            f"expected logits of at most {LARGEST_LOGIT:g}, got {largest:.3g}: such large logits "
            "count as masks of classes; divide them by a constant, which changes no prediction"
        )
