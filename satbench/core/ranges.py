"""Checks of the fields of a frozen dataclass."""

from __future__ import annotations

from satbench.core.errors import SatbenchError


def check_at_least_one(name: str, thing: object, *fields: str) -> None:
    """Raise SatbenchError unless the whole numbers in `fields`, or in all, are 1 or more.

    `name` is what people call the thing.
    """
    for field in fields or vars(thing):
        value = getattr(thing, field)
        if isinstance(value, int) and value < 1:
            raise SatbenchError(f"{name}: expected {field} of 1 or more, got {value}")


def check_seed(seed: int) -> int:
    """Return a seed that every generator takes.  Raises SatbenchError for more than 64 bits."""
    if not -(2**63) <= seed < 2**64:
        raise SatbenchError(
            f"expected a seed of at most 64 bits, got one of {seed.bit_length()}: "
            f"write {seed % 2**64}"
        )
    return seed


def check_timeout(seconds: float | None) -> float | None:
    """Return how long a batch may take, None for no limit.  Raises SatbenchError for 0 or less."""
    if seconds is not None and not 0 < seconds < float("inf"):
        raise SatbenchError(f"expected a timeout above 0 seconds, got {seconds:g}")
    return seconds
