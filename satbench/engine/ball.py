"""All maths of norm balls: size, projection, random points, steepest directions."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from satbench.core.threat import Threat
from satbench.engine.contract import NoiseOnDevice, NoiseSource

_TINY = 1e-12  # avoids 0 / 0; far below any float32 pixel difference
_ORDER = {"l1": 1, "l2": 2, "linf": torch.inf}
_L1_SHARE = 100  # a step of steepest ascent in L1 moves one pixel in this many


def size(delta: Tensor, threat: Threat) -> Tensor:
    """Measure perturbations in float64 in the norm of `threat`.  (B, …) -> (B,)."""
    flat = delta.double().flatten(1)
    sizes: Tensor = torch.linalg.vector_norm(flat, ord=_ORDER[threat.norm], dim=1)
    return sizes


def project(x_adv: Tensor, x: Tensor, threat: Threat) -> Tensor:
    """Project onto the ball around `x` and onto the box [0, 1].  (B, …), (B, …) -> (B, …).

    In Linf and L1 the result is the nearest point of the intersection.  In L2 it is not the
    nearest, but it is in both sets: clipping to a box that contains `x` moves no pixel further from
    `x`.
    """
    delta = x_adv - x
    if threat.norm == "linf":
        delta = delta.clamp(-threat.radius, threat.radius)
    elif threat.norm == "l2":
        delta = delta * (threat.radius / _lengths(delta).clamp_min(_TINY)).clamp_max(1)
    else:
        delta = delta + l1_correction(delta.double(), x.double(), threat.radius).to(x.dtype)
    return (x + delta).clamp(0, 1)


def l1_correction(delta: Tensor, x: Tensor, eps: float) -> Tensor:
    """Return the correction of `x + delta` to the nearest point in both the L1 ball and the box.

    That point is x + sign(δ) · min(max(|δ| - λ, 0), room), where room is the distance of a pixel to
    the box in the direction of δ, and λ ≥ 0 is the least number that reduces the length to `eps`.
    The length is piecewise linear in λ, so sorting its 2d corners gives λ exactly (Croce & Hein,
    2021, "Mind the box", arXiv:2103.01208, proposition 2.1).  A pixel that returns to `x` gets
    exactly -δ.  Everything is computed in the dtype of `delta`, in the order of summation of
    pyautoattack, because Auto-PGD counts changed pixels, and rounding decides some of them.
    (B, …), (B, …) in [0, 1] -> (B, …).
    """
    flat, centre = delta.flatten(1), x.flatten(1)
    length = flat.abs()
    beyond = (length - torch.where(flat > 0, 1 - centre, centre)).clamp_min(0)  # of the box
    # Between the two corners of a pixel the length falls by 1 per unit of λ, elsewhere by 0.
    corners, order = torch.cat((beyond, length), 1).sort(1)
    falling = torch.where(order < flat.shape[1], 1.0, -1.0).to(flat.dtype).cumsum(1)
    outside = beyond.sum(1, keepdim=True)
    fallen = outside + (falling[:, :-1] * corners.diff(dim=1)).cumsum(1)
    missing = eps - length.sum(1, keepdim=True)
    # The last corner at which the length is still above eps, else the first corner.
    corner = (fallen + missing < 0).sum(1, keepdim=True)
    gone = torch.cat((outside, fallen), 1).gather(1, corner)
    shrink = (-gone - missing) / falling.gather(1, corner) + corners.gather(1, corner)
    shrink = torch.where(outside + missing < 0, shrink, 0)
    return (-flat.sign() * torch.minimum(beyond.maximum(shrink), length)).view_as(delta)


def random_point(x: Tensor, threat: Threat, noise: NoiseSource, restart: int = 0) -> Tensor:
    """Draw a uniform random point of the ball around `x`, clipped to [0, 1].  (B, …) -> (B, …)."""
    shape = tuple(x.shape[1:])
    if threat.norm == "linf":
        delta = threat.radius * _uniform(noise, shape, restart, x)
    elif threat.norm == "l2":
        # A direction uniform on the sphere and a radius r with P(r < t) = t^d.
        direction = _like(noise.normal(shape, restart), x)
        share = (_uniform(noise, (1,), restart, x) + 1) / 2
        radius = threat.radius * share.pow(1 / x[0].numel())
        direction = direction / _lengths(direction).clamp_min(_TINY)
        delta = direction * radius.view(-1, *[1] * (x.dim() - 1))
    else:
        # d of d + 1 exponentials, over their sum, are uniform in the simplex; then signs.
        drawn = _uniform(noise, (x[0].numel() + 1,), restart, x).double()
        parts = -drawn.abs().clamp_min(_TINY).log()
        flat = drawn.sign() * parts / parts.sum(1, keepdim=True)
        delta = (threat.radius * flat[:, :-1]).to(x.dtype).view_as(x)
    return (x + delta).clamp(0, 1)


def steepest(grad: Tensor, threat: Threat, x_adv: Tensor | None = None) -> Tensor:
    """Return a direction of norm 1 along which the linearised loss grows.  (B, …) -> (B, …).

    In Linf (the sign) and L2 (grad / ‖grad‖₂) it is the steepest direction; it is 0 where the
    gradient is 0.  In L1 it is the sign on the 1 % of pixels with the largest gradient, as in SLIDE
    (Tramèr & Boneh, 2019, arXiv:1904.13000, section 4), without those that the box stops at
    `x_adv`.
    """
    if threat.norm == "linf":
        return grad.sign()
    if threat.norm == "l2":
        return grad / _lengths(grad).clamp_min(_TINY)
    if x_adv is not None:
        grad = grad * ((x_adv > 0) | (grad > 0)) * ((x_adv < 1) | (grad < 0))
    flat = grad.flatten(1)
    top = flat.abs().topk(max(1, flat.shape[1] // _L1_SHARE), dim=1).indices
    signs = torch.zeros_like(flat).scatter(1, top, flat.gather(1, top).sign())
    return (signs / signs.abs().sum(1, keepdim=True).clamp_min(1)).view_as(grad)


def _lengths(delta: Tensor) -> Tensor:
    lengths: Tensor = torch.linalg.vector_norm(delta.flatten(1), dim=1)
    return lengths.view(-1, *[1] * (delta.dim() - 1))


def _uniform(noise: NoiseSource, shape: tuple[int, ...], restart: int, x: Tensor) -> Tensor:
    if isinstance(noise, NoiseOnDevice):
        return noise.uniform_on(shape, x.device, restart).to(x.dtype)
    return _like(noise.uniform(shape, restart), x)


def _like(drawn: NDArray[np.float32], x: Tensor) -> Tensor:
    return torch.from_numpy(drawn).to(x.device, x.dtype)
