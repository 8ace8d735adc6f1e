"""The mean and the deviation that a file of weights holds next to a network, by any names."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor

State = dict[str, Tensor]

_PAIRS = {
    # Ours and AutoAttack's; MadryLab's; RobustBench's; Cohen et al.'s; detectron2's.
    "mean": "std",
    "new_mean": "new_std",
    "mu": "sigma",
    "means": "sds",
    "pixel_mean": "pixel_std",
}
_CHANNELS = (1, 3)
_OF_BATCHES = re.compile(r"running_|batch_?norm|(^|\.)bn\d*\.")


@dataclass(frozen=True)
class Normaliser:
    """A mean and a deviation for each channel of pixels in [0, 1], and the names they have."""

    mean: Tensor
    std: Tensor
    names: tuple[str, str]

    @property
    def is_identity(self) -> bool:
        """Whether it leaves the pixels as they are."""
        return bool((self.mean == 0).all() and (self.std == 1).all())

    def same_as(self, other: Normaliser) -> bool:
        """Whether both have the same constants."""
        return torch.equal(self.mean, other.mean) and torch.equal(self.std, other.std)


def normalisers(state: State) -> list[Normaliser]:
    """Return the normalisers among the tensors of a file.

    A pair counts as one if its tensors have an element a channel, and if these are a mean and a
    deviation of pixels in [0, 1].
    """
    found = []
    for name, mean in state.items():
        parent, _, leaf = name.rpartition(".")
        partner = f"{parent}.{_PAIRS.get(leaf, '')}".lstrip(".")
        if leaf in _PAIRS and partner in state and not _OF_BATCHES.search(name):
            pair = (mean.detach().flatten().float(), state[partner].detach().flatten().float())
            if _are_of_pixels(*pair):
                found.append(Normaliser(*pair, (name, partner)))
    return found


def _are_of_pixels(mean: Tensor, std: Tensor) -> bool:
    if len(mean) != len(std) or len(mean) not in _CHANNELS:
        return False
    return bool(((mean >= 0) & (mean <= 1) & (std > 0) & (std <= 1)).all())
