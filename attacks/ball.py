"""The only maths of balls: size, projection, random points, steepest directions."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from satbench.attacks.contract import NoiseSource
from satbench.core.threat import Threat

_TINY = 1e-12  # keeps 0 / 0 away; far below any float32 pixel difference


def size(delta: Tensor, threat: Threat) -> Tensor:
    """Measure perturbations in float64 in the norm of `threat`.  (B, …) -> (B,)."""
    flat = delta.double().flatten(1)
    return flat.abs().amax(1) if threat.norm == "linf" else torch.linalg.vector_norm(flat, dim=1)


def project(x_adv: Tensor, x: Tensor, threat: Threat) -> Tensor:
    """Project onto the ball around `x`, then onto the box [0, 1].  (B, …), (B, …) -> (B, …).

    In L2 this is not the nearest point of the intersection, but it lies in both: clipping to a
    box that holds `x` moves no pixel further from it.
    """
    delta = x_adv - x
    if threat.norm == "linf":
        delta = delta.clamp(-threat.radius, threat.radius)
    else:
        delta = delta * (threat.radius / _lengths(delta).clamp_min(_TINY)).clamp_max(1)
    return (x + delta).clamp(0, 1)


def random_point(x: Tensor, threat: Threat, noise: NoiseSource, restart: int = 0) -> Tensor:
    """Draw a point uniform in the ball around `x`, clipped to [0, 1].  (B, …) -> (B, …)."""
    shape = tuple(x.shape[1:])
    if threat.norm == "linf":
        delta = threat.radius * _like(noise.uniform(shape, restart), x)
    else:
        # A direction uniform on the sphere and a radius r with P(r < t) = t^d.
        direction = _like(noise.normal(shape, restart), x)
        share = (_like(noise.uniform((1,), restart), x) + 1) / 2
        radius = threat.radius * share.pow(1 / x[0].numel())
        direction = direction / _lengths(direction).clamp_min(_TINY)
        delta = direction * radius.view(-1, *[1] * (x.dim() - 1))
    return (x + delta).clamp(0, 1)


def steepest(grad: Tensor, threat: Threat) -> Tensor:
    """Return the direction of norm 1 along which the linearised loss grows most.

    The sign in Linf, grad / ‖grad‖₂ in L2 (0 where the gradient is 0).  (B, …) -> (B, …).
    """
    return grad.sign() if threat.norm == "linf" else grad / _lengths(grad).clamp_min(_TINY)


def _lengths(delta: Tensor) -> Tensor:
    lengths: Tensor = torch.linalg.vector_norm(delta.flatten(1), dim=1)
    return lengths.view(-1, *[1] * (delta.dim() - 1))


def _like(drawn: NDArray[np.float32], x: Tensor) -> Tensor:
    return torch.from_numpy(drawn).to(x.device, x.dtype)
