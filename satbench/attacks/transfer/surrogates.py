"""Transfer: images made on other models than the target, with modifications that transfer better.

The modifications are momentum (`mi`, Dong et al., 2018, arXiv:1710.06081), Nesterov's look-ahead
and scale invariance (`ni`, `si`, Lin et al., 2020, arXiv:1908.06281), input diversity (`di`, Xie et
al., 2019, arXiv:1803.06978), a translation-invariant kernel (`ti`, Dong et al., 2019,
arXiv:1904.02884) and variance tuning (`vmi`, Wang & He, 2021, arXiv:2103.15571).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import ClassVar, Literal

import torch
from torch import Tensor

from satbench.attacks.gradient.losses import cross_entropy, margin
from satbench.attacks.transfer.gradients import (
    NEIGHBOUR_DRAWS,
    Gradient,
    Method,
    normalise,
    smooth,
    spread,
)
from satbench.core.errors import SatbenchError
from satbench.core.limits import check_at_least_one
from satbench.core.threat import Length, Threat
from satbench.engine.ball import project, random_point, steepest
from satbench.engine.contract import Attack, CountedSurrogates, Model, NoiseSource, of_any_batch

ENSEMBLE = "ensemble"
"""The name of the part that averages the logits of all sources."""

DEFAULT_METHOD = Method(("mi", "di", "ti"))
DEFAULT_STEP = Length(Fraction(1, 2), relative=True)

_LOSSES = {"ce": cross_entropy, "margin": margin}


@dataclass(frozen=True)
class Transfer:
    """`steps` steps of length `step` that raise the loss of each source; the last iterate counts.

    `source` names models as `--model` does, joined by `+`, or `pinned`, the benchmark's set of
    surrogates.  Each model gives one part.  The target may be among them; its part is then a
    white-box attack.  With `ensemble` a last part attacks the mean of all sources' logits (Liu et
    al., 2017, arXiv:1611.02770).  The target computes one forward per image and part, for the
    judge.  A search does not stop when the source is fooled, because more steps transfer better.

    `method` lists the modifications of the gradient (see the module); `decay` is momentum's μ;
    `probability` and `resize` belong to DI, `kernel` (pixels, odd) to TI, `scales` to SI,
    `neighbours` and `radius` (in eps) to VMI.  Passes of a source: steps, times `scales` with si,
    times 1 + `neighbours` with vmi.

    Differs from the papers: steps of eps/2 instead of eps/10 and the margin instead of the
    cross-entropy, because that left fewer images right (docs/decisions/0006-transfer-defaults.md);
    `ni` and `vmi` clip the points that they evaluate to [0, 1], because a model need not accept
    others; in L2 and L1 their distances, stated for Linf, are divided by √d and d.
    """

    source: str = "pinned"
    method: Method = DEFAULT_METHOD
    steps: int = 10
    step: Length = DEFAULT_STEP
    decay: float = 1.0
    loss: Literal["ce", "margin"] = "margin"
    probability: float = 0.5
    resize: float = 1.1
    kernel: int = 15
    scales: int = 5
    neighbours: int = 20
    radius: float = 1.5
    ensemble: bool = False

    def __post_init__(self) -> None:
        check_at_least_one("transfer", self, "steps", "scales", "neighbours", "kernel")
        if self.kernel % 2 == 0:
            raise SatbenchError(f"transfer: expected an odd kernel, got {self.kernel}")
        if not 0 <= self.probability <= 1:
            raise SatbenchError(f"transfer: expected probability in [0, 1], got {self.probability}")
        for name, least in (("decay", 0), ("radius", 0), ("resize", 1)):
            if not least <= getattr(self, name) < float("inf"):
                raise SatbenchError(
                    f"transfer: expected {name} of {least} or more, got {getattr(self, name)}"
                )
        names = self.surrogates
        if "" in names or "none" in names or len(set(names)) < len(names):
            raise SatbenchError(
                f"transfer: expected different models joined by +, such as source=MODEL+MODEL, "
                f"got source={self.source}"
            )
        if self.ensemble and len(names) == 1 and self.source != "pinned":
            raise SatbenchError(
                f"transfer: an ensemble needs two sources or more, got source={self.source}"
            )

    @property
    def surrogates(self) -> tuple[str, ...]:
        """The names of the surrogates."""
        return tuple(self.source.split("+"))

    def parts(self) -> tuple[tuple[str, Attack], ...]:
        """Return one part per source, named after it, and the ensemble."""
        alone = replace(self, ensemble=False)
        parts = [
            (name, FromSurrogates((name,), replace(alone, source=name))) for name in self.surrogates
        ]
        if self.ensemble:
            parts.append((ENSEMBLE, FromSurrogates(self.surrogates, alone)))
        return tuple(parts)


@dataclass(frozen=True)
class FromSurrogates:
    """One part of a transfer attack: it raises the loss of the mean logits of `sources`."""

    surrogates: tuple[str, ...]
    settings: Transfer

    uses_gradients: ClassVar[bool] = False  # the target's own

    def prepare(
        self, target: Model, surrogates: CountedSurrogates, threat: Threat, seed: int
    ) -> Attack:
        """Return the attack that has its sources."""
        return Transferred(
            tuple(surrogates.surrogate(name) for name in self.surrogates), self.settings
        )

    @of_any_batch
    def __call__(
        self, model: Model, x: Tensor, y: Tensor, threat: Threat, noise: NoiseSource
    ) -> Tensor:
        """Raise SatbenchError: this attack needs its sources."""
        raise SatbenchError(
            f"the attack needs its surrogates {' and '.join(self.surrogates)} first: call prepare"
        )


@dataclass(frozen=True)
class Transferred:
    """A transfer attack with its sources; it never queries the target."""

    models: tuple[Model, ...]
    settings: Transfer

    @of_any_batch
    def __call__(
        self, model: Model, x: Tensor, y: Tensor, threat: Threat, noise: NoiseSource
    ) -> Tensor:
        """Perturb `x` within `threat`.  (B, C, H, W) in [0, 1], (B,) labels -> (B, C, H, W)."""
        s = self.settings
        method, step = s.method, s.step.within(threat)
        gradient = Gradient(
            self.models, _LOSSES[s.loss], y, method, s.probability, s.resize, s.scales
        )
        gradient.draw(x, noise, s.steps, 1 + s.neighbours * ("vmi" in method))
        x_adv = random_point(x, threat, noise) if "pgd" in method else x.clone()
        momentum, variance = torch.zeros_like(x), torch.zeros_like(x)
        for k in range(s.steps):
            at = x_adv
            if "ni" in method:  # arXiv:1908.06281, equation 6
                at = (x_adv + step * s.decay * spread(threat, x) * momentum).clamp(0, 1)
            grad = gradient.at(at, k, 0)
            if "vmi" in method:  # arXiv:2103.15571, algorithm 1
                tuned = grad + variance
                variance = self._nearby(gradient, at, threat, noise, k) - grad
                grad = tuned
            if "ti" in method:
                grad = smooth(grad, s.kernel)
            if method.has_momentum:
                grad = momentum = s.decay * momentum + normalise(grad)
            x_adv = project(x_adv + step * steepest(grad, threat, x_adv), x, threat)
        return x_adv

    def _nearby(
        self, gradient: Gradient, at: Tensor, threat: Threat, noise: NoiseSource, step: int
    ) -> Tensor:
        """Return the mean gradient of random neighbours of `at` (arXiv:2103.15571, equation 7)."""
        s, total = self.settings, torch.zeros_like(at)
        reach = s.radius * threat.radius * spread(threat, at)
        for neighbour in range(s.neighbours):
            number = NEIGHBOUR_DRAWS + step * s.neighbours + neighbour
            drawn = torch.from_numpy(noise.uniform(tuple(at.shape[1:]), number)).to(at.device)
            total += gradient.at((at + reach * drawn).clamp(0, 1), step, 1 + neighbour)
        return total / s.neighbours
