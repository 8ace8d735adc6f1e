"""Activations and their derivatives as numbers for a figure, from the code of the networks.

Figure 1 of Xie et al., 2020 (arXiv:2006.14536) shows ReLU and parametric softplus like this.
"""

from __future__ import annotations

import torch
from torch import nn

from satbench.core.errors import SatbenchError
from satbench.engine.backward import Backward
from satbench.networks.build import build_activation
from satbench.studies.sheet import Shape

LIMIT, POINTS = 4.0, 401
"""By default x goes from -`LIMIT` to `LIMIT` in `POINTS` points."""


def activation_shape(
    spec: str,
    backward: Backward | None = None,
    name: str = "",
    limit: float = LIMIT,
    points: int = POINTS,
) -> Shape:
    """Return an activation and its derivative on a grid, by autograd in float64.

    `spec` is as in `build_activation`, such as `gelu` or `celu(alpha=1.5)`; trained parameters
    have their initial values.  With `backward`, such as `Backward(10)`, the derivative is that of
    the replaced backward.  `name` is `spec` by default.  Raises SatbenchError for an unknown
    activation, a limit that is not above 0 or fewer than 2 points.
    """
    if not limit > 0 or points < 2:
        raise SatbenchError(
            f"expected a limit above 0 and 2 or more points, got {limit:g} and {points}"
        )
    module: nn.Module = build_activation(spec)().eval()
    x = torch.linspace(-limit, limit, points, dtype=torch.float64).requires_grad_()
    with torch.enable_grad(), (backward or Backward()).applied():
        # On a copy: an in-place activation must not write into the leaf.
        f = module(x * 1)
        (df,) = torch.autograd.grad(f.sum(), x)
    return Shape(name or spec, tuple(x.tolist()), tuple(f.detach().tolist()), tuple(df.tolist()))
