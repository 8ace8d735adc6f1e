"""The curve of robust accuracy against eps as data.  JSON in and out, no torch.

A curve has one distance per image: that of the nearest point that the judge confirmed.  At eps, the
images with a larger distance are right.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from math import floor, log10, prod, sqrt
from pathlib import Path
from typing import get_args

from satbench.core.digests import digest_json
from satbench.core.errors import SatbenchError
from satbench.core.files import write_text
from satbench.core.limits import MOST_PIXELS
from satbench.core.schema import Number, convert, parse_schema, read_text
from satbench.core.stats.intervals import wilson_interval
from satbench.core.threat import Norm
from satbench.records.record import (
    PROTOCOL,
    DatasetInfo,
    Environment,
    ModelInfo,
    leave_out_unknown,
)

CURVE_SCHEMA = 2

KIND = "curve"

_PLACE = "@distances@"  # placeholder of the distances while the rest is indented


@dataclass(frozen=True)
class CurveAttack:
    """One minimum-norm attack of a curve.

    `attack` is its canonical spec.  It attacked `attacked` images, found a point for `found` of
    them and the nearest point of all attacks for `nearest`; the search cost `forwards` and
    `backwards` passes.  `search` says what was searched, as in a record's stages.
    """

    attack: str
    attacked: int
    found: int
    nearest: int
    forwards: int
    backwards: int
    search: str = field(default="", compare=False)


@dataclass(frozen=True)
class CurveBound:
    """Verdicts within one eps that bound a curve.

    `by` is the canonical spec of an attack, or `record IDENTITY`.  Of `attacked` images it lowered
    `broken` to eps; the search cost `forwards` and `backwards` passes.  `search` says what was
    searched, as in a record's stages.
    """

    by: str
    eps: Number
    attacked: int
    broken: int
    forwards: int
    backwards: int
    search: str = field(default="", compare=False)


@dataclass(frozen=True)
class Curve:
    """Robust accuracy against eps for one model, data set, norm, list of attacks and seed.

    `distances` has one number per image, in the data set's order and in pixels of [0, 1]: 0 for an
    image that is wrong when clean, None if no attack found a point at any distance.  They are those
    of the minimum-norm `attacks`, lowered by `bounds`.  The points are the witnesses next to the
    curve, `points_digest` is their SHA-256; an image that is bounded only by a record without
    witnesses has none.  `reach` is the eps near which the minimum-norm attacks' curve has fallen;
    the marks follow from it.  `chance` is the share of the most common label.
    """

    identity: str
    model: ModelInfo
    dataset: DatasetInfo
    shape: list[int]
    chance: Number
    norm: str
    seed: int
    attacks: list[CurveAttack]
    bounds: list[CurveBound]
    reach: Number
    distances: list[Number | None]
    points_digest: str
    environment: Environment
    kind: str = KIND
    protocol: int = PROTOCOL
    schema: int = CURVE_SCHEMA

    @property
    def n(self) -> int:
        """The number of images."""
        return len(self.distances)

    @property
    def never(self) -> int:
        """How many images no attack broke at any distance."""
        return self.distances.count(None)

    def surviving(self, eps: float) -> int:
        """How many images are right within `eps`."""
        return sum(distance is None or distance > eps for distance in self.distances)

    def interval(self, eps: float) -> tuple[float, float]:
        """Return the 95 % Wilson interval of robust accuracy within `eps`."""
        return wilson_interval(self.surviving(eps), self.n)

    def steps(self) -> list[float]:
        """Return the distances at which the curve falls, ascending, from 0."""
        return sorted({0.0, *(d for d in self.distances if d is not None)})

    @property
    def grey_radius(self) -> float:
        """The eps within which every image can be made uniformly grey.

        From there on all images share a point, for which the model has one answer, so that robust
        accuracy is at most the share of one label.
        """
        pixels = float(prod(self.shape))
        return 0.5 * {"linf": 1.0, "l2": sqrt(pixels), "l1": pixels}[self.norm]

    def masking_sign(self) -> str | None:
        """Return a sentence if the curve cannot be the model's; None if it can.

        Large perturbations break any model (Carlini et al., 2019, "On evaluating adversarial
        robustness", arXiv:1902.06705, section 5.1), so a curve that does not fall shows failing
        attacks.
        """
        held = self.surviving(self.grey_radius) / self.n
        advice = "a sign of gradient masking: add attacks that need no gradients, such as "
        advice += "foolbox.boundary" if self.norm == "l2" else "foolbox.hopskipjump"
        if held > self.chance:
            return (
                f"robust accuracy of {self.model.name} is still {held:.1%} within "
                f"{self.norm} {self.grey_radius:.4g}, where every image can be made uniformly "
                f"grey, above the {self.chance:.1%} of the commonest label: {advice}"
            )
        if self.never:
            return (
                f"robust accuracy of {self.model.name} never falls to 0: no point at any distance "
                f"was found for {self.never} of {self.n} images, {advice}"
            )
        return None

    def to_json(self) -> str:
        """Return the curve as JSON text; `parse_curve` is its inverse."""
        values = asdict(self)
        leave_out_unknown(values["environment"])
        distances = json.dumps(values.pop("distances"), separators=(",", ":"), allow_nan=False)
        values["distances"] = _PLACE
        return json.dumps(values, indent=1).replace(f'"{_PLACE}"', distances) + "\n"


MARKS = 4
"""How many eps above 0 a table shows."""


def reach_of(distances: Sequence[float | None]) -> float:
    """Return the eps within which 19 of 20 broken images are broken, at least 0.001."""
    found = sorted(distance for distance in distances if distance)
    return max([1e-3, *(found[int(0.95 * (len(found) - 1))] for _ in found[:1])])


def marks_of(curves: Sequence[Curve]) -> list[float]:
    """Return 0 and `MARKS` round values of eps up to about where the curves have fallen.

    They depend only on the minimum-norm attacks, so that bounds of a curve do not move them.
    """
    rough = max(curve.reach for curve in curves) / MARKS
    power = 10.0 ** floor(log10(rough))
    step = min(width for width in (1, 2, 2.5, 5, 10) if width * power >= rough) * power
    return [float(f"{k * step:.6g}") for k in range(MARKS + 1)]


def curve_identity(
    model: ModelInfo, dataset: DatasetInfo, norm: str, seed: int, attacks: list[str]
) -> str:
    """Return the identity of a curve: the SHA-256 of its inputs, as `identity_of` a record."""
    inputs = {
        "kind": KIND,
        "protocol": PROTOCOL,
        "weights": model.weights_digest,
        "answers": model.answers_digest,
        "architecture": model.architecture,
        "activation": model.activation,
        "dataset": dataset.digest,
        "norm": norm,
        "seed": seed,
        "attacks": attacks,
    }
    return digest_json(inputs)


def parse_curve(text: str, where: str) -> Curve:
    """Read a curve from JSON text.  Raises SatbenchError naming `where` and what is wrong."""
    values = parse_schema(text, "curve", where, (1, CURVE_SCHEMA), KIND)
    if values["schema"] == 1:  # without bounds
        read = convert(values | {"bounds": [], "reach": 0.0}, Curve, "curve", where)
        curve = replace(read, schema=CURVE_SCHEMA, reach=reach_of(read.distances))
    else:
        curve = convert(values, Curve, "curve", where)
    if fault := _fault(curve):
        raise SatbenchError(f"the curve {where} is wrong: {fault}")
    return curve


def _fault(curve: Curve) -> str:
    """Return what is wrong with a curve besides the types of its fields; empty if nothing is."""
    if any(distance is not None and distance < 0 for distance in curve.distances):
        return "distances: expected numbers from 0 on, or null"
    if not curve.distances or len(curve.distances) != curve.dataset.n:
        return f"distances: expected one for each of {curve.dataset.n} images, 1 or more"
    if curve.norm not in get_args(Norm):
        return f"norm: expected one of {', '.join(get_args(Norm))}"
    if not curve.shape or not all(1 <= side <= MOST_PIXELS for side in curve.shape):
        return "shape: expected the sides of an image, 1 or more each"
    if not 1e-9 <= curve.reach <= 1e9:
        return "reach: expected a distance above 0"
    return ""


def read_curve(path: Path) -> Curve:
    """Read a curve from a file.  Raises SatbenchError for a missing or malformed one."""
    return parse_curve(read_text(path, "curve"), str(path))


def write_curve(curve: Curve, path: Path) -> None:
    """Write a curve atomically."""
    write_text(path, curve.to_json())
