"""What callbacks are told of a step of training."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Step:
    """A step of training that was taken, for callbacks.

    It was step `step` of `steps` in epoch `epoch`; both count from 1.  `seconds_left` is how long
    the rest of the run takes at the pace of this epoch, without the looks at held-out images.
    """

    epoch: int
    step: int
    steps: int
    learning_rate: float
    seconds_left: float
    told: Tensor

    @property
    def loss(self) -> float:
        """The mean loss of the batch.  On a GPU, reading it waits for the step to end."""
        return float(self.told[0])

    @property
    def accuracy(self) -> float:
        """The accuracy on the images trained on, 0 to 1.  Reading it waits as `loss` does."""
        return float(self.told[1])
