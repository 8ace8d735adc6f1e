"""The contract of an attack.  An attack only searches; the judge decides whether it succeeded."""

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
    """A source of noise that can draw on the device itself; the numbers are those of the CPU."""

    def uniform_on(self, shape: tuple[int, ...], device: torch.device, restart: int = 0) -> Tensor:
        """Draw from U(-1, 1) on `device`.  (…) -> (B, …) float32."""
        ...


@dataclass(frozen=True)
class NoiseOfSome:
    """The noise of some images of a batch: the `rows`, (B,) bool, of the batch's noise `of`."""

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
    """Decorate a search, the `__call__` of an attack, so that it works for any batch and caller.

    The search gets detached images in the default memory layout, and gradients are on even inside
    `torch.no_grad()`, so the result, which is detached too, depends on neither.  The model is not
    called for an empty batch, because many models fail on one.
    """

    @wraps(search)
    def perturb(
        self: object, model: Model, x: Tensor, y: Tensor, threat: object, noise: NoiseSource
    ) -> Tensor:
        if not len(x):
            return x.detach().clone()
        with torch.enable_grad():
            return search(self, model, _in_default_layout(x), y, threat, noise).detach()

    return cast(_Search, perturb)


def _in_default_layout(x: Tensor) -> Tensor:
    """Return `x` detached, with the strides of a new tensor.

    `contiguous` does not change grey images in channels last, but a convolution sees their strides.
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

        (B, C, H, W) in [0, 1], (B,) labels -> (B, C, H, W).  `x` and `y` must not be changed.
        """
        ...


@dataclass(frozen=True)
class Hints:
    """What earlier stages of the suite found out about the images of a batch.

    `margins` (B,) are the least margins (logit of the label minus the best other logit) that they
    reported, infinity if none did; `points` (B, C, H, W) are the points of these margins, the
    images themselves if none was reported.
    """

    margins: Tensor
    points: Tensor

    @classmethod
    def none(cls, x: Tensor) -> Hints:
        """Return the hints for images that no stage has reported on."""
        return cls(torch.full((len(x),), torch.inf, device=x.device), x)


@dataclass(frozen=True)
class Found:
    """The result of an informed attack: the known points of least margin, and these margins."""

    x_adv: Tensor
    margins: Tensor


@runtime_checkable
class Informed(Attack, Protocol):
    """An attack that starts from what earlier stages found, and informs the later ones."""

    @of_any_batch
    def __call__(
        self, model: Model, x: Tensor, y: Tensor, threat: Threat, noise: NoiseSource
    ) -> Tensor:
        """Perturb `x` within `threat`, without hints; shapes as for `Attack`."""
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
        """Perturb `x` within `threat`, with `hints`; shapes as for `Attack`."""
        ...


@dataclass(frozen=True)
class History:
    """What is known about every image when a stage begins; it does not depend on batches.

    `survivors` (N,) bool are the images that survive now; `entered` (N,) those that survived when
    the attack began of which this stage is a part.  `margins` (N,) float32 are the least reported
    margins, infinity if none was reported.  `broken` is how many images each earlier stage broke,
    by the stage's part (or spec); `attacked` is how many it attacked.  `share` (N,) in [0, 1) is
    one random number per image for drawing samples, a function of the seed, the attack and the
    index.
    `ranking` gives, for a part of the same attack that began earlier or begins now, the ranks (N,)
    of the images by their margins at that moment: 0 for the least, 1, 2, …, and infinity for an
    image that no longer survived then.
    """

    survivors: NDArray[np.bool_]
    entered: NDArray[np.bool_]
    margins: NDArray[np.float32]
    broken: dict[str, int]
    attacked: dict[str, int]
    share: NDArray[np.float64]
    ranking: Callable[[str], NDArray[np.float64]]


@runtime_checkable
class Selective(Protocol):
    """An attack that attacks only some of the survivors."""

    def selects(self, history: History) -> NDArray[np.bool_]:
        """Return which images to attack, (N,) bool."""
        ...


class Surrogates(Protocol):
    """The source of an attack's surrogates, and of images for queries of the target."""

    def surrogate(self, name: str) -> nn.Module:
        """Return a surrogate, frozen, in eval mode, on the target's device.

        Raises SatbenchError for an unknown name.
        """
        ...

    def pool(self, n: int) -> NDArray[np.float32]:
        """Return up to `n` images that are not evaluated, (M, C, H, W) in [0, 1]."""
        ...


class CountedSurrogates(Surrogates, Protocol):
    """The surrogates that a run gives an attack in addition to the target.

    Passes of a surrogate are counted separately from those of the target.
    """

    def spent(self, forwards: int, backwards: int) -> None:
        """Add passes of a surrogate that the attack trained itself to the count."""
        ...


@runtime_checkable
class Prepared(Protocol):
    """An attack that needs preparation once in a run: it needs surrogates, or trains one."""

    def prepare(
        self, target: Model, surrogates: CountedSurrogates, threat: Threat, seed: int
    ) -> Attack:
        """Return the attack to run.  Calls of `target` are counted like those of an attack.

        The result may depend only on the arguments, because a resumed run prepares again.
        """
        ...
