"""The report on a training step that callbacks get."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Step:
    """A finished training step, for callbacks.

    It is step `step` of `steps` in epoch `epoch`; both count from 1.  `seconds_left` estimates the
    rest of the run at the pace of this epoch, without the checks on held-out images.
    """

    epoch: int
    step: int
    steps: int
    learning_rate: float
    seconds_left: float
    sums: Tensor

    @property
    def loss(self) -> float:
        """The mean loss of the batch.  On a GPU, reading it waits for the step to end."""
        return float(self.sums[0])

    @property
    def accuracy(self) -> float:
        """The accuracy on the training images, 0 to 1.  Reading it waits as `loss` does."""
        return float(self.sums[1])
