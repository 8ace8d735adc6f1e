"""The fast suite: to AutoAttack's verdict, or below it, for a small part of its passes.

The order, the backwards and the steps were chosen on models and images that no table reports,
then frozen (docs/decisions/0007-fast-suite.md).  What does most of the work on nets whose
gradients mislead, ReLU or smooth, is the softplus backward (`satbench.attacks.backward`).  Behind
the searches stands a safety net that needs none of the model's gradients: images made on other
models, and Square from the best points known, on every image whose gradients are seen to mislead
(`satbench.attacks.signs`), on a sample, and on those that look weakest.  Where the net catches
anything, gradients alone have misled, and Square goes on to more of the survivors.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from satbench.attacks._apgd import APGDT
from satbench.attacks._cosine import CosinePGD
from satbench.attacks._malt import MALT
from satbench.attacks._square import Squares, square_search
from satbench.attacks._transfer import Transfer
from satbench.attacks.backward import Backward
from satbench.attacks.contract import (
    Attack,
    Found,
    Hints,
    History,
    Informed,
    Model,
    NoiseOfSome,
    NoiseSource,
    of_any_batch,
)
from satbench.attacks.signs import MASKED, examine
from satbench.core.threat import Length, Threat

SAFETY_NET = ("transfer", "square")
"""Parts whose breaks say that gradients alone misled."""

_HALF_EPS = Length(Fraction(1, 2), relative=True)


@dataclass(frozen=True)
class Fast:
    """GAMA, MIFPE and margin searches, most of them with softplus backward, and a safety net.

    `source` names the models to transfer from, joined by `+`: `pinned` for the benchmark's pinned
    set, `none` to leave that part out.  `version` 1 stays as it was published.
    """

    norms: ClassVar[tuple[str, ...]] = ("linf", "l2")

    version: Literal["1", "2"] = "2"
    source: str = "pinned"

    @property
    def sources(self) -> tuple[str, ...]:
        """The models that it borrows."""
        return () if self.source == "none" else tuple(self.source.split("+"))

    def parts(self) -> tuple[tuple[str, Attack], ...]:
        """Return the parts in order, named."""
        if self.version == "1":
            return (*_FIRST, *self._transfer(), _SQUARE, _MORE_SQUARE)
        flagged = ("square-flagged", FlaggedSquare(queries=5000))
        return (*_SEARCHES, *self._transfer(), flagged, _SQUARE, _MORE_SQUARE, _LAST)

    def _transfer(self) -> tuple[tuple[str, Attack], ...]:
        if self.source == "none":
            return ()
        return tuple((f"transfer/{name}", one) for name, one in Transfer(self.source).parts())


@dataclass(frozen=True)
class Borderline:
    """APGD-T with AutoAttack's steps on the `weakest` share of the survivors."""

    weakest: float
    attack: APGDT

    @property
    def block(self) -> int:
        """The number of images that draw their noise together."""
        return self.attack.block

    @of_any_batch
    def __call__(
        self, model: Model, x: Tensor, y: Tensor, threat: Threat, noise: NoiseSource
    ) -> Tensor:
        """Perturb `x` within `threat`.  (B, C, H, W) in [0, 1], (B,) labels -> (B, C, H, W)."""
        with torch.no_grad():
            classes = model(x[:1]).shape[1]
        # With fewer, the targeted DLR loss does not exist, and MALT has tried every class.
        return self.attack(model, x, y, threat, noise) if classes >= 4 else x

    def selects(self, history: History) -> NDArray[np.bool_]:
        """Return which images to take on, (N,) bool."""
        return weakest(history, self.weakest)


@dataclass(frozen=True)
class WarmSquare(Informed):
    """Square from the best points known, every image with squares of its own.

    It takes on the `weakest` share of the survivors and a random `sample` of all; if `after` names
    parts of the suite, only where one of these broke an image.
    """

    uses_gradients: ClassVar[bool] = False

    queries: int
    weakest: float
    sample: float
    first_share: float = 0.2
    after: tuple[str, ...] = ()

    def follow(
        self,
        model: Model,
        x: Tensor,
        y: Tensor,
        threat: Threat,
        noise: NoiseSource,
        hints: Hints,
    ) -> Found:
        """Search from the best points known."""
        squares = Squares(self.queries, self.first_share)
        return Found(*square_search(model, x, y, hints.points, threat, squares, noise))

    def selects(self, history: History) -> NDArray[np.bool_]:
        """Return which images to take on, (N,) bool."""
        if self.after and not any(
            broken and part.startswith(self.after) for part, broken in history.broken.items()
        ):
            return np.zeros(len(history.survivors), bool)
        drawn = history.survivors & (history.share < self.sample)
        return drawn | weakest(history, self.weakest)


@dataclass(frozen=True)
class FlaggedSquare(Informed):
    """Square from the best points known, on the images alone whose gradients are seen to mislead.

    Looking at an image costs 3 forwards and 2 backwards; `queries` are as many as AutoAttack's.
    """

    queries: int
    first_share: float = 0.2

    def follow(
        self,
        model: Model,
        x: Tensor,
        y: Tensor,
        threat: Threat,
        noise: NoiseSource,
        hints: Hints,
    ) -> Found:
        """Search from the best points known; an image without a sign keeps its best point."""
        signs = examine(model, x, y, threat)
        flagged = torch.stack([signs[name] for name in MASKED]).any(0)
        x_adv, margins = hints.points.clone(), hints.margins.clone()
        if flagged.any():
            squares = Squares(self.queries, self.first_share)
            x_adv[flagged], margins[flagged] = square_search(
                model,
                x[flagged],
                y[flagged],
                x_adv[flagged],
                threat,
                squares,
                NoiseOfSome(noise, flagged.cpu().numpy()),
            )
        return Found(x_adv, margins)


def weakest(history: History, share: float) -> NDArray[np.bool_]:
    """Return that share of the survivors, rounded up, whose margins are least.  -> (N,) bool."""
    count = int(np.ceil(share * history.survivors.sum()))
    return weakest_of(history.survivors, history.margins, count)


def weakest_of(
    among: NDArray[np.bool_], values: NDArray[np.floating], count: int
) -> NDArray[np.bool_]:
    """Return the `count` images of least value, (N,), among some, (N,) bool.  -> (N,) bool."""
    rows = np.flatnonzero(among)
    chosen = np.zeros(len(among), bool)
    chosen[rows[np.argsort(values[rows], kind="stable")[:count]]] = True
    return chosen


_GAMA = ("gama-softplus", CosinePGD("gama", 20, start="corner", backward=Backward(2.0)))
_MIFPE = ("mifpe-softplus", CosinePGD("mifpe", 20, backward=Backward(5.0)))
_MARGIN = CosinePGD("margin", 20, _HALF_EPS, "best")
_SQUARE = ("square", WarmSquare(queries=400, weakest=0.1, sample=0.05))
_MORE_SQUARE = (
    "square-more",
    WarmSquare(queries=400, weakest=0.4, sample=0.0, after=SAFETY_NET),
)
_LAST = ("margin-last", _MARGIN)
"""From where Square came to, gradients find more."""

_FIRST: tuple[tuple[str, Attack], ...] = (
    _GAMA,
    _MIFPE,
    ("margin", _MARGIN),
    ("mifpe", CosinePGD("mifpe", 20)),
    ("malt-softplus", MALT(3, 20, backward=Backward(10.0))),
    ("margin-again", _MARGIN),
    ("apgd-t", Borderline(0.05, APGDT())),
)

_SEARCHES: tuple[tuple[str, Attack], ...] = (
    _GAMA,
    _MIFPE,
    ("margin", _MARGIN),
    ("mifpe-again", CosinePGD("mifpe", 20, _HALF_EPS, "best", backward=Backward(5.0))),
    ("malt-softplus", MALT(2, 20, backward=Backward(10.0))),
    ("margin-again", _MARGIN),
    ("gama-again", CosinePGD("gama", 20, start="corner", backward=Backward(5.0))),
    ("apgd-t", Borderline(0.05, APGDT(targets=3))),
)
