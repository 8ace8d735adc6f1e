"""Evaluate your own network: here a ResNet-18 for CIFAR-10, on 20 photographs.

The weights come with the package pyautoattack, the photographs with Foolbox; both are installed
with satbench.  The network was trained without an adversary.  Takes about half a minute.
"""

from pathlib import Path

import foolbox
import numpy as np
import torch
from PIL import Image
from pyautoattack.examples import resnet
from torch import Tensor, nn

import satbench


def network() -> nn.Module:
    """Return the network.  It maps pixels in [0, 1], (N, 3, 32, 32), to logits (N, 10)."""
    net = resnet.ResNet18()
    weights = Path(resnet.__file__).parent / "model_test.pt"
    net.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return net


def images() -> tuple[Tensor, Tensor]:
    """Return 20 photographs, float32 in [0, 1], and the labels from their file names."""
    paths = sorted((Path(foolbox.__file__).parent / "data").glob("cifar10_*.png"))
    pixels = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths])
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    return x, torch.tensor([int(path.stem.split("_")[-1]) for path in paths])


if __name__ == "__main__":
    x, y = images()
    for eps, attacks in (("1/255", ["pgd-10"]), ("8/255", ["pgd-50", "autoattack"])):
        record = satbench.evaluate(network(), x, y, attacks=attacks, eps=eps)
        print(f"eps {eps}: {record.clean_correct} of {record.n} are right without an attack")
        print(f"eps {eps}: {record.surviving()} of {record.n} after {' and '.join(attacks)}")
