"""A model for targeted attacks: two classes, the target and all others.

An attack on label 0 of this model looks for images that the original model classifies as the
target.  So every attack that needs only two logits becomes a targeted attack.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from satbench.calling.logits import read_logits, without_masks

View = Literal["likelihood", "margin", "distance"]
"""How the distance d of an image from the target class is measured.

`likelihood` is the target's logit minus the log-sum-exp of the others, so that a higher
cross-entropy of this model means a lower one of the target.  `margin` is the target's logit minus
the largest other.  Both are returned as asinh(d), which grows with d, and whose gradients do not
vanish where the model is confident.  `distance` is the margin itself, for attacks that compare it.
"""


class Toward(nn.Module):
    """A model with two classes: 1 if it predicts `target`, 0 if it predicts another class."""

    def __init__(self, model: nn.Module, target: int, view: View) -> None:
        super().__init__()
        self.model, self.target, self.view = model, target, view

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 2) logits."""
        logits = without_masks(read_logits(self.model(x), len(x)))
        own = logits[:, self.target]
        others = torch.cat([logits[:, : self.target], logits[:, self.target + 1 :]], 1)
        other = torch.logsumexp(others, 1) if self.view == "likelihood" else others.amax(1)
        ahead = own - other
        if self.view != "distance":
            ahead = torch.asinh(ahead)
        return torch.stack([torch.zeros_like(ahead), ahead], 1)
