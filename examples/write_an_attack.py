"""Write your own attack: vertical stripes, the worst of several tries.

An attack is a frozen dataclass whose fields are its parameters.  It returns images; the judge
decides whether they break the model.  Takes a few seconds.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

import satbench


@dataclass(frozen=True)
class Stripes:
    """Vertical stripes of eps, with new random signs in each of `tries`."""

    norms: ClassVar[tuple[str, ...]] = ("linf",)
    uses_gradients: ClassVar[bool] = False

    tries: int = 100

    def __call__(self, model, x, y, threat, noise):
        """(B, C, H, W) in [0, 1] -> (B, C, H, W) within the threat model."""
        x_adv = x.clone()
        with torch.no_grad():
            for number in range(self.tries):
                signs = torch.from_numpy(noise.uniform((x.shape[1], 1, x.shape[3]), number)).sign()
                tried = (x + threat.radius * signs.to(x)).clamp(0, 1)
                wrong = model(tried).argmax(1) != y
                x_adv[wrong] = tried[wrong]
        return x_adv


if __name__ == "__main__":
    record = satbench.evaluate(
        "fmnist-sat-tiny-relu-s0", attacks=[Stripes(tries=20), "pgd-20"], n_examples=100
    )
    for attack, stages in record.attack_stages():
        print(f"{record.surviving(stages[-1])} of {record.n} survive {attack}")
