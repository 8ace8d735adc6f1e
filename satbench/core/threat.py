"""Threat models (a norm and a radius) and lengths measured in them.  Pixels are in [0, 1]."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, cast, get_args

from satbench.core.errors import SatbenchError

Norm = Literal["linf", "l2", "l1"]

_MAX_EPS: dict[str, int] = {"linf": 1, "l2": 1000, "l1": 100_000}


def parse_fraction(text: str, what: str) -> Fraction:
    """Read `8/255` or `0.03` exactly.  Raises SatbenchError naming `what` otherwise."""
    try:
        return Fraction(text.strip())
    except (ValueError, ZeroDivisionError):
        raise SatbenchError(f"expected {what} such as 8/255 or 0.03, got {text!r}") from None


def show_fraction(value: Fraction) -> str:
    """Show a fraction as people write it: n/255 where it is one, else a decimal, else a/b."""
    if 255 % value.denominator == 0 and value.denominator not in (1, 5):
        return f"{value.numerator * (255 // value.denominator)}/255"
    decimal = f"{float(value):.12g}"
    return decimal if "e" not in decimal and Fraction(decimal) == value else str(value)


@dataclass(frozen=True)
class Threat:
    """What the adversary may do: move the pixels of an image by at most `eps` in `norm`.

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
        if self.eps > _MAX_EPS[self.norm]:
            raise SatbenchError(
                f"expected eps at most {_MAX_EPS[self.norm]} ({self.norm}, pixels in [0, 1]), "
                f"got {show_fraction(self.eps)}; write 8/255 for eight grey levels"
            )

    @classmethod
    def of(cls, norm: str, eps: str | float | Fraction) -> Threat:
        """Build from what people write: `Threat.of("linf", 8 / 255)`, `Threat.of("L2", "0.5")`.

        A float within rounding of n/255 is taken for n/255, any other for its shortest decimal.
        """
        return cls(cast(Norm, norm.lower()), _exact(eps))

    @classmethod
    def parse(cls, text: str) -> Threat:
        """Read `linf:8/255`.  Raises SatbenchError otherwise."""
        norm, colon, eps = text.partition(":")
        if not colon or norm.lower() not in get_args(Norm):
            raise SatbenchError(f"expected NORM:EPS such as linf:8/255, got {text!r}")
        return cls.of(norm, eps)

    @property
    def radius(self) -> float:
        """The radius as a float."""
        return float(self.eps)

    def __str__(self) -> str:
        return f"{self.norm}:{show_fraction(self.eps)}"


def _exact(eps: str | float | Fraction) -> Fraction:
    if isinstance(eps, Fraction):
        return eps
    if isinstance(eps, float) and math.isfinite(eps):
        grey = Fraction(round(eps * 255), 255)
        if math.isclose(grey, eps, rel_tol=1e-12):
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

        Raises SatbenchError for anything else, and for a length that is not above 0.
        """
        compact = text.replace(" ", "")
        form = _RELATIVE.match(compact)
        wanted = "a length such as eps/4, 1.25*eps or 1/255"
        try:
            if form:
                value = Fraction(form["times"] or "1") / Fraction(form["over"] or "1")
            else:
                value = Fraction(compact)
        except (ValueError, ZeroDivisionError):
            raise SatbenchError(f"expected {wanted}, got {text!r}") from None
        if value <= 0:
            raise SatbenchError(f"expected {wanted}, above 0, got {text!r}")
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
