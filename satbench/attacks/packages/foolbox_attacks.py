"""Minimum-norm and decision-based attacks, run by the package Foolbox 3.3.4.

Each looks for the smallest perturbation, independently of eps.  Every point at which the package
evaluates the model counts, not only the one that it returns.  So no success is lost, and the way in
which it reports failures (black images, an error for the whole batch) does no harm.  Under a threat
model the search ends when every image of the batch is broken within eps.  Parameters have the
package's names and defaults.

If a search draws for the whole batch at once, or depends on it, `block` is the number of
consecutive images that are attacked together; the seed belongs to the block.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, Self, cast

import torch
from torch import Tensor

from satbench.attacks.packages.watched import Draws, EnoughError, Watched, look_for_starts
from satbench.calling.pixel_gradients import pixels_only
from satbench.core.errors import SatbenchError
from satbench.core.specs import show_float
from satbench.core.threat import Threat
from satbench.engine.ball import project
from satbench.engine.contract import Model, NoiseSource, of_any_batch

BLOCK = 250

FURTHER = 1.01
"""How far a result is moved along its direction, if it is still wrong and within eps."""


class FoolboxAttack(Protocol):
    """The common part of the six: turns a search of the package into an attack of satbench."""

    _name: ClassVar[str]
    norms: ClassVar[tuple[str, ...]]
    uses_gradients: ClassVar[bool] = True

    def package(self, norm: str) -> object:
        """Configure the package's attack for a norm."""
        ...

    @of_any_batch
    def __call__(
        self, model: Model, x: Tensor, y: Tensor, threat: Threat, noise: NoiseSource
    ) -> Tensor:
        """Perturb `x` within `threat`.  (B, C, H, W) in [0, 1], (B,) labels -> (B, C, H, W).

        The first point found within eps is returned.  If there is none, the nearest point found is
        projected onto the ball, because the class behind the boundary may reach into the ball; if
        nothing was found, the image itself is returned.  Raises SatbenchError for a norm not in
        `norms`.
        """
        found = self._search(model, x, y, threat, noise, enough=threat.radius)
        inside = project(found, x, threat)
        # Move away from the boundary, because the judge rounds differently.
        further = project(x + FURTHER * (inside - x), x, threat)
        with torch.no_grad():
            wrong = model(further).argmax(1) != y
        return torch.where(_rows(wrong, x), further, inside)

    @of_any_batch
    def nearest(self, model: Model, x: Tensor, y: Tensor, norm: str, noise: NoiseSource) -> Tensor:
        """Return the nearest points found that `model` gets wrong; `x` if there is none.

        (B, C, H, W) in [0, 1], (B,) labels -> (B, C, H, W).  Raises SatbenchError as above.
        """
        return self._search(model, x, y, Threat.of(norm, "1"), noise, enough=0.0)

    def _search(
        self, model: Model, x: Tensor, y: Tensor, threat: Threat, noise: NoiseSource, enough: float
    ) -> Tensor:
        if threat.norm not in self.norms:
            raise SatbenchError(
                f"{self._name} makes perturbations small in {' or '.join(self.norms)} only, "
                f"got {threat.norm}; use foolbox.fmn, which supports linf, l2 and l1"
            )
        with torch.no_grad():
            rows = (model(x).argmax(1) == y).nonzero().flatten()
        best = x.clone()
        if not len(rows):
            return best
        watched = Watched(pixels_only(model), x[rows], y[rows], threat, enough)
        try:
            if not self.uses_gradients:
                draws = Draws(noise, rows)
                look_for_starts(watched, draws)
                best[rows] = watched.best
                started = watched.distance.isfinite()
                rows, watched = rows[started], watched.only(started)
            if len(rows):
                starts = None if self.uses_gradients else watched.best.clone()
                _run(self.package(threat.norm), watched, noise.block_seed(), starts)
        except EnoughError:
            pass
        best[rows] = watched.best
        return best


@dataclass(frozen=True)
class Stepsize:
    """FMN's first step: a length above 0 in L2 pixel units, or `auto`: it depends on the norm."""

    length: float | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `auto` or a number above 0.  Raises SatbenchError."""
        if text.strip() == "auto":
            return cls()
        try:
            length = float(text)
        except ValueError:
            length = 0.0
        if not 0 < length < float("inf"):
            raise SatbenchError(
                f"foolbox.fmn: expected max_stepsize above 0, such as 1, or auto, got {text!r}"
            )
        return cls(length)

    def in_norm(self, norm: str) -> float:
        """Return the length for a search that makes perturbations small in `norm`."""
        if self.length is not None:
            return self.length
        return 10.0 if norm == "linf" else 1.0

    def __str__(self) -> str:
        return "auto" if self.length is None else show_float(self.length)


AUTO = Stepsize()


@dataclass(frozen=True)
class FMN(FoolboxAttack):
    """Fast minimum-norm: ascent of the margin in a ball that shrinks with every success.

    Pintor, Roli, Brendel, Biggio, 2021 (arXiv:2102.12827, algorithm 1).  `steps` gradients;
    `max_stepsize`, in pixel units of L2, falls to a hundredth of itself along a cosine; `gamma`,
    the share by which the ball changes in a step, falls to 0.001.  Nothing is random.  Differs from
    the package in L2: the package never projects there, which makes every distance a multiple of
    the step; here points are projected.  The default of `max_stepsize` is the package's 1 in L2 and
    L1, but 10 in Linf, where 1 is too short (docs/curve.md).
    """

    _name: ClassVar[str] = "foolbox.fmn"
    norms: ClassVar[tuple[str, ...]] = ("linf", "l2", "l1")

    steps: int = 100
    max_stepsize: Stepsize = AUTO
    gamma: float = 0.05

    def __post_init__(self) -> None:
        _check(self, "steps", "gamma")

    def package(self, norm: str) -> object:
        """Configure the package's attack for a norm."""
        from satbench.attacks.packages import foolbox_package as foolbox

        kinds: dict[str, Any] = {
            "linf": foolbox.MendedLinfFMN,
            "l2": foolbox.MendedL2FMN,
            "l1": foolbox.MendedL1FMN,
        }
        step = self.max_stepsize.in_norm(norm)
        return kinds[norm](steps=self.steps, max_stepsize=step, gamma=self.gamma)


@dataclass(frozen=True)
class DDN(FoolboxAttack):
    """Decoupled direction and norm: the length shrinks with every success, the direction turns.

    Rony et al., 2019 (arXiv:1811.09600, algorithm 1).  `steps` gradients; `init_epsilon` is the
    first length, in pixel units; `gamma` the share by which it changes in a step.  A gradient of 0
    is replaced by a random one, so the attack has a `block`.
    """

    _name: ClassVar[str] = "foolbox.ddn"
    norms: ClassVar[tuple[str, ...]] = ("l2",)

    steps: int = 100
    init_epsilon: float = 1.0
    gamma: float = 0.05
    block: int = BLOCK

    def __post_init__(self) -> None:
        _check(self, "steps", "init_epsilon", "gamma", "block")

    def package(self, norm: str) -> object:
        """Configure the package's attack for a norm."""
        from satbench.attacks.packages import foolbox_package as foolbox

        return foolbox.DDNAttack(steps=self.steps, init_epsilon=self.init_epsilon, gamma=self.gamma)


@dataclass(frozen=True)
class DeepFool(FoolboxAttack):
    """DeepFool: step after step onto the nearest boundary of the linearised model.

    Moosavi-Dezfooli, Fawzi, Frossard, 2016 (arXiv:1511.04599, algorithm 2).  At most `steps`, each
    of which costs a gradient for each of the most likely `candidates` classes but one; `overshoot`
    is the share by which it goes beyond the boundary; `loss` is the linearised function.  Nothing
    is random.
    """

    _name: ClassVar[str] = "foolbox.deepfool"
    norms: ClassVar[tuple[str, ...]] = ("linf", "l2")

    steps: int = 50
    candidates: int = 10
    overshoot: float = 0.02
    loss: Literal["logits", "crossentropy"] = "logits"

    def __post_init__(self) -> None:
        _check(self, "steps")
        if self.candidates < 2:
            raise SatbenchError(
                f"{self._name}: expected candidates of 2 or more, got {self.candidates}"
            )
        if self.overshoot < 0:
            raise SatbenchError(
                f"{self._name}: expected an overshoot of 0 or more, got {self.overshoot}"
            )

    def package(self, norm: str) -> object:
        """Configure the package's attack for a norm."""
        from satbench.attacks.packages import foolbox_package as foolbox

        kinds: dict[str, Any] = {
            "linf": foolbox.LinfDeepFoolAttack,
            "l2": foolbox.L2DeepFoolAttack,
        }
        return kinds[norm](
            steps=self.steps,
            candidates=self.candidates,
            overshoot=self.overshoot,
            loss=self.loss,
        )


@dataclass(frozen=True)
class CarliniWagner(FoolboxAttack):
    """Carlini & Wagner's L2 attack: Adam on length plus c times margin, bisecting c.

    Carlini & Wagner, 2017 (arXiv:1608.04644, section VI.A).  `binary_search_steps` values of c from
    `initial_const`, `steps` of Adam of size `stepsize` for each: up to 90,000 gradients an image by
    the package's defaults, fewer because a run ends if the whole batch makes no progress over a
    tenth of its steps (therefore `block`).  `confidence` is the required margin, in logits.
    Nothing is random.
    """

    _name: ClassVar[str] = "foolbox.cw"
    norms: ClassVar[tuple[str, ...]] = ("l2",)

    steps: int = 10000
    binary_search_steps: int = 9
    stepsize: float = 0.01
    confidence: float = 0.0
    initial_const: float = 0.001
    block: int = BLOCK

    def __post_init__(self) -> None:
        _check(self, "steps", "binary_search_steps", "stepsize", "initial_const", "block")
        _check_at_most_1(self, "stepsize")
        if self.confidence < 0:
            raise SatbenchError(
                f"{self._name}: expected a confidence of 0 or more, got {self.confidence}"
            )

    def package(self, norm: str) -> object:
        """Configure the package's attack for a norm."""
        from satbench.attacks.packages import foolbox_package as foolbox

        return foolbox.L2CarliniWagnerAttack(
            steps=self.steps,
            binary_search_steps=self.binary_search_steps,
            stepsize=self.stepsize,
            confidence=self.confidence,
            initial_const=self.initial_const,
        )


@dataclass(frozen=True)
class Boundary(FoolboxAttack):
    """The boundary attack: a random walk along the boundary towards the image, from labels only.

    Brendel, Rauber, Bethge, 2018 (arXiv:1712.04248, algorithm 1).  `steps` of the walk;
    `spherical_step` and `source_step` are the first steps along and towards, relative to the
    distance; both are multiplied or divided by `step_adaptation`.  An image without a starting
    point survives.
    """

    _name: ClassVar[str] = "foolbox.boundary"
    norms: ClassVar[tuple[str, ...]] = ("l2",)
    uses_gradients: ClassVar[bool] = False

    steps: int = 25000
    spherical_step: float = 0.01
    source_step: float = 0.01
    step_adaptation: float = 1.5
    block: int = BLOCK

    def __post_init__(self) -> None:
        _check(self, "steps", "spherical_step", "source_step", "step_adaptation", "block")
        _check_at_most_1(self, "spherical_step", "source_step")

    def package(self, norm: str) -> object:
        """Configure the package's attack for a norm."""
        from satbench.attacks.packages import foolbox_package as foolbox

        return foolbox.BoundaryAttack(
            steps=self.steps,
            spherical_step=self.spherical_step,
            source_step=self.source_step,
            step_adaptation=self.step_adaptation,
        )


@dataclass(frozen=True)
class HopSkipJump(FoolboxAttack):
    """HopSkipJump: gradients of the boundary estimated from labels only.

    Chen, Jordan, Wainwright, 2020 (arXiv:1904.02144, algorithm 2).  Step t of `steps` asks for
    `initial_gradient_eval_steps` · √t labels, at most `max_gradient_eval_steps` (35,000 in all by
    the package's defaults); `gamma` scales the precision of its bisections.  An image without a
    starting point survives.  Differs from the package, which normalises noise and gradients over
    the whole batch: here each image's are its own.
    """

    _name: ClassVar[str] = "foolbox.hopskipjump"
    norms: ClassVar[tuple[str, ...]] = ("linf", "l2")
    uses_gradients: ClassVar[bool] = False

    steps: int = 64
    initial_gradient_eval_steps: int = 100
    max_gradient_eval_steps: int = 10000
    gamma: float = 1.0
    block: int = BLOCK

    def __post_init__(self) -> None:
        counts = ("initial_gradient_eval_steps", "max_gradient_eval_steps", "block")
        _check(self, "steps", "gamma", *counts)

    def package(self, norm: str) -> object:
        """Configure the package's attack for a norm."""
        from satbench.attacks.packages import foolbox_package as foolbox

        return foolbox.MendedHopSkipJump(
            steps=self.steps,
            initial_gradient_eval_steps=self.initial_gradient_eval_steps,
            max_gradient_eval_steps=self.max_gradient_eval_steps,
            gamma=self.gamma,
            constraint=cast('Literal["linf", "l2"]', norm),
        )


def _run(package: object, watched: Watched, seed: int, starts: Tensor | None) -> None:
    from satbench.attacks.packages import foolbox_package as foolbox

    # HopSkipJump asserts that a wrong point is still wrong in the next forward, which is not
    # certain with rounding on a GPU or a randomised model.  What was found before counts.
    with suppress(AssertionError):
        foolbox.run(package, watched, watched.x, watched.y, seed, starts)


def _check(attack: FoolboxAttack, *parameters: str) -> None:
    for parameter in parameters:
        value = getattr(attack, parameter)
        if not (value >= 1 if isinstance(value, int) else 0 < value < float("inf")):
            wanted = "of 1 or more" if isinstance(value, int) else "above 0"
            raise SatbenchError(f"{attack._name}: expected {parameter} {wanted}, got {value}")


def _check_at_most_1(attack: FoolboxAttack, *parameters: str) -> None:
    """Refuse a step above 1: it is usually a mistake for the number of steps."""
    for parameter in parameters:
        value = getattr(attack, parameter)
        if value > 1:
            asked = f": did you mean steps={value:g}?" if value == int(value) else ""
            raise SatbenchError(
                f"{attack._name}: expected {parameter} of at most 1, got {value:g}{asked}"
            )


def _rows(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *[1] * (like.dim() - 1))
