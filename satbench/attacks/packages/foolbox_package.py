"""The package Foolbox 3.3.4: only this module imports, runs and fixes it.

Rauber, Zimmermann, Bethge, Brendel, 2020, "Foolbox Native" (Journal of Open Source Software 5(53)).

Three parts are fixed here, because the package finds far larger perturbations than the papers'
algorithms would.  Its L2 FMN never projects (it divides the norm by itself, so every factor is 1).
Its FMN may approach a boundary without ever crossing it.  Its HopSkipJump normalises noise and
gradient over the whole batch, so that each image's step shrinks with the size of the batch.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn


@contextmanager
def _quiet_import() -> Iterator[None]:
    # Foolbox uses a namespace that scipy has deprecated.  It also imports GitPython, which raises
    # an error on a machine without git unless this variable is set.
    key, before = "GIT_PYTHON_REFRESH", os.environ.get("GIT_PYTHON_REFRESH")
    os.environ[key] = "quiet"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        if before is None:
            del os.environ[key]
        else:
            os.environ[key] = before


with _quiet_import():
    from eagerpy.astensor import astensor
    from foolbox.attacks.boundary_attack import BoundaryAttack
    from foolbox.attacks.carlini_wagner import L2CarliniWagnerAttack
    from foolbox.attacks.ddn import DDNAttack
    from foolbox.attacks.deepfool import L2DeepFoolAttack, LinfDeepFoolAttack
    from foolbox.attacks.fast_minimum_norm import L1FMNAttack, L2FMNAttack, LInfFMNAttack
    from foolbox.attacks.hop_skip_jump import HopSkipJumpAttack
    from foolbox.criteria import Misclassification
    from foolbox.models.pytorch import PyTorchModel

__all__ = [
    "BoundaryAttack",
    "DDNAttack",
    "L2CarliniWagnerAttack",
    "L2DeepFoolAttack",
    "LinfDeepFoolAttack",
    "MendedHopSkipJump",
    "MendedL1FMN",
    "MendedL2FMN",
    "MendedLinfFMN",
    "run",
]

OVERSHOOT = 1.01
"""How far beyond the linearised boundary FMN's ball reaches.

Until the first success the ball's radius is a Newton step to the boundary.  The boundary is
approached from within and, if the margin is convex, never crossed.
"""


class MendedLinfFMN(LInfFMNAttack):
    """FMN in Linf that crosses the boundary it approaches."""

    def project(self, x: Any, x0: Any, epsilon: Any) -> Any:
        """Project onto balls of their own radius.  (B, …), (B, …), (B,) -> (B, …)."""
        return super().project(x, x0, OVERSHOOT * epsilon)


class MendedL1FMN(L1FMNAttack):
    """FMN in L1 that crosses the boundary it approaches."""

    def project(self, x: Any, x0: Any, epsilon: Any) -> Any:
        """Project onto balls of their own radius.  (B, …), (B, …), (B,) -> (B, …)."""
        return super().project(x, x0, OVERSHOOT * epsilon)


class MendedL2FMN(L2FMNAttack):
    """FMN in L2 that projects (Pintor et al., 2021, algorithm 1) and crosses the boundary."""

    def project(self, x: Any, x0: Any, epsilon: Any) -> Any:
        """Project onto balls of their own radius.  (B, …), (B, …), (B,) -> (B, …)."""
        delta = x.raw - x0.raw
        lengths = torch.linalg.vector_norm(delta.flatten(1), dim=1).clamp_min(1e-12)
        share = (OVERSHOOT * epsilon.raw / lengths).clamp_max(1)
        return x0 + astensor(delta * _rows(share, delta))


class MendedHopSkipJump(HopSkipJumpAttack):
    """HopSkipJump that estimates each image's gradient separately, in constant memory."""

    def approximate_gradients(
        self, is_adversarial: Callable[[Any], Any], x_advs: Any, steps: int, delta: Any
    ) -> Any:
        """Estimate the direction into the other class from `steps` labels.  (B, …) -> (B, …).

        Chen et al., 2020 (arXiv:1904.02144), equation 16: the mean of the noise that is still
        adversarial minus the mean of the other noise, with the mean decision as the baseline.
        """
        x_adv, radius = x_advs.raw, _rows(delta.raw, x_advs.raw)
        signed, plain = torch.zeros_like(x_adv), torch.zeros_like(x_adv)
        decisions = torch.zeros(len(x_adv), device=x_adv.device)
        for _ in range(steps):
            around = (x_adv + radius * _unit(_noise(x_adv, self.constraint))).clamp(0, 1)
            step = (around - x_adv) / (radius + 1e-8)
            decision = is_adversarial(astensor(around)).raw.float() * 2 - 1
            signed += _rows(decision, x_adv) * step
            plain += step
            decisions += decision
        mean = decisions / steps
        # If all decisions agree there is no baseline: the noise itself gives the direction.
        baseline = torch.where(mean.abs() == 1, torch.zeros_like(mean), mean)
        return astensor(_unit(signed - _rows(baseline, x_adv) * plain))


def run(
    attack: Any, model: nn.Module, x: Tensor, y: Tensor, seed: int, starts: Tensor | None
) -> None:
    """Run a minimisation attack of the package on images that `model` gets right.

    Its result is not used, because `model` sees every point of the search.  Global generators and
    the root logger are restored.
    """
    criterion = Misclassification(y)
    options = {} if starts is None else {"starting_points": starts}
    with _sealed(x.device, seed):
        wrapped = PyTorchModel(model, bounds=(0, 1), device=x.device)
        attack.run(wrapped, x, criterion, **options)


@contextmanager
def _sealed(device: torch.device, seed: int) -> Iterator[None]:
    root = logging.getLogger()
    # logging.info(), which the package calls, adds a handler to a root logger without one.
    guard = None if root.handlers else logging.NullHandler()
    with (
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
        torch.enable_grad(),
        warnings.catch_warnings(),  # means over queues that are still empty
    ):
        warnings.simplefilter("ignore")
        _generator(device).manual_seed(seed)
        if guard:
            root.addHandler(guard)
        try:
            yield
        finally:
            if guard:
                root.removeHandler(guard)


def _generator(device: torch.device) -> torch.Generator:
    if device.type != "cuda":
        return torch.default_generator
    index = torch.cuda.current_device() if device.index is None else device.index
    return torch.cuda.default_generators[index]


def _noise(like: Tensor, constraint: Literal["linf", "l2"]) -> Tensor:
    return torch.randn_like(like) if constraint == "l2" else torch.rand_like(like) * 2 - 1


def _unit(x: Tensor) -> Tensor:
    return x / _rows(torch.linalg.vector_norm(x.flatten(1), dim=1) + 1e-12, x)


def _rows(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *[1] * (like.dim() - 1))
