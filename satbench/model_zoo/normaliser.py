"""Finding a normalisation (mean and standard deviation) among a file's tensors."""

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
    """The mean and standard deviation of each channel, for pixels in [0, 1], with their names."""

    mean: Tensor
    std: Tensor
    names: tuple[str, str]

    @property
    def is_identity(self) -> bool:
        """Whether it leaves pixels unchanged."""
        return bool((self.mean == 0).all() and (self.std == 1).all())

    def same_as(self, other: Normaliser) -> bool:
        """Return whether both have the same constants."""
        return torch.equal(self.mean, other.mean) and torch.equal(self.std, other.std)


def normalisers(state: State) -> list[Normaliser]:
    """Return the normalisers among the tensors of a file.

    A pair of tensors counts if each has one element per channel and the values are possible as a
    mean and a standard deviation of pixels in [0, 1].
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
