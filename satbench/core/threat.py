"""Threat models (a norm and a radius), and lengths relative to them. Pixels are in [0, 1]."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, SupportsFloat, cast, get_args

from satbench.core.errors import SatbenchError
from satbench.core.limits import LEAST_LENGTH, MOST_LENGTH

Norm = Literal["linf", "l2", "l1"]

_MAX_EPS: dict[str, int] = {"linf": 1, "l2": 1000, "l1": 100_000}


def parse_fraction(text: str, what: str) -> Fraction:
    """Read `8/255`, `0.5/255` or `0.03` exactly.  Raises SatbenchError naming `what` otherwise."""
    try:
        return _ratio(text)
    except (ValueError, ZeroDivisionError):
        raise SatbenchError(f"expected {what} such as 8/255 or 0.03, got {text[:40]!r}") from None


_NUMBER = re.compile(r"[+-]?(\d{1,99}(\.\d{0,99})?|\.\d{1,99})(e[+-]?\d{1,2})?", re.I | re.A)
"""A decimal number that a Fraction represents exactly in little time."""


def _ratio(text: str) -> Fraction:
    """Read a number, or two with a slash between.  Raises ValueError or ZeroDivisionError."""
    parts = [part.strip() for part in text.split("/")]
    if len(parts) > 2 or not all(_NUMBER.fullmatch(part) for part in parts):
        raise ValueError(text)
    return Fraction(parts[0]) / Fraction(parts[1] if len(parts) == 2 else 1)


def show_fraction(value: Fraction) -> str:
    """Show a fraction as people write it: n/255 if possible, else a decimal, else a/b."""
    if 255 % value.denominator == 0 and value.denominator not in (1, 5):
        return f"{value.numerator * (255 // value.denominator)}/255"
    decimal = f"{float(value):.12g}"
    return decimal if "e" not in decimal and Fraction(decimal) == value else str(value)


@dataclass(frozen=True)
class Threat:
    """The adversary's budget: change the pixels of an image by at most `eps` in `norm`.

    `eps` is exact (a Fraction), in units of pixels in [0, 1].
    Raises SatbenchError for an unknown norm, eps ≤ 0, or an eps that only makes sense for
    pixels in 0…255 (above 1 in Linf).
    """

    norm: Norm
    eps: Fraction

    def __post_init__(self) -> None:
        if self.norm not in get_args(Norm):
            raise SatbenchError(f"expected a norm among linf, l2 and l1, got {self.norm!r}")
        if not isinstance(self.eps, Fraction):
            raise TypeError(f"eps must be a Fraction, got {type(self.eps).__name__}")
        if self.eps <= 0:
            raise SatbenchError(f"expected eps above 0, got {show_fraction(self.eps)}")
        if self.eps < LEAST_LENGTH:
            raise SatbenchError(
                f"expected eps of at least {LEAST_LENGTH:g}, below which no pixel in float32 moves"
            )
        if self.eps > _MAX_EPS[self.norm]:
            raise SatbenchError(
                f"expected eps at most {_MAX_EPS[self.norm]} ({self.norm}, pixels in [0, 1]), "
                f"got {show_fraction(self.eps)}; write 8/255 for eight grey levels"
            )

    @classmethod
    def of(cls, norm: str, eps: str | SupportsFloat) -> Threat:
        """Build from the usual notations: `Threat.of("linf", 8 / 255)`, `Threat.of("L2", "0.5")`.

        A float within rounding of n/255 or (n + 1/2)/255 means that fraction, any other its
        shortest decimal; so does a NumPy number, with the rounding of its own type.
        """
        return cls(cast(Norm, norm.lower()), exact_radius(eps))

    @classmethod
    def parse(cls, text: str) -> Threat:
        """Read `linf:8/255`.  Raises SatbenchError otherwise."""
        norm, colon, eps = text.partition(":")
        if not colon or norm.lower() not in get_args(Norm):
            raise SatbenchError(f"expected NORM:EPS such as linf:8/255, got {text[:40]!r}")
        return cls.of(norm, eps)

    @property
    def radius(self) -> float:
        """The radius as a float."""
        return float(self.eps)

    def __str__(self) -> str:
        return f"{self.norm}:{show_fraction(self.eps)}"


_ROUNDING = {2: 2e-3, 4: 2.4e-7, 8: 1e-12}
"""The relative rounding error of a float, by its number of bytes."""


def exact_radius(eps: str | SupportsFloat) -> Fraction:
    """Return the fraction that `eps` means, as `Threat.of` reads it.

    Raises SatbenchError if it is no number, NaN or infinity.
    """
    if isinstance(eps, Fraction):
        return eps
    if not isinstance(eps, str | int) and math.isfinite(value := float(eps)):
        grey = Fraction(round(value * 510), 510)
        rounding = _ROUNDING.get(getattr(getattr(eps, "dtype", None), "itemsize", 8), 1e-12)
        if math.isclose(grey, value, rel_tol=rounding):
            return grey
    return parse_fraction(str(eps), "eps")


_RELATIVE = re.compile(r"^(?:(?P<times>[\d./]+)\*)?eps(?:/(?P<over>[\d.]+))?$")


@dataclass(frozen=True)
class Length:
    """A length in pixel units, absolute (`1/255`) or relative to eps (`eps/4`, `1.25*eps`)."""

    value: Fraction
    relative: bool

    @classmethod
    def parse(cls, text: str) -> Length:
        """Read `eps/4`, `1.25*eps`, `1/255` or `0.01`.

        Raises SatbenchError for any other text, and for a length that is not above 0.
        """
        compact = text.replace(" ", "")
        form = _RELATIVE.match(compact)
        wanted = "a length such as eps/4, 1.25*eps or 1/255"
        try:
            if form:
                value = _ratio(form["times"] or "1") / _ratio(form["over"] or "1")
            else:
                value = _ratio(compact)
        except (ValueError, ZeroDivisionError):
            raise SatbenchError(f"expected {wanted}, got {text[:40]!r}") from None
        if value <= 0:
            raise SatbenchError(f"expected {wanted}, above 0, got {text[:40]!r}")
        if not LEAST_LENGTH <= value <= MOST_LENGTH:
            raise SatbenchError(
                f"expected {wanted}, from {LEAST_LENGTH:g} to {MOST_LENGTH:g}, got {text[:40]!r}"
            )
        return cls(value, form is not None)

    def within(self, threat: Threat) -> float:
        """Return the length in pixel units under `threat`."""
        return float(self.value * threat.eps) if self.relative else float(self.value)

    def __str__(self) -> str:
        if not self.relative:
            return show_fraction(self.value)
        if self.value == 1:
            return "eps"
        if self.value.numerator == 1:
            return f"eps/{self.value.denominator}"
        return f"{show_fraction(self.value)}*eps"
