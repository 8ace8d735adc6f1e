"""Flags: signs that a robust accuracy is higher than it should be, as data.  No torch.

Flags of the model itself come from the diagnosis (`satbench.diagnose`); those of a result are
found here, from the verdicts alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from satbench.core.errors import SatbenchError

Kind = Literal["white-box", "gradient-free", "transfer"]
"""What an attack knows: the model's gradients, its answers alone, or another model's gradients."""

NOTABLE = 0.002
"""The share of all images beyond which a gain without gradients is a sign.

AutoAttack warns when Square lowers robust accuracy by more than 0.2 points (Croce & Hein, 2020,
arXiv:2003.01690; `check_square_sr` of its code).
"""


@dataclass(frozen=True)
class Flag:
    """A sign that robustness is overstated, of `images` out of `of` images that were looked at.

    `cause` says what it comes from and `run` what to run against it, in one sentence each.
    """

    name: str
    images: int
    of: int
    cause: str
    run: str

    def __str__(self) -> str:
        return f"{self.name} ({self.images} of {self.of} images): {self.cause}; {self.run}"


_SIGNS: tuple[tuple[Kind, str, str, str], ...] = (
    (
        "gradient-free",
        "gradient-free-beats-gradients",
        "an attack without gradients broke images that white-box attacks had left, "
        "so the gradients mislead",
        "run square with more queries on all survivors, and white-box attacks with another "
        "backward or loss",
    ),
    (
        "transfer",
        "transfer-beats-white-box",
        "images made on another model broke what white-box attacks had left, "
        "so the gradients mislead",
        "run transfer from more sources, distilled, and square on all survivors",
    ),
)


RESULT_FLAGS = tuple(name for _, name, _, _ in _SIGNS)
"""The names of the flags that `flags_from_result` raises."""


def flags_from_result(verdicts: Sequence[int], kinds: Sequence[Kind]) -> list[Flag]:
    """Find signs of masked gradients in which attack broke what.

    `verdicts` are a record's, one an image: -1 survived, 0 wrong when clean, k broken by stage k;
    `kinds` says of each stage what it knows.  A stage counts if a white-box one ran before it: it
    saw nothing but what that one had left.  A flag is raised when such stages broke more than
    `NOTABLE` of all images; it counts them `of` those that were right when clean.
    Raises SatbenchError for a verdict that names no stage.
    """
    strange = {verdict for verdict in verdicts if not -1 <= verdict <= len(kinds)}
    if strange:
        raise SatbenchError(
            f"expected verdicts of -1 to {len(kinds)} for {len(kinds)} stages, "
            f"got {sorted(strange)}: name the kind of every stage"
        )
    flags = []
    right = sum(verdict != 0 for verdict in verdicts)
    for kind, name, cause, run in _SIGNS:
        later = {
            number
            for number, own in enumerate(kinds, 1)
            if own == kind and "white-box" in kinds[: number - 1]
        }
        broken = sum(verdict in later for verdict in verdicts)
        if broken > NOTABLE * len(verdicts):
            flags.append(Flag(name, broken, right, cause, run))
    return flags
