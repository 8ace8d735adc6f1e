"""The mark of a row: how far its numbers were checked by somebody other than who made them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Mark = Literal["verified", "unverified", "imported"]

PROMISES: Mapping[Mark, str] = {
    "verified": "each broken image has a witness, and a random sample of the claimed survivors "
    "was attacked again",
    "unverified": "each broken image has a witness; that the others survive is the record's word",
    "imported": "the numbers are those of another publication; satbench measured nothing",
}
"""What each mark promises, the strongest first."""
