"""Train your own network to be robust, in ten lines; needs no download."""

import torch
from torch import nn

import satbench

torch.manual_seed(0)
x = torch.rand(600, 1, 8, 8)  # pixels in [0, 1]; your images here
y = (x[:, :, :4].mean((1, 2, 3)) > x[:, :, 4:].mean((1, 2, 3))).long()  # the brighter half
network = nn.Sequential(
    nn.BatchNorm2d(1, affine=False),  # normalisation is the first layer of the network
    *(nn.Flatten(), nn.Linear(64, 32), nn.SiLU(), nn.Linear(32, 2)),
)
trained = satbench.train(
    network, (x, y), epochs=5, batch_size=50, held_out=100, threat="linf:0.01", attack="pgd-3"
)
print(f"{trained.path}: PGD-10 accuracy {trained.history[-1].held_out_pgd10:.0%}")
