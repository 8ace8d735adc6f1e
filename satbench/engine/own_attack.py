"""A user's function or object as an attack of the contract."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from satbench.calling.generators import seed_generators
from satbench.core.errors import SatbenchError
from satbench.core.threat import Threat
from satbench.engine.contract import Attack, Model, NoiseSource, Prepared
from satbench.engine.traits import Composite

_FORMS = (
    "attack(model, x, y, threat, noise), attack(model, x, y, eps) or attack(model, x, y), "
    "which returns x_adv"
)


def own_attack(given: object) -> Attack:
    """Return a user's function or object as an attack.

    It is called with (model, x, y, threat, noise), (model, x, y, eps) or (model, x, y).  An object
    with parts is returned unchanged.  Raises SatbenchError for anything else.
    """
    if isinstance(given, type):
        raise SatbenchError(
            f"expected an attack, got the class {given.__name__}: make an instance of it"
        )
    if isinstance(given, Composite | Prepared):
        return given  # type: ignore[return-value]  # the registry checks it
    arguments = _arguments(given)
    if arguments == 5:
        return given  # type: ignore[return-value]
    if arguments in (3, 4) and callable(given):
        return Plain(given, arguments == 4)
    raise SatbenchError(f"expected an attack as {_FORMS}, got {_shown(given)}")


@dataclass(frozen=True)
class Plain:
    """A function of (model, x, y), and of eps if it `takes_eps`.

    The random generators of torch, NumPy and Python are seeded for each batch.  So the verdicts of
    a function that uses them depend on the batch size; those of the contract's noise do not.
    """

    function: Callable[..., object]
    takes_eps: bool

    def __call__(
        self, model: Model, x: Tensor, y: Tensor, threat: Threat, noise: NoiseSource
    ) -> Tensor:
        """Perturb `x` within `threat`.  (B, C, H, W) in [0, 1], (B,) labels -> (B, C, H, W)."""
        seed_generators(noise.block_seed())
        with torch.enable_grad():
            eps = (threat.radius,) if self.takes_eps else ()
            found = self.function(model, x.clone(), y.clone(), *eps)
        if not isinstance(found, Tensor):
            raise SatbenchError(
                f"expected the attack to return adversarial images as a tensor, "
                f"got {type(found).__name__}"
            )
        return found.detach().to(x.device)


def _arguments(given: object) -> int | None:
    """Return how many of the five arguments an attack takes; None if it cannot be called."""
    if not callable(given):
        return None
    try:
        signature = inspect.signature(given)
    except (TypeError, ValueError):  # a callable without a signature
        return 5
    for count in (5, 4, 3):
        try:
            signature.bind(*range(count))
        except TypeError:
            continue
        return count
    return None


def _shown(given: object) -> str:
    try:
        return f"{type(given).__name__} {inspect.signature(given)}"  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return type(given).__name__
