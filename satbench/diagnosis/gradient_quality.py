"""Measures of how well the gradient of the cross-entropy guides a search, for each image.

Xie et al., 2020 (arXiv:2006.14536, section 3) explain the weakness of ReLU networks under
adversarial training by the quality of their gradients.  These measures quantify it.  None of them
changes if the loss L is multiplied by a constant, because every gradient is compared with gradients
nearby.  But they depend on confidence: with logits twice as large the cross-entropy is another
function with another curvature.  So compare networks of similar accuracy.

Gradients are those of the cross-entropy of the unchanged logits (float32 for a float32 model), as
attacks use them.  Values of the loss are computed from the same logits in float64, and all
reductions are in float64.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from satbench.calling.borrow import borrowed
from satbench.calling.devices import device_of
from satbench.core.errors import SatbenchError
from satbench.core.heap import release_freed_memory
from satbench.core.noise import Noise
from satbench.core.threat import Threat
from satbench.engine.ball import project, random_point, steepest
from satbench.engine.contract import Model, NoiseSource

DRAWS = 4
"""The number of random points of the ball that are compared with the image."""

STEPS = 10
"""Steps of each of the two searches: for the largest loss, and for the largest linearity error."""

STEP = 0.25
"""The length of a step of a search, in eps."""

PURPOSE = "gradient-quality"
"""The purpose of the noise of an image."""

MEASURES: dict[str, str] = {
    "gradient cosine": "cosine of the gradients at the image and at a random point of the ball, "
    "in [-1, 1]; higher is better (GradAlign, arXiv:2007.02617)",
    "path cosine": f"mean cosine of consecutive gradients along a path of PGD-{STEPS}, in "
    "[-1, 1]; higher is better",
    "sign flips": "share of pixels whose gradient has another sign at a random point of the ball, "
    "in [0, 1]; lower is better",
    "gradient Lipschitz, mean": "relative change of the gradient per unit of L2 distance (pixels "
    "in [0, 1]) to a random point of the ball; lower is better",
    "gradient Lipschitz, max": "relative change of the gradient per unit of L2 distance, the "
    f"largest of {DRAWS} draws; lower is better",
    "linearity error": "largest error of the linearised loss in the ball, over the largest change "
    "of the loss or of its linearisation, in [0, 2]; lower is better (after arXiv:1907.02610)",
    "single-step share": "rise of the loss after one step of eps, over the largest rise that it "
    f"or PGD-{STEPS} finds, in [0, 1]; higher is better",
    "zero entries": "share of pixels whose gradient is exactly 0, in [0, 1]",
    "vanished gradients": "share of images whose gradient is exactly 0 everywhere, in [0, 1]; "
    "the measures before leave them out",
}
"""The measures, in order: name and description."""


def measure(
    model: Model, x: Tensor, y: Tensor, threat: Threat, noise: NoiseSource, draws: int = DRAWS
) -> dict[str, Tensor]:
    """Return the measures of each image, by the names in `MEASURES`.

    (B, C, H, W) in [0, 1], (B,) labels -> (B,) float64 each.  Write L for the cross-entropy, g for
    its gradient at x, and η for the step to a uniformly random point of the ball, clipped to [0, 1]
    (differs from GradAlign, which does not clip, because a model is defined only on [0, 1]).  Means
    and maxima are over `draws` of them.

    - gradient cosine: mean of cos(g, ∇L(x+η)), in [-1, 1] (Andriushchenko & Flammarion, 2020,
      arXiv:2007.02617, "GradAlign");
    - path cosine: mean of cos(∇L(x_k), ∇L(x_k+1)), in [-1, 1], along the `STEPS` gradients of PGD
      from a uniform point, steps of eps/4 (after Madry et al., 2018, arXiv:1706.06083);
    - sign flips: mean share of pixels where sign g differs from sign ∇L(x+η) (0 counts as a third
      sign), in [0, 1]: attacks in Linf use only the sign;
    - gradient Lipschitz: ‖∇L(x+η) - g‖₂ / (‖g‖₂ ‖η‖₂), mean and maximum, at least 0; the unit is
      one over the L2 distance between images in [0, 1];
    - linearity error: γ / R with γ = max |L(x+δ) - L(x) - δᵀg|, found by `STEPS` steps of eps/4
      from a uniform point (Qin et al., 2019, arXiv:1907.02610), and R the largest
      |L(x+δ) - L(x)| or |δᵀg| at any point visited by any of the searches; in [0, 2], and 0 if R
      is 0.  Each of the two can be near 0 at the maximiser, but R cannot;
    - single-step share: max(0, L(x') - L(x)) with x' one step of eps from x (FGSM; Goodfellow et
      al., 2015, arXiv:1412.6572), over the largest rise at x' or on the path of PGD, in [0, 1]:
      single-step training relies on it;
    - zero entries: share of the entries of g that are exactly 0, in [0, 1];
    - vanished gradients: 1 where all of them are, else 0.

    An undefined measure is NaN: all but the last two if g vanishes, and the single-step share if no
    point has a higher loss than x.  A gradient that vanishes elsewhere has cosine 0 with any other.
    An image costs `draws` + 24 forwards and `draws` + 21 backwards.  Raises SatbenchError for fewer
    than 1 draw.
    """
    if draws < 1:
        raise SatbenchError(f"expected draws of 1 or more, got {draws}")
    loss = _Loss(model, y)
    origin = loss.at(x)
    points = [random_point(x, threat, noise, number) for number in range(draws + 2)]
    path = _path(loss, x, points[draws], threat)
    single = loss.at(project(x + _step(origin.grad, threat), x, threat), grad=False)
    search = _linearity_search(loss, origin, points[draws + 1], threat)
    nearby = [loss.at(point) for point in points[:draws]]
    steepness = torch.stack([_steepness(origin, point) for point in nearby])
    rise = single.loss - origin.loss
    best = torch.stack([point.loss for point in (*path, single)]).amax(0) - origin.loss
    error = torch.stack([origin.error_to(point).abs() for point in search]).amax(0)
    change = torch.stack(
        [origin.largest_change(point) for point in (*nearby, *path, *search, single)]
    ).amax(0)
    zero = (origin.grad == 0).flatten(1)
    vanished = zero.all(1)
    found = {
        "gradient cosine": _mean(_cosine(origin.grad, point.grad) for point in nearby),
        "path cosine": _mean(_cosine(a.grad, b.grad) for a, b in pairwise(path[:-1])),
        "sign flips": _mean(_flips(origin.grad, point.grad) for point in nearby),
        "gradient Lipschitz, mean": steepness.mean(0),
        "gradient Lipschitz, max": steepness.amax(0),
        "linearity error": _ratio(error, change),
        "single-step share": _ratio(rise.clamp_min(0), best).where(best > 0, torch.nan),
    }
    return {
        **{name: value.masked_fill(vanished, torch.nan) for name, value in found.items()},
        "zero entries": zero.double().mean(1),
        "vanished gradients": vanished.double(),
    }


def gradient_measures(
    model: nn.Module,
    images: NDArray[np.float32],
    labels: NDArray[np.int64],
    indices: NDArray[np.int64],
    threat: Threat,
    seed: int,
    batch_size: int,
) -> dict[str, float]:
    """Return the mean over images of each measure, by the names in `MEASURES`.

    `images` (N, C, H, W) are in [0, 1], with `labels` (N,) and `indices` (N,) in the data set.
    Noise is a function of the index and `seed`, so order and `batch_size` do not matter, except for
    rounding in the model.  The mean of a measure leaves out images where it is undefined (see
    `measure`); a measure without any image is not in the result.  The model is measured in eval
    mode on the device of its parameters, and does not change.  Raises SatbenchError if there are no
    images, or another number of labels or indices.
    """
    if not len(images) == len(labels) == len(indices) > 0:
        raise SatbenchError(
            "expected one label and one index for each of 1 or more images, got "
            f"{len(images)} images, {len(labels)} labels and {len(indices)} indices"
        )
    values: dict[str, list[float]] = {name: [] for name in MEASURES}
    with borrowed(model) as measured:
        device = device_of(measured)
        for start in range(0, len(images), batch_size):
            batch = slice(start, start + batch_size)
            x = torch.from_numpy(images[batch]).to(device)
            y = torch.from_numpy(labels[batch]).to(device)
            noise = Noise(seed, PURPOSE, tuple(indices[batch].tolist()))
            for name, value in measure(measured, x, y, threat, noise).items():
                values[name] += [one for one in value.tolist() if not math.isnan(one)]
            release_freed_memory()
    return {name: math.fsum(ones) / len(ones) for name, ones in values.items() if ones}


@dataclass(frozen=True)
class _Point:
    """Images (B, …), their losses (B,) in float64, and gradients (B, …), 0 if not computed."""

    x: Tensor
    loss: Tensor
    grad: Tensor

    def predicted(self, other: _Point) -> Tensor:
        """Return the change of the loss to `other` that the gradient predicts, (B,)."""
        return _dot(other.x.double() - self.x.double(), self.grad)

    def error_to(self, other: _Point) -> Tensor:
        """Return the error of that prediction, (B,)."""
        return other.loss - self.loss - self.predicted(other)

    def largest_change(self, other: _Point) -> Tensor:
        """Return the larger of the true and the predicted change, at least 0, (B,)."""
        return torch.maximum((other.loss - self.loss).abs(), self.predicted(other).abs())


@dataclass(frozen=True)
class _Loss:
    """The cross-entropy of a model at labels (B,)."""

    model: Model
    y: Tensor

    def at(self, x: Tensor, grad: bool = True) -> _Point:
        """Return the loss at `x` (B, …), and with `grad` its gradient."""
        leaf = x.detach().clone().requires_grad_(grad)
        with torch.set_grad_enabled(grad), torch.autocast(x.device.type, enabled=False):
            logits = self.model(leaf)
            # Summed, so that no image's gradient depends on the size of its batch.
            total = F.cross_entropy(logits, self.y, reduction="sum")
        found = None
        if total.requires_grad:
            (found,) = torch.autograd.grad(total, leaf, allow_unused=True)
        loss = F.cross_entropy(logits.detach().double(), self.y, reduction="none")
        return _Point(leaf.detach(), loss, torch.zeros_like(x) if found is None else found)


def _path(loss: _Loss, x: Tensor, start: Tensor, threat: Threat) -> list[_Point]:
    """Return the points of PGD on the loss: `STEPS` with gradients, and the last without."""
    points = [loss.at(start)]
    for number in range(1, STEPS + 1):
        ahead = points[-1].x + STEP * _step(points[-1].grad, threat, points[-1].x)
        points.append(loss.at(project(ahead, x, threat), grad=number < STEPS))
    return points


def _linearity_search(loss: _Loss, origin: _Point, start: Tensor, threat: Threat) -> list[_Point]:
    """Return the points of PGD on |L(x+δ) - L(x) - δᵀg|, as `_path` does."""
    points = [loss.at(start)]
    for number in range(1, STEPS + 1):
        here = points[-1]
        upward = torch.where(origin.error_to(here) < 0, -1.0, 1.0).to(here.x.dtype)
        grad = upward.view(-1, *[1] * (here.x.dim() - 1)) * (here.grad - origin.grad)
        ahead = project(here.x + STEP * _step(grad, threat, here.x), origin.x, threat)
        points.append(loss.at(ahead, grad=number < STEPS))
    return points


def _step(grad: Tensor, threat: Threat, x_adv: Tensor | None = None) -> Tensor:
    return threat.radius * steepest(grad, threat, x_adv)


def _steepness(origin: _Point, point: _Point) -> Tensor:
    """Return the relative change of the gradient per unit of distance, (B,)."""
    change, way = (point.grad.double() - origin.grad.double()), point.x.double() - origin.x.double()
    return _ratio(_length(change), _length(origin.grad) * _length(way))


def _flips(grad: Tensor, other: Tensor) -> Tensor:
    return (grad.sign() != other.sign()).flatten(1).double().mean(1)


def _cosine(grad: Tensor, other: Tensor) -> Tensor:
    return _ratio(_dot(grad, other), _length(grad) * _length(other)).clamp(-1, 1)


def _ratio(above: Tensor, below: Tensor) -> Tensor:
    """Divide; the result is 0 where the denominator is 0."""
    return torch.where(below == 0, 0, above / torch.where(below == 0, 1, below))


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a.double() * b.double()).flatten(1).sum(1)


def _length(a: Tensor) -> Tensor:
    lengths: Tensor = torch.linalg.vector_norm(a.double().flatten(1), dim=1)
    return lengths


def _mean(values: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(values)).mean(0)
