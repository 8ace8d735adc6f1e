"""What an attack is.  Searching is its whole job: it never says whether it won (the judge does)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from math import prod
from typing import Protocol, TypeVar, cast, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from satbench.calling.model import Model
from satbench.core.threat import Threat

__all__ = ["Model"]


class NoiseSource(Protocol):
    """Random numbers for a batch, one row per image.  `satbench.core.noise.Noise` is one."""

    def uniform(self, shape: tuple[int, ...], restart: int = 0) -> NDArray[np.float32]:
        """Draw from U(-1, 1).  (…) -> (B, …)."""
        ...

    def normal(self, shape: tuple[int, ...], restart: int = 0) -> NDArray[np.float32]:
        """Draw from N(0, 1).  (…) -> (B, …)."""
        ...

    def block_seed(self, restart: int = 0) -> int:
        """Return a seed for code that draws for the whole batch at once."""
        ...


@runtime_checkable
class NoiseOnDevice(Protocol):
    """A source of noise that can draw on the device itself, the same numbers as for the CPU."""

    def uniform_on(self, shape: tuple[int, ...], device: torch.device, restart: int = 0) -> Tensor:
        """Draw from U(-1, 1) on `device`.  (…) -> (B, …) float32."""
        ...


@dataclass(frozen=True)
class NoiseOfSome:
    """The noise of some images of a batch: of `rows`, (B,) bool, of the noise `of` the batch."""

    of: NoiseSource
    rows: NDArray[np.bool_]

    def uniform(self, shape: tuple[int, ...], restart: int = 0) -> NDArray[np.float32]:
        """Draw from U(-1, 1).  (…) -> (S, …)."""
        return self.of.uniform(shape, restart)[self.rows]

    def normal(self, shape: tuple[int, ...], restart: int = 0) -> NDArray[np.float32]:
        """Draw from N(0, 1).  (…) -> (S, …)."""
        return self.of.normal(shape, restart)[self.rows]

    def block_seed(self, restart: int = 0) -> int:
        """Return the seed of the batch."""
        return self.of.block_seed(restart)


_Search = TypeVar("_Search", bound=Callable[..., Tensor])


def of_any_batch(search: _Search) -> _Search:
    """Make a search, the `__call__` of an attack, one for any batch and any caller.

    It sees detached images in the plain memory layout, with gradients on (`torch.no_grad()` around
    it turns nothing off), so that its result, detached too, depends on neither.  For an empty batch
    the model is not asked: many a model cannot answer one.
    """

    @wraps(search)
    def perturb(
        self: object, model: Model, x: Tensor, y: Tensor, threat: object, noise: NoiseSource
    ) -> Tensor:
        if not len(x):
            return x.detach().clone()
        with torch.enable_grad():
            return search(self, model, _plainly_laid(x), y, threat, noise).detach()

    return cast(_Search, perturb)


def _plainly_laid(x: Tensor) -> Tensor:
    """Return `x` detached, with the strides of a new tensor.

    `contiguous` leaves grey images in channels last as they are, whose strides a convolution sees.
    """
    x = x.detach()
    plain = tuple(prod(x.shape[axis + 1 :]) for axis in range(x.dim()))
    return x if x.stride() == plain else x.clone(memory_format=torch.contiguous_format)


class Attack(Protocol):
    """A frozen dataclass whose fields are the attack's parameters.

    It holds no model, device, seed or state.
    """

    def __call__(
        self, model: Model, x: Tensor, y: Tensor, threat: Threat, noise: NoiseSource
    ) -> Tensor:
        """Perturb `x` within `threat`.

        (B, C, H, W) in [0, 1], (B,) labels -> (B, C, H, W).  `x` and `y` are left as they are.
        """
        ...


@dataclass(frozen=True)
class Hints:
    """What earlier stages of the suite learnt about the images of a batch.

    `margins` (B,) is the least margin (logit of the label minus the best other logit) that they
    reached, infinity where none told; `points` (B, C, H, W) is where, the image itself where none
    told.
    """

    margins: Tensor
    points: Tensor

    @classmethod
    def none(cls, x: Tensor) -> Hints:
        """Return what is known of images that no stage has told of."""
        return cls(torch.full((len(x),), torch.inf, device=x.device), x)


@dataclass(frozen=True)
class Found:
    """What an informed attack found: the points of least margin it knows, and these margins."""

    x_adv: Tensor
    margins: Tensor


@runtime_checkable
class Informed(Attack, Protocol):
    """An attack that goes on from what earlier stages found, and informs the later ones."""

    @of_any_batch
    def __call__(
        self, model: Model, x: Tensor, y: Tensor, threat: Threat, noise: NoiseSource
    ) -> Tensor:
        """Perturb `x` within `threat`, knowing nothing; shapes as for `Attack`."""
        return self.follow(model, x, y, threat, noise, Hints.none(x)).x_adv

    def follow(
        self,
        model: Model,
        x: Tensor,
        y: Tensor,
        threat: Threat,
        noise: NoiseSource,
        hints: Hints,
    ) -> Found:
        """Perturb `x` within `threat`, knowing `hints`; shapes as for `Attack`."""
        ...


@dataclass(frozen=True)
class History:
    """What is known of every image when a stage begins; it does not depend on batches.

    `survivors` (N,) bool, and `entered` those of when the suite's attack began that the stage is a
    part of; `margins` (N,) float32, the least margin told, infinity where none was;
    `broken` says how many images each earlier stage broke, by the stage's part (or spec);
    `attacked` likewise how many it took on.  `share` (N,) in [0, 1) is a random number an image, a
    function of the seed, that attack and the image's index, to draw samples with.
    """

    survivors: NDArray[np.bool_]
    entered: NDArray[np.bool_]
    margins: NDArray[np.float32]
    broken: dict[str, int]
    attacked: dict[str, int]
    share: NDArray[np.float64]


@runtime_checkable
class Selective(Protocol):
    """An attack that takes on some of the survivors only."""

    def selects(self, history: History) -> NDArray[np.bool_]:
        """Return which images to take on, (N,) bool; others pass it by."""
        ...


class Surrogates(Protocol):
    """Where an attack finds surrogates, and images to query the target with."""

    def surrogate(self, name: str) -> nn.Module:
        """Return a surrogate, frozen, in eval mode, on the target's device.

        Raises SatbenchError for an unknown name.
        """
        ...

    def pool(self, n: int) -> NDArray[np.float32]:
        """Return up to `n` images that are not under evaluation, (M, C, H, W) in [0, 1]."""
        ...


class CountedSurrogates(Surrogates, Protocol):
    """The surrogates that a run gives an attack in addition to the target.

    Passes of a surrogate are counted, apart from those of the target.
    """

    def spent(self, forwards: int, backwards: int) -> None:
        """Count passes of a surrogate that the attack trained itself."""
        ...


@runtime_checkable
class Prepared(Protocol):
    """An attack that must be made ready once a run: it needs surrogates, or trains one."""

    def prepare(
        self, target: Model, surrogates: CountedSurrogates, threat: Threat, seed: int
    ) -> Attack:
        """Return the attack proper.  Calls of `target` are counted like those of an attack.

        Depends only on its arguments, because a resumed run prepares again.
        """
        ...
