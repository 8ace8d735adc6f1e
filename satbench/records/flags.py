"""Flags: signs that a robust accuracy is higher than it should be, or of no use.  No torch.

Flags of the model itself come from the diagnosis (`diagnosis.diagnose`); those of a result are
found here, from only the verdicts.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Literal

from satbench.core.errors import SatbenchError
from satbench.core.stats.intervals import wilson_interval

Kind = Literal["white-box", "gradient-free", "transfer"]
"""What an attack knows: the model's gradients, only its answers, or another model's gradients."""

NOTABLE = 0.002
"""The least share of all images that is a sign: that at which AutoAttack warns of Square.

Croce & Hein, 2020, arXiv:2003.01690; `check_square_sr` of its code.
"""


@dataclass(frozen=True)
class Flag:
    """A reason to doubt a number, seen on `images` out of `of` examined images.

    `cause` is the likely cause and `run` what to run against it, one sentence each.
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


AT_CHANCE = "clean-at-chance"
"""The name of the flag for a clean accuracy that is no better than guessing."""

GUESSED, WORKING = 0.01, 0.05
"""The limits for that flag: how likely guessing does so well, or a working model so badly.

A working model is right on half of what guessing gets wrong.  So a handful of images raises no
flag, and with many the accuracy must be significantly above chance to raise none.
"""

WENT_ON = "suite-went-on"
"""The name of the flag for a suite that ran the parts that it runs only in doubt."""

_WENT_ON = (
    "late parts of the suite broke many images, or images with large margins, so it ran the parts "
    "that it runs only in doubt",
    "run strongest, because some of the remaining images may not be robust",
)

RESULT_FLAGS = (*(name for _, name, _, _ in _SIGNS), AT_CHANCE, WENT_ON)
"""The names of the flags that `flags_from_result` raises."""


def outweighs(images: float, survivors: int, n: int) -> bool:
    """Tell whether so many images are more than the interval of a robust accuracy allows for.

    That is half the width of the 95 % interval of `survivors` of `n`, and `NOTABLE` at least.  A
    number without survivors cannot be too high, so nothing outweighs it.

    >>> outweighs(21, 300, 500), outweighs(22, 300, 500), outweighs(100, 0, 500)
    (False, True, False)
    """
    low, high = wilson_interval(survivors, n)
    return survivors > 0 and images > n * max((high - low) / 2, NOTABLE)


def disagreement(kind: Kind, images: int, of: int) -> Flag:
    """Flag `images` that only attacks of a kind without the model's gradients broke."""
    name, cause, run = next(rest for own, *rest in _SIGNS if own == kind)
    return Flag(name, images, of, cause, run)


def flags_from_result(
    verdicts: Sequence[int],
    kinds: Sequence[Kind],
    classes: int = 0,
    also: Collection[str] = (),
    in_doubt: Sequence[int] = (),
) -> list[Flag]:
    """Find signs of masked gradients in the verdicts, and clean accuracy at chance level.

    `verdicts` are a record's, one an image: -1 survived, 0 wrong when clean, k broken by stage k;
    `kinds` says of each stage what it knows; `classes` is how many there are, 0 if unknown;
    `in_doubt` are the numbers of images of those stages that a suite runs only in doubt.  A stage
    counts if a white-box one ran before it, so that it attacked only what that one had left.  A
    flag is raised if such stages broke so many images that they outweigh the interval of the robust
    accuracy (`outweighs`), or any image if its name is in `also`.  It counts them `of` the images
    that were right without an attack.  Raises SatbenchError for a verdict that names no stage.
    """
    strange = {verdict for verdict in verdicts if not -1 <= verdict <= len(kinds)}
    if strange:
        raise SatbenchError(
            f"expected verdicts of -1 to {len(kinds)} for {len(kinds)} stages, "
            f"got {sorted(strange)}: name the kind of every stage"
        )
    right = sum(verdict != 0 for verdict in verdicts)
    survivors = sum(verdict == -1 for verdict in verdicts)
    flags = _chance(right, len(verdicts), classes)
    for kind, name, _, _ in _SIGNS:
        later = {
            number
            for number, own in enumerate(kinds, 1)
            if own == kind and "white-box" in kinds[: number - 1]
        }
        broken = sum(verdict in later for verdict in verdicts)
        told = broken > 0 and name in also
        if told or outweighs(broken, survivors, max(1, len(verdicts))):
            flags.append(disagreement(kind, broken, right))
    if any(in_doubt):
        flags.append(Flag(WENT_ON, max(in_doubt), right, *_WENT_ON))
    return flags


def flags_from_assumed(assumed: str, n: int) -> list[Flag]:
    """Flag assumptions about a model, `normalize=cifar10 …`, for all `n` images."""
    flags = []
    for setting in assumed.split():
        name, _, value = setting.partition("=")
        what = "normalisation" if name == "normalize" else name
        option = "--normalize" if name == "normalize" else f"--arch '…({name}=…)'"
        cause = f"the file of weights does not tell its {what}, and {value} was assumed"
        run = f"say what it was trained with, {option} or --preset, and evaluate it again"
        flags.append(Flag(f"assumed-{what}", n, n, cause, run))
    return flags


NOT_DIAGNOSED = "not-diagnosed"
"""The name of the flag for a record without a diagnosis."""


def flag_not_diagnosed(n: int) -> Flag:
    """Flag `n` images that were not examined for signs of masked gradients."""
    cause = "the evaluation was asked to leave out the search for signs of masked gradients"
    return Flag(NOT_DIAGNOSED, n, n, cause, "evaluate it with the diagnosis")


def not_diagnosed(flags: Sequence[Flag]) -> bool:
    """Return whether the flags of a record say that there was no diagnosis."""
    return any(flag.name == NOT_DIAGNOSED for flag in flags)


def flags_from_training_data(n: int) -> list[Flag]:
    """Flag `n` images that the model was trained on."""
    cause = "the images are those that the model was trained on, which says nothing of other images"
    return [Flag("training-data", n, n, cause, "evaluate it on a test set")]


def _chance(right: int, n: int, classes: int) -> list[Flag]:
    """Flag a clean accuracy, `right` of `n`, that guessing among `classes` reaches (`GUESSED`)."""
    share = 1 / max(classes, 1)
    # From the median on, a working model does as badly with a probability of at least a half.
    if classes < 2 or right >= ceil(n * (1 + share) / 2):
        return []
    from scipy.special import bdtr, bdtrc  # a slow import

    guessed = 1.0 if right == 0 else float(bdtrc(right - 1, n, share))
    working = float(bdtr(right, n, (1 + share) / 2))
    if guessed <= GUESSED or working >= WORKING:
        return []
    cause = (
        f"the model is right on {right} of {n} clean images, which guessing among {classes} "
        "classes would reach too; likely the labels number the classes in another order, the "
        "pixels are normalised or prepared otherwise than in training, or the weights were "
        "trained with another activation or variant of the network"
    )
    run = "compare a few predictions with their labels, and mend that before any number is believed"
    return [Flag(AT_CHANCE, n - right, n, cause, run)]
